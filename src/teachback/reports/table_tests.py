"""Paired tests between the rows of a table, on the same test rows and seeds."""

from dataclasses import dataclass, replace
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

Answers = tuple[list[str], np.ndarray, np.ndarray]  # guids, gold and predicted label indices of the labelled test rows


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


class TableTests:
    """All tests of a table, which compare each row with the reference row of its recipe.

    Two rows that are compared with each other ``count`` as one test.
    """

    def __init__(self, table: "PaperTable"):
        self.table = table
        self._answers: dict[tuple[str, str, int], Answers] = {}
        places = [(row, column) for row in table.rows for column in table.columns]
        found = {(row.name, column): one for row, column in places if (one := self._compare(row, column))}
        test_of = {key: (frozenset((key[0], one.other.name)), key[1]) for key, one in found.items()}
        tests = {test_of[key]: one.p for key, one in found.items()}
        adjusted = dict(zip(tests, holm(list(tests.values()))))
        self.comparisons = {key: replace(one, adjusted=adjusted[test_of[key]]) for key, one in found.items()}
        self.count = len(tests)

    def _compare(self, row: TableRow, column: Column) -> Comparison | None:
        other = self.table.plan.opponent(row)
        if other is None or (other.name, column) not in self.table.entries:
            return None
        ours, theirs = self.table.entry(row, column), self.table.entry(other, column)
        seeds = [seed for seed in ours.scores if seed in theirs.scores]
        if not seeds:
            return None
        difference = 100 * fmean(ours.scores[seed] - theirs.scores[seed] for seed in seeds)
        parts = [self._paired(row, other, one, seeds) for one in (self.table.domains if column.is_average else [column])]
        if not all(len(part.gold) for part in parts):  # the predictions are gone
            return None
        return Comparison(other, difference, paired_bootstrap(parts), len(seeds))

    def _paired(self, row: TableRow, other: TableRow, column: Column, seeds: list[int]) -> Paired:
        """Predictions of both rows in a column under all seeds, which must be for the same test rows."""
        ours, theirs = ([self._answers_of(one, column.domain, seed) for seed in seeds] for one in (row, other))
        guids, gold, _ = ours[0]
        apart = [[seed] for seed, mine, its in zip(seeds, ours, theirs) if mine[0] != its[0]]
        if apart or any(mine[0] != guids for mine in ours):
            raise TeachbackError(
                f"{row.name} and {other.name} were scored on different test rows of {column.domain} (seed "
                f"{', '.join(map(str, apart[0] if apart else seeds))}); run the cells that are listed as changed by "
                "--dry_run --list_cells again"
            )
        grouped = GROUPED & set(self.table.suite.domain(column.domain).metric.split("+"))
        groups = np.array([group_of(guid) for guid in guids]) if grouped else None
        own, its = (np.stack([predicted for *_, predicted in side]) for side in (ours, theirs))
        return Paired(column.metric, gold, own, its, groups)

    def _answers_of(self, row: TableRow, domain: str, seed: int) -> Answers:
        key = row.name, domain, seed
        if key not in self._answers:
            rows, predicted = self.table.predictions(row, domain, seed)
            about = self.table.suite.domain(domain)
            numbers = as_numbers(about, [one.label for one in rows]), as_numbers(about, predicted)
            self._answers[key] = [one.guid for one in rows], *numbers
        return self._answers[key]
