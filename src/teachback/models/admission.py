"""Checks that a model behaves as the losses and scores assume, made when a stage first loads it.

Families differ in padding side, classification token and outputs. Comparing two short texts, alone and padded together,
takes a fraction of a second and prevents a wrong result at the end of a run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from teachback.core.devices import torch_threads
from teachback.core.errors import TeachbackError
from teachback.data.encoding import EncodedRows, encode
from teachback.data.schema import Row
from teachback.models.configs import SUPPORTED
from teachback.models.layers import final_layer
from teachback.models.positions import most_tokens

TEXTS = ("Good.", "The plot was thin and the paper even thinner, so once was enough for me.")
LENGTH = 8  # maximum tokens of the longer text; the shorter one has about half as many and is padded
TOLERANCE = 1e-3  # relative to the largest value; a thousand times the rounding of float32, ample for deep models too


@dataclass(frozen=True)
class ObservedOutputs:
    """Outputs of a model: logits [B, C], input of the final layer [B, H] or [B, L, H], all hidden states [B, L, H]."""

    logits: torch.Tensor
    pooled: torch.Tensor
    states: tuple[torch.Tensor, ...]
    embedded: torch.Tensor | None  # output of the token embeddings, if they are a module


def admit_classifier(name: str, model, tokenizer) -> None:
    """Check a sequence classifier before training.

    Raises:
        TeachbackError: a check fails; the message names it, the family and what is supported.
    """
    _admit(name, model, tokenizer, _classifier_problem)


def admit_answering(name: str, model, tokenizer) -> None:
    """Check an external classifier before inference: padding must not change its logits."""
    with torch.no_grad():
        _admit(name, model, tokenizer, _answer_problem)


def admit_encoder(name: str, model, tokenizer) -> None:
    """Check a model without a head before its token states are averaged: padding must not change them."""
    with torch.no_grad():
        _admit(name, model, tokenizer, _encoder_problem)


def _admit(name: str, model, tokenizer, problem_of: Callable[..., str]) -> None:
    training = model.training
    model.eval()
    try:
        with torch_threads(1):  # synchronizing threads costs more than a dozen tokens
            problem = problem_of(model, tokenizer)
    except TeachbackError:
        raise
    except Exception as error:  # an untested family may raise anything
        problem = f"it cannot run on two short texts ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    finally:
        model.train(training)
    if problem:
        family = model.config.model_type
        raise TeachbackError(f"model {name!r} of the family {family!r} is not supported: {problem}. Supported: {SUPPORTED}")


def _encoder_problem(model, tokenizer) -> str:
    """Description of the first failed check of a model without a head; "" if all pass."""
    rows = two_texts(model, tokenizer)
    together = model(**padded(rows, tokenizer.pad_token_id)).last_hidden_state
    alone = model(**padded(rows[:1], tokenizer.pad_token_id)).last_hidden_state
    return "" if _alike(alone[0], together[0, : len(rows[0])]) else "its states for a text change when the text is padded"


def _answer_problem(model, tokenizer) -> str:
    """Description of the first failed check of a classifier that is not trained; "" if all pass."""
    rows = two_texts(model, tokenizer)
    return _padding_problem(model, tokenizer, rows, _run(model, padded(rows, tokenizer.pad_token_id)))


def _classifier_problem(model, tokenizer) -> str:
    """Description of the first failed check; "" if all pass."""
    rows = two_texts(model, tokenizer)
    seen = _run(model, padded(rows, tokenizer.pad_token_id))
    expected = model.config.num_hidden_layers + 1
    if len(seen.states) != expected:
        return f"it returns {len(seen.states)} hidden states, but {expected} are expected (the embeddings' and each layer's)"
    shape = (len(rows), max(map(len, rows)), model.config.hidden_size)
    if wrong := next((one.shape for one in seen.states if one.shape != shape), None):
        return f"its hidden states have the shape {list(wrong)} where {list(shape)} is expected (texts, tokens, width)"
    return _padding_problem(model, tokenizer, rows, seen) or _gradient_problem(rows, tokenizer, seen)


def _padding_problem(model, tokenizer, rows: list[list[int]], together: ObservedOutputs) -> str:
    """Compare the shorter text alone with its padded row in ``together``; "" if logits and states agree."""
    alone = _run(model, padded(rows[:1], tokenizer.pad_token_id))
    if not _alike(alone.logits[0], together.logits[0]):
        return "its logits for a text change when the text is padded on the right, as it is in batches"
    pairs = zip(alone.states, together.states)
    if not all(_alike(one[0], other[0, : len(rows[0])]) for one, other in pairs):
        return "its hidden states for a text change when the text is padded"
    return ""


def _gradient_problem(rows: list[list[int]], tokenizer, seen: ObservedOutputs) -> str:
    """Check that gradients of the logits reach the embeddings, and of the last states only the expected token's."""
    wanted = [seen.states[-1], *([] if seen.embedded is None else [seen.embedded])]
    last, *embedded = torch.autograd.grad(seen.logits.sum(), wanted, allow_unused=True)
    if not embedded or embedded[0] is None or not embedded[0].any():
        return "no gradient reaches its token embeddings"
    if last is None or not last.any():
        return "its logits do not depend on its last hidden states"
    decoder = seen.pooled.ndim == 3
    used = [row.nonzero().flatten().tolist() for row in last.abs().sum(-1)]
    if used != [[len(ids) - 1] if decoder else [0] for ids in rows]:
        return f"it classifies from the token{'s' * (len(used[0]) > 1)} at {used[0]} of {len(rows[0])}, but only the first " \
               "token of a text, or a decoder's last, is supported"
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    if not decoder and (rows[0][0] != rows[1][0] or rows[0][0] not in special):
        return "it classifies from a text's first token, but its tokenizer does not put a token like [CLS] there"
    return ""


def two_texts(model, tokenizer) -> list[list[int]]:
    """Token ids of two texts, the first shorter, both within the model's maximum length."""
    length = min(LENGTH, most_tokens(model) or LENGTH)
    encoded: EncodedRows = encode([Row(str(i), text, "", "", "") for i, text in enumerate(TEXTS)], tokenizer, length)
    short, long = (list(map(int, ids)) for ids in encoded.inputs["input_ids"])
    short = short[:1] if len(short) >= len(long) else short  # a tokenizer may not know any of the words
    return [short, long if len(long) > 1 else long * 2]


def padded(rows: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Right-padded batch, as in training."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def _run(model, batch: dict[str, torch.Tensor]) -> ObservedOutputs:
    pooled, embedded = [], []

    def keep_pooled(module, inputs) -> None:
        pooled.append(inputs[0])

    def part_from_weights(module, inputs, output):
        """Cut the graph at the embeddings' output, so that no gradient of the whole table is computed."""
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handles = [final_layer(model).register_forward_pre_hook(keep_pooled)]
    if (table := embeddings_of(model)) is not None:
        handles.append(table.register_forward_hook(part_from_weights))
    try:
        result = model(**batch, output_hidden_states=True, return_dict=True)
    finally:
        for handle in handles:
            handle.remove()
    if not pooled:
        raise ValueError("its final linear layer is not called")
    return ObservedOutputs(result.logits, pooled[-1], result.hidden_states or (), embedded[0] if embedded else None)


def embeddings_of(model) -> torch.nn.Module | None:
    """Token embedding module; None in families without one, such as character-based models."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * torch.maximum(one.abs().max(), other.abs().max()))
