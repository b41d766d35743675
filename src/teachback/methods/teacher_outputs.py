"""Pooled states, [CLS] states and logits of a frozen model, computed once per row, in the order of the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from teachback.core.devices import autocast
from teachback.core.pass_progress import PassProgress
from teachback.data.encoding import EncodedRows, batches
from teachback.methods.teacher import Teacher
from teachback.models.heads import Classifier, mean_over_tokens
from teachback.models.layers import final_layer


@dataclass
class Features:
    """Frozen states of N rows of n sequences each (n > 1 only for choices).

    ``pooled`` [N, n, H] in float32; ``cls`` [N, n, K, H] in half precision, the states of the [CLS] (or equivalent)
    token after K layers; ``means`` [N, n, H] in float32, the last layer's states averaged over real tokens.
    """

    pooled: torch.Tensor
    cls: torch.Tensor | None = None
    means: torch.Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["Features"], order: torch.Tensor) -> "Features":
        """Concatenate parts and select the rows ``order``."""

        def column(name: str) -> torch.Tensor:
            return torch.cat([getattr(part, name) for part in parts])[order]

        further = {name: column(name) for name in ("cls", "means") if getattr(parts[0], name) is not None}
        return cls(column("pooled"), **further)


@torch.no_grad()
def logits_of(teacher: Teacher, teacher_features: Features, domain: int) -> torch.Tensor:
    """Teacher's logits from states of rows of its ``domain``-th domain: [N, C] in float32."""
    rows, count = teacher_features.pooled.shape[:2]
    batch = {"domain": torch.full((rows,), domain)}
    if count > 1:
        batch["sequences"] = torch.full((rows,), count)
    device = teacher.head_of_domain.device
    batch = {name: values.to(device) for name, values in batch.items()}
    return teacher.logits_of(teacher_features.pooled.to(device).flatten(0, 1), batch).float().cpu()


@torch.no_grad()
def own_logits(classifier: Classifier, encoded: EncodedRows, **settings) -> torch.Tensor:
    """Logits of a model's final layer, in the order of the rows: [N, C] in float32. ``settings``: see `features`."""
    pooled = features(classifier, encoded, **settings).pooled
    layer = final_layer(classifier.model)
    return layer(pooled.to(layer.weight.device)).flatten(1).cpu()


@torch.no_grad()
def features(
    classifier: Classifier, encoded: EncodedRows, pad_token_id: int, batch_size: int, device, precision: str,
    layers: tuple[int, ...] = (), means: bool = False,
) -> Features:  # fmt: skip
    """Compute pooled states, [CLS] states after ``layers`` (counted from 1; 0: embeddings), and optionally ``means``.

    The module's training mode is restored.
    """
    training = classifier.training
    classifier.to(device).eval()
    parts, order = [], []
    progress = PassProgress("computed the states of", len(encoded))
    for batch in progress.follow(batches(encoded, batch_size, pad_token_id)):
        order.append(batch.pop("index"))
        batch = {name: values.to(device) for name, values in batch.items()}
        parts.append(states(classifier, batch, len(order[-1]), precision, layers, means))
    classifier.train(training)
    return Features.joined(parts, torch.cat(order).argsort())


def save_features(folder: Path, computed: Features) -> None:
    """Write each tensor to a file that can be memory-mapped."""
    for name, values in vars(computed).items():
        if values is not None:
            np.save(folder / f"{name}.npy", values.numpy(), allow_pickle=False)


def load_features(folder: Path) -> Features:
    """Memory-map the tensors written by `save_features`."""
    names = sorted({"pooled.npy", *(path.name for path in folder.glob("*.npy"))})
    return Features(**{name.removesuffix(".npy"): _mapped(folder / name) for name in names})


def _mapped(path: Path) -> torch.Tensor:
    """Memory-map copy-on-write, as PyTorch has no read-only tensors."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def features_size(teacher: Teacher, encoded: EncodedRows, layers: tuple[int, ...], means: bool) -> int:
    """Bytes that `save_features` writes for these rows."""
    width = teacher.classifier.model.config.hidden_size
    return len(encoded.inputs["input_ids"]) * width * (4 + 2 * len(layers) + 4 * means)


@torch.no_grad()
def states(
    classifier: Classifier, batch: dict, rows: int, precision: str, layers: tuple[int, ...] = (), means: bool = False
) -> Features:
    """`features` of a single padded batch of ``rows`` rows."""
    head = torch.zeros(rows, dtype=torch.long, device=batch["input_ids"].device)
    with autocast(precision, batch["input_ids"].device):
        outputs = classifier(batch, head, hidden_states=bool(layers) or means)
    result = Features(by_row(outputs.pooled.float(), rows).cpu())
    if layers:
        result.cls = by_row(_in_half_precision(outputs.cls(layers).float()), rows).cpu()
    if means:
        result.means = by_row(mean_over_tokens(outputs.hidden_states[-1].float(), batch["attention_mask"]), rows).cpu()
    return result


def _in_half_precision(states: torch.Tensor) -> torch.Tensor:
    """Vectors [..., H] in half precision; one beyond its range is scaled down, as PKD only compares directions."""
    most = torch.finfo(torch.half).max
    return (states / (states.abs().amax(-1, keepdim=True) / most).clamp_min(1)).half()


def by_row(values: torch.Tensor, rows: int) -> torch.Tensor:
    """Group the sequences of a batch of one domain by row: [S, ...] -> [B, n, ...]."""
    return values.reshape(rows, -1, *values.shape[1:])
