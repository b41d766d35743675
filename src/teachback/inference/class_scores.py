"""classes.tsv and calibration.tsv: scores of each class, and how far probabilities can be trusted; written by stage 7."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from teachback.core.tsv import merge_records, read_records
from teachback.inference.calibration import Bins, calibrated, negative_log_likelihood
from teachback.inference.results import stage_order

ADVICE = "remove it and run 7_eval.sh again"


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


def merge_rows(path: Path, kind: type[ClassScore] | type[Calibration], new: Sequence[ClassScore | Calibration]) -> None:
    """Replace the rows of the same checkpoints, domains and splits in classes.tsv or calibration.tsv."""
    replaced = {(one.stage, one.domain, one.split) for one in new}
    merge_records(
        path, kind, 0, ADVICE, new, lambda one: (one.stage, one.domain, one.split, getattr(one, "label", "")),
        lambda one: (*stage_order(one.stage), one.split), lambda one: (one.stage, one.domain, one.split) in replaced,
    )  # fmt: skip


def read_calibrations(path: Path) -> list[Calibration]:
    """Read calibration.tsv; empty if the file is missing."""
    return read_records(path, Calibration, 0, ADVICE)
