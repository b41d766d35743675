"""Training only the token embeddings that occur in the texts: the same result in less time.

Most weights of a small student are in its embedding table, most of whose rows belong to tokens absent from a domain's
texts. Their gradient and AdamW's moments are always 0, so they only change by weight decay, a common factor that is applied
once at the end. On a CPU gradients, gradient norm and optimizer step of the whole table cost more than a small batch.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from teachback.data.encoding import EncodedRows

WORTHWHILE = 0.75  # share of the vocabulary in use, above which little is saved
EXACT_FOR = ("adamw_torch", "adamw_torch_fused")  # elementwise optimizers


class UsedEmbedding(nn.Module):
    """Replacement of the embedding ``full`` by its rows ``used``; maps the same token ids [...] -> [..., H].

    ``decay`` is the accumulated weight decay factor of the omitted rows.
    """

    decay: torch.Tensor

    def __init__(self, full: nn.Embedding, used: torch.Tensor):
        super().__init__()
        self.full, self.used = [full], used  # in a list, to keep it out of the module's state
        self.weight = nn.Parameter(full.weight.detach()[used].clone())
        self.place = torch.full((full.num_embeddings,), -1)  # -1: an omitted token is an error
        self.place[used] = torch.arange(len(used))
        padding = full.padding_idx
        self.padding_idx = int(self.place[padding]) if padding is not None and self.place[padding] >= 0 else None
        self.register_buffer("decay", torch.ones((), dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(self.place[input_ids], self.weight, self.padding_idx)

    @torch.no_grad()
    def restored(self) -> nn.Embedding:
        """Full table with the trained rows, and the omitted rows after weight decay."""
        full = self.full[0]
        weight = full.weight * self.decay.to(full.weight.dtype)
        weight[self.used] = self.weight
        table = nn.Embedding.from_pretrained(weight, freeze=not self.weight.requires_grad, padding_idx=full.padding_idx)
        return table.train(self.training)


def use_only(model, parts: Iterable[EncodedRows], pad_token_id: int) -> None:
    """Restrict the embeddings of ``model``, in place, to padding and the tokens in ``parts``.

    A no-op on a GPU, where the whole table costs little, and if the result would differ or too little time would be saved.
    ``model`` must be on its training device.
    """
    table = model.get_input_embeddings()
    if type(table) is not nn.Embedding or not _separable(model, table):
        return
    used = np.zeros(table.num_embeddings, dtype=bool)
    used[pad_token_id] = True
    for part in parts:
        for ids in part.inputs["input_ids"]:
            used[ids] = True
    if used.mean() < WORTHWHILE:
        model.set_input_embeddings(UsedEmbedding(table, torch.from_numpy(used.nonzero()[0])))


def _separable(model, table: nn.Embedding) -> bool:
    """Whether the table is trained on a CPU, not shared with other modules, and updated only in rows of the batch."""
    owners = sum(weight is table.weight for part in model.modules() for weight in part.parameters(recurse=False))
    plain = table.max_norm is None and not table.scale_grad_by_freq and not table.sparse
    return plain and owners == 1 and table.weight.requires_grad and table.weight.device.type == "cpu"


def decay_others(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Apply the weight decay of an AdamW step to the omitted rows."""
    for part in module.modules():
        if isinstance(part, UsedEmbedding):
            group = next(g for g in optimizer.param_groups if any(p is part.weight for p in g["params"]))
            part.decay *= 1 - group["lr"] * group["weight_decay"]


def restore(model) -> None:
    """Restore the full embedding table of ``model``."""
    table = model.get_input_embeddings()
    if isinstance(table, UsedEmbedding):
        model.set_input_embeddings(table.restored())


@contextmanager
def whole_vocabulary(model) -> Iterator[None]:
    """Restore the full embedding table within the block, as for saving."""
    table = model.get_input_embeddings()
    restore(model)
    try:
        yield
    finally:
        model.set_input_embeddings(table)
