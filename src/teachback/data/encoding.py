"""Tokenised rows, and batches of similar length, padded to the longest sequence of the batch.

A row is one sequence of tokens, except for kind ``choices``: one sequence per choice, the question with that choice. A
batch holds tensors by row [B, ...] and by sequence [S, L], sequences of a row being adjacent; if S > B, ``sequences`` [B]
is the number of sequences per row.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row, split_choices
from teachback.data.slices import Slices


@dataclass
class EncodedRows(Dataset):
    """Dataset of N tokenised rows.

    Args:
        inputs: tokenizer field (input_ids, ...) -> one int32 array of ids per sequence.
        columns: values per row, tensors of shape [N, ...] that are batched along.
        sequences: number of sequences of each row; empty if every row is one sequence.
        states: arrays of shape [tokens, F] per sequence, padded like token ids; read lazily, as they may exceed memory.
        guids: names of the rows for messages, if known.
        batches: rows of each training batch of an epoch, in order, if these are fixed.
    """

    inputs: dict[str, Slices]
    columns: dict[str, torch.Tensor] = field(default_factory=dict)
    sequences: list[int] = field(default_factory=list)
    states: dict[str, Slices] = field(default_factory=dict)
    guids: Sequence[str] = ()
    batches: Sequence[list[int]] = ()

    def __post_init__(self):
        self._ends = list(accumulate(self.sequences))

    def __len__(self) -> int:
        return len(self.sequences or self.inputs["input_ids"])

    def __getitem__(self, index: int) -> dict:
        # Rows before sequences: Hugging Face's Trainer takes the size of the first tensor for the number of examples.
        item = {name: values[index] for name, values in self.columns.items()} | {"index": index}
        if not self.sequences:
            return item | {name: values[index] for name, values in {**self.inputs, **self.states}.items()}
        item["sequences"] = self.sequences[index]
        return item | {name: self._of_row(values, index) for name, values in {**self.inputs, **self.states}.items()}

    def _of_row(self, values: Sequence, index: int) -> Sequence:
        """The items of ``values``, one per sequence, that belong to a row."""
        end = self._ends[index]
        return values[end - self.sequences[index] : end]

    @property
    def lengths(self) -> list[int]:
        """Length of each row's longest sequence, special tokens included."""
        lengths = self.inputs["input_ids"].lengths.tolist()
        return [max(self._of_row(lengths, i)) for i in range(len(self))] if self.sequences else lengths

    @classmethod
    def joined(cls, parts: list["EncodedRows"]) -> "EncodedRows":
        """Concatenate the token ids of several parts, without their columns."""
        if len(parts) == 1:
            return parts[0]
        inputs = {name: Slices.joined([part.inputs[name] for part in parts]) for name in parts[0].inputs}
        some = any(part.sequences for part in parts)
        return cls(inputs, sequences=[n for part in parts for n in part.sequences or [1] * len(part)] if some else [])

    def chosen(self, order: list[int]) -> "EncodedRows":
        """Select rows in the given order, without ``states`` and ``batches``."""
        columns = {name: values[order] for name, values in self.columns.items()}
        sequences = [self.sequences[i] for i in order] if self.sequences else []
        guids = [self.guids[i] for i in order] if self.guids else ()
        if sequences:
            order = [i for row, count in zip(order, sequences) for i in range(self._ends[row] - count, self._ends[row])]
        inputs = {name: ids.chosen(order) for name, ids in self.inputs.items()}
        return EncodedRows(inputs, columns, sequences, guids=guids)

    def sorted_by_length(self) -> tuple["EncodedRows", list[int]]:
        """Rows longest first, so that running out of memory shows at once, and the original index of each."""
        lengths = self.lengths
        order = sorted(range(len(self)), key=lambda i: -lengths[i])
        return self.chosen(order), order


def encode(
    rows: list[Row], tokenizer, max_length: int, domains: dict[str, Domain] | None = None, chunk: int = 1_000
) -> EncodedRows:
    """Tokenise rows as their domains specify; without ``domains``, as texts and pairs truncated longest first.

    ``chunk`` rows are tokenised at a time, as a tokenizer's output takes about 50 KB per row until the ids are extracted.
    """
    parts: dict[str, list[Slices]] = {"input_ids": [Slices.of_lists([])]}
    sequences: list[int] = []
    for start in range(0, len(rows), chunk):
        part = [(row, domains[row.domain] if domains else None) for row in rows[start : start + chunk]]
        texts = [texts_of(row, domain) for row, domain in part]
        sequences += map(len, texts)
        cut_first = [domain is not None and domain.truncate == "text_a" for _, domain in part]
        only_first = [first for first, row_texts in zip(cut_first, texts) for _ in row_texts]
        with padding_settings_kept(tokenizer):
            encoded = _tokenise([text for row_texts in texts for text in row_texts], only_first, tokenizer, max_length)
        for name in tokenizer.model_input_names:
            if name in encoded and name != "attention_mask":
                parts.setdefault(name, []).append(Slices.of_lists(encoded[name]))
    inputs = {name: Slices.joined(values) for name, values in parts.items()}
    return EncodedRows(inputs, sequences=sequences if max(sequences, default=1) > 1 else [])


def texts_of(row: Row, domain: Domain | None) -> list[str | tuple[str, str]]:
    """Texts of a row's sequences: a text or a pair; for ``choices`` the question paired with each choice."""
    if domain is None or domain.kind != "choices":
        return [(row.text_a, row.text_b) if row.text_b else row.text_a]
    choices = split_choices(row.text_b)
    if len(choices) != len(domain.labels):
        raise TeachbackError(
            f"row {row.guid!r} has {len(choices)} choices, but domain {domain.name!r} has {len(domain.labels)}: "
            f"{', '.join(domain.labels)}; run 2_process_data.sh again"
        )
    return [(row.text_a, choice) for choice in choices]


@contextmanager
def padding_settings_kept(tokenizer) -> Iterator[None]:
    """Restore the truncation and padding settings that a call changes in a fast tokenizer.

    They are saved with it, and a checkpoint must not depend on earlier calls.
    """
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    try:
        yield
    finally:
        backend.enable_truncation(**truncation) if truncation else backend.no_truncation()
        backend.enable_padding(**padding) if padding else backend.no_padding()


def _tokenise(texts: list, only_first: list[bool], tokenizer, max_length: int) -> dict[str, list[list[int]]]:
    """Ids of each text by tokenizer field; where ``only_first``, only the first text of a pair is truncated."""
    encoded = tokenizer(texts, truncation="longest_first", max_length=max_length)
    full = [len(ids) == max_length for ids in encoded["input_ids"]]  # shorter ones were not truncated
    pairs = [i for i, text in enumerate(texts) if only_first[i] and full[i] and not isinstance(text, str)]
    places = _with_room_for_first(texts, pairs, tokenizer, max_length)
    if places:
        again = tokenizer([texts[i] for i in places], truncation="only_first", max_length=max_length)
        for name, values in again.items():
            for place, ids in zip(places, values):
                encoded[name][place] = ids
    return _without_empty(encoded, tokenizer)


def _without_empty(encoded: dict[str, list[list[int]]], tokenizer) -> dict[str, list[list[int]]]:
    """Replace empty sequences by one token: decoders' tokenizers add no special tokens and drop unknown characters."""
    end = tokenizer.pad_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    for place in [place for place, ids in enumerate(encoded["input_ids"]) if not ids]:
        for name, values in encoded.items():
            values[place] = [end if name == "input_ids" else 0]
    return encoded


def _with_room_for_first(texts: list, pairs: list[int], tokenizer, max_length: int) -> list[int]:
    """Select the pairs whose second text leaves room for the first; the others keep the longest-first truncation."""
    if not pairs:
        return []
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    seconds = tokenizer([texts[i][1] for i in pairs], add_special_tokens=False, verbose=False)["input_ids"]
    return [i for i, ids in zip(pairs, seconds) if len(ids) < room]


@dataclass
class Collator:
    """Collate items: pad to the longest sequence, rounded up to ``multiple``, and add the attention mask."""

    pad_token_id: int
    multiple: int = 1  # 8 on GPUs, for their matrix units

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        names = list(items[0])
        listed = {
            name: [item[name] for item in items] for name in names if isinstance(items[0][name], (list, np.ndarray))
        }
        batch = {}
        for name in [name for name in names if name not in listed]:
            values = [item[name] for item in items]
            batch[name] = torch.stack(values) if isinstance(values[0], torch.Tensor) else torch.tensor(values)
        if "sequences" in batch:
            listed = {name: [ids for arrays in values for ids in arrays] for name, values in listed.items()}
            if len(listed["input_ids"]) == len(items):
                del batch["sequences"]
        lengths = torch.tensor([len(ids) for ids in listed["input_ids"]])
        width = padded_length(int(lengths.max()), self.multiple)
        for name, values in listed.items():
            batch[name] = _padded(values, width, self.pad_token_id if name == "input_ids" else 0)
        batch["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
        return batch


def padded_length(longest: int, multiple: int) -> int:
    """Round the longest length of a batch up to a multiple."""
    return -(-longest // multiple) * multiple


def _padded(arrays: list[np.ndarray], width: int, value: int) -> torch.Tensor:
    """Pad arrays of shape [L, ...] with ``value`` and stack them: [S, width, ...]. Token ids become int64."""
    dtype = np.int64 if arrays[0].dtype == np.int32 else arrays[0].dtype
    padded = np.full((len(arrays), width, *arrays[0].shape[1:]), value, dtype=dtype)
    for row, values in zip(padded, arrays):
        row[: len(values)] = values
    return torch.from_numpy(padded)


def batches(encoded: EncodedRows, batch_size: int, pad_token_id: int):
    """Yield padded batches, longest rows first; ``index`` [B] holds their row numbers in ``encoded``."""
    collate = Collator(pad_token_id)
    lengths = encoded.lengths
    order = sorted(range(len(encoded)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield collate([encoded[i] for i in order[start : start + batch_size]])


class LengthBucketSampler(Sampler):
    """Sampler that batches rows of similar length, in an order fixed by seed and epoch.

    Rows are shuffled, sorted by length within pools of ``pool`` batches, cut into batches of ``batch_size``
    (over all processes together), and the batches are shuffled. An incomplete batch comes last.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, pool: int = 50):
        self.lengths, self.batch_size, self.seed, self.pool = lengths, batch_size, seed, pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        # The rows of the incomplete batch are set aside before sorting, so that they are a random sample.
        whole = len(shuffled) - len(shuffled) % self.batch_size
        batches = self._batches(shuffled[:whole])
        for position in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[position]
        yield from shuffled[whole:]

    def _batches(self, rows: list[int]) -> list[list[int]]:
        size = self.batch_size * self.pool
        pools = [sorted(rows[i : i + size], key=lambda row: self.lengths[row]) for i in range(0, len(rows), size)]
        return [p[i : i + self.batch_size] for p in pools for i in range(0, len(p), self.batch_size)]


@dataclass(frozen=True)
class Padding:
    """Number of tokens in batches, and of padding among them."""

    batches: int
    tokens: int
    padding: int

    @property
    def share(self) -> float:
        return self.padding / self.tokens

    def __str__(self) -> str:
        return f"padding: {100 * self.share:.1f} % of {self.tokens:,} tokens in {self.batches:,} batches"


def count_padding(encoded: EncodedRows, batches: Iterable[list[int]], multiple: int) -> Padding:
    """Count the padding that `Collator` would add to batches of row numbers, without building them."""
    lengths, counts = encoded.inputs["input_ids"].lengths, np.array(encoded.sequences or [1] * len(encoded))
    firsts = np.cumsum(counts) - counts
    longest, real = np.maximum.reduceat(lengths, firsts), np.add.reduceat(lengths, firsts)
    number = tokens = filled = 0
    for rows in batches:
        number += 1
        tokens += int(counts[rows].sum()) * padded_length(int(longest[rows].max()), multiple)
        filled += int(real[rows].sum())
    return Padding(number, tokens, tokens - filled)
