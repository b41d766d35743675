"""How much arithmetic an encoder's layers take, and counting it while a model runs."""

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from unittest import mock

import torch
from transformers import AutoConfig, AutoModel

BACKWARD = 2  # times the forward pass: the gradients of a product's two factors are a product each


@dataclass(frozen=True)
class Encoder:
    """The sizes of a stack of transformer layers. ``inner``: width between the two matrices of the feed-forward part."""

    layers: int
    width: int
    inner: int

    @classmethod
    def of(cls, config) -> "Encoder":
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size)

    @property
    def weights(self) -> int:
        """Weights of all layers' matrices: four of H x H and two of H x I a layer, without biases."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)


def forward_flops(encoder: Encoder, tokens, squares):
    """Floating-point operations of a forward pass over sequences of ``tokens`` tokens in all.

    A multiplication and an addition for each weight and token, and in each layer the products of attention, QK^T and
    that with V, which take 2 L^2 H each for a sequence of L tokens; ``squares`` is the sum of all L^2. Embeddings,
    norms, softmax, pooler and head are left out: they are no matrix products, or far smaller ones.
    """
    return 2 * encoder.weights * tokens + 4 * encoder.layers * encoder.width * squares


def training_flops(encoder: Encoder, tokens, squares):
    """The same of a forward and a backward pass."""
    return (1 + BACKWARD) * forward_flops(encoder, tokens, squares)


@dataclass
class Count:
    """What went through encoders: real tokens, places (with padding), and operations on either."""

    tokens: int = 0
    places: int = 0
    flops: float = 0.0
    flops_with_padding: float = 0.0

    @property
    def padding(self) -> float:
        """Share of the places that hold no token."""
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
    """Passes that a backward pass follows, and those of models that only answer (teachers, evaluation, rewards)."""

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
    """Count every pass of the class of encoders that ``folder`` holds one of, whichever loop runs it: `Counts`."""
    kind = type(AutoModel.from_config(AutoConfig.from_pretrained(folder)))
    counts, forward = Counts(), kind.forward

    @wraps(forward)
    def counted(self, *args, attention_mask, **kwargs):
        encoder, learns = Encoder.of(self.config), torch.is_grad_enabled()
        count, flops = (counts.learning, training_flops) if learns else (counts.answering, forward_flops)
        count.add(encoder, attention_mask, flops)
        return forward(self, *args, attention_mask=attention_mask, **kwargs)

    with mock.patch.object(kind, "forward", counted):
        yield counts


def matrix_rate(
    device: torch.device, dtype: torch.dtype = torch.bfloat16, size: int = 1024, products: int = 20
) -> float:
    """The machine's matrix-product rate in operations a second: the best of several products, one after the other."""
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
