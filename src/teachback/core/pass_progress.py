"""Progress of long work other than the Trainer's: embedding a suite's texts, predicting a file, episodes of a curriculum."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO

from tqdm.auto import tqdm

QUIET = 30.0  # seconds between progress lines if output is not a terminal
DELAY = 3.0  # seconds of a pass before its progress bar appears on a terminal


class PassProgress:
    """Counts the rows of a pass: prints a line every `QUIET` seconds, or shows a bar on a terminal.

    Args:
        verb: what was done to the counted rows, such as "embedded".
        total: number of rows; None if it is unknown.
        file: stream of the lines; standard output by default.
        unit: what is counted.
        done: number of those that an earlier process has dealt with.
    """

    def __init__(self, verb: str, total: int | None = None, file: TextIO | None = None, *, unit: str = "rows", done: int = 0):
        self.verb, self.total, self.file, self.unit = verb, total, file, unit
        self.done = self.start = done
        self.silent = os.environ.get("RANK", "0") != "0"  # of several processes, the first speaks for all
        self.began = self.last = time.monotonic()
        hidden = self.silent or not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=done, desc=verb, unit=f" {unit}", delay=DELAY, leave=False, disable=hidden)

    def follow(self, batches: Iterable[dict]) -> Iterator[dict]:
        """Yield the batches, counting the rows of each, which "index" lists, once it is dealt with."""
        for batch in batches:
            count = len(batch["index"])
            yield batch
            self.add(count)

    def add(self, count: int) -> None:
        """Count further rows as done."""
        self.done += count
        self.bar.update(count)
        if self.done == self.total:
            self.bar.close()
        elif self.bar.disable and not self.silent and time.monotonic() - self.last > QUIET:
            self.last = time.monotonic()
            print(self._line(), file=self.file, flush=True)

    def _line(self) -> str:
        if self.total is None:
            return f"{self.verb} {self.done:,} {self.unit}"
        left = (self.last - self.began) / (self.done - self.start) * (self.total - self.done)
        return f"{self.verb} {self.done:,} of {self.total:,} {self.unit}, about {duration(left)} left"


def duration(seconds: float) -> str:
    """Format a time in a suitable unit: 4.2 s, 95 s, 12 min, 3.1 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
