"""Inputs of MPDistil's phases on a user's loaders: the task, its rows in both models' encodings, training arguments."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import TrainingArguments

from teachback.core.arguments import CurriculumArguments, MetaTeacherArguments, SecondStageArguments
from teachback.core.errors import TeachbackError
from teachback.data.encoding import EncodedRows
from teachback.data.loader_rows import UserLoader, cut_quiz, without
from teachback.data.schema import Domain
from teachback.methods.class_weights import BALANCED, row_weights
from teachback.models.loading import load_tokenizer

logger = logging.getLogger(__name__)

EVAL_BATCH_SIZE = 64
TEACHER, STUDENT = 0, 1


@dataclass(frozen=True)
class Task:
    """Task, models, tokenizers and machine, shared by all phases."""

    domain: Domain
    metric: str
    models: tuple[str, str]  # names of teacher and student
    student_layers: int | str | None
    student_init: str
    tokenizers: tuple  # of teacher and student
    texts: dict  # how texts were encoded, as far as known
    device: torch.device
    precision: str
    data_dir: str
    output_dir: Path

    def settings(self, model: int) -> dict:
        """Settings for inference with the teacher or the student, see `features`."""
        return {"pad_token_id": self.tokenizers[model].pad_token_id, "batch_size": EVAL_BATCH_SIZE,
                "device": self.device, "precision": self.precision}  # fmt: skip


@dataclass(frozen=True)
class PhaseArguments:
    """Training arguments of each phase; None skips its training. ``settings``: recorded in model cards and trackers."""

    teacher: TrainingArguments | None
    student: TrainingArguments | None
    second: SecondStageArguments
    meta: MetaTeacherArguments | None
    curriculum: CurriculumArguments | None
    class_weights: str | Sequence | Mapping | None  # of phases 1 and 2
    quiz_fraction: float
    batch_size: int  # of phase 3
    seed: int
    settings: dict


def tokenizers_of(names: tuple[str, str], given, of_loader, data_dir: str) -> list:
    """Tokenizers of teacher and student.

    A model from scratch uses the other's, or the one that the loader's texts were tokenised with.

    Raises:
        TeachbackError: no tokenizer is known.
    """
    loaded = [_tokenizer_of_model(name, given, data_dir) for name in names]
    known = next((one for one in (given, *loaded, of_loader) if one is not None), None)
    if known is None:
        raise TeachbackError(
            "models from scratch have no tokenizer; pass the one that made the loaders' tokens as tokenizer="
        )
    return [one or known for one in loaded]


def _tokenizer_of_model(name: str, given, data_dir: str):
    """Load a model's tokenizer; returns ``given`` if it has none, and None for a model from scratch."""
    if name.startswith("scratch:"):
        return None
    try:
        return load_tokenizer(name, data_dir)
    except TeachbackError:
        if given is None:
            raise
        return given


class BothEncodings(NamedTuple):
    """Rows of a loader in the encodings of teacher and student."""

    teacher: EncodedRows
    student: EncodedRows

    def without(self, left: list[int]) -> "BothEncodings":
        """Rows with the indices ``left``."""
        return BothEncodings(without(self.teacher, left), without(self.student, left))

    @property
    def labels(self) -> torch.Tensor:
        return self.student.columns["label"]


def _warn_of_absent_classes(domain: Domain, labels: torch.Tensor) -> None:
    """Warn of classes without train rows, which cannot be learnt."""
    present = set(labels.tolist()) if domain.task != "regression" else set()
    absent = [number for number in range(len(domain.labels)) if number not in present]
    if absent and present:
        logger.warning(
            "train_loader has no rows of the classes %s, although num_labels=%d: the model cannot learn them",
            ", ".join(map(str, absent)), len(domain.labels),
        )  # fmt: skip


def _weight_classes(rows: BothEncodings, domain: Domain, args: PhaseArguments) -> None:
    """Add the column ``class_weight`` to train rows, if classes are to be weighted.

    Raises:
        TeachbackError: the task is a regression, or not every class has a weight above 0.
    """
    given = args.class_weights
    if domain.task == "regression" and (given is not None or args.second.label_smoothing):
        raise TeachbackError("class_weights and label_smoothing are for classes, but a regression has none; unset them")
    if given is None:
        return
    labels = rows.labels.long().tolist()
    weights = None if isinstance(given, str) and given == BALANCED else _class_weights(given, domain.labels)
    column = row_weights([(domain.head, label) for label in labels], weights)
    for encoded in (rows.teacher, rows.student):
        encoded.columns["class_weight"] = column


def _class_weights(given, names: tuple[str, ...]) -> dict[int, float]:
    """Weights by class, from a sequence in the order of the classes, or a dict by class number or name."""
    weights: dict[int, float] = {}
    try:
        if isinstance(given, str):
            raise TypeError("not a collection of weights")
        for key, weight in given.items() if isinstance(given, Mapping) else enumerate(given):
            weights[names.index(key) if isinstance(key, str) else int(key)] = float(weight)
    except (TypeError, ValueError):  # not a collection, an unknown name, or not a number
        weights = {}
    if sorted(weights) != list(range(len(names))) or not all(0 < weight < math.inf for weight in weights.values()):
        raise TeachbackError(
            f"class_weights={given!r}: pass 'balanced', {len(names)} weights above 0 in the order of the classes, or a dict with one for each "
            f"class, by its number from 0 or its name ({', '.join(names)})"
        )
    return weights


@dataclass(frozen=True)
class PhaseRows:
    """Rows that the phases are trained and scored on. ``quiz``: by task, the target first."""

    domains: list[Domain]
    train: BothEncodings
    val: BothEncodings
    quiz: dict[str, BothEncodings]
    held_out: bool  # whether the target's quiz is a share of its train rows

    @classmethod
    def of(
        cls, task: Task, train: UserLoader, val: UserLoader, meta: dict[str, UserLoader], args: PhaseArguments
    ) -> "PhaseRows":
        """Read the loaders; a share of the train rows becomes quiz if phase 3 needs it and ``meta`` lacks the target."""
        name = task.domain.name
        domains = [task.domain, *(loader.task(other) for other, loader in meta.items() if other != name)]
        numbers = any(domain.task == "regression" for domain in domains)

        def held(loader: UserLoader, domain: Domain) -> BothEncodings:
            return _held(loader, domain, task.tokenizers, numbers)

        rows, quiz = held(train, task.domain), {}
        _warn_of_absent_classes(task.domain, rows.labels)
        if name in meta:
            quiz[name] = held(meta[name], task.domain)
        elif args.meta:
            kept, left = cut_quiz(rows.student, task.domain, args.quiz_fraction, args.seed, train.name)
            quiz[name], rows = rows.without(kept), rows.without(left)
        _weight_classes(rows, task.domain, args)
        quiz |= {domain.name: held(meta[domain.name], domain) for domain in domains[1:]}
        return cls(domains, rows, held(val, task.domain), quiz, args.meta is not None and name not in meta)


def _held(loader: UserLoader, domain: Domain, tokenizers: tuple, numbers: bool) -> BothEncodings:
    """Rows of a loader in both encodings; a loader with an unknown tokenizer is assumed to fit both models."""
    teacher, student = tokenizers
    vocabulary = len(teacher if loader.tokenizer is None else loader.tokenizer)
    rows = loader.rows(domain, vocabulary, float_labels=numbers)
    return BothEncodings(loader.read_by(teacher, rows, student), loader.read_by(student, rows, teacher))
