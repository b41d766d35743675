"""GLUE (Wang and others 2018): nine tasks in TSV files. Each is a domain with its own head.

MNLI's mismatched set is a separate domain for evaluation only, on MNLI's head.
MRPC comes as its authors' files; a file of ids selects GLUE's dev set from its train rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems, is_number
from teachback.data.raw_lines import BadLine, tsv_lines
from teachback.data.schema import Domain, Row, clean_text
from teachback.data.suites import benchmark
from teachback.data.suites.definition import Archive, Count, Definition

ADDRESS = "https://dl.fbaipublicfiles.com/glue/data/"
MRPC_ADDRESS = "https://dl.fbaipublicfiles.com/senteval/senteval_data/"
MRPC_ID_COLUMNS = ("#1 ID", "#2 ID")
SCORE_RANGE = (0.0, 5.0)  # of STS-B
ENTAILMENT = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")
SENTENCES = ("sentence1", "sentence2")


@dataclass(frozen=True)
class Task(benchmark.Task):
    """A GLUE task: its files by official split, and the columns of texts, label and test index."""

    files: dict[str, str]  # below the archive's folder
    texts: tuple[str, ...]
    label: str = "label"
    index: str = "index"
    span: tuple[float, float] | None = None  # range of a regression's labels
    numbered: bool = False  # labels are class numbers in the order of the names
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)  # columns of files without a header, by official split


def counts(content: Path) -> Iterator[Count]:
    """Expected and actual number of rows; without the file of ids, MRPC's dev rows count as train."""
    tasks = dict(TASKS)
    if not _ids_file(content).is_file():
        train, dev, test = tasks["MRPC"].known
        tasks["MRPC"] = replace(tasks["MRPC"], known=(train + dev, 0, test))
    return benchmark.counts(tasks.values(), _rows, content)


def _rows(task: Task, part: str, content: Path, domains: dict[str, Domain], problems: Problems) -> Iterator[Row]:
    """Yield the rows of an official split; labels of test are dropped even if a file has them."""
    path = content / task.archive.folder / task.files.get(part, "")
    if part not in task.files or not benchmark.official_file(path, part):
        return
    dev_ids = _dev_ids(content) if task.name == "MRPC" and part != "test" else None
    for place, (number, values, reason) in enumerate(tsv_lines(path, task.columns.get(part, ()))):
        if dev_ids is not None and (_mrpc_ids(values) in dev_ids) != (part == "val"):
            continue
        try:
            row = _row(task, part, place, values, reason)
        except BadLine as error:
            problems.add(path, number, str(error))
            continue
        if problems.accepts(row, domains, path, number, label_needed=part != "test"):
            yield row


def _row(task: Task, part: str, place: int, values: dict[str, str] | None, reason: str) -> Row:
    """Parse a line into a row, numbered by the index column in test, else by its position."""
    if values is None:
        raise BadLine(reason)
    first, *second = [_text(values, name) for name in task.texts]
    index = values.get(task.index, str(place)) if part == "test" else str(place)
    if not index.isdecimal():
        raise BadLine(f"{task.index} {index!r} is not a number")
    label = "" if part == "test" else _label(task, _text(values, task.label))
    return Row(f"{task.name}-{part}-{index}", first, "".join(second), label, task.name)


def _label(task: Task, value: str) -> str:
    names = {str(number): name for number, name in enumerate(task.domain.labels)} if task.numbered else {}
    if task.span and is_number(value) and not task.span[0] <= float(value) <= task.span[1]:
        raise BadLine(f"{task.label} {value!r} is not between {task.span[0]:g} and {task.span[1]:g}")
    return names.get(value, value)


def _text(values: dict[str, str], name: str) -> str:
    """Value of a required, non-empty column; raises BadLine."""
    if name not in values:
        raise BadLine(f"there is no column {name!r}")
    text = clean_text(values[name])
    if not text:
        raise BadLine(f"empty {name}")
    return text


def _ids_file(content: Path) -> Path:
    return content / MRPC_IDS.folder / MRPC_IDS.name


def _dev_ids(content: Path) -> set[tuple[str, ...]]:
    """Pairs of sentence ids of MRPC's dev rows; empty if the file of ids is missing."""
    path = _ids_file(content)
    if not path.is_file():
        return set()
    ids = set()
    for number, values, reason in tsv_lines(path, MRPC_ID_COLUMNS):
        if values is None:
            raise TeachbackError(f"{path} line {number}: {reason}; get the file again with 1_get_data.sh")
        ids.add(_mrpc_ids(values))
    return ids


def _mrpc_ids(values: dict[str, str] | None) -> tuple[str, ...]:
    return tuple((values or {}).get(name, "").strip() for name in MRPC_ID_COLUMNS)


def _zip(name: str, *domains: str) -> Archive:
    return Archive(f"{name}.zip", (f"{ADDRESS}{name}.zip",), domains or (name,))


def _files(folder: str, val: str = "dev", test: str = "test") -> dict[str, str]:
    return {"train": f"{folder}/train.tsv", "val": f"{folder}/{val}.tsv", "test": f"{folder}/{test}.tsv"}


def _task(
    name: str, labels: tuple[str, ...], known: tuple[int, int, int], texts: tuple[str, ...] = SENTENCES,
    archive: Archive | None = None, files: dict[str, str] | None = None, form: dict | None = None, **domain,
) -> Task:  # fmt: skip
    """A task of sentence pairs in an archive of its name, unless specified otherwise. ``form``: further fields of `Task`."""
    described = Domain(name, labels=labels, **{"head": name, "kind": "pair", "submission": "glue"} | domain)
    return Task(described, archive or _zip(name), known, files or _files(name), texts, **form or {})


COLA_COLUMNS = ("source", "label", "star", "sentence")
MNLI_ARCHIVE = _zip("MNLI", "MNLI", "MNLI-mm")
MRPC_TRAIN, MRPC_TEST = (
    Archive(name, (MRPC_ADDRESS + name,), ("MRPC",), place="MRPC")
    for name in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt")
)
MRPC_IDS = Archive(
    "mrpc_dev_ids.tsv",
    (f"{ADDRESS}mrpc_dev_ids.tsv",),
    ("MRPC",),
    place="MRPC",
    other_names=("dev_ids.tsv",),  # in folders made by GLUE's download script
    without="MRPC's dev set is cut from its train",
)
MRPC_FILES = {"train": MRPC_TRAIN.name, "val": MRPC_TRAIN.name, "test": MRPC_TEST.name}
MNLI_FILES = _files("MNLI", "dev_matched", "test_matched")
MISMATCHED_FILES = {"val": "MNLI/dev_mismatched.tsv", "test": "MNLI/test_mismatched.tsv"}
GOLD_LABEL, NUMBERED = {"label": "gold_label"}, {"numbered": True}
TASKS = {task.name: task for task in (
    _task("CoLA", ("unacceptable", "acceptable"), (8551, 1043, 1063), ("sentence",), metric="matthews", kind="single",
          form=NUMBERED | {"columns": {"train": COLA_COLUMNS, "val": COLA_COLUMNS}}),
    _task("SST-2", ("negative", "positive"), (67349, 872, 1821), ("sentence",), kind="single", form=NUMBERED),
    _task("MRPC", ("not_equivalent", "equivalent"), (3668, 408, 1725), ("#1 String", "#2 String"), MRPC_TRAIN, MRPC_FILES,
          metric="accuracy+f1", form=NUMBERED | {"label": "Quality"}),
    _task("STS-B", (), (5749, 1500, 1379), metric="pearson+spearman", task="regression", form={"label": "score", "span": SCORE_RANGE}),
    _task("QQP", ("not_duplicate", "duplicate"), (363846, 40430, 390965), ("question1", "question2"), _zip("QQP-clean", "QQP"),
          metric="accuracy+f1", form=NUMBERED | {"label": "is_duplicate", "index": "id"}),
    _task("MNLI", NLI, (392702, 9815, 9796), archive=MNLI_ARCHIVE, files=MNLI_FILES, form=GOLD_LABEL),
    _task("MNLI-mm", NLI, (0, 9832, 9847), archive=MNLI_ARCHIVE, files=MISMATCHED_FILES, form=GOLD_LABEL, head="MNLI", rows={"train": 0}),
    _task("QNLI", ENTAILMENT, (104743, 5463, 5463), ("question", "sentence"), _zip("QNLIv2", "QNLI")),
    _task("RTE", ENTAILMENT, (2490, 277, 3000)),
    _task("WNLI", ENTAILMENT[::-1], (635, 71, 146), form=NUMBERED),
)}  # fmt: skip
SUITE = Definition(
    "glue",
    partial(benchmark.read, TASKS, _rows),
    tuple(dict.fromkeys([*(task.archive for task in TASKS.values()), MRPC_TEST, MRPC_IDS])),
    counts,
    paper_quiz=0.1,
    paper_selects_on="test",
)
