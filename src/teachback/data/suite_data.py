"""A processed suite in memory, and its rows as encoded datasets with the columns needed by the losses."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from teachback.core.errors import TeachbackError
from teachback.core.published import require_whole
from teachback.data.bad_rows import label_problem, listed
from teachback.data.encoding import EncodedRows
from teachback.data.raw_lines import Line, tsv_lines
from teachback.data.schema import HIDDEN, Domain, Row, Suite, clean_text, lost_rows, read_rows, read_suite
from teachback.data.token_store import encode_once
from teachback.data.user_files import WITH_COLUMNS, open_table

FROM = "TEACHBACK_DOMAIN_FROM"  # set by scripts/common.sh to the config file that defined DOMAIN


@dataclass
class SuiteData:
    """A suite restricted to some domains, with its rows by split."""

    suite: Suite
    folder: Path
    selected: list[str]  # domain names, in the suite's order

    @classmethod
    def read(cls, data_dir: str, suite: str, domains: str = "") -> "SuiteData":
        folder = Path(data_dir) / suite
        require_whole(folder, "suite.json")
        description = read_suite(folder)
        names = [description.domain(name).name for name in domains.replace(",", " ").split()]
        return cls(description, folder, [name for name in description.domains if not names or name in names])

    @property
    def trainable(self) -> list[str]:
        """The selected domains with train rows; the others are for evaluation only."""
        return [name for name in self.selected if self.suite.domain(name).trainable]

    def rows(self, split: str, domains: list[str] | None = None) -> list[Row]:
        """Rows of a split, labelled or not, in the given (default: all selected) domains.

        Empty for the split "hidden" of a suite without hidden tests.
        """
        path = self.folder / f"{split}.tsv"
        if split == HIDDEN and not path.is_file():
            return []
        wanted = set(domains or self.selected)
        return [row for row in self._read(path) if row.domain in wanted]

    def _read(self, path: Path) -> list[Row]:
        """Read all rows of a file, and check their domains, labels and number against suite.json."""
        require_whole(self.folder, path.name)
        rows, known = read_rows(path), self.suite.domains
        if problem := lost_rows(self.suite, path.stem, len(rows)):
            made = self.folder / "stage.json"  # written by an earlier version without hashes: stage 2 would not notice the change
            raise TeachbackError(f"{path} {problem}; remove {made} and run 2_process_data.sh again")
        wrong = {pair for pair in {(row.domain, row.label) for row in rows} if _reason(*pair, known)}
        for number, row in enumerate(rows if wrong else [], start=2):
            if (row.domain, row.label) in wrong:
                raise TeachbackError(
                    f"{path} line {number}: {_reason(row.domain, row.label, known)}; run 2_process_data.sh again"
                )
        return rows

    def target(self, name: str) -> Domain:
        """The named domain; by default the first selected one with train rows."""
        trainable = self.trainable
        name = name or (trainable or self.selected)[0]
        if name not in self.selected:
            raise TeachbackError(
                f"DOMAIN={name}{os.environ.get(FROM, '')} is not among the domains of this run: "
                f"{', '.join(self.selected)}; name one of them with DOMAIN, or add it to DOMAINS"
            )
        if name not in trainable:
            raise TeachbackError(
                f"DOMAIN={name} has no train rows and is only scored; "
                f"domains of this run with train rows: {', '.join(trainable) or 'none'}"
            )
        return self.suite.domain(name)

    def targets(self, name: str) -> list[Domain]:
        """The named domain; for ``all`` every selected one with train rows."""
        if name == "all" and self.trainable:
            return [self.suite.domain(n) for n in self.trainable]
        return [self.target("" if name == "all" else name)]

    def all_train_rows(self) -> list[Row]:
        """Train rows of every domain, selected or not."""
        return self._read(self.folder / "train.tsv")


def texts_of(rows: list[Row]) -> list[str]:
    """All texts of the rows."""
    return [text for row in rows for text in (row.text_a, row.text_b) if text]


def _reason(domain: str, label: str, known: dict[str, Domain]) -> str:
    """Reason why a row's domain or label does not belong to the suite; "" if both do. A label may be hidden."""
    if domain not in known:
        return f"unknown domain {domain!r}; known: {listed(known)}"
    return label_problem(label, known[domain]) if label else ""


def labelled(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.label]


def kept_numbers(rows: list[Row], domain: Domain, fraction: float, seed: int) -> list[int]:
    """Indices of the rows after subsampling ``domain`` to a fraction of each label, at least one row, ascending.

    Subsamples are nested: a smaller fraction is a subset of a larger one. A regression counts as one label.
    """
    if fraction == 1:
        return list(range(len(rows)))
    by_label: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.domain == domain.name:
            by_label.setdefault("" if domain.task == "regression" else row.label, []).append(number)
    dropped: set[int] = set()
    for label, numbers in by_label.items():
        Random(f"{seed} {domain.name} {label}").shuffle(numbers)
        dropped.update(numbers[max(1, round(fraction * len(numbers))) :])
    return [number for number in range(len(rows)) if number not in dropped]


def label_ids(rows: list[Row], suite: Suite) -> torch.Tensor:
    """Class indices in the order of each head's labels [N], -1 if hidden.

    Floats if any domain of the suite is a regression, whose hidden values are NaN.
    """
    numbers = {name: {label: i for i, label in enumerate(d.labels)} for name, d in suite.domains.items()}
    regression = {name for name, d in suite.domains.items() if d.task == "regression"}
    values = []
    for row in rows:
        if row.domain in regression:
            values.append(float(row.label) if row.label else math.nan)
        else:
            values.append(numbers[row.domain][row.label] if row.label else -1)
    return torch.tensor(values, dtype=torch.float if regression else torch.long)


def encode_rows(rows: list[Row], data: SuiteData, domains: list[str], tokenizer, max_length: int) -> EncodedRows:
    """Encode rows with columns ``label``, ``domain`` (index in ``domains``) and ``weight``.

    Token ids are cached in the suite's folder ``tokens``.
    """
    if not rows:
        raise TeachbackError(f"{data.folder}: there are no rows to work on; check DOMAINS, DOMAIN and stage 2's output")
    unseen = sorted({row.domain for row in rows} - set(domains))
    if unseen:
        raise TeachbackError(
            f"the teacher was trained on {', '.join(domains)}, not on {', '.join(unseen)}; train a teacher on them, or set TRANSFER_SET=domain"
        )
    encoded = encode_once(data.folder, rows, tokenizer, max_length, data.suite.domains)
    encoded.guids = [row.guid for row in rows]
    encoded.columns = {
        "label": label_ids(rows, data.suite),
        "domain": torch.tensor([domains.index(row.domain) for row in rows]),
        "weight": torch.tensor([row.weight for row in rows], dtype=torch.float),
    }
    return encoded


def read_unlabelled(path: str, domain: Domain) -> list[Row]:
    """Read unlabelled rows of weight 1 from a text file, one per line, or from a file with columns; no rows if ``path`` is "".

    A tab separates the texts of a pair, or a question from its choices, which are joined by `join_choices`. CSV, JSON Lines and
    Parquet have a column text_a or text, and for pairs and questions also text_b.
    """
    if not path:
        return []
    if not Path(path).is_file():
        raise TeachbackError(f"UNLABELLED={path}: there is no such file")
    columns = ("text_a",) if domain.kind == "single" else ("text_a", "text_b")
    form = "one text, no tab" if domain.kind == "single" else "two texts and one tab"
    rows, lines, unit = [], tsv_lines(Path(path), columns), "line"
    if Path(path).suffix.lower() in WITH_COLUMNS:
        lines, unit = _text_columns(Path(path), columns)
        form = " and ".join(columns)
    for number, values, reason in lines:
        texts = list((values or {}).values())
        if not texts or not texts[0].strip():
            raise TeachbackError(f"{path} {unit} {number}: expected {form}; found {reason or 'an empty text'}")
        rows.append(Row(f"unlabelled-{number}", texts[0], "".join(texts[1:]), "", domain.name))
    return rows


def _text_columns(path: Path, columns: tuple[str, ...]) -> tuple[Iterator[Line], str]:
    """Columns of texts of a file, and what its row numbers count; the first may also be called text."""
    table = open_table(path, only=("text", *columns))
    places = ["text" if name == "text_a" and name not in table.columns else name for name in columns]
    if missing := [name for name, place in zip(columns, places) if place not in table.columns]:
        raise TeachbackError(f"UNLABELLED={path}: there is no column {' or '.join(missing)}; available: {listed(table.columns)}")
    lines = (
        (number, values and {name: clean_text(values.get(place, "")) for name, place in zip(columns, places)}, reason)
        for number, values, reason in table.rows
    )
    return lines, table.unit
