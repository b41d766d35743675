"""Suites, domains and rows, and their TSV and JSON files.

A suite is a folder with train.tsv, quiz.tsv, dev.tsv, test.tsv and suite.json, and hidden.tsv if the official test is
unlabelled. TSV files are UTF-8 with a header line, one row per line and no quoting.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.files import replacing, write_atomically
from teachback.core.tsv import read_lines

PROTOCOLS = ("honest", "paper")
SPLITS = ("train", "quiz", "dev", "test")
STORED_TOKENS = "tokens"  # subfolder of a suite that later stages fill
HIDDEN = "hidden"  # split of the official unlabelled test rows, if any
CHOICE_SEPARATOR = " ||| "
COLUMNS = ("guid", "text_a", "text_b", "label", "domain")
TRAIN_COLUMNS = (*COLUMNS, "weight")
LARGEST_WEIGHT = 1.000001  # a mean of cosines, and rounding
KINDS, TASKS, TRUNCATED = ("single", "pair", "choices"), ("classification", "regression"), ("longest", "text_a")
AGAIN = "; run 2_process_data.sh again"
FIELD_END = re.compile(r"[\t\n\r]")


@dataclass(frozen=True, slots=True)
class Row:
    """One example. ``label`` is a label name (regression: the number as text), "" if hidden.

    To hold a million of them, rows use slots and share the strings of labels and domains.
    """

    guid: str
    text_a: str
    text_b: str
    label: str
    domain: str
    weight: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "label", sys.intern(self.label))
        object.__setattr__(self, "domain", sys.intern(self.domain))


@dataclass(frozen=True)
class Domain:
    """One domain or task of a suite: head, label names in order, metric, kind, row counts and encoding.

    In rows of kind ``choices``, ``text_b`` holds one choice per label, joined by `join_choices`.
    """

    name: str
    head: str
    labels: tuple[str, ...]
    metric: str = "accuracy"
    kind: str = "single"  # "single" (one text), "pair" (two texts) or "choices"
    task: str = "classification"  # or "regression"
    rows: dict[str, int] = field(default_factory=dict)
    truncate: str = "longest"  # truncation of a pair that is too long: "longest" text first, or only "text_a"
    marks: tuple[str, ...] = ()  # tokens, between blanks, around each marked span of the texts
    submission: str = ""  # format of a leaderboard submission: "", "superglue" or "glue"

    @property
    def positive(self) -> str:
        """Positive class for binary F1, the second label; "" unless there are two."""
        return self.labels[1] if len(self.labels) == 2 else ""

    @property
    def trainable(self) -> bool:
        """Whether the domain has train rows; without any it is for evaluation only."""
        return not self.rows or self.rows.get("train", 0) > 0


@dataclass(frozen=True)
class Suite:
    """A named set of domains, in a fixed order."""

    name: str
    domains: dict[str, Domain]
    settings: dict = field(default_factory=dict)  # settings that the splits and weights were made with

    def domain(self, name: str) -> Domain:
        if name not in self.domains:
            raise TeachbackError(f"suite {self.name!r} has no domain {name!r}; it has: {', '.join(self.domains)}")
        return self.domains[name]

    def heads(self) -> dict[str, Domain]:
        """Head name -> a domain that uses it; all domains of a head share labels and task."""
        return {domain.head: domain for domain in self.domains.values()}


def clean_text(text: str) -> str:
    """Normalise a text to one TSV field: every run of whitespace and control characters becomes one blank."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def join_choices(choices: list[str]) -> str:
    """Join choices into one text; raises ValueError if one is empty or contains the separator."""
    for choice in choices:
        if not choice or CHOICE_SEPARATOR.strip() in choice:
            raise ValueError(f"choice {choice!r} is empty or contains {CHOICE_SEPARATOR.strip()!r}")
    return CHOICE_SEPARATOR.join(choices)


def split_choices(text: str) -> list[str]:
    """Inverse of `join_choices`."""
    return text.split(CHOICE_SEPARATOR)


def write_rows(path: Path, rows: Iterable[Row], columns: tuple[str, ...] = COLUMNS) -> None:
    """Write rows as TSV atomically, consuming ``rows`` lazily. ``weight`` is written with full precision."""
    with replacing(path) as file:
        file.write(("\t".join(columns) + "\n").encode("utf-8"))
        for row in rows:
            file.write(("\t".join([_field(row, column) for column in columns]) + "\n").encode("utf-8"))


def _field(row: Row, column: str) -> str:
    value = getattr(row, column)
    text = repr(float(value)) if column == "weight" else value
    if FIELD_END.search(text):
        raise ValueError(f"row {row.guid!r}: column {column} contains a tab or a line break")
    return text


def read_rows(path: Path) -> list[Row]:
    """Read a TSV from `write_rows`; raises TeachbackError with file and line if it is malformed."""
    path = Path(path)
    if not path.is_file():
        raise TeachbackError(f"{path} does not exist; run 2_process_data.sh first")
    lines = read_lines(path, AGAIN)
    columns = tuple(next(lines, [""]))
    if columns not in (COLUMNS, TRAIN_COLUMNS):
        raise TeachbackError(f"{path} line 1: columns are {columns}, expected {COLUMNS}{AGAIN}")
    return [
        Row(guid, text_a, text_b, label, domain, *(_weight(path, number, text) for text in weight))
        for number, (guid, text_a, text_b, label, domain, *weight) in enumerate(lines, start=2)
    ]


def _weight(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST_WEIGHT:
        raise TeachbackError(f"{path} line {number}: weight {text!r} is not a number from -1 to 1{AGAIN}")
    return value


def write_suite(folder: Path, suite: Suite) -> None:
    """Write suite.json."""
    write_atomically(Path(folder) / "suite.json", json.dumps(asdict(suite), indent=2, ensure_ascii=False) + "\n")


def read_suite(folder: Path) -> Suite:
    """Read suite.json of a processed suite."""
    path = Path(folder) / "suite.json"
    if not path.is_file():
        raise TeachbackError(f"{path} does not exist; run 2_process_data.sh first")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for part, kind in (("name", str), ("domains", dict), ("settings", dict)):
            if not isinstance(content[part], kind):
                raise TypeError(f"{part} is {content[part]!r}")
        domains = {name: _domain(name, values) for name, values in content["domains"].items()}
        _check_heads(domains)
        return Suite(content["name"], domains, content["settings"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TeachbackError(f"{path} is not a suite description ({error!r}); run 2_process_data.sh again") from error


def _domain(name: str, values: dict) -> Domain:
    """Build a domain from its fields in suite.json; raises ValueError for an invalid type or value."""
    values = {"marks": [], **values}
    for field_name in ("labels", "marks"):
        if not isinstance(values[field_name], list):
            raise TypeError(f"domain {name!r}: {field_name} is not a list")
    domain = Domain(**{**values, "labels": tuple(values["labels"]), "marks": tuple(values["marks"])})
    for field_name, right in _checks(name, domain):
        if not right:
            raise ValueError(f"domain {name!r}: {field_name} is {getattr(domain, field_name)!r}")
    return domain


def _checks(name: str, domain: Domain) -> Iterator[tuple[str, bool]]:
    """Yield (field, whether its value is valid)."""
    yield "name", name == domain.name != ""
    for field_name in ("head", "metric", "submission"):
        yield field_name, isinstance(getattr(domain, field_name), str)
    yield "kind", domain.kind in KINDS
    yield "task", domain.task in TASKS
    yield "truncate", domain.truncate in TRUNCATED
    yield "marks", all(isinstance(mark, str) for mark in domain.marks)
    different = all(isinstance(label, str) for label in domain.labels) and len(set(domain.labels)) == len(domain.labels)
    yield "labels", different and (not domain.labels if domain.task == "regression" else len(domain.labels) > 1)
    counts = domain.rows.items() if isinstance(domain.rows, dict) else [("", None)]
    yield "rows", all(type(count) is int and count >= 0 for _, count in counts)


def _check_heads(domains: dict[str, Domain]) -> None:
    """Check that the domains of each head share labels and task."""
    first: dict[str, Domain] = {}
    for domain in domains.values():
        other = first.setdefault(domain.head, domain)
        if (domain.labels, domain.task) != (other.labels, other.task):
            raise ValueError(f"domains {other.name!r} and {domain.name!r} share a head, but not labels and task")


def with_row_counts(suite: Suite, rows: dict[str, list[Row]]) -> Suite:
    """Fill in the number of rows of each domain in each split."""
    counts = {name: dict.fromkeys(rows, 0) for name in suite.domains}
    for split, split_rows in rows.items():
        for row in split_rows:
            counts[row.domain][split] += 1
    return replace(suite, domains={name: replace(d, rows=counts[name]) for name, d in suite.domains.items()})


def lost_rows(suite: Suite, split: str, actual: int) -> str:
    """Difference between a split's row count and suite.json, as text; "" if equal or not recorded."""
    counts = [domain.rows[split] for domain in suite.domains.values() if split in domain.rows]
    written = sum(counts)
    return f"has {actual:,} rows, but suite.json records {written:,}" if counts and actual != written else ""


def output_names(domain: Domain) -> tuple[str, ...]:
    """Names of a head's outputs in order. A head for choices has one output, applied to each choice."""
    if domain.task == "regression":
        return ("LABEL_0",)  # Hugging Face's default
    return ("plausible",) if domain.kind == "choices" else domain.labels


def label_options(domain: Domain) -> dict:
    """All config fields that describe a head's outputs, to replace those of another head."""
    names = dict(enumerate(output_names(domain)))
    kind = "regression" if domain.task == "regression" else None
    label2id = {label: i for i, label in names.items()}
    return {"num_labels": len(names), "id2label": names, "label2id": label2id, "problem_type": kind}


def class_count(domain: Domain) -> int:
    """Number of logits per row: one per class or choice, one for a regression."""
    return len(domain.labels) if domain.kind == "choices" else len(output_names(domain))


def hash_rows(rows: list[Row]) -> str:
    """SHA-256 of rows in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(astuple(row)).encode())
    return digest.hexdigest()
