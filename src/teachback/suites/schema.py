"""Suites, domains and rows, and the TSV and JSON files that hold them.

A suite is a folder with train.tsv, quiz.tsv, dev.tsv, test.tsv and suite.json, and with hidden.tsv where the official
test is unlabelled.
TSV files are UTF-8, have one header line, one row a line and no quoting.
"""

import json
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from teachback.errors import TeachbackError
from teachback.files import replacing, write_atomically

SPLITS = ("train", "quiz", "dev", "test")
HIDDEN = "hidden"  # the official unlabelled test rows, in hidden.tsv where a suite has some
CHOICE_SEPARATOR = " ||| "
COLUMNS = ("guid", "text_a", "text_b", "label", "domain")
TRAIN_COLUMNS = (*COLUMNS, "weight")
FIELD_END = re.compile(r"[\t\n\r]")


@dataclass(frozen=True, slots=True)
class Row:
    """One example. ``label`` is a label name (regression: the number as text), "" where it is hidden.

    A million of them are held at once: they have slots, and those of one label or domain share its name.
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
    """One slice of data: its head, label names in order, metric, kind and task, rows by split, and its encoding.

    A row of kind ``choices`` is a question: ``text_b`` holds one choice for each label, joined by `join_choices`.
    """

    name: str
    head: str
    labels: tuple[str, ...]
    metric: str = "accuracy"
    kind: str = "single"  # "single" text, "pair" of texts, or "choices"
    task: str = "classification"  # or "regression"
    rows: dict[str, int] = field(default_factory=dict)
    truncate: str = "longest"  # what is cut of a pair that is too long: the longer text first, or only "text_a"
    marks: tuple[str, ...] = ()  # what stands, between blanks, before and after each marked span of the texts
    submission: str = ""  # format of the leaderboard's file: "", "superglue" or "glue"

    @property
    def trainable(self) -> bool:
        """Whether it has train rows of its own; a domain without any is for evaluation only."""
        return not self.rows or self.rows.get("train", 0) > 0


@dataclass(frozen=True)
class Suite:
    """A named set of domains, in a fixed order."""

    name: str
    domains: dict[str, Domain]
    settings: dict = field(default_factory=dict)  # how the splits and the weights were made

    def domain(self, name: str) -> Domain:
        if name not in self.domains:
            raise TeachbackError(f"suite {self.name!r} has no domain {name!r}; it has: {', '.join(self.domains)}")
        return self.domains[name]

    def heads(self) -> dict[str, Domain]:
        """Head name -> a domain that uses it (all domains of a head share labels and task)."""
        return {domain.head: domain for domain in self.domains.values()}


def clean_text(text: str) -> str:
    """A text as one TSV field: every run of tabs, line breaks, other control characters and blanks becomes one blank."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def join_choices(choices: list[str]) -> str:
    """Choices as one text; a choice that is empty or holds the separator is a ValueError."""
    for choice in choices:
        if not choice or CHOICE_SEPARATOR.strip() in choice:
            raise ValueError(f"choice {choice!r} is empty or holds {CHOICE_SEPARATOR.strip()!r}")
    return CHOICE_SEPARATOR.join(choices)


def split_choices(text: str) -> list[str]:
    """The choices that `join_choices` joined."""
    return text.split(CHOICE_SEPARATOR)


def write_rows(path: Path, rows: Iterable[Row], columns: tuple[str, ...] = COLUMNS) -> None:
    """Write rows as TSV one by one, so that a generator may make them; atomically. ``weight`` keeps every digit."""
    with replacing(path) as file:
        file.write(("\t".join(columns) + "\n").encode("utf-8"))
        for row in rows:
            file.write(("\t".join([_field(row, column) for column in columns]) + "\n").encode("utf-8"))


def _field(row: Row, column: str) -> str:
    value = getattr(row, column)
    text = repr(float(value)) if column == "weight" else value
    if FIELD_END.search(text):
        raise ValueError(f"row {row.guid!r}: column {column} holds a tab or a line break")
    return text


def read_rows(path: Path) -> list[Row]:
    """Read a TSV that `write_rows` wrote; anything malformed is an error with file and line."""
    path = Path(path)
    if not path.is_file():
        raise TeachbackError(f"{path} does not exist; run 2_process_data.sh first")
    with open(path, encoding="utf-8", newline="\n") as file:
        columns = tuple(file.readline().rstrip("\n").split("\t"))
        if columns not in (COLUMNS, TRAIN_COLUMNS):
            raise TeachbackError(
                f"{path} line 1: columns are {columns}, expected {COLUMNS}; run 2_process_data.sh again"
            )
        return [_parse(path, number, line, columns) for number, line in enumerate(file, start=2)]


def _parse(path: Path, number: int, line: str, columns: tuple[str, ...]) -> Row:
    fields = line.removesuffix("\n").split("\t")
    if len(fields) != len(columns):
        raise TeachbackError(f"{path} line {number}: {len(fields)} columns, expected {len(columns)}")
    texts, weight = fields[: len(COLUMNS)], fields[len(COLUMNS) :]
    return Row(*texts, *[_weight(path, number, text) for text in weight])


def _weight(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TeachbackError(
            f"{path} line {number}: weight {text!r} is not a finite number; run 2_process_data.sh again"
        )
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
        domains = {name: _domain(values) for name, values in content["domains"].items()}
        return Suite(content["name"], domains, content["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise TeachbackError(f"{path} is not a suite description ({error!r}); run 2_process_data.sh again") from error


def _domain(values: dict) -> Domain:
    return Domain(**{**values, "labels": tuple(values["labels"]), "marks": tuple(values.get("marks", ()))})


def with_row_counts(suite: Suite, rows: dict[str, list[Row]]) -> Suite:
    """The suite with the number of rows of each domain in each split filled in."""
    counts = {name: dict.fromkeys(rows, 0) for name in suite.domains}
    for split, split_rows in rows.items():
        for row in split_rows:
            counts[row.domain][split] += 1
    return replace(suite, domains={name: replace(d, rows=counts[name]) for name, d in suite.domains.items()})
