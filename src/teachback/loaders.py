"""Data loaders for the Python API, from the user's texts or from SuperGLUE in the stages' data folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.download import get_data
from teachback.data.encoding import Collator, encode
from teachback.data.loader_rows import TokenDataset
from teachback.data.schema import PROTOCOLS, Domain, Row
from teachback.data.suites.definition import Parsed, ReadSettings
from teachback.data.suites.superglue import SUITE
from teachback.data.texts import Texts, require_list, text_rows
from teachback.models.loading import load_tokenizer

FEWEST_TOKENS = 4  # three special tokens of a pair, and one of its text


@dataclass(frozen=True)
class TupleCollator:
    """Collates items to (input_ids, attention_mask, token_type_ids, label), padded to the longest row of the batch."""

    pad_token_id: int

    def __call__(self, items: list[dict]) -> tuple[torch.Tensor, ...]:
        batch = Collator(self.pad_token_id)(items)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        tokens = [ids, mask, batch.get("token_type_ids", torch.zeros_like(ids))]
        if "sequences" in batch:
            tokens = [value.view(len(items), -1, value.shape[-1]) for value in tokens]
        return (*tokens, batch["label"]) if "label" in batch else tuple(tokens)


def create_simple_dataloader(
    texts: Texts, labels: float | Sequence[float] | None, tokenizer_name="bert-base-uncased",
    max_length: int = 128, batch_size: int = 8, shuffle: bool = True,
) -> DataLoader:  # fmt: skip
    """Create a `DataLoader` of texts or text pairs with label indices (for regression, numbers).

    Args:
        texts: texts or pairs; a single string is one row.
        labels: a label per row, a single number for a single text, or None for rows to predict.
        tokenizer_name: a hub name, a folder, scratch:tiny|mini (a vocabulary learnt from these texts), or a tokenizer.

    Raises:
        TeachbackError: there are no texts, the numbers of texts and labels differ, or labels are not numbers.
    """
    rows = text_rows(texts, "texts", "texts")
    require_list(labels, "labels", "numbers")
    if isinstance(labels, (int, float, Real)):  # Real includes NumPy's numbers
        labels = [labels]
    if not rows or (labels is not None and len(labels) != len(rows)):
        raise TeachbackError(
            f"there are {len(rows)} texts and {0 if labels is None else len(labels)} labels; pass one label for each text"
        )
    known = [text for row in rows for text in (row.text_a, row.text_b) if text]
    dataset = _dataset(rows, _tokenizer(tokenizer_name, known), max_length)
    if labels is not None:
        dataset.encoded.columns["label"] = _numbers(labels)
    return _loader(dataset, batch_size, shuffle)


def _numbers(labels: Sequence[float]) -> torch.Tensor:
    try:
        return torch.as_tensor([value.item() if hasattr(value, "item") else value for value in labels])
    except (TypeError, ValueError):
        raise TeachbackError("labels must be numbers: 0, 1, ... for classes, or the values of a regression") from None


def _tokenizer(name, texts: list[str], data_dir: str = "data"):
    return load_tokenizer(str(name), data_dir, texts) if isinstance(name, (str, Path)) else name


def _dataset(rows: list[Row], tokenizer, max_length: int, domains: dict[str, Domain] | None = None) -> TokenDataset:
    if max_length < FEWEST_TOKENS:
        raise TeachbackError(f"max_length={max_length}: must be at least {FEWEST_TOKENS}")
    return TokenDataset(rows, encode(rows, tokenizer, max_length, domains), tokenizer, max_length, domains)


def _loader(dataset: TokenDataset, batch_size: int, shuffle: bool) -> DataLoader:
    collate = TupleCollator(dataset.tokenizer.pad_token_id)
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, collate_fn=collate)


def load_superglue_dataset(
    task_name: str, tokenizer_name="bert-base-uncased", max_length: int = 128, batch_size: int = 8,
    max_samples: int | None = None, data_dir: str = "data", source: str = "", protocol: str = "honest",
    allow_partial: bool = False,
) -> tuple[dict[str, DataLoader], int]:  # fmt: skip
    """Load a SuperGLUE task; returns a dict of loaders (train, val, test) and the number of labels.

    Args:
        max_samples: maximum number of train rows, twice that of val and of test rows; None for all.
        data_dir: folder with raw/superglue; a missing archive is fetched from ``source`` or its official address.
        protocol: "honest": val is cut from train, test is the official dev set, whose labels are known. "paper": val
            is the official dev set, test the official test set without labels.

    Raises:
        TeachbackError: an argument is invalid, or the data cannot be fetched or read.
    """
    if max_samples is not None and max_samples < 1:
        raise TeachbackError(f"max_samples={max_samples}: must be at least 1; None takes all")
    parsed, domain = _read_task(task_name, data_dir, source, protocol, allow_partial)
    splits = {"train": "train", "val": "dev", "test": "test"}
    if protocol == "paper":
        splits |= {"val": "test", "test": "hidden"}
    texts = [text for row in parsed.rows["train"] for text in (row.text_a, row.text_b) if text]
    tokenizer = _tokenizer(tokenizer_name, texts, data_dir)
    loaders = {}
    for name, split in splits.items():
        rows = parsed.rows.get(split, [])
        rows = rows if max_samples is None else rows[: max_samples if name == "train" else max(1, max_samples // 2)]
        dataset = _dataset(rows, tokenizer, max_length, {domain.name: domain})
        if split != "hidden":
            dataset.encoded.columns["label"] = torch.tensor([domain.labels.index(row.label) for row in rows])
        loaders[name] = _loader(dataset, batch_size, shuffle=name == "train")
    return loaders, len(domain.labels)


def _read_task(task_name: str, data_dir: str, source: str, protocol: str, allow_partial: bool) -> tuple[Parsed, Domain]:
    """Read the rows of a task by split, and its domain; missing raw files are fetched."""
    if protocol not in PROTOCOLS:
        raise TeachbackError(f"protocol={protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}")
    names = [name for name in SUITE.domain_names if name.lower() == task_name.lower()]
    if not names:
        raise TeachbackError(f"task_name={task_name!r} is unknown; SuperGLUE has: {', '.join(SUITE.domain_names)}")
    content = Path(data_dir) / "raw" / SUITE.name / "content"
    if not (content / names[0]).is_dir():
        get_data(SUITE, Path(data_dir), source, allow_partial, domains=names[0])
    problems = Problems()
    parsed = SUITE.read(content, ReadSettings(protocol=protocol, domains=names[0]), problems)
    problems.report(skip=False)
    return parsed, parsed.domains[names[0]]
