"""Metrics on arrays, and the scores of a set of predictions by domain.

A metric is a function of two integer arrays [n], gold and predicted label indices in the domain's label order
(regression: two float arrays), and gives a fraction, not a percentage. A new metric is one more entry in `METRICS`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from teachback.errors import TeachbackError
from teachback.suites.schema import Domain, Row, Suite


class Score(NamedTuple):
    """One number: the metric's name, its value and the number of rows behind it."""

    metric: str
    value: float
    n: int


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur in either array; a class that is never predicted counts 0."""
    return f1_score(labels, predictions, average="macro", zero_division=0.0)


METRICS = {"accuracy": accuracy_score, "macro_f1": macro_f1}


def score(metric: str, labels: Sequence, predictions: Sequence) -> float:
    """Value of a named metric on gold and predicted labels of equal, non-zero length: [n], [n] -> float."""
    if metric not in METRICS:
        raise TeachbackError(f"unknown metric {metric!r}; known: {', '.join(METRICS)} (METRIC, or suite.json)")
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"{metric} needs two vectors of equal, non-zero length, not {labels.shape}, {predictions.shape}"
        )
    return float(METRICS[metric](labels, predictions))


def by_domain(suite: Suite, rows: Sequence[Row], predictions: Sequence[str], metric: str = "auto") -> dict[str, Score]:
    """Scores of predicted label names by domain, in the suite's order.

    Rows whose label is hidden ("") are not scored, and a domain with no labelled row has no score.
    ``metric`` "auto" is the domain's own.
    """
    if len(rows) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(rows)} rows")
    scores = {}
    for domain in suite.domains.values():
        scored = [(row.label, name) for row, name in zip(rows, predictions) if row.domain == domain.name and row.label]
        if scored:
            gold, predicted = (_values(domain, names) for names in zip(*scored))
            name = domain.metric if metric == "auto" else metric
            scores[domain.name] = Score(name, score(name, gold, predicted), len(scored))
    return scores


def _values(domain: Domain, names: Sequence[str]) -> np.ndarray:
    """Label names as indices in the domain's order; a regression's numbers as floats: [n]."""
    if domain.task == "regression":
        return np.array([float(name) for name in names])
    unknown = sorted(set(names) - set(domain.labels))
    if unknown:
        raise TeachbackError(
            f"domain {domain.name!r} has the labels {', '.join(domain.labels)}, not {', '.join(map(repr, unknown))}; "
            "run 2_process_data.sh, then the training stages again"
        )
    return np.array([domain.labels.index(name) for name in names])
