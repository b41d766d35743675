"""Paired tests between the rows of a table, on the same test rows and seeds."""

from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from teachback.core.errors import TeachbackError
from teachback.inference.bootstrap import Paired, holm, paired_bootstrap
from teachback.inference.metrics import GROUPED, as_numbers, group_of
from teachback.reports.published import Column
from teachback.reports.recipes import TableRow

if TYPE_CHECKING:
    from teachback.reports.paper_table import PaperTable


@dataclass(frozen=True)
class Comparison:
    """Comparison of a row with ``other`` on the same test rows and seeds: mean difference in points, bootstrap p.

    ``adjusted``: p adjusted by Holm's method for all tests of the table.
    """

    other: TableRow
    difference: float
    p: float
    seeds: int
    adjusted: float = 1.0


@dataclass(frozen=True)
class Answers:
    """Gold and predicted label indices of a checkpoint on a domain's labelled test rows."""

    guids: tuple[str, ...]
    gold: np.ndarray
    predicted: np.ndarray


class TableTests:
    """All tests of a table, which compare each row with the reference row of its recipe."""

    def __init__(self, table: "PaperTable"):
        self.table = table
        self._answers: dict[tuple[str, str, int], Answers] = {}

    def _answers_of(self, row: TableRow, domain: str, seed: int) -> Answers:
        key = row.name, domain, seed
        if key not in self._answers:
            rows, predicted = self.table.predictions(row, domain, seed)
            about = self.table.suite.domain(domain)
            numbers = as_numbers(about, [one.label for one in rows]), as_numbers(about, predicted)
            self._answers[key] = Answers(tuple(one.guid for one in rows), *numbers)
        return self._answers[key]

    @cached_property
    def comparisons(self) -> dict[tuple[str, Column], Comparison]:
        """All comparisons. Two rows that are compared with each other count as one test."""
        found = {
            (row.name, column): one for row in self.table.rows for column in self.table.columns if (one := self._compare(row, column))
        }
        tests = {(frozenset((name, one.other.name)), column): one.p for (name, column), one in found.items()}
        adjusted = dict(zip(tests, holm(list(tests.values()))))
        return {
            (name, column): replace(one, adjusted=adjusted[frozenset((name, one.other.name)), column])
            for (name, column), one in found.items()
        }

    @property
    def count(self) -> int:
        """Number of tests."""
        return len({(frozenset((name, one.other.name)), column) for (name, column), one in self.comparisons.items()})

    def _compare(self, row: TableRow, column: Column) -> Comparison | None:
        other = self.table.plan.opponent(row)
        if other is None or (other.name, column) not in self.table.entries:
            return None
        ours, theirs = self.table.entry(row, column), self.table.entry(other, column)
        seeds = [seed for seed in ours.scores if seed in theirs.scores]
        if not seeds:
            return None
        difference = 100 * fmean(ours.scores[seed] - theirs.scores[seed] for seed in seeds)
        tested = [column] if not column.is_average else [c for c in self.table.columns if not c.is_average]
        parts = [self._paired(row, other, column, seeds) for column in tested]
        if not all(len(part.gold) for part in parts):  # the predictions are gone
            return None
        return Comparison(other, difference, paired_bootstrap(parts), len(seeds))

    def _paired(self, row: TableRow, other: TableRow, column: Column, seeds: list[int]) -> Paired:
        """Predictions of both rows in a column under all seeds."""
        pairs = [self._pair(row, other, column.domain, seed) for seed in seeds]
        first = pairs[0][0]
        if any(ours.guids != first.guids for ours, _ in pairs):
            raise self._different_rows(row, other, column.domain, seeds)
        ours, theirs = (np.stack([one.predicted for one in side]) for side in zip(*pairs))
        grouped = GROUPED & set(self.table.suite.domain(column.domain).metric.split("+"))
        groups = np.array([group_of(guid) for guid in first.guids]) if grouped else None
        return Paired(column.metric, first.gold, ours, theirs, groups)

    def _pair(self, row: TableRow, other: TableRow, domain: str, seed: int) -> tuple[Answers, Answers]:
        """Predictions of both rows, which must be for the same test rows."""
        ours, theirs = self._answers_of(row, domain, seed), self._answers_of(other, domain, seed)
        if ours.guids != theirs.guids:
            raise self._different_rows(row, other, domain, [seed])
        return ours, theirs

    @staticmethod
    def _different_rows(row: TableRow, other: TableRow, domain: str, seeds: list[int]) -> TeachbackError:
        return TeachbackError(
            f"{row.name} and {other.name} were scored on different test rows of {domain} (seed {', '.join(map(str, seeds))}); "
            "run the cells that are listed as changed by --dry_run --list_cells again"
        )
