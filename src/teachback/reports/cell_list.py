"""Listing of a table's cells, by row or one by one."""

from collections import Counter

from teachback.core.markdown import padded_table
from teachback.reports.cells import CHANGED, DONE, TODO, Cell, done_mark
from teachback.reports.run_cells import RUNNING, Schedule, expected_seconds, runs_elsewhere
from teachback.reports.stage_times import StageTimes


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
    states = states_of(schedule)
    kinds: dict[str, list[Cell]] = {}
    for cell in schedule.cells.values():
        kinds.setdefault(cell.kind, []).append(cell)
    shown = list(dict.fromkeys([DONE, TODO, *states.values()]))
    every, finished = list(schedule.cells.values()), [cell for cell in schedule.cells.values() if states[cell.name] == DONE]
    groups = [*kinds.items(), ("all", every)]
    lines = [[title, "cells", *shown, "hours", "hours left"]]
    for kind, cells in groups:
        count = Counter(states[cell.name] for cell in cells)
        left = [cell for cell in cells if states[cell.name] in (TODO, RUNNING)]
        numbers = [str(count[state] or "–") for state in shown]
        hours = _hours_left(left, finished) if finished else _hours(times.expected(left, domains))
        lines.append([kind or "data", str(len(cells)), *numbers, _hours_taken(cells, states), hours])
    if finished:
        notes = [f"{schedule.jobs} at a time: {_hours_left(every_left(schedule, states), finished, schedule.jobs)} hours left"]
    elif times.folders:
        notes = [f"No cell is done yet. Hours left are of training alone, by {times.folders} finished folders of other runs of this suite;",
                 "other models, epochs and machines take other times. A dash: a stage that no run has finished."]  # fmt: skip
    else:
        notes = ["Hours are known when the first cell is done: nothing of this suite has been trained below this outputs folder."]
    return "\n".join([padded_table(lines, 1), "", *notes, "Each cell with its command: --dry_run --list_cells"])


def every_left(schedule: Schedule, states: dict[str, str]) -> list[Cell]:
    return [cell for name, cell in schedule.cells.items() if states[name] in (TODO, RUNNING)]


def _hours_taken(cells: list[Cell], states: dict[str, str]) -> str:
    seconds = [done_mark(cell)[1] for cell in cells if states[cell.name] in (DONE, CHANGED)]
    return f"{sum(seconds) / 3600:.2f}" if seconds else "–"


def _hours_left(left: list[Cell], finished: list[Cell], jobs: int = 1) -> str:
    """Expected hours by the mean time of similar finished cells; a dash before the first is finished."""
    seconds = expected_seconds(left, finished, jobs) if left else 0.0
    return _hours(seconds)


def _hours(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 3600:.2f}"
