"""Weights of classes in the loss on labels, for data in which some classes are rare."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

import torch

from teachback.core.arguments import HardLabelArguments
from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row
from teachback.methods.losses import hard_label_loss

BALANCED = "balanced"


def weighted_label_loss(logits: torch.Tensor, labels: torch.Tensor, batch: dict, args: HardLabelArguments) -> torch.Tensor:
    """`hard_label_loss`, smoothed, times the weight of each row's class where the batch has them: [B, C], [B] -> [B]."""
    loss = hard_label_loss(logits, labels, args.label_smoothing)
    return loss * batch["class_weight"] if "class_weight" in batch else loss


def class_weight_column(
    args: HardLabelArguments, rows: Sequence[Row], domains: Sequence[Domain], head: Callable[[Domain], str] = lambda domain: domain.head
) -> dict[str, torch.Tensor]:
    """Column ``class_weight`` [N] of train rows, 1 for those without a label; no column without CLASS_WEIGHTS.

    balanced: the weight of class c is 1 / n_c, n_c being its rows. Weights, also given ones, are divided by their mean over
    the rows of each ``head``, so that the loss keeps its size; balanced weights are then N / (K n_c) for N rows of K classes.

    Raises:
        TeachbackError: a domain is a regression, or names in CLASS_WEIGHTS are not its labels.
    """
    numbers = [domain.name for domain in domains if domain.task == "regression"]
    for name in ("class_weights", "label_smoothing"):
        if numbers and getattr(args, name):
            raise TeachbackError(f"{name.upper()}: {', '.join(numbers)} is a regression without classes; unset {name.upper()}, or remove the domain from DOMAINS")
    if not args.class_weights:
        return {}
    labels = dict.fromkeys(label for domain in domains for label in domain.labels)
    given = None if args.class_weights == BALANCED else _given(args.class_weights, labels)
    heads = {domain.name: head(domain) for domain in domains}
    return {"class_weight": row_weights([(heads[row.domain], row.label) if row.label else None for row in rows], given)}


def row_weights(keys: Sequence[tuple[str, Hashable] | None], given: Mapping | None) -> torch.Tensor:
    """Weight of each row's class, with the mean 1 over the rows of a head: [N].

    ``keys``: head and label by row, None without a label, whose weight is 1. ``given``: weights by label; None: balanced.
    """
    counts = Counter(filter(None, keys))
    sizes = Counter(key[0] for key in keys if key)
    weights = {key: given[key[1]] if given else 1 / count for key, count in counts.items()}
    totals = dict.fromkeys(sizes, 0.0)
    for key, count in counts.items():
        totals[key[0]] += count * weights[key]
    return torch.tensor([weights[key] * sizes[key[0]] / totals[key[0]] if key else 1.0 for key in keys])


def _given(text: str, labels: Collection[str]) -> dict[str, float]:
    """Parse "name=weight,..." with a weight above 0 for each label."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            raise TeachbackError(
                f"CLASS_WEIGHTS={text}: {part!r} is not of the form name=weight; use {BALANCED}, or that form for each label: {', '.join(labels)}"
            ) from None
    wrong = [f"{name} is not a label" for name in weights if name not in labels]
    wrong += [f"{name} has no weight" for name in labels if name not in weights]
    wrong += [f"the weight of {name} must be a number above 0" for name, weight in weights.items() if not 0 < weight < math.inf]
    if wrong:
        raise TeachbackError(f"CLASS_WEIGHTS={text}: {'; '.join(wrong)}. The labels are: {', '.join(labels)}")
    return weights
