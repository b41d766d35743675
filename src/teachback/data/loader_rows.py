"""Reading a user's data loader once into `EncodedRows`.

A loader is a `torch.utils.data.DataLoader` with any sampler and collate_fn, or any other sized iterable. It yields tuples
(input_ids, attention_mask, token_type_ids, labels) of shapes [B, L], [B, L], [B, L] and [B]; for questions with n choices
[B, n, L]. Labels may be missing where nothing is trained.
"""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from transformers import PreTrainedTokenizerBase

from teachback.core.errors import TeachbackError
from teachback.data.common_tokens import have_same_description, same_definition, same_model_input
from teachback.data.encoding import EncodedRows, encode
from teachback.data.schema import Domain, Row
from teachback.data.slices import Slices
from teachback.data.splits import cut

TOKENS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass
class TokenDataset(Dataset):
    """Tokenised rows with their tokenizer, maximum length and, if known, domains.

    The texts are kept, so that they can be encoded again for a model with another tokenizer.
    """

    rows: list[Row]
    encoded: EncodedRows
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    domains: dict[str, Domain] | None = None

    @property
    def has_pairs(self) -> bool:
        return any(row.text_b for row in self.rows[:1])

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label names by class index; empty if unknown."""
        return next(iter(self.domains.values())).labels if self.domains else ()

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict:
        return self.encoded[index]


@dataclass(frozen=True)
class Batch:
    """A batch without padding. ``choices``: sequences per row; 0 unless the rows are questions with choices."""

    inputs: dict[str, Slices]
    rows: int
    choices: int
    labels: torch.Tensor | None


class UserLoader:
    """A loader's batches, drawn once. ``name`` identifies it in errors."""

    def __init__(self, loader, name: str):
        require_loader(loader, name)
        self.loader, self.name = loader, name
        self.dataset = getattr(loader, "dataset", None)
        self.shuffles = _shuffles(loader)
        drawn = loader
        if self.shuffles:  # in the order of the data set, with the rows that ``drop_last`` would leave out
            drawn = DataLoader(loader.dataset, loader.batch_size, num_workers=loader.num_workers,
                               collate_fn=loader.collate_fn, worker_init_fn=loader.worker_init_fn)  # fmt: skip
        self.batches = [_read(values, self._where(number)) for number, values in enumerate(drawn)]

    def _where(self, number: int) -> str:
        return f"{self.name}, batch {number + 1}"

    @property
    def batch_size(self) -> int | None:
        """The loader's ``batch_size``; None if it has no such attribute."""
        return getattr(self.loader, "batch_size", None)

    @property
    def drops_last(self) -> bool:
        """Whether each epoch drops an incomplete batch of rows drawn at random."""
        return self.shuffles and self.loader.drop_last

    @property
    def row_count(self) -> int:
        """Number of rows of the data set; if it has no length, of the rows drawn."""
        return len(self.dataset) if isinstance(self.dataset, Sized) else sum(batch.rows for batch in self.batches)

    @property
    def has_choices(self) -> bool:
        return self.batches[0].choices > 0

    def is_labelled(self, regression: bool) -> bool:
        """Whether every row has a label; a missing one is NaN, or negative where labels are classes."""
        labels = [batch.labels for batch in self.batches if batch.labels is not None]
        known = (part.isfinite().all() and (regression or part.min() >= 0) for part in labels)
        return len(labels) == len(self.batches) and all(map(bool, known))

    @cached_property
    def texts(self) -> list[TokenDataset]:
        """The `TokenDataset` instances behind the loader, also within PyTorch's Subset and ConcatDataset."""
        datasets, left = [], [self.dataset]
        while left:
            dataset = left.pop()
            if isinstance(dataset, TokenDataset):
                datasets.append(dataset)
            else:
                left += getattr(dataset, "datasets", [getattr(dataset, "dataset", None)] if dataset is not None else [])
        return datasets

    @property
    def tokenizer(self):
        """Tokenizer of the data set; None if unknown."""
        return self.texts[0].tokenizer if self.texts else None

    def task(self, name: str) -> Domain:
        """Infer the task from the batches; the number of classes from the largest label."""
        labels = [batch.labels for batch in self.batches if batch.labels is not None]
        if not labels:
            raise TeachbackError(
                f"{self.name} yields no labels; it has to yield tensors (input_ids, attention_mask, token_type_ids, labels)"
            )
        if labels[0].is_floating_point():
            return Domain(name, name, (), task="regression")
        count = self.batches[0].choices or max(2, max(int(part.max()) for part in labels) + 1)
        names = tuple(f"LABEL_{number}" for number in range(count))
        return Domain(name, name, names, kind="choices" if self.has_choices else "single")

    def rows(self, domain: Domain, vocabulary: int, float_labels: bool = False, needs_labels: bool = True) -> EncodedRows:
        """Encode the batches as rows of a task; missing labels become -1, or NaN in a regression.

        Unless the loader shuffles, its batches are kept for every epoch. Token ids must be below ``vocabulary``.
        """
        labels = [
            self._checked(batch, number, domain, vocabulary, needs_labels) for number, batch in enumerate(self.batches)
        ]
        kind = torch.float if float_labels or domain.task == "regression" else torch.long
        inputs = {name: Slices.joined([batch.inputs[name] for batch in self.batches]) for name in self.batches[0].inputs}
        sequences = [batch.choices for batch in self.batches for _ in range(batch.rows) if batch.choices]
        numbers = list(range(sum(batch.rows for batch in self.batches)))
        columns = {"label": torch.cat(labels).to(kind), "domain": torch.zeros(len(numbers), dtype=torch.long),
                   "weight": torch.ones(len(numbers))}  # fmt: skip
        drawn = iter(numbers)
        batches = [] if self.shuffles else [[next(drawn) for _ in range(batch.rows)] for batch in self.batches]
        return EncodedRows(inputs, columns, sequences, guids=[f"{self.name}[{i}]" for i in numbers], batches=batches)

    def _checked(self, batch: Batch, number: int, domain: Domain, vocabulary: int, needs_labels: bool) -> torch.Tensor:
        """Labels of a batch [B], after validating it for a task."""
        problem = _token_problem(batch, domain, vocabulary) or (_label_problem(batch, domain) if needs_labels else "")
        if problem:
            raise TeachbackError(f"{self._where(number)}: {problem}")
        if batch.labels is None:
            return torch.full((batch.rows,), float("nan") if domain.task == "regression" else -1)
        return batch.labels

    def read_by(self, tokenizer, rows: EncodedRows, assumed) -> EncodedRows:
        """Encode the rows with ``tokenizer``: unchanged if it made their tokens, else from the texts of the data set.

        Rows are matched to texts by their tokens. ``assumed``: tokenizer of the rows if the data set names none.
        """
        if not self.texts and not same_definition(assumed, tokenizer):
            raise TeachbackError(
                f"teacher and student have different tokenizers, and {self.name} yields the tokens of one of them without the texts; "
                "create it with create_simple_dataloader or load_superglue_dataset, or choose models that share a tokenizer"
            )
        if all(have_same_description(dataset.tokenizer, tokenizer) for dataset in self.texts):
            return rows
        parts = [encode(part.rows, tokenizer, part.max_length, part.domains) for part in self.texts]
        if all(same_model_input(part.encoded, encoded, reads_types=True) for part, encoded in zip(self.texts, parts)):
            return rows
        keys = keys_of(rows)
        known = {key: i for i, key in enumerate(key for part in self.texts for key in keys_of(part.encoded))}
        if unknown := sum(key not in known for key in keys):
            raise TeachbackError(
                f"{self.name}: the tokens of {unknown} of {len(keys)} rows are not in its data set, so their texts "
                "are unknown; if teacher and student have different tokenizers, collate_fn must not change tokens"
            )
        encoded = EncodedRows.joined(parts).chosen([known[key] for key in keys])
        return replace(encoded, columns=rows.columns, guids=rows.guids, batches=rows.batches)


def require_loader(loader, name: str) -> None:
    """Refuse an object that is not a loader, or has no length: an endless one would be read forever."""
    if not hasattr(type(loader), "__iter__") or isinstance(loader, Iterator):
        raise TeachbackError(f"{name} is of type {type(loader).__name__}; pass a DataLoader")
    try:
        length = len(loader)
    except TypeError:
        raise TeachbackError(
            f"{name} has no length, so it may never end; pass a loader with a length, for example of a map-style dataset"
        ) from None
    if not length:
        raise TeachbackError(f"{name} has no batches; pass a loader with at least one row")


def _shuffles(loader) -> bool:
    """Whether a loader uses PyTorch's random sampler without replacement."""
    if type(loader) is not DataLoader or type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler = loader.sampler
    return type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == len(sampler.data_source)


def _read(values, where: str) -> Batch:
    """Strip the padding of a loader's batch, on whichever side it is."""
    tensors = isinstance(values, (tuple, list)) and all(isinstance(value, torch.Tensor) for value in values)
    if not tensors or len(values) not in (3, 4):
        raise TeachbackError(
            f"{where}: expected tensors (input_ids, attention_mask, token_type_ids, labels), not {_kind(values)}; "
            "let the dataset or the collate_fn return them in this order"
        )
    values = [value.cpu() for value in values]  # a collate_fn may have moved them to a GPU
    tokens, labels = dict(zip(TOKENS, values)), values[3] if len(values) == 4 else None
    if problem := _shape_problem(tokens, labels):
        raise TeachbackError(f"{where}: {problem}")
    ids = tokens["input_ids"]
    choices = ids.shape[1] if ids.ndim == 3 else 0
    flat = {name: value.reshape(-1, ids.shape[-1]) for name, value in tokens.items()}
    real = flat.pop("attention_mask").bool()
    inputs = {name: Slices(value[real].int().numpy(), real.sum(1).numpy()) for name, value in flat.items()}
    return Batch(inputs, len(ids), choices, labels)


def _kind(values) -> str:
    if isinstance(values, (tuple, list)):
        return f"{len(values)} of {', '.join(type(value).__name__ for value in values[:4])}"
    return type(values).__name__


def _shape_problem(tokens: dict[str, torch.Tensor], labels: torch.Tensor | None) -> str:
    """Problem of a batch's types or shapes, independent of the task; "" if there is none."""
    ids = tokens["input_ids"]
    if ids.ndim not in (2, 3) or any(value.shape != ids.shape for value in tokens.values()):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tokens.items())
        return f"the shapes are {shapes}; expected [B, L] for all three, or [B, n, L] for questions with n choices"
    if not len(ids):
        return "it has no rows"
    if labels is not None and labels.shape != ids.shape[:1]:
        return f"labels have the shape {tuple(labels.shape)}; expected one label for each of the {len(ids)} rows"
    if not tokens["attention_mask"].bool().any(-1).all():
        return "a row has no real token, as its attention_mask is 0 everywhere"
    return ""


def _token_problem(batch: Batch, domain: Domain, vocabulary: int) -> str:
    """Reason why a batch's tokens do not fit a task; "" if they do."""
    expected = len(domain.labels) if domain.kind == "choices" else 0
    if batch.choices != expected:
        return f"rows have {batch.choices or 'no'} choices; expected {expected or 'none'} (num_labels)"
    ids = batch.inputs["input_ids"].flat
    if ids.min() < 0 or ids.max() >= vocabulary:
        return f"token {int(ids.max())} is not among the {vocabulary} tokens of the models; use their tokenizer for the loader"
    return ""


def _label_problem(batch: Batch, domain: Domain) -> str:
    """Reason why a batch's labels do not fit a task; "" if they do."""
    if batch.labels is None:
        return "there are no labels; yield (input_ids, attention_mask, token_type_ids, labels)"
    if domain.task == "regression":
        return "" if batch.labels.isfinite().all() else "a label is not a finite number"
    classes = len(domain.labels)
    if batch.labels.is_floating_point() or batch.labels.min() < 0 or batch.labels.max() >= classes:
        return f"labels are {batch.labels.unique().tolist()}; expected whole numbers from 0 to {classes - 1} (num_labels)"
    return ""


def keys_of(rows: EncodedRows) -> list[tuple[bytes, ...]]:
    """Key of each row for matching: the bytes of its token ids, one item per sequence."""
    sequences = iter(rows.inputs["input_ids"])
    return [tuple(next(sequences).tobytes() for _ in range(count)) for count in rows.sequences or [1] * len(rows)]


def cut_quiz(
    rows: EncodedRows, domain: Domain, fraction: float, seed: int, name: str
) -> tuple[list[int], list[int]]:
    """Split row numbers into quiz and train; no train row has the same tokens as a quiz row.

    The quiz is a ``fraction`` of the distinct rows, at least one per label. ``name`` identifies the loader in errors.
    """
    keys, first = keys_of(rows), dict[tuple[bytes, ...], int]()
    for number, key in enumerate(keys):
        first.setdefault(key, number)
    quiz = _share(list(first.values()), rows.columns["label"].tolist(), domain, fraction, seed)
    if not quiz:
        raise TeachbackError(
            f"{name} has {len(first)} different rows, too few to hold some out for phases 3 and 4; pass rows "
            f"of {domain.name} in meta_loaders, or train without these phases (meta_epochs=0)"
        )
    taken = {keys[number] for number in quiz}
    return quiz, [number for number, key in enumerate(keys) if key not in taken]


def _share(numbers: list[int], labels: list[float], domain: Domain, fraction: float, seed: int) -> list[int]:
    """Sample a fraction of the rows of each label, at least one of two or more; a regression counts as one label."""
    groups: dict[str, list[Row]] = {}
    for number in numbers:
        regression = domain.task == "regression"
        name = repr(float(labels[number])) if regression else domain.labels[int(labels[number])]
        groups.setdefault("" if regression else name, []).append(Row(str(number), "", "", name, domain.name))
    known = {domain.name: domain}
    taken = [cut(rows, max(fraction, 0.6 / len(rows)), seed, known)[1] for rows in groups.values()]
    return sorted(int(row.guid) for rows in taken for row in rows)


def without(rows: EncodedRows, left: Sequence[int]) -> EncodedRows:
    """Keep only the row numbers ``left``, in their original batches."""
    place = {number: i for i, number in enumerate(left)}
    batches = [[place[number] for number in batch if number in place] for batch in rows.batches]
    return replace(rows.chosen(list(left)), batches=[batch for batch in batches if batch])
