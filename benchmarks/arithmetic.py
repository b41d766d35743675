"""Floating-point operations of an encoder's layers, by formula and counted while a model runs."""

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from unittest import mock

import torch
from transformers import AutoConfig, AutoModel

BACKWARD = 2  # times the forward pass: each factor's gradient is another product


@dataclass(frozen=True)
class Encoder:
    """Sizes of a stack of transformer layers. ``inner``: intermediate width of the feed-forward network."""

    layers: int
    width: int
    inner: int

    @classmethod
    def of(cls, config) -> "Encoder":
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size)

    @property
    def weights(self) -> int:
        """Number of matrix weights without biases: four of H x H and two of H x I per layer."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)


def forward_flops(encoder: Encoder, tokens, squares):
    """Floating-point operations of a forward pass over sequences with ``tokens`` tokens in total.

    Two per weight and token, and in each layer the products of attention, QK^T and its product with V, 2 L^2 H each for a
    sequence of L tokens; ``squares`` is the sum of all L^2. Embeddings, norms, softmax, pooler and head are left out: they
    are no matrix products, or far smaller ones.
    """
    return 2 * encoder.weights * tokens + 4 * encoder.layers * encoder.width * squares


def training_flops(encoder: Encoder, tokens, squares):
    """Floating-point operations of a forward and a backward pass; see `forward_flops`."""
    return (1 + BACKWARD) * forward_flops(encoder, tokens, squares)


@dataclass
class Count:
    """Work of encoders: real tokens, positions including padding, and operations on either."""

    tokens: int = 0
    places: int = 0
    flops: float = 0.0
    flops_with_padding: float = 0.0

    @property
    def padding(self) -> float:
        """Share of padding among the positions."""
        return 1 - self.tokens / self.places if self.places else 0.0

    def add(self, encoder: Encoder, mask: torch.Tensor, flops) -> None:
        """Count a batch [S, L] with its attention mask; ``flops``: `forward_flops` or `training_flops`."""
        rows, length = mask.shape
        lengths = mask.sum(1).double()
        self.tokens += int(lengths.sum())
        self.places += rows * length
        self.flops += float(flops(encoder, lengths.sum(), lengths.square().sum()))
        self.flops_with_padding += float(flops(encoder, rows * length, rows * length**2))


@dataclass
class Counts:
    """Work of passes with a backward pass, and of inference (teachers, evaluation, rewards)."""

    learning: Count = field(default_factory=Count)
    answering: Count = field(default_factory=Count)

    @property
    def flops(self) -> float:
        return self.learning.flops + self.answering.flops

    @property
    def flops_with_padding(self) -> float:
        return self.learning.flops_with_padding + self.answering.flops_with_padding

    def as_dict(self) -> dict:
        return {name: count | {"padding": getattr(self, name).padding} for name, count in asdict(self).items()}


@contextmanager
def counting(folder):
    """Count all forward passes of the encoder class of ``folder`` within the block; yields `Counts`.

    The few passes that check a model when it is loaded are left out.
    """
    kind = type(AutoModel.from_config(AutoConfig.from_pretrained(folder)))
    counts, forward = Counts(), kind.forward

    @wraps(forward)
    def counted(self, *args, attention_mask, **kwargs):
        encoder, learns = Encoder.of(self.config), torch.is_grad_enabled()
        count, flops = (counts.learning, training_flops) if learns else (counts.answering, forward_flops)
        count.add(encoder, attention_mask, flops)
        return forward(self, *args, attention_mask=attention_mask, **kwargs)

    unchecked = mock.patch("teachback.models.loading.admit_classifier", lambda *_: None)
    with mock.patch.object(kind, "forward", counted), unchecked:
        yield counts


def matrix_rate(
    device: torch.device, dtype: torch.dtype = torch.bfloat16, size: int = 1024, products: int = 20
) -> float:
    """The machine's matrix-product rate in operations per second, the best of several products."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(products):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
