"""Meta-KD for notebooks: trains a student per domain from a table of rows, by stages 2 to 5.

The rows are written to ``output_dir``/data as the suite ``custom``, and the stages write to ``output_dir``/outputs. The
stage scripts, including stages 6 and 7, can continue from there with these folders as DATA_DIR and OUTPUT_DIR.
"""

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from teachback.core.arguments import (
    DataArguments,
    FirstStageArguments,
    MetaTeacherArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
)
from teachback.core.devices import resolve_device
from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.places import seed_folder
from teachback.core.precision import resolve_precision
from teachback.core.published import read_stage
from teachback.core.training_arguments import OptimizerArguments
from teachback.core.tsv import as_tsv
from teachback.data.bad_rows import Problems
from teachback.data.schema import Row, clean_text
from teachback.data.suite_data import SuiteData
from teachback.data.texts import Texts, require_list, text_rows
from teachback.data.user_columns import NAMED
from teachback.inference.metrics import by_domain
from teachback.inference.model_card import read_text, write_card, write_text
from teachback.inference.predictor import Checkpoint, Predictor
from teachback.inference.results import Result
from teachback.inference.scores import predicted_labels
from teachback.methods.student import layers_choice
from teachback.models.loading import load_finished_classifier, load_tokenizer, write_checkpoint
from teachback.models.location import locate
from teachback.settings import MetaKDConfig, model_name, refuse_unknown, takes, with_settings
from teachback.stages.check import check_layers
from teachback.stages.distillation import distil
from teachback.stages.phase_record import SPEED
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import process
from teachback.stages.stage3_teacher import train_teachers

COLUMNS = ("guid", "text_a", "text_b", "label", "domain", "split")
NEEDED = ("text_a", "label", "domain")
IN_FIRST_STAGE = (
    "first", "layer_map", "transfer_set", "attention_target", "relation_heads", "embedding_weight", "hidden_weight", "attention_weight",
    "loss_balance", "first_dropout",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Text columns of equal length, and the row names of the user's table."""

    columns: dict[str, list[str]]
    index: list

    @classmethod
    def of(cls, frame, group_column: str = "", renamed: Mapping[str, str] | None = None) -> "Table":
        """Take the known columns of a pandas DataFrame, a dict of lists or another object with named columns.

        ``renamed``: our column names -> those of the table.

        Raises:
            TeachbackError: a needed column is missing, or columns differ in length.
        """
        names = list(frame.keys() if isinstance(frame, Mapping) else getattr(frame, "columns", ()))
        places = {name: (renamed or {}).get(name, name) for name in dict.fromkeys((*COLUMNS, group_column)) if name}
        needed = [*NEEDED, *(renamed or ()), *([group_column] if group_column else [])]
        missing = [places[name] for name in dict.fromkeys(needed) if places[name] not in names]
        if missing:
            raise TeachbackError(f"the table has the columns {names} but lacks {', '.join(missing)}; add the missing columns")
        chosen = {name: place for name, place in places.items() if place in names}
        for place in chosen.values():
            if names.count(place) > 1:
                raise TeachbackError(f"the table has {names.count(place)} columns called {place}; keep one of them")
            require_list(frame[place], f"the table's column {place}", "cells")
        columns = {name: [_text(value) for value in frame[place]] for name, place in chosen.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise TeachbackError(f"the table's columns differ in length ({lengths}); make them equally long")
        index = getattr(frame, "index", None)  # for pandas; other tables have a method of that name
        return cls(columns, list(range(lengths["text_a"]) if index is None or callable(index) else index))

    def of_domains(self, domains: Sequence[str]) -> "Table":
        """Table of the rows of these domains.

        Raises:
            TeachbackError: a domain has no rows.
        """
        present = list(dict.fromkeys(self.columns["domain"]))
        absent = [name for name in domains if name not in present]
        if absent:
            raise TeachbackError(f"the table has no row of domain {absent[0]!r}; its domains are: {', '.join(present)}")
        kept = [number for number, name in enumerate(self.columns["domain"]) if name in domains]
        columns = {name: [values[number] for number in kept] for name, values in self.columns.items()}
        return Table(columns, [self.index[number] for number in kept])

    def place(self, path: Path, line: int) -> str:
        """Name in messages of the row on a line of the file written by `write`."""
        return f"row {self.index[line - 2]!r} of the table"

    def write(self, path: Path) -> None:
        write_atomically(path, as_tsv(self.columns, zip(*self.columns.values())))


def _is_missing(value) -> bool:
    """Whether a cell is None, NaN, NaT or pandas.NA, none of which equals itself."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA: its comparisons are neither true nor false
        return True


def _text(value) -> str:
    """Convert a cell to text; missing values become "", and whole numbers, which pandas may store as floats, have no point."""
    if _is_missing(value):
        return ""
    return clean_text(str(int(value) if isinstance(value, float) and value.is_integer() else value))


def _require_several(domains: Collection[str]) -> None:
    if len(domains) < 2:
        raise TeachbackError("Meta-KD needs rows of two or more domains, but these are of one; use MPDistil for a single domain")


def _dev(record: dict) -> dict[str, float]:
    """Dev scores of a stage."""
    return {name: value for name, value in record["dev"].items() if name not in SPEED}


class MetaKD:
    """Trains a teacher on several domains, and distils it into a student for each domain."""

    def __init__(
        self, domains: Sequence[str] | None = None, teacher_model: str = "bert-base-uncased",
        student_model: str = "huawei-noah/TinyBERT_General_4L_312D", student_layers: int | str | Sequence[int] | None = None,
        teacher: str = "meta", device: str = "auto", output_dir: str = "./metakd_outputs", *,
        student_init: str = "pretrained", precision: str = "auto", data_dir: str = "data", **unknown,
    ):  # fmt: skip
        """Set up models and folders; nothing is loaded before `train`.

        Args:
            domains: domains of the table to use; None for all.
            teacher_model, student_model: a hub name, a folder, or scratch:tiny|mini.
            student_layers: layers of ``student_model`` to keep: the first so many, "spread:3", a list [1, 3, 5], or None or -1 for all.
            teacher: meta, mix or mtl, as in stage 3.
            data_dir: folder in which stage 1 stores downloaded models.
        """
        refuse_unknown("MetaKD", unknown, list(inspect.signature(MetaKD).parameters)[:-1])
        require_list(domains, "domains", "names")
        self.domains = list(domains) if domains is not None else None
        self.teacher_model = locate(model_name(teacher_model, "teacher_model"), data_dir)
        self.student_model = locate(model_name(student_model, "student_model"), data_dir)
        layers = "" if student_layers in (None, -1) else str(layers_choice(student_layers))
        self._student = StudentArguments(teacher=teacher, student_model=self.student_model, student_layers=layers,
                                         student_init=student_init)  # fmt: skip
        if teacher not in ("meta", "mix", "mtl"):
            raise TeachbackError(f"teacher={teacher!r}: use meta, mix or mtl")
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.output_dir = Path(output_dir).absolute()  # so that prediction works from any working folder
        self.teacher: PreTrainedModel | None = None
        self.students: dict[str, PreTrainedModel] = {}
        self._checkpoints: dict[str, Checkpoint] = {}

    @property
    def _data_dir(self) -> Path:
        return self.output_dir / "data"

    @takes(MetaKDConfig)
    def train(self, dataframe, config: MetaKDConfig | None = None, **settings) -> dict:
        """Train a student per domain; returns ``dev`` and ``test`` scores by domain, and those of the ``teacher``.

        Args:
            dataframe: table with the columns text_a, label and domain; text_b for pairs; optionally split (train, quiz, dev or
                test). A pandas DataFrame, a dict of lists, or what stage 2 reads: the path of a CSV, TSV, JSON Lines or
                Parquet file, of a folder of such files or of a saved data set, or ``hub:<name>``.
            config: a `MetaKDConfig`.
            settings: fields of `MetaKDConfig` that override ``config``.

        Raises:
            TeachbackError: the table or a setting is invalid; invalid rows are named by index or number.
        """
        config = with_settings(config, MetaKDConfig, settings)
        _, student, first, _ = self._stage_arguments(config)
        check_layers(student, self.teacher_model, str(self._data_dir), first)
        suite_data = self._prepare(dataframe, config)
        folders = self._run_stages(config)
        seed = seed_folder(str(self.output_dir / "outputs"), "custom", config.seed)
        self.teacher = load_finished_classifier(folders[0])
        self._checkpoints, self.students, self._config = {}, {}, config
        for name, folder in zip(suite_data.trainable, folders[1:]):
            stage = folder.relative_to(seed).as_posix()
            self._checkpoints[name] = Checkpoint(folder, stage, name, read_stage(folder))
            self.students[name] = load_finished_classifier(folder)
        return {"teacher": _dev(read_stage(folders[0]))} | {name: self._result(name, suite_data) for name in self.students}

    def _prepare(self, data, config: MetaKDConfig) -> SuiteData:
        """Run stage 2 on a table, or on the files of a path."""
        columns = {f"{name}_column": getattr(config, f"{name}_column") for name in NAMED}
        if isinstance(data, str | Path):
            source, place, domains = str(data), None, " ".join(self.domains or ())
        else:
            table = Table.of(data, config.group_column, {name: columns[f"{name}_column"] for name in NAMED if columns[f"{name}_column"]})
            table = table if self.domains is None else table.of_domains(self.domains)
            _require_several(set(table.columns["domain"]))
            table.write(self._data_dir / "rows.tsv")
            source, place, domains, columns = str(self._data_dir / "rows.tsv"), table.place, "", {}
        process(ProcessArguments(
            suite="custom", domains=domains, data_dir=str(self._data_dir), source=source, seed=config.seed, **columns,
            quiz_fraction=config.quiz_fraction, dev_fraction=config.dev_fraction, test_fraction=config.test_fraction,
            embedding_model=self.teacher_model, max_length=config.max_length, precision=self.precision,
            device=str(self.device), skip_bad_rows=config.skip_bad_rows, group_by=config.group_by,
            group_column=config.group_column,
        ), Problems(place=place, switch="skip_bad_rows=True"))  # fmt: skip
        prepared = SuiteData.read(str(self._data_dir), "custom")
        _require_several(prepared.suite.domains)
        return prepared

    def _run_stages(self, config: MetaKDConfig) -> list[Path]:
        """Run stages 3 to 5; returns the folder of the teacher, then of each domain's student."""
        data = DataArguments(suite="custom", domain="all", data_dir=str(self._data_dir),
                             output_root=str(self.output_dir / "outputs"), max_length=config.max_length,
                             precision=self.precision, device=str(self.device))  # fmt: skip
        teacher, student, first, second = self._stage_arguments(config)
        taught = train_teachers(data, teacher, self._optimizer(config, config.teacher_epochs, config.teacher_lr))
        in_first = self._optimizer(config, config.first_epochs, config.first_lr, lr_scheduler_type=config.first_schedule)
        distil(data, student, first, second, MetaTeacherArguments(), in_first)
        in_second = self._optimizer(config, config.second_epochs, config.second_lr, keep_start=config.keep_start)
        return taught + distil(data, replace(student, stage="second"), first, second, MetaTeacherArguments(), in_second)

    def _stage_arguments(self, config: MetaKDConfig) -> tuple:
        """Arguments of the teacher, the student, and stages 4 and 5."""
        hard = config.hard_label()
        teacher = TeacherArguments(teacher=self._student.teacher, teacher_model=self.teacher_model, domain_labels=config.domain_labels, **hard)
        student = replace(self._student, transfer_windows=config.transfer_windows)
        second = SecondStageArguments(temperature=config.temperature, alpha_soft=config.alpha,
                                      second_transfer_set=config.second_transfer_set, **hard if config.alpha < 1 else {})  # fmt: skip
        weight = config.tkd_weight
        if weight is None:  # only a meta-teacher has transferable knowledge
            weight = 0.5 if self._student.teacher == "meta" else 0.0
        return teacher, student, FirstStageArguments(tkd_weight=weight, **{name: getattr(config, name) for name in IN_FIRST_STAGE}), second

    def _optimizer(self, config: MetaKDConfig, epochs: int, learning_rate: float, **more) -> OptimizerArguments:
        return OptimizerArguments(
            learning_rate=learning_rate, num_train_epochs=epochs, seed=config.seed,
            per_device_train_batch_size=config.batch_size, patience=config.patience, report_to=config.report_to or "none", **more,
        )  # fmt: skip

    def _result(self, name: str, data: SuiteData) -> dict:
        rows = [row for row in data.rows("test", [name]) if row.label]
        metrics = {"dev": _dev(self._checkpoints[name].record)}
        if rows:
            score = by_domain(data.suite, rows, self._answers(name, rows, data))[name]
            metrics["test"] = {score.metric: score.value}
            checkpoint = self._checkpoints[name]
            place = (checkpoint.method, checkpoint.stage, self._config.seed, "test")
            result = Result(data.suite.name, name, *place, score.metric, score.value, score.n)
            write_card(checkpoint.folder, checkpoint.record, data.suite, [result])
        return metrics

    def _answers(self, name: str, rows: list[Row], data: SuiteData) -> list[str]:
        return predicted_labels(self._predictor(name, data).predict(rows), rows, data)

    def _predictor(self, name: str, data: SuiteData) -> Predictor:
        return Predictor(self._checkpoints[name], data.suite, str(self.device), max_length=self._config.max_length)

    def predict(self, texts: Texts, domain: str) -> str | list[str]:
        """Predict label names of texts or pairs with the domain's student; a single string gives a single label."""
        probabilities = self.predict_proba(texts, domain)
        if isinstance(probabilities, dict):
            return max(probabilities, key=probabilities.__getitem__)
        return [max(one, key=one.__getitem__) for one in probabilities]

    def predict_proba(self, texts: Texts, domain: str) -> dict[str, float] | list[dict[str, float]]:
        """Predict the probability of each label as a dict per text or pair; a single string gives a single dict."""
        self._require(domain)
        rows = text_rows(texts, "texts", domain)
        data = SuiteData.read(str(self._data_dir), "custom")
        logits = self._predictor(domain, data).predict(rows) if rows else torch.empty(0, 1)
        labels = data.suite.domain(domain).labels
        probabilities = [dict(zip(labels, values)) for values in logits[:, : len(labels)].softmax(-1).tolist()]
        return probabilities[0] if isinstance(texts, str) else probabilities

    def save_student(self, domain: str, path: str | Path) -> None:
        """Write a domain's student as a plain checkpoint with tokenizer and model card."""
        self._require(domain)
        folder = self._checkpoints[domain].folder
        write_checkpoint(path, self.students[domain], load_tokenizer(str(folder)))
        write_text(path, read_text(folder))

    def _require(self, domain: str) -> None:
        if domain not in self.students:
            raise TeachbackError(
                f"there is no student of {domain!r}; available: {', '.join(self.students) or 'none yet'}"
            )
