"""What a model says about each example, computed once, in the examples' order."""

from dataclasses import dataclass

import torch

from teachback.devices import autocast
from teachback.encoding import EncodedRows, batches
from teachback.models import Classifier
from teachback.teacher import Teacher


@torch.no_grad()
def teacher_logits(
    teacher: Teacher, encoded: EncodedRows, pad_token_id: int, batch_size: int, device, precision: str
) -> torch.Tensor:
    """Logits of each row's own head [N, C] in float32; the teacher answers in eval mode."""
    teacher.to(device).eval()
    logits = torch.empty(len(encoded), teacher.classifier.classes)
    for batch in batches(encoded, batch_size, pad_token_id):
        index = batch.pop("index")
        with autocast(precision, device):
            outputs = teacher.outputs({name: values.to(device) for name, values in batch.items()})
        logits[index] = outputs.logits.float().cpu()
    return logits


@dataclass
class Features:
    """Frozen states of N rows of one domain, each of n sequences (n = 1 but for choices).

    ``pooled`` [N, n, H] in float32; ``cls`` [N, n, K, H] in half precision, the first token's states of K layers.
    """

    pooled: torch.Tensor
    cls: torch.Tensor | None = None


@torch.no_grad()
def features(
    classifier: Classifier, encoded: EncodedRows, pad_token_id: int, batch_size: int, device, precision: str,
    layers: tuple[int, ...] = (),
) -> Features:  # fmt: skip
    """Pooled states, and [CLS] states after the given layers (from 1; 0 the embeddings). The mode is restored after."""
    training = classifier.training
    classifier.to(device).eval()
    found: list[tuple[torch.Tensor, ...]] = []
    order = []
    for batch in batches(encoded, batch_size, pad_token_id):
        order.append(batch.pop("index"))
        found.append(
            _states(classifier, {name: values.to(device) for name, values in batch.items()}, precision, layers)
        )
    classifier.train(training)
    place = torch.cat(order).argsort()
    pooled, *cls = (torch.cat(parts)[place] for parts in zip(*found))
    return Features(pooled, cls[0] if cls else None)


def _states(classifier: Classifier, batch: dict, precision: str, layers: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    rows = len(batch["label"])
    head = torch.zeros(rows, dtype=torch.long, device=batch["input_ids"].device)
    with autocast(precision, batch["input_ids"].device):
        outputs = classifier(batch, head, hidden_states=bool(layers))
    pooled = by_row(outputs.pooled.float(), rows).cpu()
    if not layers:
        return (pooled,)
    return pooled, by_row(first_token(outputs.hidden_states, layers).half(), rows).cpu()


def first_token(hidden_states, layers: tuple[int, ...]) -> torch.Tensor:
    """[CLS] states after the given layers: tuple of [S, L, H] -> [S, K, H]."""
    return torch.stack([hidden_states[layer][:, 0] for layer in layers], 1)


def by_row(values: torch.Tensor, rows: int) -> torch.Tensor:
    """States of the sequences of a batch of one domain, by row: [S, ...] -> [B, n, ...]."""
    return values.reshape(rows, -1, *values.shape[1:])
