"""Timing of alternatives in turn, so that other load on the machine affects all of them and is detected."""

import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np

ROUNDS = 5
MOST_ROUNDS = 15  # upper limit while a timing is disturbed, as more rounds may find a quiet moment
PATIENCE = 20.0  # seconds from the start after which no such round begins: on a busy machine they would take minutes
FAR_APART = 1.5  # maximum ratio of median to minimum; on a quiet machine it is 1.0 to 1.2
DISTURBED = "!"  # mark of a disturbed timing

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Median, minimum and quartiles (``fast``, ``slow``) of several passes, in the unit of the passes."""

    median: float
    least: float
    fast: float
    slow: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Timing":
        """Summarise the times of passes."""
        return cls(median(times), min(times), *map(float, np.quantile(times, (0.25, 0.75))))

    @property
    def disturbed(self) -> bool:
        """Whether other load slowed some passes: the median is far above the minimum."""
        return self.median > FAR_APART * self.least

    def __str__(self) -> str:
        return f"{self.median:.2f}{DISTURBED * self.disturbed} ({self.least:.2f})"


def time_in_turn(
    passes: Mapping[Key, Callable[[], float]], rounds: int = ROUNDS, most: int = MOST_ROUNDS
) -> dict[Key, Timing]:
    """Run each pass once per round, so that a burst of other load affects all of them; returns timings by key.

    A pass returns its time. After ``rounds`` rounds, measuring continues, up to ``most`` and for `PATIENCE` seconds, while
    a timing is disturbed.
    """
    taken: dict[Key, list[float]] = {key: [] for key in passes}
    timings: dict[Key, Timing] = {}
    started = time.monotonic()
    for done in range(1, max(rounds, most) + 1):
        for key, measure in passes.items():
            taken[key].append(measure())
        if done >= rounds:
            timings = {key: Timing.of(times) for key, times in taken.items()}
            if time.monotonic() - started > PATIENCE or not any(timing.disturbed for timing in timings.values()):
                break
    return timings


def usable_cores() -> int:
    """Number of cores available to this process, possibly fewer than the machine's (containers, taskset)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
