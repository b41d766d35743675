"""Metrics of the Python API, named as in MPDistil's library."""

import numpy as np

from teachback.core.errors import TeachbackError
from teachback.data.suites import glue, superglue
from teachback.inference.metrics import score

# Name -> reported metrics by short name, short name of the mean of two, and of the one that selects the best model.
REPORTED = {
    "accuracy": ({"acc": "accuracy"}, "", "acc"),
    "f1": ({"acc": "accuracy", "f1": "macro_f1"}, "acc_and_f1", "f1"),
    "binary_f1": ({"acc": "accuracy", "f1": "f1"}, "acc_and_f1", "f1"),
    "mcc": ({"mcc": "matthews"}, "", "mcc"),
    "correlation": ({"pearson": "pearson", "spearmanr": "spearman"}, "corr", "corr"),
}


def chosen_metric(name: str, task_name: str, regression: bool, num_labels: int = 2) -> str:
    """Resolve a metric name; ``auto`` is the metric of the task's benchmark.

    ``f1`` is the F1 of the positive class if the benchmark's is.

    Raises:
        TeachbackError: the metric is unknown or does not fit the labels.
    """
    usual = _usual_metric(task_name, regression, num_labels)
    if name == "auto" or (name == "f1" and usual == "binary_f1"):
        name = usual
    if name not in REPORTED:
        raise TeachbackError(f"metric={name!r} is unknown; use one of: {', '.join(REPORTED)}, auto")
    if (name == "correlation") != regression:
        right = "correlation" if regression else "accuracy, f1, binary_f1 or mcc"
        raise TeachbackError(f"metric={name!r} does not fit is_regression={regression}; use {right}")
    if name == "binary_f1" and num_labels != 2:
        raise TeachbackError(f"metric='binary_f1' needs two classes, but num_labels={num_labels}; use f1")
    return name


def selecting_metric(metric: str) -> str:
    """Metric that selects the best model, named as in the stages."""
    reported, _, selecting = REPORTED[metric]
    return reported.get(selecting, "+".join(reported.values()))


def _usual_metric(task_name: str, regression: bool, num_labels: int) -> str:
    if regression:
        return "correlation"
    tasks = {name.lower(): task.domain for name, task in {**glue.TASKS, **superglue.TASKS}.items()}
    domain = tasks.get(task_name.lower())
    parts = domain.metric.split("+") if domain else []
    of_metric = {"matthews": "mcc", "f1": "binary_f1" if num_labels == 2 else "f1", "macro_f1": "f1"}
    return next((name for metric, name in of_metric.items() if metric in parts), "accuracy")


def answers(logits: np.ndarray, regression: bool) -> np.ndarray:
    """Predicted class indices, or for regression numbers: [N, C] -> [N]."""
    return logits[:, 0] if regression else logits.argmax(-1)


def metric_values(metric: str, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Reported values of a metric by short name, and ``score``, the one that selects the model: [N], [N, C]."""
    reported, mean, selecting = REPORTED[metric]
    predicted = answers(np.asarray(logits, dtype=np.float32), metric == "correlation")
    labels = np.asarray(labels, dtype=np.float32 if metric == "correlation" else np.int64)
    values = {short: score(name, labels, predicted) for short, name in reported.items()}
    if mean:
        values[mean] = float(np.mean(list(values.values())))
    return values | {"score": values[selecting]}
