"""Accuracy cost of the stages' optimisations: students after stage 5 from the same teachers, over several seeds."""

import random
import statistics
import time
from collections.abc import Callable

import numpy as np
import plain
import torch
from parts import Reviews

from teachback.models.loading import load_tokenizer

FAST, SLOW, PLAIN = "ours", "ours, fp32, teacher at each step", "plain"


def compare_accuracy(reviews: Reviews) -> dict:
    """Train a teacher per seed and its students in three ways; print and return test accuracy, differences and seconds."""
    seeds, layers = reviews.arguments.seeds, str(reviews.arguments.student_layers)
    cut = ["--student_init", "teacher", "--student_layers", layers]
    slow = ["--precision", "fp32", "--teacher_cache_gb", "0"]
    accuracies: dict[str, list[float]] = {FAST: [], SLOW: [], PLAIN: []}
    seconds: dict[str, list[float]] = {FAST: [], SLOW: [], PLAIN: []}

    def stages(seed: int, *flags: str):
        reviews.forget_students()
        reviews.students(*cut, "--seed", str(seed), *flags)
        return plain.load(reviews.seed_folder(seed) / "books" / "student_second")

    def loop(seed: int):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        return reviews.plain_students(reviews.teacher_folder(seed), layers, seed)

    ways = {FAST: stages, SLOW: lambda seed: stages(seed, *slow), PLAIN: loop}
    for seed in seeds:
        reviews.teacher("--seed", str(seed))
        for name, way in ways.items():
            student, taken = timed(way, seed)
            seconds[name].append(taken)
            accuracies[name].append(tested(reviews, student, seed))
    print(report(accuracies))
    print(report_seconds(seconds))
    return {"seeds": seeds, "accuracy": accuracies, "processor_seconds": seconds}


def timed(work: Callable, seed: int) -> tuple[object, float]:
    """Result of ``work`` and its processor time in seconds."""
    start = time.process_time()
    return work(seed), time.process_time() - start


def report_seconds(seconds: dict[str, list[float]]) -> str:
    """Medians over the seeds, and times of the other ways relative to `FAST`."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [f"\n{'processor seconds, median over seeds':40}{'':16}times {FAST}"]
    return "\n".join(lines + [f"{name:40}{taken:<16.1f}{taken / medians[FAST]:.2f}" for name, taken in medians.items()])


def tested(reviews: Reviews, student, seed: int) -> float:
    """Accuracy on the test rows, computed in float32 for every student."""
    tokenizer = load_tokenizer(str(reviews.teacher_folder(seed)))
    return plain.accuracy(student, reviews.rows("test", "books"), reviews.labels("books"), tokenizer)


def report(accuracies: dict[str, list[float]]) -> str:
    """Mean and standard deviation over the seeds in points, also of the per-seed differences from `FAST`."""
    lines = [f"\n{'test accuracy, mean ± sd over seeds':40}{'':16}minus {FAST}, by seed"]
    for name, values in accuracies.items():
        differences = [100 * (value - fast) for value, fast in zip(values, accuracies[FAST])]
        paired = "" if name == FAST else f"{spread(differences)}   " + " ".join(f"{d:+.1f}" for d in differences)
        lines.append(f"{name:40}{spread([100 * value for value in values]):16}{paired}")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"
