"""Confidence intervals of scores.

Accuracy and exact match have Wilson's interval, which is accurate for few rows and near 0 and 100 %. Other metrics have
the percentile interval of a bootstrap over rows.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binomtest, rankdata

from teachback.data.schema import Domain, Row
from teachback.inference.metrics import GROUPED, METRICS, as_numbers, group_of, parts

LEVEL = 0.95
RESAMPLES = 1000
SHARES = ("accuracy", "exact_match")  # metrics that are a binomial proportion


def interval(
    metric: str, gold: np.ndarray, predicted: np.ndarray, groups: Sequence[str] | None = None
) -> tuple[float, float]:
    """95 % confidence interval of a score on gold and predicted labels: [n], [n] -> (low, high).

    ``groups``: group of each row, for the metrics in `GROUPED`; a group is resampled as a whole.
    """
    names = parts(metric)
    grouped = bool(GROUPED & set(names))
    units = np.unique(np.asarray(groups), return_inverse=True)[1] if grouped else np.arange(len(gold))
    if len(names) == 1 and names[0] in SHARES:
        right = len(set(units)) - len(set(units[gold != predicted]))
        proportion = binomtest(right, len(set(units))).proportion_ci(LEVEL, method="wilson")
        return float(proportion.low), float(proportion.high)
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(np.bincount(units))[:-1]) if grouped else []
    draws = [_drawn(names, gold, predicted, members, np.random.default_rng(i)) for i in range(RESAMPLES)]
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(domain: Domain, rows: Sequence[Row], predictions: Sequence[str], metrics: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Confidence interval of each metric on the domain's labelled rows among ``rows``."""
    labelled = [(row, prediction) for row, prediction in zip(rows, predictions) if row.domain == domain.name and row.label]
    gold = as_numbers(domain, [row.label for row, _ in labelled])
    predicted, groups = as_numbers(domain, [prediction for _, prediction in labelled]), [group_of(row.guid) for row, _ in labelled]
    return {metric: interval(metric, gold, predicted, groups) for metric in metrics}


def _drawn(names: list[str], gold, predicted, members: list[np.ndarray], random: np.random.Generator) -> float:
    """Score of a bootstrap sample of rows, or of groups."""
    if not members:
        rows = random.integers(0, len(gold), len(gold))
        return float(np.mean([fast_metric(name)(gold[rows], predicted[rows]) for name in names]))
    chosen = [members[i] for i in random.integers(0, len(members), len(members))]
    rows, unit = np.concatenate(chosen), np.repeat(np.arange(len(chosen)), [len(one) for one in chosen])
    wrong = np.bincount(unit, gold[rows] != predicted[rows])
    whole = float((wrong == 0).mean())
    return float(np.mean([whole if n in GROUPED else fast_metric(n)(gold[rows], predicted[rows]) for n in names]))


def fast_metric(metric: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """Metric implementation without input checks, which would dominate the time of a bootstrap."""
    return FAST.get(metric, METRICS[metric])


def f1_by_class(gold: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """F1 of each class, NaN for one that occurs in neither array: [n], [n] -> [classes]."""
    both = np.bincount(gold[gold == predicted], minlength=classes)
    either = np.bincount(gold, minlength=classes) + np.bincount(predicted, minlength=classes)
    return np.divide(2 * both, either, out=np.full(classes, np.nan), where=either > 0)


def _accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    return (gold == predicted).mean()


def _macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.nanmean(f1_by_class(gold, predicted, 1 + int(max(gold.max(), predicted.max())))))


def _f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    both, either = ((gold == 1) & (predicted == 1)).sum(), (gold == 1).sum() + (predicted == 1).sum()
    return 2 * both / either if either else 0.0


def _matthews(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews correlation from class counts, for any number of classes."""
    n, classes = len(gold), 1 + int(max(gold.max(), predicted.max()))
    true, said = (np.bincount(labels, minlength=classes).astype(float) for labels in (gold, predicted))
    size = np.sqrt((n * n - true @ true) * (n * n - said @ said))
    return float((n * (gold == predicted).sum() - true @ said) / size) if size else 0.0


def _pearson(gold: np.ndarray, predicted: np.ndarray) -> float:
    x, y = gold - gold.mean(), predicted - predicted.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return x @ y / size if size else 0.0


def _spearman(gold: np.ndarray, predicted: np.ndarray) -> float:
    return _pearson(rankdata(gold), rankdata(predicted))


FAST: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy, "macro_f1": _macro_f1, "f1": _f1, "matthews": _matthews, "pearson": _pearson,
    "spearman": _spearman,
}  # fmt: skip
