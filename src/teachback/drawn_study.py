"""Other tasks of a curriculum whose rows a user's loader yields."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from teachback.core.errors import TeachbackError
from teachback.data.encoding import Collator
from teachback.data.schema import Domain
from teachback.methods.curriculum import DomainQuiz


@dataclass(frozen=True)
class DrawnQuiz(DomainQuiz):
    """A task's quiz, whose batches to learn from come from its loader, in the loader's order."""

    source: Iterator[dict]

    def batch(self, rows: torch.Tensor, collate: Collator) -> dict[str, torch.Tensor]:
        return next(self.source)


def endless(batches: Iterable) -> Iterator:
    """Pass after pass."""
    while True:
        yield from batches


def task_of(name: str, passed: list, where: str) -> Domain:
    """What a loader's batches say of its task: classes are numbered up to the largest label seen."""
    labels = [values[3] for values in passed if isinstance(values, (tuple, list)) and len(values) == 4]
    if not labels or not isinstance(passed[0][0], torch.Tensor):
        raise TeachbackError(
            f"{where} yields no labels; give tensors (input_ids, attention_mask, token_type_ids, labels)"
        )
    if labels[0].is_floating_point():
        return Domain(name, name, (), task="regression")
    choices = passed[0][0].ndim == 3
    count = passed[0][0].shape[1] if choices else max(2, max(int(part.max()) for part in labels) + 1)
    names = tuple(f"LABEL_{number}" for number in range(count))
    return Domain(name, name, names, kind="choices" if choices else "single")
