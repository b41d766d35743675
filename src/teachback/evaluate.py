"""Stage 7: every checkpoint of a run scored on one split, measured, and compared with its teacher.

Scores are computed in float32 unless a precision is asked for, so that they equal what
``pipeline("text-classification")`` says of the same checkpoint.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from teachback.arguments import option, require, require_at_least
from teachback.devices import autocast, resolve_device, resolve_precision
from teachback.encoding import EncodedRows, batches, encode
from teachback.errors import TeachbackError
from teachback.files import write_atomically
from teachback.metrics import Score, by_domain
from teachback.models import Classifier, load_finished_classifier, load_tokenizer
from teachback.runs import read_stage, seed_folder
from teachback.suite_data import SuiteData
from teachback.suites.schema import SPLITS, Row, Suite
from teachback.tables import OPTIMISTIC, Evaluated, Result, comparison_table, domains_table, merge_results
from teachback.teacher import Teacher, load_teacher, predicted_labels

STUDENT_STAGES = ("student_finetune", "student_first", "student_second", "curriculum")
SINGLE = "teacher-single-"
TIMED_ROWS = 64  # enough for a median, little enough for BERT-base on two cores
TIMED_PASSES = 3


@dataclass
class EvaluationArguments:
    """What stage 7 reads, on which rows it scores, and how it computes."""

    suite: str = option("amazon", "Suite, a folder of data_dir that stage 2 wrote.")
    domain: str = option("", "Whose students; empty: the suite's first domain; all: every domain's.")
    domains: str = option("", "Domains scored and averaged over, separated by blanks or commas; empty: all.")
    data_dir: str = option("data", "Folder of the processed suites.")
    output_root: str = option("outputs", "Folder of the runs.")
    seed: int = option(42, "Which run: <output_root>/<suite>/seed<seed>.")
    teacher: str = option("meta", "Teacher with which students that had none are compared: meta, mix, mtl or single.")
    split: str = option("test", "train, quiz, dev or test.")
    metric: str = option("", "accuracy or macro_f1; empty or auto: each domain's own.")
    max_length: int = option(128, "Tokens after which a text is cut.")
    eval_batch_size: int = option(64, "Rows a batch; speed is measured at this size and at 1.")
    precision: str = option("auto", "fp32, bf16, fp16, or auto: fp32, in which pipeline() computes.")
    device: str = option("auto", "auto, cpu, cuda or cuda:<number>.")

    def __post_init__(self):
        require(self, "teacher", ("meta", "mix", "mtl", "single"))
        require(self, "split", SPLITS)
        require_at_least(self, "max_length", 4)
        require_at_least(self, "eval_batch_size", 1)


@dataclass(frozen=True)
class Checkpoint:
    """A finished stage folder. ``stage``: its path below the seed's folder; ``target``: its one domain, or ""."""

    folder: Path
    stage: str
    target: str
    record: dict

    @property
    def is_teacher(self) -> bool:
        return self.stage.startswith("teacher-")

    @property
    def method(self) -> str:
        """The teacher's own name, or how the student learned: metakd, finetune, ..."""
        named = self.record.get("method") or self.record["arguments"].get("method")
        return self.stage if self.is_teacher else named or Path(self.stage).name

    @property
    def has_trained_head(self) -> bool:
        """False for a student of stage 4 whose classification layer still holds its first, random values."""
        return self.record.get("head_trained", True)

    def teacher_stage(self, default: str) -> str:
        """The teacher's folder that a student is compared with; "" for a teacher."""
        if self.is_teacher:
            return ""
        kind = default if self.method == "finetune" else self.record["arguments"].get("teacher", default)
        return f"{SINGLE}{self.target}" if kind == "single" else f"teacher-{kind}"


def find_checkpoints(run: Path, targets: Sequence[str]) -> list[Checkpoint]:
    """Finished teachers, then finished students of the target domains, undistilled ones first."""
    students = [(run / target / stage, target) for target in targets for stage in STUDENT_STAGES]
    folders = [
        (path, target) for path, target in [*_teachers(run, targets), *students] if (path / "stage.json").is_file()
    ]
    if not folders:
        raise TeachbackError(
            f"{run} holds no finished checkpoint for {', '.join(targets)}; run 3_train_teacher.sh, then "
            "4_student_first.sh and 5_student_second.sh, with the same SUITE, SEED and OUTPUT_DIR"
        )
    return [Checkpoint(path, path.relative_to(run).as_posix(), target, read_stage(path)) for path, target in folders]


def _teachers(run: Path, targets: Sequence[str]) -> list[tuple[Path, str]]:
    """Teacher folders, each with its one domain or ""; other domains' single teachers are left out."""
    found = [
        (path, path.name.removeprefix(SINGLE) if path.name.startswith(SINGLE) else "") for path in run.glob("teacher-*")
    ]
    return sorted((path, target) for path, target in found if not target or target in targets)


class Predictor:
    """A checkpoint ready to predict. ``heads``: each domain that it serves -> number of its head."""

    def __init__(self, checkpoint: Checkpoint, suite: Suite, arguments: EvaluationArguments):
        self.arguments = arguments
        self.device = resolve_device(arguments.device)
        self.precision = evaluation_precision(arguments.precision, self.device)
        self.tokenizer = load_tokenizer(str(checkpoint.folder))
        check_labels(checkpoint, suite)
        self.classifier, self.heads = load_heads(checkpoint, suite)
        self.classifier.to(self.device).eval()

    def encode(self, rows: list[Row]) -> EncodedRows:
        """Token ids of rows, with the number of each row's head."""
        encoded = encode(rows, self.tokenizer, self.arguments.max_length)
        encoded.columns["head"] = torch.tensor([self.heads[row.domain] for row in rows], dtype=torch.long)
        return encoded

    @torch.inference_mode()
    def logits(self, encoded: EncodedRows, batch_size: int) -> torch.Tensor:
        """Logits of each row's own head in float32, in row order whatever the batches: [N, C]."""
        result = torch.empty(len(encoded), self.classifier.classes)
        for batch in batches(encoded, batch_size, self.tokenizer.pad_token_id):
            inputs = {name: value.to(self.device) for name, value in batch.items()}
            with autocast(self.precision, self.device):
                outputs = self.classifier(inputs, inputs["head"])
            result[batch["index"]] = outputs.logits.float().cpu()
        return result

    def predict(self, rows: list[Row]) -> torch.Tensor:
        """Logits of rows: [N, C]."""
        return self.logits(self.encode(rows), self.arguments.eval_batch_size)

    def milliseconds(self, rows: list[Row], batch_size: int) -> float:
        """Median milliseconds an example over passes on real rows, after a warm-up; tokenising is not counted."""
        encoded = self.encode(rows)
        seconds = []
        for _ in range(1 + TIMED_PASSES):
            start = time.perf_counter()
            self.logits(encoded, batch_size)  # ends with a copy to the CPU, hence waits for a GPU
            seconds.append(time.perf_counter() - start)
        return 1000 * statistics.median(seconds[1:]) / len(rows)


def evaluation_precision(name: str, device: torch.device) -> str:
    """Like training's, but ``auto`` is fp32 everywhere: a score must not depend on the machine."""
    return resolve_precision("fp32" if name == "auto" else name, device)


def check_labels(checkpoint: Checkpoint, suite: Suite) -> None:
    """A checkpoint of other labels, or of another order, was trained on an older form of the suite."""
    domain = suite.domain(checkpoint.target or checkpoint.record["arguments"]["trained_domains"][0])
    id2label = AutoConfig.from_pretrained(checkpoint.folder).id2label
    names = tuple(id2label[i] for i in sorted(id2label))
    if domain.task == "classification" and names != domain.labels:
        raise TeachbackError(
            f"{checkpoint.folder} predicts {', '.join(names)}, but the suite's labels are {', '.join(domain.labels)}; "
            "run the stage that made it again, on the suite as it is now"
        )


def load_heads(checkpoint: Checkpoint, suite: Suite) -> tuple[Classifier, dict[str, int]]:
    """The classifier, and domain -> number of its head for the domains that it serves.

    A head serves every domain of its label set, also those that the checkpoint never saw.
    """
    if checkpoint.is_teacher:
        teacher = load_teacher(checkpoint.folder, checkpoint.record, suite)
        return teacher.classifier, _teacher_heads(teacher, suite)
    target = suite.domain(checkpoint.target)
    classifier = Classifier(load_finished_classifier(checkpoint.folder), {target.head: target})
    return classifier, {name: 0 for name, domain in suite.domains.items() if domain.head == target.head}


def _teacher_heads(teacher: Teacher, suite: Suite) -> dict[str, int]:
    order = list(teacher.classifier.heads)
    names = {name: name if teacher.kind == "mtl" else domain.head for name, domain in suite.domains.items()}
    return {domain: order.index(head) for domain, head in names.items() if head in order}


def spread_rows(rows: list[Row], count: int) -> list[Row]:
    """At most ``count`` rows, evenly spread."""
    return rows[:: max(1, -(-len(rows) // count))]


def write_predictions(path: Path, rows: list[Row], logits: torch.Tensor, data: SuiteData) -> None:
    """guid, domain, gold and predicted label names and one probability a label; the gold is empty where hidden."""
    labels = list(dict.fromkeys(label for row in rows for label in data.suite.domain(row.domain).labels))
    lines = ["\t".join(["guid", "domain", "gold", "predicted", *(f"p({label})" for label in labels)])]
    table = zip(rows, predicted_labels(logits, rows, data), logits.softmax(-1).tolist())
    for row, predicted, probabilities in table:
        by_label = dict(zip(data.suite.domain(row.domain).labels, probabilities))
        numbers = [f"{by_label[label]:.7g}" if label in by_label else "" for label in labels]
        lines.append("\t".join([row.guid, row.domain, row.label, predicted, *numbers]))
    write_atomically(path, "\n".join(lines) + "\n")


class Evaluation:
    """One run of stage 7: what it reads, and what it does with each checkpoint."""

    def __init__(self, arguments: EvaluationArguments):
        self.arguments = arguments
        self.data = SuiteData.read(arguments.data_dir, arguments.suite, arguments.domains)
        self.domains = self.data.selected
        self.targets = [domain.name for domain in self.data.targets(arguments.domain)]
        self.rows = self.data.rows(arguments.split)
        if not self.rows:
            raise TeachbackError(
                f"{self.data.folder / arguments.split}.tsv has no rows of {', '.join(self.domains)}; "
                "choose another SPLIT"
            )
        self.run = seed_folder(arguments.output_root, arguments.suite, arguments.seed)

    def evaluate(self, checkpoint: Checkpoint) -> Evaluated:
        """Score, measure and record one checkpoint."""
        predictor = Predictor(checkpoint, self.data.suite, self.arguments)
        rows = [row for row in self.rows if row.domain in predictor.heads]
        self._warn(checkpoint, rows)
        timed = spread_rows(rows, TIMED_ROWS)
        sizes = sorted({1, self.arguments.eval_batch_size}) if timed else []
        return Evaluated(
            checkpoint.stage,
            checkpoint.target,
            checkpoint.teacher_stage(self.arguments.teacher),
            self._scores(checkpoint, predictor, rows) if checkpoint.has_trained_head else {},
            parameters=sum(parameter.numel() for parameter in predictor.classifier.model.parameters()),
            bytes=sum(path.stat().st_size for path in checkpoint.folder.glob("model*.safetensors")),
            milliseconds={size: predictor.milliseconds(timed, size) for size in sizes},
            optimistic=self._is_optimistic(checkpoint),
        )

    def _is_optimistic(self, checkpoint: Checkpoint) -> bool:
        """Whether the papers' protocol selected the checkpoint on the very rows that are reported."""
        paper = checkpoint.record["arguments"].get("protocol") == "paper"
        return paper and checkpoint.record.get("selected_on", "test") == self.arguments.split

    def _warn(self, checkpoint: Checkpoint, rows: list[Row]) -> None:
        """Say what keeps a checkpoint from a score, or makes it another one than the user expects."""
        stage, split, length = checkpoint.stage, self.arguments.split, self.arguments.max_length
        trained_length = checkpoint.record["arguments"].get("max_length", length)
        if not checkpoint.has_trained_head:
            print(f"{stage}: not scored; its classification layer is not trained yet (5_student_second.sh trains it)")
        elif not any(row.label for row in rows):
            print(f"{stage}: not scored; no row of the {split} split that it serves has a label")
        if trained_length != length:
            print(f"{stage}: trained with MAX_LENGTH={trained_length}, evaluated with {length}")

    def _scores(self, checkpoint: Checkpoint, predictor: Predictor, rows: list[Row]) -> dict[str, Score]:
        """Predict, write predictions and results, and give the scores by domain."""
        logits = predictor.predict(rows)
        name = f"{checkpoint.stage.replace('/', '__')}-{self.arguments.split}.tsv"
        write_predictions(self.run / "predictions" / name, rows, logits, self.data)
        scores = by_domain(
            self.data.suite, rows, predicted_labels(logits, rows, self.data), self.arguments.metric or "auto"
        )
        merge_results(self.run / "results.tsv", [self._result(checkpoint, domain, s) for domain, s in scores.items()])
        return scores

    def _result(self, checkpoint: Checkpoint, domain: str, score: Score) -> Result:
        split = self.arguments.split + (OPTIMISTIC if self._is_optimistic(checkpoint) else "")
        where = (self.data.suite.name, domain, checkpoint.method, checkpoint.stage, self.arguments.seed, split)
        return Result(*where, score.metric, score.value, score.n)

    def report_hidden_rows(self) -> None:
        """Say how many rows are not scored, for a score over fewer rows is another number."""
        for domain in self.domains:
            labels = [row.label for row in self.rows if row.domain == domain]
            hidden = f"{labels.count('')} of {len(labels)} rows"
            if not any(labels):
                print(f"{domain}, {self.arguments.split}: {hidden} have no label and are not scored; no result")
            elif "" in labels:
                print(f"{domain}, {self.arguments.split}: {hidden} have no label and are not scored")


def evaluate(arguments: EvaluationArguments) -> list[Evaluated]:
    """Stage 7: score every checkpoint of the run, write its numbers and predictions, and print the tables."""
    evaluation = Evaluation(arguments)
    checkpoints = find_checkpoints(evaluation.run, evaluation.targets)
    evaluation.report_hidden_rows()
    evaluated = [evaluation.evaluate(checkpoint) for checkpoint in checkpoints]
    print_tables(evaluation, evaluated)
    return evaluated


def print_tables(evaluation: Evaluation, evaluated: list[Evaluated]) -> None:
    """Teachers first, students after; with several targets also the papers' layout."""
    arguments = evaluation.arguments
    print(f"\n{evaluation.data.suite.name}, seed {arguments.seed}, {arguments.split} split\n")
    print(comparison_table(evaluated, evaluation.targets))
    if len(evaluation.targets) > 1:
        print(f"\n{domains_table(evaluated, evaluation.targets)}")
    print("\n" + "\n".join(notes(evaluation, any(one.optimistic for one in evaluated))))
    for target in evaluation.targets:
        if not any(one.target == target and "/" in one.stage for one in evaluated):
            print(f"{target} has no student yet: DOMAIN={target} bash 4_student_first.sh, then 5_student_second.sh")


def notes(evaluation: Evaluation, optimistic: bool) -> list[str]:
    """How the numbers of the table came about."""
    arguments = evaluation.arguments
    device = resolve_device(arguments.device)
    where = (
        f"the CPU ({torch.get_num_threads()} threads)" if device.type == "cpu" else torch.cuda.get_device_name(device)
    )
    mark = ["* optimistic: PROTOCOL=paper selected the checkpoint on the rows that are scored here."]
    return (mark if optimistic else []) + [
        f"average: mean over {', '.join(evaluation.domains)}, or those that the checkpoint serves.",
        f"ms: forward pass an example on {where} in {evaluation_precision(arguments.precision, device)}; "
        f"at most {TIMED_ROWS} real rows padded to the batch, median of {TIMED_PASSES} passes after a warm-up.",
        f"Numbers are in {evaluation.run / 'results.tsv'}, predictions in {evaluation.run / 'predictions'}.",
    ]
