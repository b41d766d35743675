"""Token ids of a list of rows, made once, and batches of similar length, padded to the batch."""

from dataclasses import dataclass, field

import torch
from torch.utils.data import Dataset, Sampler

from teachback.suites.schema import Row


@dataclass
class EncodedRows(Dataset):
    """Rows as token ids: ``inputs`` maps a tokenizer field (input_ids, ...) to one list of ids a row.

    ``columns`` holds one value a row, tensors of shape [N, ...] that a batch carries along.
    """

    inputs: dict[str, list[list[int]]]
    columns: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def __getitem__(self, index: int) -> dict:
        item = {name: ids[index] for name, ids in self.inputs.items()}
        return item | {name: values[index] for name, values in self.columns.items()} | {"index": index}

    @property
    def lengths(self) -> list[int]:
        """Tokens a row, special tokens included."""
        return [len(ids) for ids in self.inputs["input_ids"]]

    def sorted_by_length(self) -> tuple["EncodedRows", list[int]]:
        """The rows longest first (a batch that does not fit in memory fails at once), and where each came from."""
        lengths = self.lengths
        order = sorted(range(len(self)), key=lambda i: -lengths[i])
        inputs = {name: [ids[i] for i in order] for name, ids in self.inputs.items()}
        return EncodedRows(inputs, {name: values[order] for name, values in self.columns.items()}), order


def encode(rows: list[Row], tokenizer, max_length: int, chunk: int = 10_000) -> EncodedRows:
    """Tokenise single texts and pairs; the longer text of a pair is cut first."""
    inputs: dict[str, list[list[int]]] = {}
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        texts = [(row.text_a, row.text_b) if row.text_b else row.text_a for row in part]
        encoded = tokenizer(texts, truncation="longest_first", max_length=max_length)
        for name in tokenizer.model_input_names:
            if name in encoded and name != "attention_mask":
                inputs.setdefault(name, []).extend(encoded[name])
    return EncodedRows(inputs or {"input_ids": []})


@dataclass
class Collator:
    """Pad a list of items to the longest of them (or to the next multiple), and make the attention mask."""

    pad_token_id: int
    multiple: int = 1  # 8 on GPUs, whose matrix units like it

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        longest = max(len(item["input_ids"]) for item in items)
        width = -(-longest // self.multiple) * self.multiple
        batch = {}
        for name, value in items[0].items():
            values = [item[name] for item in items]
            if isinstance(value, list):
                batch[name] = _padded(values, width, self.pad_token_id if name == "input_ids" else 0)
            else:
                batch[name] = torch.stack(values) if isinstance(value, torch.Tensor) else torch.tensor(values)
        lengths = torch.tensor([len(item["input_ids"]) for item in items])
        batch["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
        return batch


def _padded(rows: list[list[int]], width: int, value: int) -> torch.Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def batches(encoded: EncodedRows, batch_size: int, pad_token_id: int):
    """Yield padded batches, longest rows first; ``index`` says which rows of ``encoded`` they are."""
    collate = Collator(pad_token_id)
    lengths = encoded.lengths
    order = sorted(range(len(encoded)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield collate([encoded[i] for i in order[start : start + batch_size]])


class LengthBucketSampler(Sampler):
    """Every row once an epoch, neighbours of similar length, in an order fixed by seed and epoch.

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
