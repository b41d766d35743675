"""Comparison of two tokenizers by the ids they give for the texts at hand.

Comparing vocabularies is not enough: one tokenizer may lower-case or strip accents, and the other not.
"""

import json

import numpy as np

from teachback.data.encoding import EncodedRows
from teachback.data.token_store import describe

TYPES = "token_type_ids"


def certainly_same(one, other) -> bool:
    """Whether two tokenizers have the same full description, so that their ids need not be compared."""
    description = describe(one)
    return one is other or (description != "" and description == describe(other))


def same_definition(one, other) -> bool:
    """Whether two tokenizers have the same vocabulary, normaliser, pre-tokeniser and post-processor.

    For token ids whose texts are not available.
    """
    return certainly_same(one, other) or (one.get_vocab() == other.get_vocab() and _steps(one) == _steps(other))


def _steps(tokenizer) -> list | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = json.loads(backend.to_str())
    return [parts[name] for name in ("normalizer", "pre_tokenizer", "post_processor")]


def same_ids(one: EncodedRows, other: EncodedRows) -> bool:
    """Whether both hold the same token ids, sequence by sequence."""
    return one.sequences == other.sequences and _equal(one, other, "input_ids")


def reads_like(encoded: EncodedRows, own: EncodedRows, reads_types: bool) -> bool:
    """Whether a model gets the same input from ``encoded`` as from ``own``, the rows encoded by its tokenizer.

    ``reads_types``: the model has token type embeddings; missing token types count as 0.
    """
    if not same_ids(encoded, own):
        return False
    if not reads_types:
        return True
    typed = [rows for rows in (encoded, own) if TYPES in rows.inputs]
    return _equal(typed[0], typed[1], TYPES) if len(typed) == 2 else not any(rows.inputs[TYPES].flat.any() for rows in typed)


def _equal(one: EncodedRows, other: EncodedRows, name: str) -> bool:
    first, second = one.inputs[name], other.inputs[name]
    return np.array_equal(first.lengths, second.lengths) and np.array_equal(first.flat, second.flat)
