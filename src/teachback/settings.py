"""Settings of the Python API. Unknown names, for which the closest one is suggested, and invalid values are errors."""

import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from transformers import TrainingArguments

from teachback.core.arguments import CurriculumArguments, MetaTeacherArguments, SecondStageArguments
from teachback.core.errors import TeachbackError
from teachback.core.options import (
    BelowOne,
    Checked,
    Count,
    Natural,
    NonNegative,
    Positive,
    Seed,
    Share,
    TrackerOrNone,
    in_range,
    one_of,
)
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.loader_rows import UserLoader
from teachback.stages.phase_inputs import PhaseArguments

QuizShare = Annotated[float, in_range(lambda value: 0 < value < 1, "between 0 and 1; meta_epochs=0 keeps no quiz")]


class UnknownArgument(TeachbackError, TypeError):
    """An argument that does not exist."""


def refuse_unknown(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UnknownArgument` for the first name that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"available: {', '.join(known)}"
            raise UnknownArgument(f"{where} has no argument {name!r}; {hint}")


def model_name(model, argument: str) -> str:
    """Name of a model as text; refuses a model object, whose tokenizer and origin would be unknown."""
    if not isinstance(model, str | Path):
        raise TeachbackError(
            f"{argument} is a {type(model).__name__}; pass a hub name, scratch:tiny, or a folder to which save_pretrained wrote "
            "the model and its tokenizer"
        )
    return str(model)


def takes(config: "type[Settings]"):
    """Decorate a function whose ``**settings`` are fields of ``config``: add them to its signature, and refuse others."""

    def decorate(function):
        shown = inspect.signature(function)
        own = [part for part in shown.parameters.values() if part.kind is not inspect.Parameter.VAR_KEYWORD]
        more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in config.names()]

        @functools.wraps(function)
        def checked(*args, **given):
            refuse_unknown(function.__qualname__, given, [*(part.name for part in own[1:]), *config.names()])
            return function(*args, **given)

        # The stub of functools.wraps lacks attributes of functions.
        checked.__signature__ = shown.replace(parameters=own + more)  # type: ignore[attr-defined]
        return checked

    return decorate


@dataclass
class Settings(Checked):
    """Base class of settings dataclasses."""

    of_variables = False

    def __post_init__(self):
        super().__post_init__()
        if getattr(self, "report_to", None) == "none":
            self.report_to = None

    def __new__(cls, *args, **given):
        refuse_unknown(cls.__name__, given, cls.names())
        return super().__new__(cls)

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


def with_settings(config, kind: type[Settings], settings: dict):
    """Copy of a config of type ``kind`` (None: the defaults) with fields replaced by ``settings``."""
    if not isinstance(config, (kind, type(None))):
        raise TeachbackError(f"config is a {type(config).__name__}; pass a {kind.__name__}(...), or its fields by name")
    return replace(config or kind(), **settings)


@dataclass
class TrainingConfig(Settings):
    """Settings of `MPDistil.train`, with the defaults of MPDistil's library."""

    teacher_epochs: Natural = 10  # phase 1; 0: the teacher is not trained
    student_epochs: Natural = 10  # phase 2; 0: the student is not trained
    meta_epochs: Natural = 1  # phase 3; 0: no phases 3 and 4, and no rows are held out for them
    num_episodes: Natural = 200  # phase 4; 0: no phase 4
    teacher_lr: Positive = 2e-5
    student_lr: Positive = 3e-5  # phases 2 and 4
    meta_lr: Positive = 1e-3
    alpha: Share = 0.5  # weight of the soft loss; the hard loss has 1 - alpha
    beta: NonNegative = 100.0  # weight of the PKD loss on [CLS] states of inner layers
    temperature: Positive = 5.0
    use_competitive_loss: bool = False
    reward_type: Annotated[str, one_of("binary", "real")] = "binary"
    batch_size: Count = 8  # phases 3 and 4; phases 1 and 2 use that of train_loader
    seed: Seed = 42
    report_to: TrackerOrNone = None  # tensorboard or wandb
    wandb_project: str = "mpdistil"
    wandb_run_name: str | None = None
    quiz_fraction: QuizShare = 0.1  # share of the train rows that is held out for phases 3 and 4
    eval_every: Count = 10  # episodes between evaluations on val_loader
    soft_loss: Annotated[str, one_of("ce", "kl", "mse")] = "mse"
    pkd_layers: Annotated[str, one_of("first", "skip", "last")] = "first"  # teacher layers of PKD
    schedule: Annotated[str, one_of("constant", "linear")] = "constant"  # learning rate of phases 1 and 2; linear has 10 % warm-up
    patience: Natural = 0  # end a phase after this many scores in a row on val_loader without a better one; 0: never
    class_weights: str | Sequence | Mapping | None = None  # of the loss on labels: balanced, a weight by class in order, or a dict
    label_smoothing: BelowOne = 0.0  # share of a label that is spread evenly over the classes

    def __post_init__(self):
        super().__post_init__()
        if as_list := getattr(self.class_weights, "tolist", None):  # of an array or a tensor
            self.class_weights = as_list()


# The values of configs/recommended.sh that differ from the paper's.
RECOMMENDED: dict[str, Any] = {
    "teacher_lr": 5e-5, "domain_labels": "uniform", "transfer_set": "all", "transfer_windows": 2, "attention_target": "relations",
    "relation_heads": 12, "layer_map": "-1", "loss_balance": "initial", "embedding_weight": 0.0, "first_lr": 1e-4,
    "first_schedule": "linear", "first_epochs": 4, "first_dropout": False, "second_lr": 5e-5, "second_epochs": 2,
    "keep_start": True,
}  # fmt: skip


@dataclass
class MetaKDConfig(Settings):
    """Settings of `MetaKD.train`, with the defaults of stages 2 to 5."""

    teacher_epochs: Count = 3  # stage 3
    first_epochs: Count = 10  # stage 4, inner layers
    second_epochs: Count = 3  # stage 5, predictions
    teacher_lr: Positive = 2e-5
    first_lr: Positive = 5e-5
    second_lr: Positive = 3e-5
    first: str = "metakd"  # none: no training in stage 4
    layer_map: str = "uniform"  # stage 4: teacher layer of each student layer
    embedding_weight: float = 1.0  # weights of stage 4's losses
    hidden_weight: float = 1.0
    attention_weight: float = 1.0
    tkd_weight: float | None = None  # None: 0.5 with a meta-teacher, else 0
    temperature: Positive = 1.0  # stage 5
    alpha: Share = 1.0  # stage 5: weight of the soft loss; the hard loss has 1 - alpha
    patience: Natural = 0  # end a stage after this many epochs in a row without a better one on dev; 0: never
    class_weights: str | Mapping | None = None  # of the loss on labels, in stage 3 and with alpha below 1 in stage 5: balanced, or {label: weight}
    label_smoothing: BelowOne = 0.0  # there too: share of a label that is spread evenly over the classes
    max_length: int = 128
    batch_size: Count = 32
    seed: Seed = 42
    dev_fraction: float = 0.1  # shares of the rows of a table without the column split
    test_fraction: float = 0.1
    quiz_fraction: float = 0.0  # share of the train rows that is held out for stage 6
    group_by: str = "auto"  # rows that share this text stay in one split: auto (text_a of pairs), text_a, text_b or none
    group_column: str = ""  # column to group rows by, instead of group_by
    text_a_column: str = ""  # columns of other names than text_a, text_b, label and domain
    text_b_column: str = ""
    label_column: str = ""
    domain_column: str = ""
    skip_bad_rows: bool = False  # skip and print invalid rows instead of raising an error
    report_to: TrackerOrNone = None  # tensorboard or wandb
    domain_labels: str = "false"  # stage 3: labels of the domain loss; uniform keeps the domain out of what is transferred
    transfer_set: str = "domain"  # stage 4: texts of the domain, or all
    second_transfer_set: str = "domain"  # stage 5: the same
    transfer_windows: int = 0  # stages 4 and 5: further parts of texts longer than max_length that join them
    attention_target: str = "scores"  # stage 4: scores, probs or relations
    relation_heads: int | None = None  # heads that states are split into for relations; None: the largest number up to 48 that divides all widths
    loss_balance: str = "none"  # stage 4: divide its losses by their own size: none, initial or running
    first_schedule: str = "constant"  # learning rate of stage 4: constant, or linear with 10 % warm-up
    first_dropout: bool = True  # dropout in stage 4
    keep_start: bool = False  # keep stage 4's student if no epoch of stage 5 scores better on dev

    @classmethod
    def recommended(cls, **settings) -> "MetaKDConfig":
        """Settings of configs/recommended.sh, which made the best students in docs/results.md; ``settings`` override them.

        They are meant for a student cut from its teacher: ``MetaKD(..., student_layers=3, student_init="teacher")``.
        """
        return cls(**RECOMMENDED | settings)

    def hard_label(self) -> dict:
        """Arguments of the loss on labels, in the stages' form.

        Raises:
            TeachbackError: ``class_weights`` are neither balanced nor a dict, or one of its labels has a comma.
        """
        given = self.class_weights or ""
        if not isinstance(given, str | Mapping) or any("," in str(label) for label in given if isinstance(given, Mapping)):
            raise TeachbackError(f"class_weights={given!r}: pass 'balanced', or a dict with a weight for each label; labels must not contain commas")
        text = given if isinstance(given, str) else ",".join(f"{label}={weight}" for label, weight in given.items())
        return {"class_weights": text, "label_smoothing": self.label_smoothing}


def phase_arguments(config: TrainingConfig, device: torch.device, precision: str, loader: UserLoader) -> PhaseArguments:
    """Convert the settings of `MPDistil.train` to the stages' arguments. ``loader``: the train loader (batch size)."""

    def optimizer(epochs: int, learning_rate: float) -> TrainingArguments | None:
        return OptimizerArguments(
            learning_rate=learning_rate, num_train_epochs=epochs, lr_scheduler_type=config.schedule, seed=config.seed,
            per_device_train_batch_size=loader.batch_size or config.batch_size, dataloader_num_workers=0,
        ).training_arguments(
            device.type, precision, logging_strategy="epoch", dataloader_drop_last=loader.drops_last
        ) if epochs else None  # fmt: skip

    second = SecondStageArguments(method="mpdistil", soft_loss=config.soft_loss, temperature=config.temperature,
                                  alpha_soft=config.alpha, beta_pkd=config.beta, pkd_layers=config.pkd_layers,
                                  meta_teacher_every_epoch=False, label_smoothing=config.label_smoothing)  # fmt: skip
    form = "competitive" if config.use_competitive_loss else "collaborative"
    return PhaseArguments(
        teacher=optimizer(config.teacher_epochs, config.teacher_lr),
        student=optimizer(config.student_epochs, config.student_lr),
        second=second,
        meta=MetaTeacherArguments(meta_loss=form, meta_epochs=config.meta_epochs, meta_lr=config.meta_lr) if config.meta_epochs else None,
        curriculum=CurriculumArguments(
            teacher="single", episodes=config.num_episodes, curriculum_lr=config.student_lr, reward=config.reward_type,
            eval_every=config.eval_every, batch_size=config.batch_size, seed=config.seed, patience=config.patience,
        ) if config.num_episodes else None,
        class_weights=config.class_weights,
        quiz_fraction=config.quiz_fraction,
        batch_size=config.batch_size,
        seed=config.seed,
        settings=asdict(config),
    )  # fmt: skip
