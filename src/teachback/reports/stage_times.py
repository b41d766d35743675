"""Durations of stages in other runs of the same suite, for estimating a table's hours before its first cell is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from teachback.core.errors import TeachbackError
from teachback.core.published import read_record
from teachback.reports.cells import Cell
from teachback.reports.recipes import SCRIPTS

# What a script makes, by the names that folders have in stage.json; "teacher" stands for a teacher of any kind.
MADE_BY = {
    SCRIPTS["3"]: ("teacher",),
    SCRIPTS["4"]: ("student_first",),
    SCRIPTS["5"]: ("student_second",),
    SCRIPTS["6"]: ("meta_teacher", "curriculum"),
}
FINETUNED = "student_finetune"


@dataclass(frozen=True)
class StageTimes:
    """Mean seconds of finished stages by kind, and the number of finished folders behind them."""

    seconds: dict[str, float]
    folders: int

    @classmethod
    def below(cls, outputs: Path, suite: str) -> "StageTimes":
        found: dict[str, list[float]] = {}
        for path in sorted(Path(outputs).glob(f"**/{suite}/seed*/**/stage.json")):
            try:
                record = read_record(path.parent)
                kind, seconds = str(record["stage"]), float(record["wall_time_seconds"])
            except (TeachbackError, KeyError, ValueError, TypeError, OSError):
                continue  # a damaged folder tells nothing
            found.setdefault("teacher" if kind.startswith("teacher-") else kind, []).append(seconds)
        return cls({kind: fmean(times) for kind, times in found.items()}, sum(map(len, found.values())))

    def expected(self, cells: Sequence[Cell], suite_domains: int) -> float | None:
        """Expected seconds of the cells' training; None if they train nothing, or a stage that no run has finished.

        Args:
            suite_domains: number of students, or single teachers, that a cell of ``DOMAIN=all`` makes.
        """
        needed = [kind for cell in cells for kind in _made(cell) for _ in range(_copies(cell, kind, suite_domains))]
        if not needed or not set(needed) <= self.seconds.keys():
            return None
        return sum(self.seconds[kind] for kind in needed)


def _made(cell: Cell) -> list[str]:
    kinds = [kind for script in cell.scripts for kind in MADE_BY.get(script, ())]
    finetunes = cell.variables.get("METHOD") == "finetune"
    return [FINETUNED if kind == "student_second" and finetunes else kind for kind in kinds]


def _copies(cell: Cell, kind: str, suite_domains: int) -> int:
    several = cell.variables.get("DOMAIN") == "all" and (kind != "teacher" or cell.variables.get("TEACHER") == "single")
    return suite_domains if several else 1
