"""Logging of scalars to TensorBoard or Weights & Biases through accelerate's trackers.

A metric ``eval_x`` is logged as ``eval/x``; a name with a slash is kept; any other ``x`` becomes ``train/x``.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from teachback.core.errors import TeachbackError

PROJECT = "teachback"  # in Weights & Biases, unless WANDB_PROJECT is set


def _tensorboard(folder: Path, project: str, name: str) -> GeneralTracker:
    return TensorBoardTracker(folder.name, str(folder.parent))


def _wandb(folder: Path, project: str, name: str) -> GeneralTracker:
    """W&B tracker whose run id derives from the folder, so that a resumed stage continues the same W&B run."""
    run = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    options = {"dir": str(folder), "id": run, "resume": "allow", "reinit": "finish_previous"}
    return WandBTracker(project or os.environ.get("WANDB_PROJECT", PROJECT), name=name, **options)


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb}


class Tracks:
    """Logs values by step to every tracker; a no-op without one."""

    def __init__(self, trackers: Sequence[GeneralTracker] = ()):
        self.trackers = trackers

    def log(self, values: dict, step: int) -> None:
        numbers = {grouped(name): value for name, value in values.items() if isinstance(value, (int, float))}
        for tracker in self.trackers:
            tracker.log(numbers, step=step)


NO_TRACKS = Tracks()


def grouped(name: str) -> str:
    """Metric name with its group, as in the module's docstring."""
    if "/" in name:
        return name
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def require_installed(kinds: Sequence[str]) -> None:
    """Raise TeachbackError if the package of a tracker is not installed."""
    for kind in TRACKERS.keys() & set(kinds):
        if find_spec(kind) is None:
            raise TeachbackError(
                f"REPORT_TO={kind}: this Python has no package {kind}; run pip install {kind}, or set REPORT_TO=none"
            )


@contextmanager
def tracking(kinds: Sequence[str], folder: Path, config: dict, name: str = "", project: str = "") -> Iterator[Tracks]:
    """Open trackers that write below ``folder`` until the context ends; ``config`` holds the run's arguments.

    ``name`` and ``project`` are for Weights & Biases; if empty, the folder's name and WANDB_PROJECT.
    """
    require_installed(kinds)
    PartialState()  # needed by the trackers to identify the main process
    trackers = [TRACKERS[kind](folder, project, name or folder.name) for kind in kinds if kind in TRACKERS]
    for tracker in trackers:
        tracker.start()
        tracker.store_init_configuration({name: str(value) for name, value in config.items()})
    try:
        yield Tracks(trackers)
    finally:
        for tracker in trackers:
            tracker.finish()
