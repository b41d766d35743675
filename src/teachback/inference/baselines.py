"""Baselines that scores are compared with: uniform guessing (chance) and the majority class."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from teachback.data.schema import Domain, Row, Suite
from teachback.inference.metrics import GROUPED, Score, as_numbers, by_domain, group_of, metric_for, parts, score

MAJORITY, CHANCE = "majority class", "chance"


def baselines(suite: Suite, train: Sequence[Row], rows: Sequence[Row], metric: str = "auto") -> dict[str, dict[str, Score]]:
    """Scores of the majority class and of chance on labelled rows, by domain. ``metric``: see `metric_for`."""
    return {MAJORITY: majority_scores(suite, train, rows, metric), CHANCE: chance_scores(suite, rows, metric)}


def majority_scores(suite: Suite, train: Sequence[Row], rows: Sequence[Row], metric: str = "auto") -> dict[str, Score]:
    """Scores of predicting each domain's most frequent train label, or for regression the mean.

    A domain without train rows uses those of all domains with the same label set.
    """
    labels: dict[str, list[str]] = {}
    for row in train:
        if row.label:
            labels.setdefault(row.domain, []).append(row.label)
    answers = {}
    for name, domain in suite.domains.items():
        shared = [label for other in suite.domains.values() if other.head == domain.head for label in labels.get(other.name, [])]
        if known := labels.get(name) or shared:
            regression = domain.task == "regression"
            answers[name] = repr(fmean(map(float, known))) if regression else Counter(known).most_common(1)[0][0]
    answered = [row for row in rows if row.domain in answers]
    return by_domain(suite, answered, [answers[row.domain] for row in answered], metric)


def chance_scores(suite: Suite, rows: Sequence[Row], metric: str = "auto") -> dict[str, Score]:
    """Expected scores of a uniform random prediction, by domain."""
    scores = {}
    for domain in suite.domains.values():
        labelled = [row for row in rows if row.domain == domain.name and row.label]
        if labelled:
            single = [_chance(name, domain, labelled) for name in parts(metric_for(domain, metric))]
            whole = Score("+".join(one.metric for one in single), fmean(one.value for one in single), len(labelled), tuple(single))
            scores[domain.name] = whole if len(single) > 1 else single[0]
    return scores


def _chance(metric: str, domain: Domain, rows: Sequence[Row]) -> Score:
    """Metric of a uniform random prediction, from the expected counts: each row paired with every label once."""
    if domain.task == "regression":
        return Score(metric, 0.0, len(rows))  # correlation with independent numbers
    classes = len(domain.labels)
    if metric in GROUPED:
        sizes = Counter(group_of(row.guid) for row in rows).values()
        return Score(metric, fmean(classes**-size for size in sizes), len(sizes))
    gold = as_numbers(domain, [row.label for row in rows])
    return Score(metric, score(metric, np.repeat(gold, classes), np.tile(np.arange(classes), len(gold))), len(rows))
