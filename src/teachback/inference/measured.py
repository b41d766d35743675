"""Files of stage 7 beside results.tsv: costs.tsv, classes.tsv and calibration.tsv."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from teachback.core.tsv import merge_records, read_records
from teachback.inference.calibration import Bins, calibrated, negative_log_likelihood
from teachback.inference.results import OPTIMISTIC, Evaluated, stage_order

MEASURED = ("milliseconds", "fast", "slow")  # columns of costs.tsv that differ from run to run


@dataclass(frozen=True)
class Cost:
    """A row of costs.tsv; ``stage`` as in results.tsv.

    ``milliseconds``: median time per example of the forward pass with ``batch_size`` on ``machine``; ``fast``,
    ``slow``: quartiles. ``timed_on``: domains of the timed rows, as other domains' rows may be longer.
    """

    stage: str
    parameters: int
    bytes: int
    batch_size: int
    milliseconds: float
    machine: str
    fast: float | None = None
    slow: float | None = None
    timed_on: str = ""

    @property
    def spread(self) -> tuple[float, float]:
        """``fast`` and ``slow``, or ``milliseconds`` twice if they are unknown."""
        unknown = self.fast is None or self.slow is None
        return (self.milliseconds,) * 2 if unknown else (self.fast, self.slow)  # type: ignore[return-value]

    def is_comparable(self, other: "Cost") -> bool:
        """Whether both were measured with the same machine, batch size and domains."""
        return (self.machine, self.batch_size, self.timed_on) == (other.machine, other.batch_size, other.timed_on)

    def times_as_fast(self, other: "Cost") -> float | None:
        """Speed-up over ``other``; None if they are not comparable or their times overlap."""
        if not self.is_comparable(other) or not self.milliseconds:
            return None
        (fast, slow), (its_fast, its_slow) = self.spread, other.spread
        if fast <= its_slow and its_fast <= slow and (self.fast is not None or other.fast is not None):
            return None
        return other.milliseconds / self.milliseconds


@dataclass(frozen=True)
class ClassScore:
    """A row of classes.tsv; ``stage`` and ``split`` as in results.tsv. ``rows``: of the class, ``predicted``: as the class."""

    stage: str
    domain: str
    split: str
    label: str
    rows: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Calibration:
    """A row of calibration.tsv; ``stage`` and ``split`` as in results.tsv. Values at temperature 1, and at ``temperature``.

    ``ece``: expected calibration error; ``nll``: mean negative log-likelihood of the labels.
    """

    stage: str
    domain: str
    split: str
    n: int
    ece: float
    nll: float
    temperature: float | None = None
    ece_calibrated: float | None = None
    nll_calibrated: float | None = None


def class_scores(where: tuple[str, str, str], labels: tuple[str, ...], gold: np.ndarray, predicted: np.ndarray) -> list[ClassScore]:
    """Scores by class, 0 where one is undefined: stage, domain and split; label names; label indices [n], [n]."""
    from sklearn.metrics import precision_recall_fscore_support  # takes a second, and only stage 7 needs it

    numbers = list(range(len(labels)))
    scores = precision_recall_fscore_support(gold, predicted, labels=numbers, zero_division=0.0)
    said = np.bincount(predicted, minlength=len(labels))
    return [
        ClassScore(*where, label, int(rows), int(said[i]), float(precision), float(recall), float(f1))
        for i, (label, precision, recall, f1, rows) in enumerate(zip(labels, *scores))
    ]


def calibration(where: tuple[str, str, str], logits: np.ndarray, gold: np.ndarray, temperature: float | None) -> Calibration:
    """Calibration before and after scaling by ``temperature``, if there is one: stage, domain and split; [n, C], [n]."""

    def errors(scale: float) -> tuple[float, float]:
        log_probabilities = calibrated(logits, scale)
        return Bins.of(log_probabilities, gold).error, negative_log_likelihood(log_probabilities, gold)

    after = (temperature, *errors(temperature)) if temperature else ()
    return Calibration(*where, len(gold), *errors(1.0), *after)


Measurement = TypeVar("Measurement", Cost, ClassScore, Calibration)
ADVICE = "remove it and run 7_eval.sh again"


def read_rows(path: Path, kind: type[Measurement]) -> list[Measurement]:
    """Read the file of a kind of rows; empty if it is missing."""
    return read_records(path, kind, ADVICE)


def merge_rows(path: Path, kind: type[Measurement], new: Sequence[Measurement]) -> None:
    """Replace the rows of the same checkpoints, and of the same domains and splits if there are any, under a lock."""

    def place_of(row: Measurement) -> tuple:  # without the mark of a split, which the checkpoint before may not have had
        return (row.stage,) if isinstance(row, Cost) else (row.stage, row.domain, row.split.removesuffix(OPTIMISTIC))

    replaced = set(map(place_of, new))
    merge_records(
        path, kind, ADVICE, new, lambda row: (row,),
        lambda row: (*stage_order(row.stage), row.batch_size if isinstance(row, Cost) else row.split),
        lambda row: place_of(row) in replaced,
    )  # fmt: skip


def merge_costs(path: Path, evaluated: Iterable[Evaluated], machine: str) -> None:
    """Replace the rows of the evaluated checkpoints in costs.tsv."""
    merge_rows(path, Cost, [
        Cost(one.stage, one.parameters, one.bytes, size, t.median, machine, t.fast, t.slow, one.timed_on)
        for one in evaluated
        for size, t in one.timings.items()
    ])  # fmt: skip
