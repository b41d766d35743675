"""Prediction with finished checkpoints: discovery and opening, heads by domain, logits and timing."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from teachback.core.devices import autocast, resolve_device
from teachback.core.errors import TeachbackError
from teachback.core.pass_progress import PassProgress
from teachback.core.precision import resolve_precision
from teachback.core.published import is_finished, read_stage
from teachback.data.encoding import EncodedRows, batches, encode
from teachback.data.names import domain_of_folder, folder_name
from teachback.data.schema import Domain, Row, Suite, output_names
from teachback.data.suites import selection_split
from teachback.data.token_store import encode_once
from teachback.inference.onnx_model import OnnxClassifier
from teachback.inference.results import META_TEACHER, OPTIMISTIC, STAGE_NAMES, UNSEEN, Result, model_name
from teachback.inference.timing import Timing, time_in_turn
from teachback.methods.meta_teacher import load_meta_teacher
from teachback.methods.teacher import head_name, load_teacher
from teachback.models.admission import admit_answering
from teachback.models.configs import refuse_files
from teachback.models.fine_tuned import CLASSIFIER, other_head
from teachback.models.heads import Classifier
from teachback.models.loading import TRAINING_ONLY, load_config, load_finished_classifier, load_tokenizer

SINGLE = "teacher-single-"
# Minimum number of timed rows; evenly spaced in length, a few represent all rows.
TIMED_ROWS = 16


@dataclass(frozen=True)
class Checkpoint:
    """A finished stage folder. ``stage``: path relative to the seed's folder; ``target``: its only domain, or "".

    ``teachers``: parent folder of its teacher, if that belongs to another run.
    """

    folder: Path
    stage: str
    target: str
    record: dict
    teachers: Path | None = None

    @property
    def is_teacher(self) -> bool:
        return self.stage.startswith("teacher-")

    @property
    def is_meta_teacher(self) -> bool:
        return self.folder.name == META_TEACHER

    @property
    def kind(self) -> str:
        """Kind of model, as shown in tables."""
        return model_name(self.stage)

    @property
    def name(self) -> str:
        """Name in sentences and legends: a teacher's folder or a student's kind."""
        return self.stage if self.is_teacher else self.kind

    @property
    def method(self) -> str:
        """The teacher's folder name, or the student's training method: metakd, mpdistil, finetune, ..."""
        named = self.record.get("method") or self.record["arguments"].get("method")
        return self.stage if self.is_teacher else named or Path(self.stage).name

    @property
    def has_trained_head(self) -> bool:
        """False for a student of stage 4, whose classification layer is still randomly initialised."""
        return self.record.get("head_trained", True)

    def was_selected_on(self, split: str, suite: str) -> bool:
        """Whether the checkpoint was selected on the rows of a split that are reported (PROTOCOL=paper)."""
        protocol = self.record["arguments"].get("protocol", "honest")
        return protocol == "paper" and self.record.get("selected_on", selection_split(suite, protocol)) == split

    def has_score(self, result: Result) -> bool:
        """Whether a score belongs to this checkpoint, not to an earlier one with another METHOD or PROTOCOL in its folder."""
        selected = self.was_selected_on(result.plain_split.removesuffix(UNSEEN), result.suite)
        own = self.stage, self.method, selected
        return (result.stage, result.method, result.split.endswith(OPTIMISTIC)) == own

    def teacher_stage(self, default: str) -> str:
        """Folder of the teacher that a student or meta-teacher is compared with; "" for a teacher."""
        if self.is_teacher:
            return ""
        if "teacher_folder" in self.record:
            return self.record["teacher_folder"]
        kind = default if self.method == "finetune" else self.record["arguments"].get("teacher", default)
        return f"{SINGLE}{folder_name(self.target)}" if kind == "single" else f"teacher-{kind}"


def find_checkpoints(run: Path, targets: Sequence[str], teachers: Path | None = None) -> list[Checkpoint]:
    """Find finished teachers, then the finished stages of each target domain, in the order of the tables.

    Raises:
        TeachbackError: there is no finished checkpoint.
    """
    teachers_here = sorted((path, domain_of_teacher(path.name)) for path in run.glob("teacher-*"))
    every = [(path, target) for path, target in teachers_here if not target or target in targets]
    every += [(run / folder_name(target) / stage, target) for target in targets for stage in STAGE_NAMES]
    folders = [(path, target) for path, target in every if is_finished(path)]
    if not folders:
        raise TeachbackError(
            f"{run} has no finished checkpoint for {', '.join(targets)}; run 3_train_teacher.sh, then "
            "4_student_first.sh and 5_student_second.sh, with the same SUITE, SEED and OUTPUT_DIR"
        )
    return [Checkpoint(path, path.relative_to(run).as_posix(), target, read_stage(path), teachers) for path, target in folders]


def domain_of_teacher(stage: str) -> str:
    """Domain of a single-domain teacher, from its folder's name; "" for other teachers."""
    return domain_of_folder(stage.removeprefix(SINGLE)) if stage.startswith(SINGLE) else ""


def open_checkpoint(folder: Path) -> tuple[Checkpoint, Domain]:
    """Open a checkpoint; returns it with the domain of its plain head (a teacher's first domain).

    Without stage.json, as for models trained elsewhere, the domain comes from config.json, with unknown kind ("").

    Raises:
        TeachbackError: the folder holds no model, an untrained head, or a kind of model that cannot be used.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        refuse_files(str(folder), str(folder))
        raise TeachbackError(
            f"{folder} does not hold a model (it has no config.json); name a finished student's folder, "
            "such as outputs/amazon/seed42/books/student_second"
        )
    record = read_stage(folder) if (folder / "stage.json").is_file() else {}
    if not record.get("head_trained", True):
        raise TeachbackError(
            f"{folder}: its classification layer is not trained yet; run 5_student_second.sh, and name the folder that it writes"
        )
    answers = [Domain(**one | {"labels": tuple(one["labels"]), "marks": tuple(one["marks"])}) for one in record.get("answers", {}).values()]
    domain = answers[0] if answers else _of_config(folder)
    return Checkpoint(folder, str(folder.absolute()), domain.name, {"arguments": {}} | record), domain


def _of_config(folder: Path) -> Domain:
    """Domain described by a classifier's config: ordered label names, or a regression."""
    config = load_config(folder)
    if other := other_head(config):
        raise TeachbackError(
            f"{folder} is a {other}, but prediction needs a text classifier (...{CLASSIFIER}); stage 3 trains one on the encoder "
            "that TEACHER_MODEL names"
        )
    names = tuple(config.id2label[i] for i in sorted(config.id2label))
    if config.problem_type == "multi_label_classification":
        raise TeachbackError(f"{folder} is a multi-label classifier; only one label or one number per text is supported")
    if names == ("plausible",):
        raise TeachbackError(
            f"{folder} chooses between answers, but its stage.json does not record how many; run its stage again"
        )
    if len(names) == 1 or config.problem_type == "regression":
        return Domain(folder.name, folder.name, (), kind="", task="regression")
    return Domain(folder.name, folder.name, names, kind="")


class Predictor:
    """Predicts with a checkpoint. ``heads``: head index by domain, for the domains that the checkpoint serves.

    With the suite's ``folder``, token ids are cached there and shared with other stages and checkpoints.
    """

    def __init__(
        self, checkpoint: Checkpoint, suite: Suite, device: str = "auto", precision: str = "auto",
        max_length: int = 128, batch_size: int = 64, folder: Path | None = None,
    ):  # fmt: skip
        self.domains, self.max_length, self.batch_size = suite.domains, max_length, batch_size
        self.folder = folder
        self.device = resolve_device(device)
        self.precision = evaluation_precision(precision, self.device)
        self.classifier, self.heads, encoder = load_heads(checkpoint, suite)
        heads_file = [checkpoint.folder / TRAINING_ONLY] if checkpoint.is_meta_teacher else []
        self.bytes = sum(path.stat().st_size for path in [*encoder.glob("model*.safetensors"), *heads_file])
        self.tokenizer = load_tokenizer(str(encoder))
        self.classifier.to(self.device).eval()
        self.answering: Classifier | OnnxClassifier = self.classifier  # computes the logits

    def encode(self, rows: list[Row]) -> EncodedRows:
        """Token ids of rows, with each row's head index."""
        how = (rows, self.tokenizer, self.max_length, self.domains)
        encoded = encode_once(self.folder, *how) if self.folder else encode(*how)
        encoded.columns["head"] = torch.tensor([self.heads[row.domain] for row in rows], dtype=torch.long)
        return encoded

    @property
    def shape(self) -> tuple:
        """Key for sharing timings: architecture and layer shapes, which determine the time of a pass; not the heads."""
        model = self.classifier.model
        heads, activation = (getattr(model.config, n, None) for n in ("num_attention_heads", "hidden_act"))
        sizes = tuple((name, tuple(one.shape)) for name, one in model.base_model.named_parameters())
        return type(model).__name__, heads, activation, sizes

    @torch.inference_mode()
    def logits(self, encoded: EncodedRows, batch_size: int = 0, progress: PassProgress | None = None) -> torch.Tensor:
        """Logits of each row's head in float32, in the order of the rows: [N, C]. ``progress``: of a longer pass; by default of this one."""
        progress = progress or PassProgress("predicted", len(encoded))
        result = torch.empty(len(encoded), self.answering.classes)
        padded = batches(encoded, batch_size or self.batch_size, self.tokenizer.pad_token_id)
        for batch in progress.follow(padded):
            inputs = {name: value.to(self.device) for name, value in batch.items()}
            with autocast(self.precision, self.device):
                outputs = self.answering(inputs, inputs["head"])
            result[batch["index"]] = outputs.logits.float().cpu()
        return result

    def predict(self, rows: list[Row], progress: PassProgress | None = None) -> torch.Tensor:
        """Logits of rows: [N, C]. ``progress``: as in `logits`."""
        return self.logits(self.encode(rows), progress=progress)

    def timed_pass(self, encoded: EncodedRows, batch_size: int) -> Callable[[], float]:
        """Function that runs a pass on rows of all lengths, after a warm-up, and returns its milliseconds per example.

        Tokenisation is not timed.
        """
        timed = encoded.chosen(spread(encoded.lengths, max(TIMED_ROWS, batch_size)))
        first = timed.chosen(list(range(min(batch_size, len(timed)))))

        def take() -> float:
            self.logits(first, batch_size)  # warm-up, as caches and threads may still serve another model
            start = time.perf_counter()
            self.logits(timed, batch_size)  # synchronises a GPU, as it ends with a copy to the CPU
            return 1000 * (time.perf_counter() - start) / len(timed)

        return take


class Speeds:
    """Collects checkpoints, keeps a predictor of each shape, and times them on rows that all of them serve.

    Weights do not affect the time of a pass; differences between models of the same shape would be noise.
    """

    def __init__(self) -> None:
        self._served: dict[str, frozenset[str]] = {}
        self._shape: dict[str, Hashable] = {}
        self._predictors: dict[tuple[Hashable, frozenset[str]], Predictor] = {}

    def add(self, stage: str, predictor: Predictor) -> None:
        """Add a checkpoint; its predictor is kept if it is the first with its shape and domains."""
        self._served[stage], self._shape[stage] = frozenset(predictor.heads), predictor.shape
        self._predictors.setdefault((self._shape[stage], self._served[stage]), predictor)

    def measure(self, rows: Sequence[Row], batch_sizes: Sequence[int]) -> dict[str, tuple[dict[int, Timing], str]]:
        """Measure milliseconds per example by stage and batch size; also returns the domains of the timed rows.

        These are the domains that all checkpoints serve, or, if there are none, those of the checkpoint.
        """
        present = {row.domain for row in rows}
        common = present.intersection(*self._served.values())
        passes, keys = {}, {}
        for stage, served in self._served.items():
            timed_on = common or served & present
            if timed_on:
                keys[stage] = self._shape[stage], frozenset(timed_on)
                if keys[stage] not in passes:
                    predictor = self._predictors[self._shape[stage], served]
                    encoded = predictor.encode([row for row in rows if row.domain in timed_on])
                    passes[keys[stage]] = {size: predictor.timed_pass(encoded, size) for size in batch_sizes}
        taken = time_in_turn({(key, size): take for key, by_size in passes.items() for size, take in by_size.items()})
        return {
            stage: ({size: taken[key, size] for size in batch_sizes}, " ".join(sorted(key[1]))) for stage, key in keys.items()
        }


def spread(lengths: Sequence[int], count: int) -> list[int]:
    """Indices of at most ``count`` rows, evenly spaced in the order of length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    count = min(count, len(order))
    return [order[(2 * i + 1) * len(order) // (2 * count)] for i in range(count)]


def evaluation_precision(name: str, device: torch.device) -> str:
    """Resolve a precision as for training, except that ``auto`` is fp32, so that scores do not depend on the machine."""
    return resolve_precision("fp32" if name == "auto" else name, device)


def check_labels(folder: Path, domain: Domain) -> None:
    """Refuse a checkpoint whose labels or their order differ, as it was trained on another version of the suite."""
    id2label, expected = load_config(folder).id2label, output_names(domain)
    names = [id2label[i] for i in sorted(id2label)]
    if names != list(expected):
        raise TeachbackError(
            f"{folder} predicts {', '.join(names)}, but the labels of {domain.name} are now "
            f"{'numbers' if domain.task == 'regression' else ', '.join(expected)}; run the stage that made it again "
            "on the current suite"
        )


def load_heads(checkpoint: Checkpoint, suite: Suite) -> tuple[Classifier, dict[str, int], Path]:
    """Load a checkpoint; returns classifier, head index by domain, and the folder of encoder and tokenizer.

    A head serves every domain of its label set, including domains that the checkpoint was not trained on.
    """
    folder, served = checkpoint.folder, list(suite.domains)
    if not checkpoint.is_teacher:  # other heads of a meta-teacher only serve the curriculum
        target = suite.domain(checkpoint.target)
        served = [name for name, domain in suite.domains.items() if domain.head == target.head]
    if checkpoint.is_meta_teacher:
        teacher, folder = load_meta_teacher(folder, suite, checkpoint.teachers)
    elif checkpoint.is_teacher:
        check_labels(folder, suite.domain(checkpoint.record["arguments"]["trained_domains"][0]))
        teacher = load_teacher(folder, checkpoint.record, suite)
    else:
        check_labels(folder, target)
        model = load_finished_classifier(folder)
        if not is_finished(folder):  # made elsewhere
            admit_answering(str(folder), model, load_tokenizer(str(folder)))
        return Classifier(model, {target.head: target}), dict.fromkeys(served, 0), folder
    order, names = list(teacher.classifier.heads), {name: head_name(teacher.kind, suite.domain(name)) for name in served}
    return teacher.classifier, {name: order.index(head) for name, head in names.items() if head in order}, folder
