"""Comparison of two tokenizers by the ids they give for the texts at hand.

Comparing vocabularies is not enough: one tokenizer may lower-case or strip accents, and the other not.
"""

import json

import numpy as np

from teachback.data.encoding import EncodedRows
from teachback.data.token_store import describe

TYPES = "token_type_ids"


def have_same_description(first, second) -> bool:
    """Whether two tokenizers have the same full description, so that their ids need not be compared."""
    description = describe(first)
    return first is second or (description != "" and description == describe(second))


def same_definition(first, second) -> bool:
    """Whether two tokenizers have the same vocabulary, normaliser, pre-tokeniser and post-processor.

    Used for token ids whose texts are not available.
    """
    return have_same_description(first, second) or (first.get_vocab() == second.get_vocab() and _steps(first) == _steps(second))


def _steps(tokenizer) -> list | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = json.loads(backend.to_str())
    return [parts[name] for name in ("normalizer", "pre_tokenizer", "post_processor")]


def same_model_input(encoded: EncodedRows, expected: EncodedRows, reads_types: bool) -> bool:
    """Whether a model gets the same input from ``encoded`` as from ``expected``, the rows encoded by its tokenizer.

    ``reads_types``: the model has token type embeddings; missing token types count as 0.
    """
    if encoded.sequences != expected.sequences or not _equal(encoded, expected, "input_ids"):
        return False
    if not reads_types:
        return True
    typed = [rows for rows in (encoded, expected) if TYPES in rows.inputs]
    return _equal(typed[0], typed[1], TYPES) if len(typed) == 2 else not any(rows.inputs[TYPES].flat.any() for rows in typed)


def _equal(first: EncodedRows, second: EncodedRows, name: str) -> bool:
    a, b = first.inputs[name], second.inputs[name]
    return np.array_equal(a.lengths, b.lengths) and np.array_equal(a.flat, b.flat)
