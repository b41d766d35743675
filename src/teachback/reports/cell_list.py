"""Listing of a table's cells, by row or one by one, with the hours that they took and are expected to take."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from teachback.core.errors import TeachbackError
from teachback.core.markdown import padded_table
from teachback.core.published import read_record
from teachback.reports.cells import CHANGED, DONE, TODO, Cell, done_mark
from teachback.reports.recipes import SCRIPTS
from teachback.reports.run_cells import RUNNING, Schedule, expected_seconds, runs_elsewhere

# Stages that a script makes, by their names in stage.json; "teacher" stands for a teacher of any kind.
MADE_BY = {
    SCRIPTS["3"]: ("teacher",),
    SCRIPTS["4"]: ("student_first",),
    SCRIPTS["5"]: ("student_second",),
    SCRIPTS["6"]: ("meta_teacher", "curriculum"),
}


@dataclass(frozen=True)
class StageTimes:
    """Mean seconds of finished stages in other runs of a suite, by kind, and the number of finished folders behind them."""

    seconds: dict[str, float]
    folders: int

    @classmethod
    def below(cls, outputs: Path, suite: str) -> "StageTimes":
        found: dict[str, list[float]] = defaultdict(list)
        for path in sorted(Path(outputs).glob(f"**/{suite}/seed*/**/stage.json")):
            try:
                record = read_record(path.parent)
                kind, seconds = str(record["stage"]), float(record["wall_time_seconds"])
            except (TeachbackError, KeyError, ValueError, TypeError, OSError):
                continue  # skip damaged folders
            found["teacher" if kind.startswith("teacher-") else kind].append(seconds)
        return cls({kind: fmean(times) for kind, times in found.items()}, sum(map(len, found.values())))

    def expected(self, cells: Sequence[Cell], suite_domains: int) -> float | None:
        """Expected seconds of the cells' training; None if they train nothing, or a stage that no run has finished.

        Args:
            suite_domains: number of students, or single teachers, that a cell of ``DOMAIN=all`` makes.
        """
        needed = Counter[str]()
        for cell in cells:
            for kind in (kind for script in cell.scripts for kind in MADE_BY.get(script, ())):
                single = kind != "teacher" or cell.variables.get("TEACHER") == "single"
                finetuned = kind == "student_second" and cell.variables.get("METHOD") == "finetune"
                several = cell.variables.get("DOMAIN") == "all" and single
                needed["student_finetune" if finetuned else kind] += suite_domains if several else 1
        if not needed or not set(needed) <= self.seconds.keys():
            return None
        return sum(self.seconds[kind] * count for kind, count in needed.items())


def states_of(schedule: Schedule) -> dict[str, str]:
    """State of each cell, including those run by another command."""
    return {
        name: RUNNING if schedule.states[name] == TODO and runs_elsewhere(cell) else schedule.states[name]
        for name, cell in schedule.cells.items()
    }


def listed(schedule: Schedule) -> str:
    """Text with a line per cell: state, name and command."""
    width = max(len(name) for name in schedule.cells)
    states = states_of(schedule)
    return "\n".join(f"{states[name]:<8} {name:<{width}}  {cell.command}" for name, cell in schedule.cells.items())


def summary(schedule: Schedule, title: str, times: StageTimes, domains: int) -> str:
    """Text table with a line per row and one for all: cells by state, elapsed hours and expected hours left.

    Args:
        times: durations of stages in other runs, for the expected hours before the first cell is done.
        domains: number of domains with students.
    """
    states, every = states_of(schedule), list(schedule.cells.values())
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in every:
        groups[cell.kind or "data"].append(cell)
    shown, finished = list(dict.fromkeys([DONE, TODO, *states.values()])), [cell for cell in every if states[cell.name] == DONE]
    lines, left = [[title, "cells", *shown, "hours", "hours left"]], []
    for kind, cells in [*groups.items(), ("all", every)]:
        count = Counter(states[cell.name] for cell in cells)
        taken = [done_mark(cell)[1] for cell in cells if states[cell.name] in (DONE, CHANGED)]
        left = [cell for cell in cells if states[cell.name] in (TODO, RUNNING)]
        expected = expected_seconds(left, finished, 1) if finished else times.expected(left, domains)
        hours = map(_hours, (sum(taken) if taken else None, expected))
        lines.append([kind, str(len(cells)), *(str(count[state] or "–") for state in shown), *hours])
    if finished:
        notes = [f"With JOBS={schedule.jobs}: {_hours(expected_seconds(left, finished, schedule.jobs))} hours left"]
    elif times.folders:
        notes = [f"No cell is done yet. Hours left are for training only, estimated from {times.folders} finished folders of other runs of",
                 "this suite; other models, epochs and machines take other times. A dash means that no run has finished such a stage."]  # fmt: skip
    else:
        notes = ["Hours are unknown until the first cell is done, as no stage of this suite is finished in this outputs folder."]
    return "\n".join([padded_table(lines, 1), "", *notes, "To list each cell with its command: --dry_run --list_cells"])


def _hours(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 3600:.2f}"
