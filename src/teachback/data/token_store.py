"""On-disk cache of a suite's token ids, shared by all stages.

A safetensors file holds int32 arrays: the ``lengths`` [S] of the sequences, the number of ``sequences`` of each row
(empty if all have one), and the ids of each tokenizer field, sequences concatenated.
"""

import json
import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from teachback.core.disk_cache import DiskCache, key_of
from teachback.core.errors import TeachbackError
from teachback.data.encoding import EncodedRows, encode, texts_of
from teachback.data.schema import STORED_TOKENS, Domain, Row
from teachback.data.slices import Slices

logger = logging.getLogger(__name__)

FILE = "tokens.safetensors"
FORM = 1  # version; increase whenever `encode` gives other ids for the same texts
# Tokenising takes 0.3 ms per row. Reading the vocabulary for the key takes 20 ms for BERT, and ten times as long for a
# multilingual model. Caching fewer rows would save less than 0.3 s, at the cost of a file for every domain's dev and quiz.
FEWEST_ROWS = 1_000
MOST_GIGABYTES = 2.0  # limit of a folder; a row of 128 tokens takes 1 KB


def encode_once(folder: Path, rows: list[Row], tokenizer, max_length: int, domains: dict[str, Domain]) -> EncodedRows:
    """Cached `encode`: token ids of a suite's rows, memory-mapped from a file below its folder.

    Damaged files are written again; if the folder is not writable, the ids are only returned. Not cached: fewer than
    `FEWEST_ROWS` rows, and tokenizers that cannot be serialised as JSON (no Rust backend, or parts in Python).
    """
    description = describe(tokenizer) if len(rows) >= FEWEST_ROWS else ""
    if not description:
        return encode(rows, tokenizer, max_length, domains)
    made: list[EncodedRows] = []

    def write(place: Path) -> None:
        made.append(encode(rows, tokenizer, max_length, domains))
        _write(place, made[-1])

    cache = DiskCache(folder / STORED_TOKENS, MOST_GIGABYTES)
    try:
        return cache.get(name_of(rows, description, max_length, domains), None, write, _read)
    except (OSError, TeachbackError) as error:
        logger.warning("token ids could not be cached for other stages: %s", error)
        return made[-1] if made else encode(rows, tokenizer, max_length, domains)


def describe(tokenizer) -> str:
    """Everything in a tokenizer that ids depend on, as JSON; "" if it cannot be serialised.

    Truncation and padding are left out, as every call sets them.
    """
    try:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
    except Exception:
        return ""
    backend |= {"truncation": None, "padding": None}
    names = ("truncation_side", "split_special_tokens", "model_input_names", "special_tokens_map")
    settings = {name: getattr(tokenizer, name) for name in names}
    versions = [version("tokenizers"), version("transformers")]
    return json.dumps([type(tokenizer).__name__, backend, settings, versions], default=str)


def name_of(rows: list[Row], tokenizer: str, max_length: int, domains: dict[str, Domain]) -> str:
    """Cache key: hash of the tokenizer's description, the maximum length, the texts and their truncation.

    Labels, weights and domain names are left out.
    """
    texts = ([texts_of(row, domains[row.domain]), domains[row.domain].truncate] for row in rows)
    return key_of([FORM, max_length, tokenizer], (json.dumps(part).encode() for part in texts))


def _read(folder: Path) -> EncodedRows:
    """Memory-map a safetensors file (length, JSON header, arrays), which the library's reader would copy into memory."""
    path = folder / FILE
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    data = np.asarray(np.memmap(path, np.uint8, "r", offset=8 + size))
    places = {name: entry["data_offsets"] for name, entry in header.items()}
    arrays = {name: data[start:end].view(np.int32) for name, (start, end) in places.items()}
    sequences, lengths = arrays.pop("sequences").tolist(), arrays.pop("lengths")
    return EncodedRows({name: Slices(ids, lengths) for name, ids in arrays.items()}, sequences=sequences)


def _write(folder: Path, encoded: EncodedRows) -> None:
    arrays = {name: ids.flat for name, ids in encoded.inputs.items()}
    arrays["lengths"] = encoded.inputs["input_ids"].lengths.astype(np.int32)
    arrays["sequences"] = np.array(encoded.sequences, dtype=np.int32)
    (folder / FILE).write_bytes(save(arrays))
