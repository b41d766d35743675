"""Uncertainty of scores over test rows: confidence intervals, and paired tests of two models with one or several seeds.

Accuracy and exact match have Wilson's interval, which is accurate for few rows and near 0 and 100 %. All else is a bootstrap
over rows, or groups of rows, whose metrics are computed from the number of times that each is drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from teachback.data.schema import Domain, Row
from teachback.inference.metrics import GROUPED, as_numbers, group_of, parts

LEVEL = 0.95
INTERVAL_RESAMPLES = 1000
RESAMPLES = 10_000  # of a paired test
Key = TypeVar("Key")
CHUNK = 100_000  # weights per chunk; more do not fit into a core's cache
SHARES = ("accuracy", "exact_match")  # metrics that are a binomial proportion


@dataclass(frozen=True)
class Paired:
    """Predictions of two models on the rows of a domain: gold [n], and ``ours`` and ``theirs`` by seed [S, n].

    ``groups`` [n]: groups of rows, such as the answers to a question, that are resampled together.
    """

    metric: str
    gold: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    groups: np.ndarray | None = None

    @classmethod
    def of(
        cls, metric: str, domain: Domain, rows: Sequence[Row], ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], grouped: bool
    ) -> "Paired":  # fmt: skip
        """From labelled rows and predicted label names by seed; ``grouped``: whether rows are resampled by their groups."""
        gold = as_numbers(domain, [row.label for row in rows])
        own, its = (np.stack([as_numbers(domain, names) for names in side]) for side in (ours, theirs))
        return cls(metric, gold, own, its, np.array([group_of(row.guid) for row in rows]) if grouped else None)


def interval(metric: str, gold: np.ndarray, predicted: np.ndarray, groups: Sequence[str] | None = None) -> tuple[float, float]:
    """95 % confidence interval of a score on gold and predicted labels: [n], [n] -> (low, high).

    ``groups``: group of each row, for the metrics in `GROUPED`; a group is resampled as a whole.
    """
    names = parts(metric)
    named = np.asarray(groups) if GROUPED & set(names) else None
    if len(names) == 1 and names[0] in SHARES:
        from scipy.stats import binomtest  # takes most of a second, and only stage 7 needs it

        every = np.arange(len(gold)) if named is None else named
        count = len(set(every))
        proportion = binomtest(count - len(set(every[gold != predicted])), count).proportion_ci(LEVEL, method="wilson")
        return float(proportion.low), float(proportion.high)
    units, drawn, scores = *_units(gold, predicted[None], named), []
    step = max(1, CHUNK // len(units.counts))
    for first in range(0, INTERVAL_RESAMPLES, step):
        generators = map(np.random.default_rng, range(first, min(first + step, INTERVAL_RESAMPLES)))
        draws = (drawn[random.integers(0, len(drawn), len(drawn))] for random in generators)
        weights = np.stack([np.bincount(one, minlength=len(units.counts)) for one in draws]).astype(float)
        scores.append(np.mean([SCORES[name](units, weights)[:, 0] for name in names], axis=0))
    low, high = np.quantile(np.concatenate(scores), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(domain: Domain, rows: Sequence[Row], predictions: Sequence[str], metrics: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Confidence interval of each metric on the domain's labelled rows among ``rows``."""
    labelled = [(row, prediction) for row, prediction in zip(rows, predictions) if row.domain == domain.name and row.label]
    gold = as_numbers(domain, [row.label for row, _ in labelled])
    predicted, groups = as_numbers(domain, [prediction for _, prediction in labelled]), [group_of(row.guid) for row, _ in labelled]
    return {metric: interval(metric, gold, predicted, groups) for metric in metrics}


def paired_bootstrap(paired: Sequence[Paired], resamples: int = RESAMPLES) -> float:
    """Two-sided p-value for equal scores by a paired bootstrap over test rows; averaged over several domains.

    A resampled row keeps its predictions of all seeds, which are not independent: p is about other test rows, for the
    given models. p is twice the share of resamples whose mean difference over seeds is on the minority side. The
    observed scores count as one more resample, so p is at least 2 / (resamples + 1); it is also at least 2 / 2^m, the
    minimum p of a sign test, if the predictions differ on m rows.
    """
    random, simplest = np.random.default_rng(0), [_simplest(part) for part in paired]
    differences = np.mean([_differences(part, random, resamples) for part in simplest], axis=0)
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    apart = sum(_rows_apart(part) for part in simplest)
    return float(min(1.0, max(2 * (tail + 1) / (resamples + 1), 2.0 ** (1 - apart))))


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests by Holm's step-down method, which controls the family-wise error rate."""
    adjusted, highest = [0.0] * len(values), 0.0
    for place, number in enumerate(sorted(range(len(values)), key=lambda number: values[number])):
        highest = max(highest, min(1.0, (len(values) - place) * values[number]))
        adjusted[number] = highest
    return adjusted


class Tested(NamedTuple):
    """p-value of a test, and that adjusted by Holm's method for all ``tests`` that are shown together."""

    p: float
    adjusted: float
    tests: int

    def __str__(self) -> str:
        return f"p = {self.p:.2g}" + (f"; Holm's p over {self.tests} tests: {self.adjusted:.2g}" if self.tests > 1 else "")


def tested(p_values: dict[Key, float]) -> dict[Key, Tested]:
    """Adjust the p-values of tests that are shown together."""
    adjusted = holm(list(p_values.values()))
    return {key: Tested(p, other, len(p_values)) for (key, p), other in zip(p_values.items(), adjusted)}


def _rows_apart(part: Paired) -> int:
    """Number of rows, or groups, whose predictions over all seeds differ."""
    apart = (np.sort(part.ours, 0) != np.sort(part.theirs, 0)).any(0)
    return int(apart.sum()) if part.groups is None else len(set(part.groups[apart]))


def _simplest(part: Paired) -> Paired:
    """Reduce predictions to right or wrong for accuracy, so that there are fewer distinct rows."""
    if part.metric != "accuracy":
        return part
    ours, theirs = ((side == part.gold).astype(int) for side in (part.ours, part.theirs))
    return replace(part, gold=np.ones(len(part.gold), int), ours=ours, theirs=theirs)


def _differences(part: Paired, random: np.random.Generator, resamples: int) -> np.ndarray:
    """Mean over seeds of ours minus theirs in each resample: [resamples]."""
    units, _ = _units(part.gold, np.vstack([part.ours, part.theirs]), part.groups)
    scores = np.concatenate([SCORES[part.metric](units, weights) for weights in _draws(units.counts, random, resamples)])
    return (scores[:, : len(part.ours)] - scores[:, len(part.ours) :]).mean(1)


def _draws(counts: np.ndarray, random: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Yield chunks of the number of times that each unit is drawn: [draws, J]."""
    total, chunk = counts.sum(), max(1, CHUNK // len(counts))
    for first in range(0, resamples, chunk):
        yield random.multinomial(total, counts / total, size=min(chunk, resamples - first)).astype(float)


class _Units(NamedTuple):
    """Units of resampling: distinct rows with their counts [J], or groups with their member rows [J, n].

    ``gold`` [n], ``answers`` [A, n]: predictions of each model.
    """

    counts: np.ndarray
    gold: np.ndarray
    answers: np.ndarray
    members: np.ndarray | None = None

    def rows(self, weights: np.ndarray) -> np.ndarray:
        """Convert weights of units to weights of rows: [draws, J] -> [draws, n]."""
        return weights if self.members is None else weights @ self.members


def _units(gold: np.ndarray, answers: np.ndarray, groups: np.ndarray | None) -> tuple[_Units, np.ndarray]:
    """Units of resampling, and the unit of each row, or of each group.

    Identical rows are merged into one unit, which is equivalent and much faster.
    """
    if groups is not None:
        names, group = np.unique(groups, return_inverse=True)
        members = (group == np.arange(len(names))[:, None]).astype(float)
        return _Units(np.ones(len(names), int), gold, answers, members), np.arange(len(names))
    rows, unit, counts = np.unique(np.vstack([gold, answers]), axis=1, return_inverse=True, return_counts=True)
    return _Units(counts, rows[0], rows[1:]), unit.ravel()


# Each function scores all predictions in each draw: weights [draws, J] -> [draws, A].


def _accuracy(units: _Units, weights: np.ndarray) -> np.ndarray:
    rows = units.rows(weights)
    return _counted(rows, units.answers == units.gold) / rows.sum(1, keepdims=True)


def _exact_match(units: _Units, weights: np.ndarray) -> np.ndarray:
    wrong = (units.answers != units.gold).astype(float)
    whole = wrong == 0 if units.members is None else wrong @ units.members.T == 0
    return _counted(weights, whole) / weights.sum(1, keepdims=True)


def _counted(weights: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Weighted count of the rows selected by ``which``: [draws, n], bool [A, n] -> [draws, A]."""
    return weights @ which.T.astype(float)


def _by_class(units: _Units, rows: np.ndarray, classes: Sequence[float] | np.ndarray) -> tuple[np.ndarray, ...]:
    """Weighted counts of each class's true positives, predictions and gold labels: [C, draws, A] twice, [C, draws, 1]."""
    masks = [(units.answers == number, (units.gold == number)[None]) for number in classes]
    counts = [(_counted(rows, said & there), _counted(rows, said), _counted(rows, there)) for said, there in masks]
    return tuple(map(np.stack, zip(*counts)))


def _f1(units: _Units, weights: np.ndarray) -> np.ndarray:
    right, answered, there = _by_class(units, units.rows(weights), [1])
    return _ratio(2 * right, answered + there)[0]


def _macro_f1(units: _Units, weights: np.ndarray) -> np.ndarray:
    right, answered, there = _by_class(units, units.rows(weights), np.unique([*units.gold, *units.answers.ravel()]))
    return _ratio(2 * right, answered + there).sum(0) / (answered + there > 0).sum(0)


def _matthews(units: _Units, weights: np.ndarray) -> np.ndarray:
    rows = units.rows(weights)
    right, answered, there = _by_class(units, rows, np.unique([*units.gold, *units.answers.ravel()]))
    total = rows.sum(1, keepdims=True)
    of_answers, of_gold = (total**2 - (counts**2).sum(0) for counts in (answered, there))
    return _ratio((right * total - answered * there).sum(0), np.sqrt(of_answers * of_gold))


def _pearson(units: _Units, weights: np.ndarray) -> np.ndarray:
    rows = units.rows(weights).T
    return np.stack([_correlation(rows, units.gold, answers) for answers in units.answers], axis=1)


def _spearman(units: _Units, weights: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(units.rows(weights).T)
    gold = _ranks(rows, units.gold)
    return np.stack([_correlation(rows, gold, _ranks(rows, answers)) for answers in units.answers], axis=1)


def _correlation(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation, values [n] or [n, draws], weights [n, draws] -> [draws]."""
    total = weights.sum(0)
    x, y = x - x.mean(), y - y.mean()  # for numerical precision
    sum_x, sum_y = _sum(weights, x), _sum(weights, y)
    square_x, square_y = _sum(weights, x * x), _sum(weights, y * y)
    spread = (square_x - sum_x**2 / total) * (square_y - sum_y**2 / total)
    spread[spread < 1e-18 * square_x * square_y] = 0.0  # rounding errors of constant values
    return _ratio(_sum(weights, x * y) - sum_x * sum_y / total, np.sqrt(spread))


def _sum(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted sum of values [n] or [n, draws] -> [draws]."""
    return values @ weights if values.ndim == 1 else np.einsum("nd,nd->d", weights, values)


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Ranks of values [n] with multiplicities ``weights`` [n, draws], ties by mean rank: [n, draws]."""
    names, place = np.unique(values, return_inverse=True)
    order = np.argsort(values)
    together = np.add.reduceat(weights[order], np.searchsorted(values[order], names), axis=0)
    return (np.cumsum(together, 0) - (together - 1) / 2)[place]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, 0 if ``below`` is 0."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)


SCORES: dict[str, Callable[[_Units, np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy, "f1": _f1, "macro_f1": _macro_f1, "matthews": _matthews, "exact_match": _exact_match,
    "pearson": _pearson, "spearman": _spearman,
}  # fmt: skip
