"""What a model says about each example, computed once, in the examples' order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from teachback.devices import autocast
from teachback.encoding import EncodedRows, batches
from teachback.models import Classifier, final_layer
from teachback.teacher import Teacher


@dataclass
class Features:
    """Frozen states of N rows of one domain, each of n sequences (n = 1 but for choices).

    ``pooled`` [N, n, H] in float32; ``cls`` [N, n, K, H] in half precision, the first token's states of K layers.
    """

    pooled: torch.Tensor
    cls: torch.Tensor | None = None


@torch.no_grad()
def logits_of(teacher: Teacher, told: Features, domain: int) -> torch.Tensor:
    """What the teacher's own head says of the states of rows of one domain, its ``domain``-th: [N, C] in float32."""
    rows, count = told.pooled.shape[:2]
    batch = {"domain": torch.full((rows,), domain)}
    if count > 1:
        batch["sequences"] = torch.full((rows,), count)
    device = teacher.head_of_domain.device
    batch = {name: values.to(device) for name, values in batch.items()}
    return teacher.logits_of(told.pooled.to(device).flatten(0, 1), batch).float().cpu()


@torch.no_grad()
def own_logits(classifier: Classifier, encoded: EncodedRows, **settings) -> torch.Tensor:
    """What the model's own final layer says of rows, in their order: [N, C] in float32. ``settings``: see `features`."""
    pooled = features(classifier, encoded, **settings).pooled
    layer = final_layer(classifier.model)
    return layer(pooled.to(layer.weight.device)).flatten(1).cpu()


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
        batch = {name: values.to(device) for name, values in batch.items()}
        found.append(states(classifier, batch, len(order[-1]), precision, layers))
    classifier.train(training)
    place = torch.cat(order).argsort()
    pooled, *cls = (torch.cat(parts)[place] for parts in zip(*found))
    return Features(pooled, cls[0] if cls else None)


def save_features(folder: Path, told: Features) -> None:
    """One file a tensor, which can be mapped into memory."""
    np.save(folder / "pooled.npy", told.pooled.numpy(), allow_pickle=False)
    if told.cls is not None:
        np.save(folder / "cls.npy", told.cls.numpy(), allow_pickle=False)


def load_features(folder: Path) -> Features:
    """What `save_features` wrote, read from disk as it is asked for."""
    cls = folder / "cls.npy"
    return Features(_mapped(folder / "pooled.npy"), _mapped(cls) if cls.exists() else None)


def _mapped(path: Path) -> torch.Tensor:
    """Copy-on-write, as PyTorch has no tensors that cannot be written to."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def features_size(teacher: Teacher, encoded: EncodedRows, layers: tuple[int, ...]) -> int:
    """Bytes that `save_features` writes of these rows."""
    width = teacher.classifier.model.config.hidden_size
    return len(encoded.inputs["input_ids"]) * width * (4 + 2 * len(layers))


@torch.no_grad()
def states(
    classifier: Classifier, batch: dict, rows: int, precision: str, layers: tuple[int, ...]
) -> tuple[torch.Tensor, ...]:
    """Of one padded batch what `features` gives of all rows: pooled states, then, if any, those of ``layers``."""
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
