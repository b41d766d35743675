"""How many tokens a model reads at most, found by what it does, as families give the table of positions many names."""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from teachback.core.errors import TeachbackError

# What families call the number of positions; a model without a table of them may well read more.
STATED = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx", "seq_length")
TRIED = 3  # tokens; enough to tell positions, which count up, from other ids

_limits: WeakKeyDictionary[nn.Module, int | None] = WeakKeyDictionary()
_readable: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # longest that was tried beyond what the config states


class _PositionTables(TorchFunctionMode):
    """Notes for each embedding lookup of consecutive numbers how many numbers its table has from the first one on."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.embedding:
            self._note(*args[:2], **{name: value for name, value in (kwargs or {}).items() if name in ("input", "weight")})
        return func(*args, **(kwargs or {}))

    def _note(self, input: torch.Tensor, weight: torch.Tensor) -> None:
        if input.ndim and input.shape[-1] == TRIED:
            rows = input.reshape(-1, TRIED)
            first = int(rows[0, 0])
            if (rows == torch.arange(first, first + TRIED, device=rows.device)).all():
                self.sizes.append(len(weight) - first)


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """While this holds, the model is in eval mode and records no gradients; then its mode is as before."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _run(model, length: int) -> None:
    """Run the encoder on ``length`` times the same token, which is none for padding."""
    token = 2 if getattr(model.config, "pad_token_id", None) == 1 else 1
    ids = torch.full((1, length), token, device=model.device)
    with answering(model):
        model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids))


def most_tokens(model) -> int | None:
    """Length of the longest sequence that a Hugging Face model has positions for; None where it has no table of them."""
    if model not in _limits:
        with _PositionTables() as tables:
            _run(model, TRIED)
        _limits[model] = min(tables.sizes, default=None)
    return _limits[model]


def stated_tokens(config) -> int | None:
    """Most tokens that a config says its model has met."""
    return next((value for name in STATED if isinstance(value := getattr(config, name, None), int)), None)


def require_positions(model, length: int) -> None:
    """Refuse sequences of ``length`` tokens where the model cannot read them."""
    most = most_tokens(model)
    if most is None and not _reads(model, length):
        most = stated_tokens(model.config)
    if most is not None and length > most:
        raise TeachbackError(
            f"a text of {length} tokens, and {type(model).__name__} reads at most {most}; set MAX_LENGTH={most} in all stages"
        )


def _reads(model, length: int) -> bool:
    """Whether a model without a table of positions reads so many tokens; beyond what its config states, it is tried."""
    stated = stated_tokens(model.config)
    if stated is None or length <= max(stated, _readable.get(model, 0)):
        return True
    try:
        _run(model, length)
    except (IndexError, RuntimeError, ValueError):  # of a buffer of positions, or a causal mask, that is too short
        return False
    _readable[model] = length
    return True
