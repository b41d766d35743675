"""Settings of the Python API. Unknown names, for which the closest one is suggested, and invalid values are errors."""

import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import torch
from transformers import TrainingArguments

from teachback.core.arguments import CurriculumArguments, MetaTeacherArguments, SecondStageArguments
from teachback.core.errors import TeachbackError
from teachback.core.options import require, require_above_zero, require_at_least
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.loader_rows import UserLoader
from teachback.stages.phase_inputs import PhaseArguments


class UnknownArgument(TeachbackError, TypeError):
    """An argument that does not exist."""


def refuse_unknown(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UnknownArgument` for the first name that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
            raise UnknownArgument(f"{where} has no argument {name!r}; {hint}")


def takes(config: "type[Settings]"):
    """Decorate a function whose ``**settings`` are fields of ``config``: add them to its signature, refuse others."""

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
class Settings:
    """Base class of settings dataclasses."""

    def __new__(cls, *args, **given):
        refuse_unknown(cls.__name__, given, cls.names())
        return super().__new__(cls)

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


def with_settings(config, kind: type[Settings], settings: dict):
    """Copy of a config of type ``kind`` (None: the defaults) with fields replaced by ``settings``."""
    if not isinstance(config, (kind, type(None))):
        raise TeachbackError(f"config is a {type(config).__name__}; give a {kind.__name__}(...), or its fields by name")
    return replace(config or kind(), **settings)


@dataclass
class TrainingConfig(Settings):
    """Settings of `MPDistil.train`, with the defaults of MPDistil's library."""

    teacher_epochs: int = 10  # phase 1; 0: the teacher is not trained
    student_epochs: int = 10  # phase 2; 0: the student is not trained
    meta_epochs: int = 1  # phase 3; 0: no phases 3 and 4, and no rows are held out for them
    num_episodes: int = 200  # phase 4; 0: no phase 4
    teacher_lr: float = 2e-5
    student_lr: float = 3e-5  # phases 2 and 4
    meta_lr: float = 1e-3
    alpha: float = 0.5  # weight of the soft loss; the hard loss has 1 - alpha
    beta: float = 100.0  # weight of the PKD loss on [CLS] states of inner layers
    temperature: float = 5.0
    use_competitive_loss: bool = False
    reward_type: str = "binary"  # or real
    batch_size: int = 8  # phases 3 and 4; phases 1 and 2 use that of train_loader
    seed: int = 42
    report_to: str | None = None  # tensorboard or wandb
    wandb_project: str = "mpdistil"
    wandb_run_name: str | None = None
    quiz_fraction: float = 0.1  # share of the train rows that is held out for phases 3 and 4
    eval_every: int = 10  # episodes between evaluations on val_loader
    soft_loss: str = "mse"  # ce, kl or mse
    pkd_layers: str = "first"  # teacher layers of PKD: first, skip or last
    schedule: str = "constant"  # learning-rate schedule of phases 1 and 2: constant, or linear with 10 % warm-up
    patience: int = 0  # end a phase after so many scores on val_loader without a better one; 0: never
    class_weights: str | Sequence | Mapping | None = None  # of the loss on labels: balanced, a weight by class in order, or a dict
    label_smoothing: float = 0.0  # share of a label that is spread evenly over the classes

    def __post_init__(self):
        self.report_to = None if self.report_to == "none" else self.report_to
        if as_list := getattr(self.class_weights, "tolist", None):  # of an array or a tensor
            self.class_weights = as_list()
        require(self, "reward_type", ("binary", "real"))
        require(self, "soft_loss", ("ce", "kl", "mse"))
        require(self, "schedule", ("constant", "linear"))
        require(self, "pkd_layers", ("first", "skip", "last"))
        if self.report_to is not None:
            require(self, "report_to", ("tensorboard", "wandb"))
        for name in ("teacher_epochs", "student_epochs", "meta_epochs", "num_episodes", "beta"):
            require_at_least(self, name, 0)
        for name in ("batch_size", "eval_every"):
            require_at_least(self, name, 1)
        for name in ("teacher_lr", "student_lr", "meta_lr", "temperature"):
            require_above_zero(self, name)
        _require_habits(self)
        if not 0 < self.quiz_fraction < 1:
            raise TeachbackError(
                f"quiz_fraction={self.quiz_fraction}: must be between 0 and 1; meta_epochs=0 keeps no quiz"
            )


@dataclass
class MetaKDConfig(Settings):
    """Settings of `MetaKD.train`, with the defaults of stages 2 to 5."""

    teacher_epochs: int = 3  # stage 3
    first_epochs: int = 10  # stage 4, inner layers
    second_epochs: int = 3  # stage 5, predictions
    teacher_lr: float = 2e-5
    first_lr: float = 5e-5
    second_lr: float = 3e-5
    first: str = "metakd"  # none: no training in stage 4
    layer_map: str = "uniform"  # stage 4: teacher layer of each student layer
    embedding_weight: float = 1.0  # weights of stage 4's losses
    hidden_weight: float = 1.0
    attention_weight: float = 1.0
    tkd_weight: float | None = None  # None: 0.5 with a meta-teacher, else 0
    temperature: float = 1.0  # stage 5
    alpha: float = 1.0  # stage 5: weight of the soft loss; the hard loss has 1 - alpha
    patience: int = 0  # end a stage after so many epochs in a row without a better one on dev; 0: never
    class_weights: str | Mapping | None = None  # of the loss on labels, in stage 3 and with alpha below 1 in stage 5: balanced, or {label: weight}
    label_smoothing: float = 0.0  # there too: share of a label that is spread evenly over the classes
    max_length: int = 128
    batch_size: int = 32
    seed: int = 42
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
    report_to: str | None = None  # tensorboard or wandb

    def __post_init__(self):
        self.report_to = None if self.report_to == "none" else self.report_to
        if self.report_to is not None:
            require(self, "report_to", ("tensorboard", "wandb"))
        for name in ("teacher_epochs", "first_epochs", "second_epochs", "batch_size"):
            require_at_least(self, name, 1)
        for name in ("teacher_lr", "first_lr", "second_lr", "temperature"):
            require_above_zero(self, name)
        _require_habits(self)

    def hard_label(self) -> dict:
        """Arguments of the loss on labels, in the stages' form.

        Raises:
            TeachbackError: ``class_weights`` are neither balanced nor a dict, or one of its labels has a comma.
        """
        given = self.class_weights or ""
        if not isinstance(given, str | Mapping) or any("," in str(label) for label in given if isinstance(given, Mapping)):
            raise TeachbackError(f"class_weights={given!r}: give 'balanced', or a dict of a weight for each label, whose names have no comma")
        text = given if isinstance(given, str) else ",".join(f"{label}={weight}" for label, weight in given.items())
        return {"class_weights": text, "label_smoothing": self.label_smoothing}


def _require_habits(config: "TrainingConfig | MetaKDConfig") -> None:
    """Refuse values out of range of what both configs have."""
    require_at_least(config, "patience", 0)
    if not 0 <= config.label_smoothing < 1:
        raise TeachbackError(f"label_smoothing={config.label_smoothing}: must be at least 0 and below 1")
    if not 0 <= config.alpha <= 1:
        raise TeachbackError(f"alpha={config.alpha}: must be between 0 and 1")


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
