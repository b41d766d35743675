"""Paired tests between two models that answered the same test rows, under one or several seeds."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binomtest, rankdata

from teachback.inference.metrics import METRICS

RESAMPLES = 1000


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """Two-sided p of the exact McNemar test: bool [n], bool [n], which rows each model has right.

    Only rows count that one has right and the other wrong; with none there is nothing against equality, p = 1.
    """
    won, lost = int((right & ~other).sum()), int((other & ~right).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def paired_bootstrap(
    metric: str, gold: np.ndarray, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], resamples: int = RESAMPLES
) -> float:
    """Two-sided p of equal scores, from test rows drawn anew: gold [n], and for each seed predictions [n] of both.

    A drawn row brings its answers under every seed, as these are not independent of each other. p is twice the share of
    draws in which the mean difference over seeds is not on the side of the majority. The scores as they were found count as
    one draw more, so that p is never below what that many draws can tell: 2 / (resamples + 1).
    """
    score, random, n = _fast(metric), np.random.default_rng(0), len(gold)
    differences = np.empty(resamples)
    for i in range(resamples):
        rows = random.integers(0, n, n)
        differences[i] = np.mean(
            [score(gold[rows], a[rows]) - score(gold[rows], b[rows]) for a, b in zip(ours, theirs)]
        )
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (resamples + 1)))


def _fast(metric: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """The metric without checks, which take longer than the metric where it is computed thousands of times."""
    return {"accuracy": _accuracy, "f1": _f1, "pearson": _pearson, "spearman": _spearman}.get(metric, METRICS[metric])


def _accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    return (gold == predicted).mean()


def _f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    both, either = ((gold == 1) & (predicted == 1)).sum(), (gold == 1).sum() + (predicted == 1).sum()
    return 2 * both / either if either else 0.0


def _pearson(gold: np.ndarray, predicted: np.ndarray) -> float:
    x, y = gold - gold.mean(), predicted - predicted.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return x @ y / size if size else 0.0


def _spearman(gold: np.ndarray, predicted: np.ndarray) -> float:
    return _pearson(rankdata(gold), rankdata(predicted))
