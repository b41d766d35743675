"""Batches of a user's loader in the form that training computes with, in the loader's own order.

A loader is asked anew in every pass: a `torch.utils.data.DataLoader` with any sampler and collate_fn, or anything else
with a length that can be iterated again. It yields tuples (input_ids, attention_mask, token_type_ids, labels) of shapes
[B, L], [B, L], [B, L] and [B]; of questions with n choices [B, n, L]. Where nothing is learnt, labels may be missing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch

from teachback.core.errors import TeachbackError
from teachback.data.encoding import EncodedRows
from teachback.data.schema import Domain, Row
from teachback.data.slices import Slices
from teachback.data.splits import cut

TOKENS = ("input_ids", "attention_mask", "token_type_ids")


class Loader(Protocol):
    """What yields batches anew in every pass, and says how many."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator: ...


def require_loader(loader, name: str) -> None:
    """Refuse what cannot be iterated again and again, or does not say how long it is."""
    if not hasattr(type(loader), "__iter__") or isinstance(loader, Iterator):
        raise TeachbackError(f"{name} is of type {type(loader).__name__}; give a DataLoader")
    try:
        length = len(loader)
    except TypeError:
        raise TeachbackError(
            f"{name} has no length, so the learning rate cannot be planned; give a loader with one, for example of a "
            "map-style dataset"
        ) from None
    if not length:
        raise TeachbackError(f"{name} has no batches; give one with at least one row")


class Passed(list):
    """All batches of a loader, as they came, and the data set that they are of, if it has one."""

    dataset: object = None


def one_pass(loader: Iterable, name: str) -> Passed:
    """Pass through a loader once; what was passed through already stays as it is."""
    require_loader(loader, name)
    if isinstance(loader, Passed):
        return loader
    passed = Passed(loader)
    passed.dataset = getattr(loader, "dataset", None)
    return passed


@dataclass(frozen=True)
class LoaderBatches:
    """A loader's batches as dicts: label, domain, weight [B], sequences [B] of choices, then tokens [S, L].

    ``name`` is what errors call the loader; ``fields`` are those that the model reads. Rows whose `row_keys` are
    ``held_out`` are left out of their batches. ``answers(batch)`` adds what a teacher says of a batch, and ``translate``
    then makes another model's tokens of the loader's.
    """

    loader: Loader
    name: str
    domain: Domain
    vocabulary: int
    fields: tuple[str, ...] = TOKENS
    float_labels: bool = False
    needs_labels: bool = True
    held_out: frozenset[bytes] = frozenset()
    answers: Callable[[dict], dict] | None = None
    translate: Callable[[dict], dict] | None = None

    def __post_init__(self):
        require_loader(self.loader, self.name)

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Tell samplers that want to know, as PyTorch's distributed one does, that a new epoch begins."""
        parts = (self.loader, getattr(self.loader, "sampler", None), getattr(self.loader, "batch_sampler", None))
        for part in parts:
            if tell := getattr(part, "set_epoch", None):
                tell(epoch)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number, values in enumerate(self.loader, start=1):
            batch = self._without_held_out(self._read(values, f"{self.name}, batch {number}"))
            if len(batch["label"]):
                told = self.answers(batch) if self.answers else {}
                batch = self.translate(batch) if self.translate else batch
                unread = [name for name in TOKENS if name not in self.fields and name != "attention_mask"]
                yield {name: value for name, value in {**told, **batch}.items() if name not in unread}

    def _read(self, values, where: str) -> dict[str, torch.Tensor]:
        tokens, labels = self._parts(values, where)
        rows = len(tokens["input_ids"])
        batch = {"label": labels.float() if self.float_labels else labels.long()}
        batch |= {"domain": torch.zeros(rows, dtype=torch.long), "weight": torch.ones(rows)}
        if self.domain.kind == "choices":
            batch["sequences"] = torch.full((rows,), tokens["input_ids"].shape[1])
            tokens = {name: value.flatten(0, 1) for name, value in tokens.items()}
        return batch | {name: value.long() for name, value in tokens.items()}

    def _parts(self, values, where: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Tokens by field, and labels, of a batch that fits the task; hidden labels are -1, of a regression NaN."""
        tensors = isinstance(values, (tuple, list)) and all(isinstance(value, torch.Tensor) for value in values)
        if not tensors or len(values) not in (3, 4):
            raise TeachbackError(
                f"{where}: expected tensors (input_ids, attention_mask, token_type_ids, labels), not {_kind(values)}; "
                "let the dataset or the collate_fn return them in this order"
            )
        values = [value.cpu() for value in values]  # a collate_fn may have put them on a GPU already
        tokens = dict(zip(TOKENS, values))
        labels = values[3] if len(values) == 4 else torch.full((len(values[0]),), self._hidden_label)
        problem = _token_problem(tokens, self.domain, self.vocabulary)
        problem = problem or (self._label_problem(values, labels) if len(values) == 4 or self.needs_labels else "")
        if problem:
            raise TeachbackError(f"{where}: {problem}")
        return tokens, labels

    @property
    def _hidden_label(self) -> float:
        return float("nan") if self.domain.task == "regression" else -1

    def _label_problem(self, values, labels: torch.Tensor) -> str:
        if len(values) < 4:
            return "there are no labels; yield (input_ids, attention_mask, token_type_ids, labels)"
        if labels.shape != values[0].shape[:1]:
            return f"labels have the shape {tuple(labels.shape)}, expected one for each of the {len(values[0])} rows"
        if not self.needs_labels:
            return ""
        if self.domain.task == "regression":
            return "" if labels.isfinite().all() else "a label is not a finite number"
        classes = len(self.domain.labels)
        if labels.is_floating_point() or labels.min() < 0 or labels.max() >= classes:
            return f"labels are {labels.unique().tolist()}, expected whole numbers 0 to {classes - 1} (num_labels)"
        return ""

    def _without_held_out(self, batch: dict) -> dict:
        if not self.held_out:
            return batch
        left = torch.tensor([key not in self.held_out for key in row_keys(batch)])
        sequences = left.repeat_interleave(len(batch["input_ids"]) // len(left))
        return {name: value[sequences if name in TOKENS else left] for name, value in batch.items()}


def _kind(values) -> str:
    if isinstance(values, (tuple, list)):
        return f"{len(values)} of {', '.join(type(value).__name__ for value in values[:4])}"
    return type(values).__name__


def _token_problem(tokens: dict[str, torch.Tensor], domain: Domain, vocabulary: int) -> str:
    """What is wrong with the tokens of a batch, "" if nothing is."""
    ids = tokens["input_ids"]
    expected = 3 if domain.kind == "choices" else 2
    if ids.ndim != expected or any(value.shape != ids.shape for value in tokens.values()):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tokens.items())
        return f"the shapes are {shapes}; expected three times {'[B, n, L]' if expected == 3 else '[B, L]'}"
    if expected == 3 and ids.shape[1] != len(domain.labels):
        return f"rows have {ids.shape[1]} choices, expected {len(domain.labels)} (num_labels)"
    if not tokens["attention_mask"].bool().any(-1).all():
        return "a row has no real token, as its attention_mask is 0 everywhere"
    if ids.min() < 0 or ids.max() >= vocabulary:
        return f"token {int(ids.max())} is not among the {vocabulary} of the models; use their tokenizer for the loader"
    return ""


def row_keys(batch: dict[str, torch.Tensor]) -> list[bytes]:
    """For each row a hash of its real tokens, by which it is known again in another pass."""
    rows = len(batch["label"])
    ids, mask = (batch[name].reshape(rows, -1, batch[name].shape[-1]) for name in ("input_ids", "attention_mask"))
    return [_key(real.sum(1).numpy(), row[real].numpy()) for row, real in zip(ids, mask.bool())]


def keys_of(rows: EncodedRows) -> list[bytes]:
    """The same of encoded rows."""
    found = [rows[i]["input_ids"] for i in range(len(rows))]
    each = found if rows.sequences else [[ids] for ids in found]
    return [_key(np.array([len(ids) for ids in own]), np.concatenate(own)) for own in each]


def _key(lengths: np.ndarray, ids: np.ndarray) -> bytes:
    """A hash of a row's sequences: of how many tokens each is, and of these one after the other."""
    digest = blake2b(lengths.astype(np.int64).tobytes(), digest_size=16)
    digest.update(ids.astype(np.int64).tobytes())
    return digest.digest()


def gathered(batches: Iterable[dict[str, torch.Tensor]]) -> EncodedRows:
    """The rows of batches without their padding, in order."""
    inputs: dict[str, list[Slices]] = {}
    columns: dict[str, list[torch.Tensor]] = {"label": [], "domain": [], "weight": []}
    sequences: list[int] = []
    for batch in batches:
        real = batch["attention_mask"].bool()
        for name in ("input_ids", "token_type_ids"):
            if name in batch:
                flat = batch[name][real].int().numpy()
                inputs.setdefault(name, []).append(Slices(flat, real.sum(1).numpy()))
        for name, values in columns.items():
            values.append(batch[name])
        sequences += batch["sequences"].tolist() if "sequences" in batch else []
    tokens = {name: Slices.joined(parts) for name, parts in inputs.items()}
    return EncodedRows(tokens, {name: torch.cat(values) for name, values in columns.items()}, sequences)


def cut_quiz(batches: LoaderBatches, fraction: float, seed: int) -> tuple[EncodedRows, frozenset[bytes]]:
    """A share of a loader's distinct rows, of each label at least one, and the keys by which they are left out."""
    keys: list[bytes] = []

    def noted() -> Iterator[dict]:
        for batch in batches:
            keys.extend(row_keys(batch))
            yield batch

    everything = gathered(noted())
    first: dict[bytes, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)
    order = _share(list(first.values()), everything.columns["label"].tolist(), batches.domain, fraction, seed)
    if not order:
        raise TeachbackError(
            f"{batches.name} has {len(first)} different rows, too few to keep some of them for phases 3 and 4; give rows "
            f"of {batches.domain.name} in meta_loaders, or train without these phases (meta_epochs=0)"
        )
    taken = set(order)
    return everything.chosen(order), frozenset(key for key, position in first.items() if position in taken)


def _share(positions: list[int], labels: list[float], domain: Domain, fraction: float, seed: int) -> list[int]:
    """A share of the positions of each label, at least one of two or more; the labels of a regression are one group."""
    groups: dict[str, list[Row]] = {}
    for position in positions:
        name = _label_name(domain, labels[position])
        group = "" if domain.task == "regression" else name
        groups.setdefault(group, []).append(Row(str(position), "", "", name, domain.name))
    known = {domain.name: domain}
    taken = [cut(rows, max(fraction, 0.6 / len(rows)), seed, known)[1] for rows in groups.values()]
    return sorted(int(row.guid) for rows in taken for row in rows)


def _label_name(domain: Domain, label: float) -> str:
    return repr(float(label)) if domain.task == "regression" else domain.labels[int(label)]
