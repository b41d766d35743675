"""Metrics on arrays, and the scores of a set of predictions by domain.

A metric is a function of two arrays [n], gold and predicted label indices in the domain's label order (regression:
numbers), and returns a fraction, not a percentage; those in `GROUPED` also take each row's group. To add a metric, add
it to `METRICS` and to the set of the kind of rows that it fits. An undefined metric, such as the correlation with a
constant, is 0. scikit-learn and SciPy are imported by the metrics that need them, as that takes longer than most scores.

Names joined by "+" are a composite, the mean of its parts.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row, Suite


class Score(NamedTuple):
    """A metric's name, its value, the number of rows (for `GROUPED` of groups), and the parts of a composite."""

    metric: str
    value: float
    n: int
    parts: tuple["Score", ...] = ()

    def of(self, metric: str) -> float | None:
        """Value of the metric or of a part; None if there is no such part."""
        return next((one.value for one in (self, *self.parts) if one.metric == metric), None)


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of right predictions."""
    return float(np.mean(labels == predictions))


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur in either array; a class that is never predicted counts 0."""
    from sklearn.metrics import f1_score  # takes a second, and few tasks need it

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of the positive class, the second of two labels (`Domain.positive`)."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, pos_label=1, zero_division=0.0))


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Matthews correlation coefficient; 0 if either array has a single class."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A single label was found", category=UserWarning)
        return float(matthews_corrcoef(labels, predictions))


def correlation(name: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Correlation by a function of `scipy.stats`; 0 where it is not defined."""
    from scipy import stats  # takes most of a second, and only regressions need it

    if len(labels) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        value = float(getattr(stats, name)(labels, predictions).statistic)
    return value if np.isfinite(value) else 0.0


def exact_match(labels: np.ndarray, predictions: np.ndarray, groups: Sequence[str]) -> float:
    """Share of groups (MultiRC: questions) whose rows are all predicted correctly."""
    whole = dict.fromkeys(groups, True)
    for group, right in zip(groups, labels == predictions):
        whole[group] &= bool(right)
    return sum(whole.values()) / len(whole)


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "f1": f1,
    "matthews": matthews,
    "exact_match": exact_match,
    "pearson": partial(correlation, "pearsonr"),
    "spearman": partial(correlation, "spearmanr"),
}
REGRESSION = {"pearson", "spearman"}
GROUPED = {"exact_match"}


def parts(metric: str) -> list[str]:
    """Split a composite into its metrics: "accuracy+macro_f1" -> accuracy and macro_f1.

    Raises:
        TeachbackError: a metric is unknown.
    """
    names = metric.split("+")
    if unknown := [name for name in names if name not in METRICS]:
        raise TeachbackError(
            f"unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}, or several joined by + for their mean "
            "(METRIC, or suite.json)"
        )
    return names


def suits(metric: str, domain: Domain) -> bool:
    """Whether every part is meaningful for the domain's labels; grouped metrics only if the domain's metric has them."""
    usual = domain.metric.split("+")
    return all(
        (name in REGRESSION) == (domain.task == "regression")
        and (name != "f1" or bool(domain.positive))
        and (name not in GROUPED or name in usual)
        for name in parts(metric)
    )


def described(metric: str, domain: Domain) -> str:
    """Metric name, for F1 with its positive class: accuracy+f1 (of equivalent)."""
    return f"{metric} (of {domain.positive})" if "f1" in metric.split("+") and domain.positive else metric


def metric_for(domain: Domain, metric: str = "auto") -> str:
    """``metric``, or the domain's metric if ``metric`` is "auto" or does not fit the domain."""
    return domain.metric if metric == "auto" or not suits(metric, domain) else metric


def score(
    metric: str, labels: Sequence | np.ndarray, predictions: Sequence | np.ndarray, groups: Sequence[str] | None = None
) -> float:
    """Value of a named metric on gold and predicted labels of equal, non-zero length: [n], [n] -> float."""
    names = parts(metric)
    gold, predicted = np.asarray(labels), np.asarray(predictions)
    if gold.shape != predicted.shape or gold.ndim != 1 or not len(gold):
        raise ValueError(f"{metric} needs two vectors of equal, non-zero length, not {gold.shape}, {predicted.shape}")
    if groups is None and GROUPED & set(names):
        raise ValueError(f"{metric} needs the group of each row")
    return float(np.mean([METRICS[name](gold, predicted, *((groups,) if name in GROUPED else ())) for name in names]))


def by_domain(suite: Suite, rows: Sequence[Row], predictions: Sequence[str], metric: str = "auto") -> dict[str, Score]:
    """Scores of predicted label names by domain, in the suite's order.

    Rows whose label is hidden ("") are not scored, and a domain with no labelled row has no score.
    ``metric``: see `metric_for`.
    """
    if len(rows) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(rows)} rows")
    scores = {}
    for domain in suite.domains.values():
        scored = [(row, name) for row, name in zip(rows, predictions) if row.domain == domain.name and row.label]
        if not scored:
            continue
        gold, predicted = (as_numbers(domain, names) for names in zip(*((row.label, name) for row, name in scored)))
        groups, metric_name = [group_of(row.guid) for row, _ in scored], metric_for(domain, metric)
        single = [
            Score(name, score(name, gold, predicted, groups), len(set(groups)) if name in GROUPED else len(scored))
            for name in parts(metric_name)
        ]
        whole = Score(metric_name, float(np.mean([part.value for part in single])), len(scored), tuple(single))
        scores[domain.name] = whole if len(single) > 1 else single[0]
    return scores


def group_of(guid: str) -> str:
    """Group of a row: its guid without the last field, which numbers the answers to a question."""
    return guid.rpartition("-")[0]


def as_numbers(domain: Domain, names: Sequence[str]) -> np.ndarray:
    """Convert label names to indices in the domain's order, or a regression's labels to floats: [n].

    Raises:
        TeachbackError: a label is not one of the domain's.
    """
    if domain.task == "regression":
        return np.array([float(name) for name in names])
    if unknown := sorted(set(names) - set(domain.labels)):
        raise TeachbackError(
            f"domain {domain.name!r} has the labels {', '.join(domain.labels)}, not {', '.join(map(repr, unknown))}; "
            "run 2_process_data.sh, then the training stages again"
        )
    return np.array([domain.labels.index(name) for name in names])
