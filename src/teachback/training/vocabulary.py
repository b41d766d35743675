"""Training only those rows of a model's token embeddings that some text has, which changes nothing but the time it takes.

Most of a small student's weights are its embedding table, and most of its rows belong to tokens that no text of a domain
has. Their gradient is always 0: AdamW's moments of them stay 0, and all that it does to them is weight decay, the same
factor for every row, which is applied once, at the end. On a CPU gradients, their norm and AdamW's step of
the whole table cost more than a small batch itself.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from teachback.data.encoding import EncodedRows

WORTHWHILE = 0.75  # of the vocabulary: where more of it is used, there is little to be saved
EXACT_FOR = ("adamw_torch", "adamw_torch_fused")  # optimizers that treat every number by itself


class UsedEmbedding(nn.Module):
    """The rows of ``full`` that ``used`` names, in the place of ``full``; reads the same token ids [...] -> [..., H].

    ``decay`` is what weight decay has left, so far, of the rows that are not here.
    """

    decay: torch.Tensor

    def __init__(self, full: nn.Embedding, used: torch.Tensor):
        super().__init__()
        self.full, self.used = [full], used  # in a list, so that it is no part of this module's state
        self.weight = nn.Parameter(full.weight.detach()[used].clone())
        self.place = torch.full((full.num_embeddings,), -1)  # -1: a token that nobody announced is an error
        self.place[used] = torch.arange(len(used))
        padding = full.padding_idx
        self.padding_idx = int(self.place[padding]) if padding is not None and self.place[padding] >= 0 else None
        self.register_buffer("decay", torch.ones((), dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(self.place[input_ids], self.weight, self.padding_idx)

    @torch.no_grad()
    def restored(self) -> nn.Embedding:
        """The whole table, with what was learnt and what weight decay has left of the other rows."""
        full = self.full[0]
        weight = full.weight * self.decay.to(full.weight.dtype)
        weight[self.used] = self.weight
        table = nn.Embedding.from_pretrained(weight, freeze=not self.weight.requires_grad, padding_idx=full.padding_idx)
        return table.train(self.training)


def use_only(model, parts: Iterable[EncodedRows], pad_token_id: int) -> None:
    """Let ``model``, a Hugging Face model that learns, hold only the embeddings of tokens that ``parts`` or padding have.

    The model is where it is trained: on a GPU, which passes over a whole table in no time, this does nothing, and so where
    it would not be exact or not be worth it.
    """
    table = model.get_input_embeddings()
    if type(table) is not nn.Embedding or not _separable(model, table):
        return
    found = np.zeros(table.num_embeddings, dtype=bool)
    found[pad_token_id] = True
    for part in parts:
        for ids in part.inputs["input_ids"]:
            found[ids] = True
    if found.mean() < WORTHWHILE:
        model.set_input_embeddings(UsedEmbedding(table, torch.from_numpy(found.nonzero()[0])))


def _separable(model, table: nn.Embedding) -> bool:
    """Whether the table learns, on a CPU, serves nothing else and leaves rows alone that no batch has."""
    owners = sum(weight is table.weight for part in model.modules() for weight in part.parameters(recurse=False))
    plain = table.max_norm is None and not table.scale_grad_by_freq and not table.sparse
    return plain and owners == 1 and table.weight.requires_grad and table.weight.device.type == "cpu"


def decay_others(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """After a step of AdamW: what its weight decay does to the rows that are left out."""
    for part in module.modules():
        if isinstance(part, UsedEmbedding):
            group = next(g for g in optimizer.param_groups if any(p is part.weight for p in g["params"]))
            part.decay *= 1 - group["lr"] * group["weight_decay"]


def restore(model) -> None:
    """Give ``model`` its whole table back."""
    table = model.get_input_embeddings()
    if isinstance(table, UsedEmbedding):
        model.set_input_embeddings(table.restored())


@contextmanager
def whole_vocabulary(model) -> Iterator[None]:
    """While this holds, ``model`` has its whole table, as what is written to disk has to."""
    table = model.get_input_embeddings()
    restore(model)
    try:
        yield
    finally:
        model.set_input_embeddings(table)
