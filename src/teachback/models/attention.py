"""Attention scores of chosen layers, before softmax and dropout, for models with fused attention.

Fused kernels never build the score matrix, so it is computed from the outputs of the query and key projections.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from teachback.core.errors import TeachbackError
from teachback.models.layers import backbone
from teachback.models.relation_states import RelationReader

# Families whose scores are not QK^T/sqrt(d), possibly plus a bias, are left out on purpose, as the product would not be the true
# score: those with rotary or disentangled positions, for example.
BIASED = "mpnet"
PLAIN_ATTENTION = {"bert", "roberta", "electra", "distilbert", "camembert", "xlm-roberta", BIASED}


class AttentionProjections(RelationReader):
    """Records queries and keys of ``layers`` (from 0) in every forward pass of a Hugging Face classifier."""

    kinds = 2

    def __init__(self, model: PreTrainedModel, layers: list[int]):
        if model.config.model_type not in PLAIN_ATTENTION:
            raise TeachbackError(
                f"attention scores of {model.config.model_type!r} models cannot be read; set ATTENTION_TARGET=relations, which "
                "supports every family, or ATTENTION_WEIGHT=0 to distil without the attention loss (scores can be read for: "
                f"{', '.join(sorted(PLAIN_ATTENTION))})"
            )
        super().__init__(model, layers)

    def unpack(self, parts: Sequence[torch.Tensor]) -> list["Projections"]:
        """Queries and keys by layer, from those of all layers in order, heads concatenated."""
        bias = position_bias(self.model, parts[0].shape[1]) if parts else None
        by_heads = [by_head(states, self.model.config.num_attention_heads) for states in parts]
        return [Projections(query, key, bias) for query, key in zip(by_heads[::2], by_heads[1::2])]


@dataclass(frozen=True)
class Projections:
    """Queries and keys of a layer by head, [B, A, L, d] each, and the `position_bias` [A, L, L] of their scores."""

    query: torch.Tensor
    key: torch.Tensor
    bias: torch.Tensor | None = None

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys with heads concatenated: [B, L, H] each."""
        return self.query.transpose(1, 2).flatten(2), self.key.transpose(1, 2).flatten(2)


def by_head(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Split into heads: [B, L, H] -> [B, A, L, d]."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def position_bias(model, length: int) -> torch.Tensor | None:
    """Bias that MPNet adds to the scores of all its layers by relative position: [A, L, L]; None for other families."""
    if model.config.model_type != BIASED:
        return None
    return backbone(model).encoder.compute_position_bias(torch.empty(1, length, device=model.device))[0]


def scores(projections: Projections) -> torch.Tensor:
    """Attention scores QK^T/sqrt(d), plus the bias if there is one: [B, A, L, L] in float32."""
    query, key = projections.query, projections.key
    with torch.autocast(query.device.type, enabled=False):
        plain = query.float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
        return plain if projections.bias is None else plain + projections.bias.float()
