"""Outputs of the frozen teacher for stage 4, from the live model or from states cached on disk.

Batches with cached states hold ``teacher_states``: half precision, real tokens only, [L, F] per sequence: hidden states
of the embeddings and the mapped layers, then these layers' queries and keys (smaller than the attention scores, which
are their products), for relations values too. ``teacher_means`` [B, n, 2 H] are pooled states and token means of the
last layer; with different tokenizers, batches hold only these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from teachback.core.devices import autocast
from teachback.core.disk_cache import DiskCache, key_of
from teachback.core.errors import TeachbackError
from teachback.core.files import reserve
from teachback.core.pass_progress import PassProgress
from teachback.data.encoding import EncodedRows, batches
from teachback.data.slices import Slices
from teachback.methods.teacher import Teacher
from teachback.models.attention import AttentionProjections, Projections
from teachback.models.heads import mean_over_tokens
from teachback.models.relation_states import RelationReader, RelationStates


@dataclass(frozen=True)
class TeacherOutputs:
    """Outputs of a teacher for a batch.

    ``logits`` [B, C]; ``hidden`` states of embeddings and mapped layers, [S, L, H] each; ``attention``: queries and
    keys of the mapped layers; ``knowledge``: h_d before its tanh [B, H], None without that module. With different
    tokenizers, ``hidden`` and ``attention`` are empty.
    """

    logits: torch.Tensor
    hidden: list[torch.Tensor]
    attention: Sequence[Projections | RelationStates]
    knowledge: torch.Tensor | None


class FrozenTeacher:
    """The teacher in stage 4; not a module, so that it is neither registered, saved nor wrapped.

    ``layers`` are counted from 1. ``attention``: target of the attention loss (scores, probs or relations); "" without it.
    """

    def __init__(self, teacher: Teacher, layers: list[int], attention: str = ""):
        self.teacher, self.layers = teacher.eval().requires_grad_(False), layers
        model = teacher.classifier.model
        self.reader = attention_reader(model, [layer - 1 for layer in layers], attention) if attention else None
        of_layer = [*self.reader.widths()] if self.reader else []
        # Of the parts of a token's cached states, in order.
        self.widths = [model.config.hidden_size] * (len(layers) + 1) + of_layer * len(layers)

    def states_size(self, encoded: EncodedRows) -> int:
        """Size in bytes of the cached states of all tokens."""
        return 2 * sum(self.widths) * sum(len(ids) for ids in encoded.inputs["input_ids"])

    @torch.no_grad()
    def answer(self, batch: dict) -> TeacherOutputs:
        """Outputs for a batch in the teacher's encoding; from cached states where it has them, up to half precision."""
        return self._of_states(batch) if "teacher_means" in batch else self._of_tokens(batch)

    def _of_tokens(self, batch: dict) -> TeacherOutputs:
        outputs = self.teacher.outputs(batch, hidden_states=True)
        knowledge = None
        with torch.autocast(outputs.logits.device.type, enabled=False):
            if self.teacher.transferable is not None:
                knowledge = self.teacher.transferable(outputs.hidden_states[-1].float(), batch)
        hidden = [outputs.hidden_states[layer] for layer in (0, *self.layers)]
        return TeacherOutputs(outputs.logits, hidden, self.reader.take() if self.reader else [], knowledge)

    def _of_states(self, batch: dict) -> TeacherOutputs:
        """Only the teacher's heads are run."""
        parts = list(batch["teacher_states"].split(self.widths, -1)) if "teacher_states" in batch else []
        hidden, rest = parts[: len(self.layers) + 1], parts[len(self.layers) + 1 :]
        pooled, mean = batch["teacher_means"].flatten(0, 1).chunk(2, -1)
        with torch.autocast(pooled.device.type, enabled=False):
            logits = self.teacher.logits_of(pooled, batch)
            transferable = self.teacher.transferable
            knowledge = transferable.of_means(mean, batch) if transferable is not None else None
        return TeacherOutputs(logits, hidden, self.reader.unpack(rest) if self.reader else [], knowledge)

    @torch.no_grad()
    def states(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """States of a batch to cache on disk: [S, L, F] in half precision, and [S, 2 H]."""
        outputs = self.teacher.outputs(batch, hidden_states=True)
        parts = [outputs.hidden_states[layer] for layer in (0, *self.layers)]
        if self.reader:
            parts += [part for read in self.reader.take() for part in read.parts()]
        with torch.autocast(outputs.logits.device.type, enabled=False):  # autocast cannot concatenate half precision
            mean = mean_over_tokens(outputs.hidden_states[-1].float(), batch["attention_mask"])
            return torch.cat([part.half() for part in parts], -1), torch.cat([outputs.pooled.float(), mean], -1)


def name_of(teacher_hash: str, precision: str, layers: Sequence[int], attention: str, encoded: EncodedRows) -> str:
    """Cache key of the states: hash of the teacher, precision, layers, attention target and all tokens in order."""
    return key_of([teacher_hash, precision, list(layers), attention, 1], _contents(encoded))[:32]


def _contents(encoded: EncodedRows) -> Iterator[bytes]:
    """Bytes to hash: field names, and length and ids of every sequence."""
    for name, values in encoded.inputs.items():
        yield name.encode()
        for ids in values:
            yield len(ids).to_bytes(4, "little") + np.asarray(ids, dtype=np.int32).tobytes()


def attention_reader(model, layers: list[int], target: str) -> RelationReader:
    """Reader of a model's ``layers`` (counted from 0) for the attention loss with ``target``."""
    return RelationReader(model, layers) if target == "relations" else AttentionProjections(model, layers)


def refusal(parts: Sequence[EncodedRows], teacher: FrozenTeacher, cache: DiskCache) -> str:
    """Reason why the states of all these rows cannot be cached; "" if they can."""
    if any(len(set(part.sequences)) > 1 for part in parts):
        return "questions with choices are mixed with other rows"
    return cache.refusal(sum(map(teacher.states_size, parts)))


def attach_states(encoded: EncodedRows, teacher: FrozenTeacher, cache: DiskCache, settings: dict, teacher_hash: str) -> None:
    """Add the teacher's states to the batches of ``encoded``, computing them unless ``cache`` has them."""
    key = name_of(teacher_hash, settings["precision"], teacher.layers, type(teacher.reader).__name__ if teacher.reader else "", encoded)
    tokens, means = cache.get(key, teacher.states_size(encoded), lambda folder: _write(folder, encoded, teacher, settings), _read)
    encoded.states["teacher_states"] = Slices(tokens, [len(ids) for ids in encoded.inputs["input_ids"]])
    encoded.columns["teacher_means"] = torch.from_numpy(means).unflatten(0, (len(encoded), -1))


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
    return tokens, np.load(folder / "means.npy", allow_pickle=False)


def _write(folder: Path, encoded: EncodedRows, teacher: FrozenTeacher, settings: dict) -> None:
    lengths = [len(ids) for ids in encoded.inputs["input_ids"]]
    starts = np.cumsum([0, *lengths])
    shape = (int(starts[-1]), sum(teacher.widths))
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
    reserve(folder / "tokens.npy", tokens.offset + tokens.nbytes)
    means = np.zeros((len(lengths), 2 * teacher.teacher.classifier.model.config.hidden_size), dtype=np.float32)
    for sequences, states, mean in _batches(encoded, teacher, settings):
        for sequence, values in zip(sequences, states):
            real = values[: lengths[sequence]]
            _require_finite(real)
            tokens[starts[sequence] : starts[sequence + 1]] = real
        means[sequences] = mean
    tokens.flush()
    np.save(folder / "means.npy", means, allow_pickle=False)


def _require_finite(values: np.ndarray) -> None:
    """Raise TeachbackError for states that half precision cannot hold, as a student would learn from infinity."""
    if not np.isfinite(values).all():
        raise TeachbackError(
            f"the teacher has states beyond {np.finfo(np.float16).max:.0f}, the largest number of half precision, in which they are cached on "
            "disk; set TEACHER_CACHE_GB=0 to run the teacher at each step instead"
        )


def _batches(
    encoded: EncodedRows, teacher: FrozenTeacher, settings: dict
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yield, per batch, sequence indices, their states [S, L, F] and means [S, 2 H]."""
    count = encoded.sequences[0] if encoded.sequences else 1
    device, precision = settings["device"], settings["precision"]
    teacher.teacher.to(device)
    progress = PassProgress("stored the teacher's states of", len(encoded))
    for batch in progress.follow(batches(encoded, settings["batch_size"], settings["pad_token_id"])):
        rows = batch["index"].tolist()
        with autocast(precision, device):
            states, mean = teacher.states({name: values.to(device) for name, values in batch.items()})
        yield [row * count + i for row in rows for i in range(count)], states.cpu().numpy(), mean.cpu().numpy()
