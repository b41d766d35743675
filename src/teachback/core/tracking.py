"""Curves of a run for TensorBoard or Weights & Biases, through accelerate's trackers, the same way in every stage.

What is named ``eval_x`` becomes ``eval/x``; a name with a slash stays; anything else becomes ``train/x``.
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

PROJECT = "teachback"  # of Weights & Biases, where WANDB_PROJECT names no other


def _tensorboard(folder: Path, project: str, name: str) -> GeneralTracker:
    return TensorBoardTracker(folder.name, str(folder.parent))


def _wandb(folder: Path, project: str, name: str) -> GeneralTracker:
    """Goes on with the same W&B run where an interrupted stage does: its id is that of the folder."""
    run = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    options = {"dir": str(folder), "id": run, "resume": "allow", "reinit": "finish_previous"}
    return WandBTracker(project or os.environ.get("WANDB_PROJECT", PROJECT), name=name, **options)


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb}


class Tracks:
    """Takes values by step for all trackers of a run; with none of them it takes them for nobody."""

    def __init__(self, trackers: Sequence[GeneralTracker] = ()):
        self.trackers = trackers

    def log(self, values: dict, step: int) -> None:
        numbers = {grouped(name): value for name, value in values.items() if isinstance(value, (int, float))}
        for tracker in self.trackers:
            tracker.log(numbers, step=step)


NO_TRACKS = Tracks()


def grouped(name: str) -> str:
    """The name of a curve."""
    if "/" in name:
        return name
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def require_installed(kinds: Sequence[str]) -> None:
    """An error where a tracker's package is missing, before anything is computed."""
    for kind in TRACKERS.keys() & set(kinds):
        if find_spec(kind) is None:
            raise TeachbackError(
                f"REPORT_TO={kind}: this Python has no package {kind}; pip install {kind}, or set REPORT_TO=none"
            )


@contextmanager
def tracking(kinds: Sequence[str], folder: Path, config: dict, name: str = "", project: str = "") -> Iterator[Tracks]:
    """Trackers that write below ``folder`` until the context ends; ``config``: the run's arguments.

    ``name`` of the run and ``project`` are what Weights & Biases shows; empty: the folder's name, and WANDB_PROJECT.
    """
    PartialState()  # which the trackers ask whether theirs is the main process
    trackers = [TRACKERS[kind](folder, project, name or folder.name) for kind in kinds if kind in TRACKERS]
    for tracker in trackers:
        tracker.start()
        tracker.store_init_configuration({name: str(value) for name, value in config.items()})
    try:
        yield Tracks(trackers)
    finally:
        for tracker in trackers:
            tracker.finish()
