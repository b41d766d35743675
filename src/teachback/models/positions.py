"""Maximum sequence length of a model, measured in a forward pass, as families name their position tables differently."""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from teachback.core.errors import TeachbackError

# Config fields for the number of positions; a model without a position table may accept longer sequences.
STATED = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx", "seq_length")
TRIED = 3  # tokens; enough to recognise position ids, which count up

_limits: WeakKeyDictionary[nn.Module, int | None] = WeakKeyDictionary()
_readable: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # longest length that was tried successfully beyond the config's


class _PositionTables(TorchFunctionMode):
    """Records the usable size of each embedding table that is looked up with consecutive ids, from the first id on."""

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
    """Set eval mode and disable gradients within the block, then restore the mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _run(model, length: int) -> None:
    """Run the encoder on a sequence of ``length`` equal, non-padding tokens."""
    token = 2 if getattr(model.config, "pad_token_id", None) == 1 else 1
    ids = torch.full((1, length), token, device=model.device)
    with answering(model):
        model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids))


def most_tokens(model) -> int | None:
    """Number of positions of a Hugging Face model; None if it has no position table."""
    if model not in _limits:
        with _PositionTables() as tables:
            _run(model, TRIED)
        _limits[model] = min(tables.sizes, default=None)
    return _limits[model]


def stated_tokens(config) -> int | None:
    """Maximum length according to a config; None if it has no such field."""
    return next((value for name in STATED if isinstance(value := getattr(config, name, None), int)), None)


def require_positions(model, length: int) -> None:
    """Raise TeachbackError if the model cannot process sequences of ``length`` tokens."""
    most = most_tokens(model)
    if most is None and not _reads(model, length):
        most = stated_tokens(model.config)
    if most is not None and length > most:
        raise TeachbackError(
            f"a text has {length} tokens, but {type(model).__name__} reads at most {most}; set MAX_LENGTH={most} in all stages"
        )


def _reads(model, length: int) -> bool:
    """Whether a model without a position table processes ``length`` tokens; tried if the config states fewer."""
    stated = stated_tokens(model.config)
    if stated is None or length <= max(stated, _readable.get(model, 0)):
        return True
    try:
        _run(model, length)
    except (IndexError, RuntimeError, ValueError):  # a buffer of positions, or a causal mask, is too short
        return False
    _readable[model] = length
    return True
