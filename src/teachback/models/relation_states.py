"""Queries, keys and values of chosen layers, for any family of encoders or decoders, with fused attention.

Token relations (MiniLMv2) are products of queries with queries, keys with keys and values with values. They are recorded at
the outputs of the projections, so that neither positions (rotary, disentangled, biases) nor numbers of heads matter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from teachback.core.errors import TeachbackError
from teachback.models.layers import backbone

# Names of the three projections in a layer's attention.
SEPARATE = (
    ("query", "key", "value"),  # BERT, RoBERTa, ELECTRA, CamemBERT, XLM-R, ALBERT
    ("q_lin", "k_lin", "v_lin"),  # DistilBERT
    ("query_proj", "key_proj", "value_proj"),  # DeBERTa-v2 and v3
    ("q_proj", "k_proj", "v_proj"),  # Llama, Qwen, Mistral, Gemma
    ("q", "k", "v"),  # MPNet
)
# ModernBERT, GPT-2: one projection, whose output holds queries, keys and values in this order.
JOINED = ("Wqkv", "c_attn")


@dataclass(frozen=True)
class RelationStates:
    """Queries, keys and values of a layer, heads concatenated: [S, L, W] each; widths W may differ."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    def parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values as a tuple."""
        return self.query, self.key, self.value


class RelationReader:
    """Records queries, keys and values of ``layers`` (from 0) in every forward pass of a Hugging Face classifier.

    Layers are numbered in the order of computing attention, which also works for shared weights (ALBERT). Within a layer the
    first call of each projection counts: DeBERTa-v3 applies the same projections to its relative positions afterwards.

    Raises:
        TeachbackError: the family's projections have unknown names.
    """

    kinds = 3  # recorded: the first two are queries and keys

    def __init__(self, model: PreTrainedModel, layers: list[int]):
        self.model, self.layers = model, layers
        self._layer = -1  # current layer in this pass
        self._seen: dict[tuple[int, int], torch.Tensor] = {}
        encoder = backbone(model)
        if not self._hook_separate(encoder) and not self._hook_joined(encoder):
            raise TeachbackError(
                f"queries, keys and values of {model.config.model_type!r} models cannot be read; set ATTENTION_WEIGHT=0 to distil "
                "without the attention loss"
            )
        encoder.register_forward_pre_hook(self._begin)

    def _hook_separate(self, encoder: nn.Module) -> bool:
        for names in SEPARATE:
            places = [part for part in encoder.modules() if all(isinstance(getattr(part, n, None), nn.Module) for n in names)]
            for place in places:
                place.register_forward_pre_hook(self._next_layer)
                for number, name in enumerate(names[: self.kinds]):
                    getattr(place, name).register_forward_hook(self._remember(number))
            if places:
                return True
        return False

    def _hook_joined(self, encoder: nn.Module) -> bool:
        found = [module for name, module in encoder.named_modules() if name.rsplit(".", 1)[-1] in JOINED]
        for module in found:
            module.register_forward_pre_hook(self._next_layer)
            module.register_forward_hook(self._remember_joined)
        return bool(found)

    def _begin(self, *_) -> None:
        self._layer, self._seen = -1, {}

    def _next_layer(self, *_) -> None:
        self._layer += 1

    def _keep(self, number: int, states: torch.Tensor) -> None:
        if self._layer in self.layers:
            self._seen.setdefault((self._layer, number), states)

    def _remember(self, number: int) -> Callable:
        return lambda module, inputs, output: self._keep(number, output)

    def _remember_joined(self, module, inputs, output: torch.Tensor) -> None:
        for number, states in enumerate(output.chunk(3, -1)):
            self._keep(number, states)

    def take(self) -> list:
        """Return the states of the last forward pass by layer, as `unpack` does, and clear them."""
        seen, self._seen = self._seen, {}
        return self.unpack([seen[layer, number] for layer in self.layers for number in range(self.kinds)])

    def unpack(self, parts: Sequence[torch.Tensor]) -> list:
        """States by layer, from the `RelationStates.parts` of all layers in order."""
        return [RelationStates(*parts[i : i + self.kinds]) for i in range(0, len(parts), self.kinds)]

    def widths(self) -> tuple[int, ...]:
        """Widths of queries, keys and values; in decoders, keys and values may have fewer heads than queries."""
        config = self.model.config
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        of_keys = (getattr(config, "num_key_value_heads", None) or heads) * size
        return (heads * size, of_keys, of_keys)[: self.kinds]
