"""Soft labels from a file in place of a teacher's predictions: a column of probabilities for each label, by guid or text."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems, is_number, listed
from teachback.data.schema import Domain, Row, clean_text
from teachback.data.user_files import DELIMITERS, Table, open_table

TOLERANCE = 1e-3  # of the sum of a row's probabilities, and of two answers to the same row
VALUE = "value"  # column of the answers to a regression
REMEDY = "Correct them, or leave those rows out; the student then learns them from their labels alone."


@dataclass(frozen=True)
class Layout:
    """Columns of a file: those that identify a row, and one per label."""

    key: tuple[str, ...]
    answers: dict[str, str]
    regression: bool

    def key_of(self, values: dict[str, str]) -> tuple[str, ...]:
        return tuple(clean_text(values.get(name, "")) for name in self.key)


@dataclass
class SoftLabels:
    """Answers [N, C] to N rows, NaN for rows without one, and the number of answers to other rows."""

    values: np.ndarray
    elsewhere: int = 0
    places: dict[int, int] = field(default_factory=dict)  # row index -> number of its row in the file

    @property
    def known(self) -> np.ndarray:
        """Mask of the answered rows [N]."""
        return ~np.isnan(self.values[:, 0])


def layout_of(table: Table, domain: Domain) -> Layout:
    """Find the columns of ``domain``'s answers.

    Raises:
        TeachbackError: a label has no column, or no column identifies the row of an answer.
    """
    regression = domain.task == "regression"
    names = (VALUE,) if regression else domain.labels
    answers = {label: next((name for name in (f"p({label})", label) if name in table.columns), "") for label in names}
    if missing := [label for label, name in answers.items() if not name]:
        raise TeachbackError(
            f"{table.path}: there is no column for {listed(missing)}; each of {listed(names)} needs a column with that name or as in "
            f"'p({names[0]})'; available: {listed(table.columns)}{_of_csv(table)}"
        )
    left = [name for name in table.columns if name not in answers.values()]
    for key in (("guid",), ("text_a", "text_b"), ("text_a",), ("text",)):
        if set(key) <= set(left) and (domain.kind == "single" or len(key) > 1 or key == ("guid",)):
            return Layout(key if domain.kind != "single" else key[:1], answers, regression)
    texts = "text or text_a" if domain.kind == "single" else "text_a and text_b"
    raise TeachbackError(f"{table.path}: a column guid, or {texts}, is needed to match answers with rows; the file has: {listed(table.columns)}")


def _of_csv(table: Table) -> str:
    """Advice on a TSV file that seems to be CSV; "" if it does not."""
    sign = next((sign for sign in DELIMITERS if len(table.columns) == 1 and sign in table.columns[0]), "")
    return f" (one column with {sign!r} in its name; is it CSV? Then call it .csv)" if sign else ""


def open_soft_labels(path: str, domain: Domain) -> tuple[Table, Layout]:
    """Open a file of soft labels and find its columns."""
    if not Path(path).is_file():
        raise TeachbackError(f"SOFT_LABELS={path}: there is no such file")
    table = open_table(Path(path))
    return table, layout_of(table, domain)


def read_soft_labels(path: str, rows: list[Row], domain: Domain) -> SoftLabels:
    """Read the answers to ``rows``; answers to other rows are only counted, so that a file may serve several domains.

    Raises:
        TeachbackError: malformed rows, or answers that are not probabilities of sum 1 (all are listed), or no answer to any row.
    """
    table, layout = open_soft_labels(path, domain)
    wanted: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        wanted.setdefault(layout.key_of({"text": row.text_a} | {n: getattr(row, n) for n in ("guid", "text_a", "text_b")}), []).append(index)
    result, problems = SoftLabels(np.full((len(rows), len(layout.answers)), np.nan)), Problems(remedy=REMEDY)
    for number, values, reason in table.rows:
        indices = [] if values is None else wanted.get(layout.key_of(values), [])
        answer = [] if values is None or not indices else [values.get(name, "") for name in layout.answers.values()]
        if reason or (any(answer) and (reason := _misfit(answer, layout) or _twice(answer, indices, result, table))):
            problems.add(table.path, number, reason, table.unit)
        elif any(answer):
            result.values[indices] = list(map(float, answer))
            result.places |= dict.fromkeys(indices, number)
        result.elsewhere += values is not None and not indices
    problems.report(skip=False)
    if not result.known.any():
        raise TeachbackError(
            f"{path} has no answer to any of the {len(rows):,} rows for {domain.name}; rows are matched by {' and '.join(layout.key)}, such as "
            f"{listed(dict.fromkeys(' '.join(key)[:60] for key in list(wanted)[:2]))}"
        )
    return result


def _misfit(answer: list[str], layout: Layout) -> str:
    """Reason why the texts of an answer are not probabilities of sum 1 or, for a regression, not a number; "" if they are."""
    for name, text in zip(layout.answers.values(), answer):
        if not is_number(text) or not (layout.regression or 0 <= float(text) <= 1):
            what = "a number" if layout.regression else "a probability from 0 to 1"
            return f"column {name!r}: {text!r} is not {what}" if text else f"column {name!r} is empty, but others of the row are not"
    total = sum(map(float, answer))
    if len(answer) > 1 and abs(total - 1) > TOLERANCE:
        return f"the columns {listed(map(repr, layout.answers.values()))} sum to {total:.6g}, not to 1 (within {TOLERANCE:g})"
    return ""


def _twice(answer: list[str], indices: list[int], result: SoftLabels, table: Table) -> str:
    """Reason why a second answer to the same row is refused; "" if it is the first, or the same."""
    before = result.values[indices[0]]
    if indices[0] not in result.places or np.allclose(before, list(map(float, answer)), rtol=0, atol=TOLERANCE):
        return ""
    return f"a different answer to the same row is in {table.unit} {result.places[indices[0]]}"
