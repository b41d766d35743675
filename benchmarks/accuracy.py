"""Do the means by which the stages are fast cost accuracy? Students after stage 5, for several seeds, of the same teachers."""

import random
import statistics

import numpy as np
import plain
import torch
from parts import Reviews

from teachback.models import load_tokenizer

FAST, SLOW, PLAIN = "ours", "ours, fp32, teacher at each step", "plain"


def compare_accuracy(reviews: Reviews) -> dict:
    """Train a teacher a seed and its students in three ways; print and return their test accuracy and differences."""
    seeds, found = reviews.arguments.seeds, {FAST: [], SLOW: [], PLAIN: []}
    cut = ["--student_init", "teacher", "--student_layers", str(reviews.arguments.student_layers)]
    slow = ["--precision", "fp32", "--teacher_cache_gb", "0"]
    for seed in seeds:
        reviews.teacher("--seed", str(seed))
        for name, flags in ((FAST, []), (SLOW, slow)):
            reviews.forget_students()
            reviews.students(*cut, "--seed", str(seed), *flags)
            student = plain.load(reviews.seed_folder(seed) / "books" / "student_second")
            found[name].append(tested(reviews, student, seed))
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        student = reviews.plain_students(reviews.teacher_folder(seed), str(reviews.arguments.student_layers), seed)
        found[PLAIN].append(tested(reviews, student, seed))
    print(report(found))
    return {"seeds": seeds, "accuracy": found}


def tested(reviews: Reviews, student, seed: int) -> float:
    """Accuracy on the test rows; every student is scored in the same way, in float32."""
    tokenizer = load_tokenizer(str(reviews.teacher_folder(seed)))
    return plain.accuracy(student, reviews.rows("test", "books"), reviews.labels("books"), tokenizer)


def report(found: dict[str, list[float]]) -> str:
    """Mean and standard deviation over the seeds in points, and the same of the differences from `FAST` by seed."""
    lines = [f"\n{'test accuracy, mean ± sd over seeds':40}{'':16}minus {FAST}, by seed"]
    for name, values in found.items():
        differences = [100 * (value - fast) for value, fast in zip(values, found[FAST])]
        paired = "" if name == FAST else f"{spread(differences)}   " + " ".join(f"{d:+.1f}" for d in differences)
        lines.append(f"{name:40}{spread([100 * value for value in values]):16}{paired}")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"
