"""MPDistil for notebooks, with the interface of MPDistil's library; `stages.phases` does the training.

The attributes ``teacher`` and ``student`` are plain Hugging Face models, saved as plain checkpoints.
"""

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from numbers import Integral
from pathlib import Path

import numpy as np
from scipy.special import softmax
from torch.random import fork_rng
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from teachback.core.devices import resolve_device
from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.locks import locked
from teachback.core.options import one_of
from teachback.core.precision import resolve_precision
from teachback.core.published import require_whole
from teachback.core.tsv import as_tsv
from teachback.data.loader_rows import UserLoader
from teachback.data.schema import Domain, clean_text
from teachback.data.texts import require_list
from teachback.inference.model_card import loader_card, loader_record, read_text, write_text
from teachback.inference.predictor import evaluation_precision
from teachback.inference.task_metrics import answers, chosen_metric, metric_values, selecting_metric
from teachback.methods.student import kept_layers, layers_choice
from teachback.methods.teacher_outputs import own_logits
from teachback.models.heads import Classifier
from teachback.models.loading import load_finished_classifier, load_tokenizer, model_depth, write_checkpoint
from teachback.settings import TrainingConfig, model_name, phase_arguments, refuse_unknown, takes, with_settings
from teachback.stages.phase_inputs import EVAL_BATCH_SIZE, STUDENT, PhaseRows, Task, tokenizers_of
from teachback.stages.phases import Phases


def _checked_labels(number, labels: tuple[str, ...], is_regression: bool) -> int:
    """The number of labels as an int, if it is one and fits the task and the names."""
    if not isinstance(number, Integral):  # includes NumPy integers
        raise TeachbackError(f"num_labels={number!r}: expected a whole number")
    number = int(number)
    if number < (1 if is_regression else 2) or (is_regression and number != 1):
        raise TeachbackError(f"num_labels={number}: must be 1 for a regression, and 2 or more for a classification")
    if labels and (is_regression or len(labels) != number):
        raise TeachbackError(f"labels={list(labels)}: pass num_labels={number} names, or none for a regression")
    return number


class MPDistil:
    """Trains a teacher and its student for a task, given by data loaders."""

    def __init__(
        self, task_name: str, num_labels: int, metric: str = "accuracy", teacher_model: str = "bert-base-uncased",
        student_model: str | None = None, student_layers: int | str | Sequence[int] | None = 6, device: str = "auto",
        output_dir: str = "./mpdistil_outputs", is_regression: bool = False, *, labels: list[str] | None = None,
        tokenizer=None, student_init: str = "pretrained", precision: str = "auto", data_dir: str = "data", **unknown,
    ):  # fmt: skip
        """Set up task, models and folders.

        Args:
            metric: accuracy, f1, binary_f1, mcc, correlation, or auto for the metric of the task's benchmark.
            teacher_model, student_model: a hub name, a folder, or scratch:tiny|mini; ``student_model`` is the teacher's by default.
            student_layers: number of first layers, "spread:3", a list [1, 3, 5], or -1 for all.
            output_dir: folder for the checkpoints teacher/ and student/, and for logs/.
            labels: class names for the saved models; by default those of the loader.
            tokenizer: tokenizer of the loaders' tokens, needed if neither models nor loaders have one.
            student_init: pretrained, or teacher to take the layers of the trained teacher.
            data_dir: folder in which stage 1 stores downloaded models.
        """
        refuse_unknown("MPDistil", unknown, list(inspect.signature(MPDistil).parameters)[:-1])
        self.task_name, self.is_regression = task_name, is_regression
        require_list(labels, "labels", "names")
        self.num_labels = _checked_labels(num_labels, tuple(labels or ()), is_regression)
        self.metric = chosen_metric(metric, task_name, is_regression, self.num_labels)
        self.teacher_model = model_name(teacher_model, "teacher_model")
        self.student_model = self.teacher_model if student_model is None else model_name(student_model, "student_model")
        if student_model is None and student_init == "pretrained":
            print(f"student_model is not set, so the student is cut from the teacher's model, {self.teacher_model}")
        self.student_layers = layers_choice(student_layers)
        self.student_init, self.data_dir, self.output_dir = student_init, str(data_dir), Path(output_dir)
        one_of("pretrained", "teacher")("student_init", student_init)
        if device not in ("auto", "cuda", "cpu"):
            raise TeachbackError(
                f"device={device!r}: use auto, cuda or cpu; CUDA_VISIBLE_DEVICES chooses among several GPUs"
            )
        self.device = resolve_device(device)
        self._precision, self.precision = precision, resolve_precision(precision, self.device)
        self._labels, self._given_tokenizer = tuple(labels or ()), tokenizer
        self.teacher: PreTrainedModel | None = None
        self.student: PreTrainedModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self._card = ""  # the student's model card
        self._answering: Classifier | None = None  # wrapper of the student that predicted last

    @takes(TrainingConfig)
    def train(self, train_loader, val_loader, test_loader=None, meta_loaders: dict | None = None,
              config: TrainingConfig | None = None, **settings) -> dict:  # fmt: skip
        """Run all phases; returns their history.

        Args:
            test_loader: rows to predict with the trained student, scored if they have labels.
            meta_loaders: loaders by task for phases 3 and 4. Phase 4 needs tasks to choose from. Without an entry for
                this task, a share of the train rows is held out as its quiz.
            config: a `TrainingConfig`.
            settings: fields of `TrainingConfig` that override ``config``.

        Raises:
            TeachbackError: a loader or a setting is invalid.
        """
        config = with_settings(config, TrainingConfig, settings)
        if not isinstance(meta_loaders, (dict, type(None))):
            raise TeachbackError(
                f"meta_loaders is a {type(meta_loaders).__name__}; pass a dict of task names and loaders"
            )
        if meta_loaders and not config.meta_epochs:
            raise TeachbackError(
                "meta_loaders are for phases 3 and 4, which meta_epochs=0 skips; remove them, or set meta_epochs=1"
            )
        set_seed(config.seed)
        val, train = UserLoader(val_loader, "val_loader"), UserLoader(train_loader, "train_loader")
        meta = {name: UserLoader(loader, f"meta_loaders[{name!r}]") for name, loader in (meta_loaders or {}).items()}
        task = self._task(train, val)
        test = None if test_loader is None else self._test_rows(test_loader, task)
        kept_layers(self.student_layers, model_depth(task.models[STUDENT], self.data_dir))  # refused before anything is trained
        with locked(self.output_dir / "student"):
            args = phase_arguments(config, self.device, self.precision, train)
            rows = PhaseRows.of(task, train, val, meta, args)
            phases = Phases(task, args, rows, {"train": train.row_count, "val": val.row_count})
            history = phases.run()
        teacher_folder, student_folder = phases.record.folders
        self.teacher = load_finished_classifier(teacher_folder).to(self.device)
        self.load_student(student_folder)
        if test is not None:
            history["test"] = self._tested(test)
            if "metrics" in history["test"]:
                score, count = history["test"]["metrics"]["score"], len(history["test"]["predictions"])
                phases.record.write_student_card({"score": score, "rows": count})
                self._card = read_text(student_folder)
        return history | {"config": asdict(config)}

    def _task(self, train: UserLoader, val: UserLoader) -> Task:
        names = (self.teacher_model, self.teacher_model if self.student_init == "teacher" else self.student_model)
        of_loader = train.tokenizer or getattr(train.dataset, "tokenizer", None)
        tokenizers = tokenizers_of(names, self._given_tokenizer, of_loader, self.data_dir)
        known = train.texts[0] if train.texts else None
        labels = self._labels or tuple(getattr(known or train.dataset, "label_names", ()))
        kind = "choices" if val.has_choices else "pair" if known and known.has_pairs else "single"
        read = {"max_length": known.max_length} if known else {}
        return Task(self._domain(labels, kind), self.metric, names, self.student_layers, self.student_init,
                    tuple(tokenizers), read, self.device, self.precision, self.data_dir, self.output_dir)  # fmt: skip

    def _domain(self, labels: tuple = (), kind: str = "single") -> Domain:
        """Description of the task as a `Domain`."""
        metric = selecting_metric(self.metric)
        if self.is_regression:
            kind = "single" if kind == "choices" else kind
            return Domain(self.task_name, self.task_name, (), metric, kind, task="regression")
        if len(labels) != self.num_labels or not all(isinstance(label, str) for label in labels):
            labels = tuple(f"LABEL_{number}" for number in range(self.num_labels))
        return Domain(self.task_name, self.task_name, labels, metric, kind)

    def _test_rows(self, loader, task: Task) -> UserLoader:
        """Read and check ``test_loader`` before anything is trained, with the random numbers left as they were."""
        with fork_rng(devices=[]):
            test = UserLoader(loader, "test_loader")
        vocabulary = len(test.tokenizer or task.tokenizers[STUDENT])
        test.rows(task.domain, vocabulary, needs_labels=test.is_labelled(self.is_regression))
        return test

    def _tested(self, test: UserLoader) -> dict:
        logits, labels = self._answers(test)
        result = {"predictions": answers(logits, self.is_regression).tolist()}
        if test.is_labelled(self.is_regression):
            result["metrics"] = metric_values(self.metric, labels, logits)
        return result

    def _answers(self, given: UserLoader) -> tuple[np.ndarray, np.ndarray]:
        """Student's logits [N, C] and the loader's labels [N], in the order of the loader; missing labels are -1."""
        student = self._require_student()
        assert self.tokenizer is not None  # set together with the student
        domain = self._domain(kind=self._kind_of_student())
        vocabulary = student.config.vocab_size if given.tokenizer is None else len(given.tokenizer)
        rows = given.rows(domain, vocabulary, needs_labels=False)
        rows = given.read_by(self.tokenizer, rows, assumed=self.tokenizer)
        if self._answering is None or self._answering.model is not student:
            self._answering = Classifier(student, {domain.head: domain})
        logits = own_logits(self._answering, rows, pad_token_id=self.tokenizer.pad_token_id, batch_size=EVAL_BATCH_SIZE,
                            device=self.device, precision=evaluation_precision(self._precision, self.device))  # fmt: skip
        return logits.numpy(), rows.columns["label"].numpy()

    def predict(self, loader) -> list:
        """Predict class indices, or for regression numbers, in the order of the loader."""
        return answers(self._logits(loader), self.is_regression).tolist()

    def predict_proba(self, loader) -> list[list[float]]:
        """Predict the probability of each class, in the order of the loader.

        Raises:
            TeachbackError: the task is a regression, or there is no student.
        """
        if self.is_regression:
            raise TeachbackError("a regression has no probabilities; use predict(loader), which returns its numbers")
        return softmax(self._logits(loader), axis=-1).tolist()

    def _logits(self, loader) -> np.ndarray:
        self._require_student()
        return self._answers(UserLoader(loader, "loader"))[0]

    def _require_student(self) -> PreTrainedModel:
        if self.student is None:
            raise TeachbackError("there is no student yet; call train(...) or load_student(path) first")
        return self.student

    def save_student(self, path: str | Path) -> None:
        """Write the student as a plain checkpoint with tokenizer and model card; a README.md edited by hand is kept."""
        write_checkpoint(path, self._require_student(), self.tokenizer)
        write_text(path, self._card or self._card_of_unknown_origin())

    def _kind_of_student(self) -> str:
        """Kind of the student's rows: "choices" if it has a single output for several labels, else "single"."""
        return "choices" if self._require_student().config.num_labels != self.num_labels else "single"

    def _card_of_unknown_origin(self) -> str:
        labels = self._require_student().config.id2label or {}
        domain = self._domain(tuple(map(str, labels.values())), self._kind_of_student())
        return loader_card(loader_record("student", domain, "", {"metric": self.metric}, {}), domain)

    def load_student(self, path: str | Path) -> None:
        """Load a saved student of this task, replacing the current one.

        Raises:
            TeachbackError: the folder holds no intact model, or one with another number of outputs.
        """
        if not (Path(path) / "config.json").is_file():
            raise TeachbackError(f"{path} does not hold a model (it has no config.json); name a folder that save_student wrote")
        require_whole(Path(path))
        student = load_finished_classifier(path)
        expected = (self.num_labels, 1) if not self.is_regression else (1,)  # a single output if rows are choices
        if student.config.num_labels not in expected:
            raise TeachbackError(f"{path} has {student.config.num_labels} outputs, but num_labels is {self.num_labels}")
        self.student, self.tokenizer = student.to(self.device), load_tokenizer(str(path), self.data_dir)
        self._card = read_text(path)

    def save_predictions(self, predictions, path: str | Path, label_mapping: dict | None = None) -> None:
        """Write a TSV with the columns index and prediction; ``label_mapping``: names by prediction."""
        names = predictions if label_mapping is None else [_named(label_mapping, value) for value in predictions]
        lines = ((number, clean_text(str(name))) for number, name in enumerate(names))
        write_atomically(Path(path), as_tsv(("index", "prediction"), lines))


def _named(mapping: dict, value):
    if value not in mapping:
        raise TeachbackError(f"label_mapping has no name for the prediction {value!r}; it has names for {list(mapping)}")
    return mapping[value]
