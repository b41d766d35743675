"""Scores of predicted labels by domain, compared with the majority class."""

import logging

from teachback.data.schema import Row
from teachback.data.suite_data import SuiteData
from teachback.inference.metrics import Score, by_domain

logger = logging.getLogger(__name__)


def predicted_labels(logits, rows: list[Row], data: SuiteData) -> list[str]:
    """Predicted label names from logits [N, C]; for regression the predicted numbers."""
    names = []
    for row, values in zip(rows, logits):
        domain = data.suite.domain(row.domain)
        if domain.task == "regression":
            names.append(repr(float(values[0])))
        else:
            names.append(domain.labels[int(values[: len(domain.labels)].argmax())])
    return names


def domain_scores(logits, rows: list[Row], data: SuiteData) -> dict[str, float]:
    """The score of each domain as ``<domain>_<metric>``, and ``score``, their mean, for model selection: from logits [N, C]."""
    scores = by_domain(data.suite, rows, predicted_labels(logits, rows, data))
    values = {f"{name}_{score.metric}": score.value for name, score in scores.items()}
    return values | {"score": sum(score.value for score in scores.values()) / len(scores)}


def score_by_domain(rows: list[Row], data: SuiteData):
    """``compute_metrics`` of a Trainer: `domain_scores` of its predictions."""
    return lambda prediction: domain_scores(prediction.predictions, rows, data)


def report_scores(who: str, metrics: dict[str, float], majority: dict[str, Score], split: str, advice: str = "") -> None:
    """Print scores by domain beside the majority class's, and warn where they are not better, with ``advice``."""
    width = max([12, *(len(base.metric) + 2 for base in majority.values())])
    print(f"{'domain':<16}{'metric':<{width}}{split:>8}{'majority':>10}")
    for name, base in majority.items():
        value = metrics[f"eval_{name}_{base.metric}"]
        print(f"{name:<16}{base.metric:<{width}}{value:8.3f}{base.value:10.3f}")
        if value <= base.value:
            logger.warning(
                "the %s does not beat the majority class on %s (%.3f, majority %.3f)%s; %s", who, name, value, base.value,
                ", so a student would learn nothing from it" if who == "teacher" else "",
                advice or "train longer or with another learning rate",
            )  # fmt: skip
