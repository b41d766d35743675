"""Token ids on disk: made once of a suite's rows, then read by whatever stage asks for the same ones.

A file of safetensors holds int32 arrays: the ``lengths`` [S] of the sequences, how many ``sequences`` each row has
(empty where all have one), and for each field of the tokenizer its ids, one sequence after the other.
"""

import hashlib
import json
import logging
import os
import time
import zlib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from teachback.core.files import write_atomically
from teachback.data.encoding import EncodedRows, encode, texts_of
from teachback.data.schema import Domain, Row
from teachback.data.slices import Slices

logger = logging.getLogger(__name__)

FOLDER = "tokens"  # within the suite's
FORM = 1  # one more whenever `encode` makes other ids of the same texts
# Tokenising takes 0.3 ms a row, reading BERT's vocabulary for the key 20 ms and one of many languages ten times that: of
# fewer rows a file would save less than 0.3 s, and every domain's dev and quiz would be one.
FEWEST_ROWS = 1_000
MOST_BYTES = 2e9  # of one folder; a row of 128 tokens takes 1 KB
IN_USE_SECONDS = 3_600  # another run may be about to read what was written or read so recently


def encode_once(folder: Path, rows: list[Row], tokenizer, max_length: int, domains: dict[str, Domain]) -> EncodedRows:
    """What `encode` makes of a suite's rows, memory-mapped from a file below its folder; written where there is none.

    The files are a cache: a damaged one is made again, and where none can be written the ids are only returned.
    Few rows have no file, nor those of a tokenizer that cannot be written as JSON (one without a Rust backend, or with
    parts in Python).
    """
    description = describe(tokenizer) if len(rows) >= FEWEST_ROWS else ""
    if not description:
        return encode(rows, tokenizer, max_length, domains)
    path = folder / FOLDER / f"{key_of(rows, description, max_length, domains)}.safetensors"
    encoded = _read_whole(path)
    if encoded is None:
        encoded = encode(rows, tokenizer, max_length, domains)
        try:
            _write(path, encoded)
        except OSError as error:
            logger.warning("token ids are not kept for other stages: %s", error)
    return encoded


def describe(tokenizer) -> str:
    """All of a tokenizer that ids depend on, as JSON; "" where that cannot be had.

    Truncation and padding in its file are no part of it, as every call sets its own.
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


def key_of(rows: list[Row], tokenizer: str, max_length: int, domains: dict[str, Domain]) -> str:
    """SHA-256 of all that the ids depend on: the described tokenizer, the length, the texts and how they are cut.

    Labels, weights and names of domains are no part of it.
    """
    digest = hashlib.sha256(json.dumps([FORM, max_length, tokenizer]).encode())
    for row in rows:
        domain = domains[row.domain]
        digest.update(json.dumps([texts_of(row, domain), domain.truncate]).encode())
    return digest.hexdigest()


def _read_whole(path: Path) -> EncodedRows | None:
    """The rows that a file holds; None where there is none, or a damaged one, which is reported."""
    if not path.is_file():
        return None
    try:
        encoded = _read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged, so its rows are tokenised again: %r", path, error)
        return None
    with suppress(OSError):  # where it may only be read, others decide what stays
        os.utime(path)
    return encoded


def _read(path: Path) -> EncodedRows:
    """Map a file. The library's reader would copy it into memory; the layout is a length, a JSON header, the arrays."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("its header is cut off")
        header = json.loads(file.read(size))
    data = np.asarray(np.memmap(path, np.uint8, "r", offset=8 + size))
    checksum = header["__metadata__"]["crc32"]
    places = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    arrays = {name: data[start:end].view(np.int32) for name, (start, end) in places.items()}
    if _checksum(arrays) != checksum:
        raise ValueError("its checksum is not that of its content")
    sequences, lengths = arrays.pop("sequences").tolist(), arrays.pop("lengths")
    return EncodedRows({name: Slices(ids, lengths) for name, ids in arrays.items()}, sequences=sequences)


def _write(path: Path, encoded: EncodedRows) -> None:
    arrays = {name: ids.flat for name, ids in encoded.inputs.items()}
    arrays["lengths"] = encoded.inputs["input_ids"].lengths.astype(np.int32)
    arrays["sequences"] = np.array(encoded.sequences, dtype=np.int32)
    write_atomically(path, save(arrays, {"crc32": _checksum(arrays)}))
    _remove_oldest(path.parent)


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(arrays[name].data, zlib.crc32(name.encode(), value))
    return str(value)


def _remove_oldest(folder: Path) -> None:
    """Remove the least recently used files beyond `MOST_BYTES`, but none of the last hour."""
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removes some too, or renames its own
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for used, size, path in sorted(found, reverse=True):
        total += size
        if total > MOST_BYTES and used < time.time() - IN_USE_SECONDS:
            with suppress(OSError):
                path.unlink()
