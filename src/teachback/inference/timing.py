"""Times of several things measured so that other work on the machine shows, and does not pass for one of them."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np

ROUNDS = 5
MOST_ROUNDS = 15  # while a median is still far from its least, as more rounds find a quiet moment
FAR_APART = 1.5  # times the least that a median may be; on a quiet machine it is 1.0 to 1.2
DISTURBED = "!"  # beside the median of such a time

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Median and least of several passes, in the unit of the passes; half of them took ``fast`` to ``slow``."""

    median: float
    least: float
    fast: float
    slow: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Timing":
        """The timing of passes that took so long."""
        return cls(median(times), min(times), *map(float, np.quantile(times, (0.25, 0.75))))

    @property
    def disturbed(self) -> bool:
        """Whether other work took part of the passes' time: median and least are far apart."""
        return self.median > FAR_APART * self.least

    def __str__(self) -> str:
        return f"{self.median:.2f}{DISTURBED * self.disturbed} ({self.least:.2f})"


def time_in_turn(
    passes: Mapping[Key, Callable[[], float]], rounds: int = ROUNDS, most: int = MOST_ROUNDS
) -> dict[Key, Timing]:
    """Take a pass of each thing in each round, so that a burst of other work falls on all of them; key -> timing.

    A pass returns its own time. After ``rounds`` rounds, up to ``most``, it goes on while a timing is disturbed.
    """
    taken: dict[Key, list[float]] = {key: [] for key in passes}
    timings: dict[Key, Timing] = {}
    for done in range(1, max(rounds, most) + 1):
        for key, measure in passes.items():
            taken[key].append(measure())
        if done >= rounds:
            timings = {key: Timing.of(times) for key, times in taken.items()}
            if not any(timing.disturbed for timing in timings.values()):
                break
    return timings


def usable_cores() -> int:
    """Cores that this process may run on, which are fewer than the machine's in a container or under taskset."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
