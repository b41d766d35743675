"""The arguments of the training stages: small dataclasses beside those of Hugging Face.

A flag that a variable sets is described by the variable's line in the stages' scripts, which ``--help`` shows.
"""

from dataclasses import dataclass
from typing import Annotated

from teachback.core.errors import TeachbackError
from teachback.core.options import (
    BELOW_ONE,
    Checked,
    Count,
    Natural,
    NonNegative,
    Part,
    Positive,
    Share,
    Tracker,
    at_least,
    one_of,
    option,
    recorded,
)
from teachback.core.training_arguments import OptimizerArguments

Teacher = Annotated[str, one_of("meta", "mix", "mtl", "single")]
Form = Annotated[str, one_of("paper", "code")]
TransferSet = Annotated[str, one_of("domain", "all")]
PROTOTYPE_FORMS = ("paper", "code")  # of stage 2's scores


@dataclass
class DataArguments(Checked):
    """Arguments for data and machine, shared by all training stages."""

    suite: str = "amazon"
    domain: str = ""
    domains: str = ""
    data_dir: str = "data"
    output_root: str = "outputs"
    teacher_root: str = ""
    student_root: str = ""
    max_length: Annotated[int, at_least(4)] = 128
    precision: str = "auto"
    device: str = "auto"
    teacher_cache_gb: Annotated[float | None, at_least(0)] = None
    protocol: Annotated[str, one_of("honest", "paper")] = "honest"
    hold_out: str = ""
    train_fraction: Part = 1.0
    dry_run: bool = option(False, "Show what would be made and why, without changing anything.")


@dataclass
class HardLabelArguments(Checked):
    """Arguments of the loss on labels; stages 3 and 5."""

    class_weights: str = ""
    label_smoothing: Annotated[float, BELOW_ONE] = 0.0


HARD_LABEL = tuple(HardLabelArguments.__annotations__)


@dataclass
class TeacherArguments(HardLabelArguments):
    """Arguments of stage 3."""

    teacher: Teacher = "meta"
    teacher_model: str = "bert-base-uncased"
    teacher_checkpoint: str = ""
    teacher_labels: str = ""
    use_sample_weights: bool = True
    use_domain_loss: bool = True
    domain_loss_weight: NonNegative = 0.5
    domain_labels: Annotated[str, one_of("false", "permuted", "reversal", "uniform")] = "false"
    domain_loss_form: Form = option("paper", "paper: t*CE + gamma*L_DA; code: t*(CE + gamma*L_DA).")
    dropout: Annotated[float | None, BELOW_ONE] = None

    def __post_init__(self):
        super().__post_init__()
        if self.teacher_labels and not self.teacher_checkpoint:
            raise TeachbackError(f"TEACHER_LABELS={self.teacher_labels} needs TEACHER_CHECKPOINT, whose labels it translates")
        if self.teacher_checkpoint and self.teacher in ("meta", "mtl"):
            lacks = {"meta": "no transferable knowledge, which the domain loss trains", "mtl": "one head, not one per domain"}
            raise TeachbackError(
                f"TEACHER={self.teacher} cannot be a TEACHER_CHECKPOINT: a fine-tuned classifier has {lacks[self.teacher]}; set "
                "TEACHER=mix in stages 3 to 7, or TEACHER=single for a teacher of DOMAIN alone"
            )


@dataclass
class StudentArguments(Checked):
    """Origin of the student, and its teacher; stages 4 and 5."""

    stage: Annotated[str, one_of("first", "second")] = option("first", "first (inner layers) or second (predictions).")
    teacher: Annotated[str, one_of("meta", "mix", "mtl", "single", "multi")] = "meta"
    student_model: str = "huawei-noah/TinyBERT_General_4L_312D"
    student_layers: str = ""
    student_init: Annotated[str, one_of("pretrained", "teacher")] = "pretrained"
    use_expertise_weights: bool | None = None
    expertise_power: NonNegative = 1.0
    dropout: Annotated[float | None, BELOW_ONE] = None
    teacher_domain: str = ""
    unlabelled: str = ""
    transfer_windows: Natural = 0
    use_sample_weights: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.teacher_domain and self.teacher != "single":
            raise TeachbackError(f"TEACHER_DOMAIN={self.teacher_domain} needs TEACHER=single, not {self.teacher}")
        if self.student_init == "teacher" and not self.student_layers:
            raise TeachbackError("STUDENT_INIT=teacher needs STUDENT_LAYERS, for example 3 or spread:3")


@dataclass
class FirstStageArguments(Checked):
    """Stage 4: the losses on inner layers."""

    first: Annotated[str, one_of("metakd", "none")] = "metakd"
    layer_map: str = "uniform"
    transfer_set: TransferSet = "domain"
    attention_target: Annotated[str, one_of("scores", "probs", "relations")] = "scores"
    relation_heads: Annotated[int | None, at_least(1)] = None
    embedding_weight: NonNegative = 1.0
    hidden_weight: NonNegative = 1.0
    attention_weight: NonNegative = 1.0
    tkd_weight: NonNegative = 0.5
    loss_balance: Annotated[str, one_of("none", "initial", "running")] = "none"
    tkd_form: Form = option("paper", "Compare h_d after its tanh (paper) or before (code).")
    first_dropout: bool = True

    def __post_init__(self):
        super().__post_init__()
        weights = ("embedding_weight", "hidden_weight", "attention_weight", "tkd_weight")
        if self.first != "none" and not any(getattr(self, name) for name in weights):
            raise TeachbackError(
                f"{', '.join(name.upper() for name in weights)} are all 0, so stage 4 would learn nothing; set one above 0, "
                "or FIRST=none to pass the initial student on"
            )


# The papers' values for arguments of stage 5 that are left unset.
PAPER_SECOND_STAGE = {
    "metakd": {"soft_loss": "ce", "temperature": 1.0, "alpha_soft": 1.0, "beta_pkd": 0.0, "meta_teacher_every_epoch": False},
    "mpdistil": {"soft_loss": "mse", "temperature": 5.0, "alpha_soft": 0.5, "beta_pkd": 100.0, "meta_teacher_every_epoch": True},
}  # fmt: skip


@dataclass
class SecondStageArguments(HardLabelArguments):
    """Stage 5: the losses on predictions. Unset fields take the value of the method's paper."""

    method: Annotated[str, one_of("metakd", "mpdistil", "finetune")] = "metakd"
    soft_loss: Annotated[str, one_of("ce", "kl", "mse")] = option(None)
    temperature: Positive = option(None)
    alpha_soft: Share = option(None)
    beta_pkd: NonNegative = option(None)
    pkd_layers: Annotated[str, one_of("first", "skip", "last")] = "first"
    teacher_seeds: str = ""
    second_transfer_set: TransferSet = "domain"
    meta_teacher_every_epoch: bool | None = None
    soft_labels: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.soft_labels:
            self._no_inner_states()
        for name, value in PAPER_SECOND_STAGE["mpdistil" if self.method == "mpdistil" else "metakd"].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        words = self.teacher_seeds.replace(",", " ").split()
        if not all(word.isdecimal() for word in words):
            raise TeachbackError(f"TEACHER_SEEDS={self.teacher_seeds}: expected seeds, separated by blanks or commas")
        self.teacher_seeds = " ".join(map(str, sorted({int(word) for word in words})))

    def require_label_share(self) -> None:
        """Refuse arguments of the loss on labels if its weight is 0. Not checked in __init__: they may be meant for stage 3 alone."""
        for name in HARD_LABEL:
            if getattr(self, name) and self.alpha_soft == 1 and self.method != "finetune" and not self.soft_labels:
                raise TeachbackError(
                    f"{name.upper()}={getattr(self, name)} is for the loss on labels, whose weight is 0 with ALPHA_SOFT=1 (the "
                    "default of METHOD=metakd); set ALPHA_SOFT below 1, or unset it in stage 5"
                )

    def _no_inner_states(self) -> None:
        """Set unset fields so that soft labels are enough and no teacher is needed."""
        self.beta_pkd = 0.0 if self.beta_pkd is None else self.beta_pkd
        if self.meta_teacher_every_epoch:
            raise TeachbackError(
                "META_TEACHER_EVERY_EPOCH=1 changes the teacher's predictions after each epoch, but those of SOFT_LABELS are fixed; unset one of them"
            )
        self.meta_teacher_every_epoch = False
        if self.teacher_seeds:
            raise TeachbackError(f"TEACHER_SEEDS={self.teacher_seeds} averages the predictions of teachers, which SOFT_LABELS replaces; unset one of them")


@dataclass
class MetaTeacherArguments(Checked):
    """Training of the meta-teacher's heads on quiz; stages 5 and 6."""

    meta_loss: Annotated[str, one_of("collaborative", "competitive")] = "collaborative"
    meta_epochs: Count = 1
    meta_lr: Positive = 1e-3


# Defaults of stage 6 arguments that are left unset, and the values that the schedule of the released trainer requires.
CURRICULUM = {
    "advantage": "improvement", "reward_rows": "held_out", "first_action": "learnt", "state": "progress",
    "policy_lr": 0.05, "entropy_weight": 0.1,
}  # fmt: skip
RELEASED_CURRICULUM = {
    "advantage": "level", "reward_rows": "all", "first_action": "ignored", "state": "pooler", "policy_lr": 1e-3,
    "entropy_weight": 0.0,
}  # fmt: skip
BANDITS = ("bandit", "ucb")
RELEASED_FIXED = {"policy": "learned", "choose_from": "all", "meta_gradient": "detach", **RELEASED_CURRICULUM}


@dataclass
class CurriculumArguments(Checked):
    """Stage 6: the student chooses what to study."""

    teacher: Teacher = "meta"
    episodes: Count = 200
    curriculum_lr: Positive = 3e-5
    policy_lr: Positive = option(None)
    reward: Annotated[str, one_of("binary", "real")] = "real"
    advantage: Annotated[str, one_of("level", "improvement")] = option(None)
    reward_rows: Annotated[str, one_of("held_out", "all")] = option(None)
    gamma: Share = option(None)
    entropy_weight: NonNegative = option(None)
    policy: Annotated[str, one_of("learned", *BANDITS, "uniform", "target_only", "round_robin")] = "learned"
    choose_from: Annotated[str, one_of("all", "others")] = "all"
    first_action: Annotated[str, one_of("learnt", "ignored")] = option(None)
    state: Annotated[str, one_of("progress", "pooler")] = option(None)
    student_update: Annotated[str, one_of("step", "episode", "released")] = "step"
    meta_gradient: Annotated[str, one_of("detach", "flow")] = "detach"
    eval_every: Count = 10
    patience: Natural = 0
    episode_steps: Annotated[int | None, at_least(1)] = None
    batch_size: Count = 8
    eval_batch_size: Count = 64
    seed: int = 42
    report_to: Tracker = "none"

    def __post_init__(self):
        super().__post_init__()
        released = self.student_update == "released"
        # A student that is updated at the end of an episode stays the same within it: no step improves anything.
        once = {"advantage": "level"} if self.student_update == "episode" else {}
        for name, value in (RELEASED_CURRICULUM if released else CURRICULUM | once).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if once and self.advantage == "improvement":
            raise TeachbackError("ADVANTAGE=improvement is 0 at every step with STUDENT_UPDATE=episode; set ADVANTAGE=level, or leave it unset")
        if self.choose_from == "others" and self.policy == "target_only":
            raise TeachbackError("POLICY=target_only needs CHOOSE_FROM=all, as CHOOSE_FROM=others excludes the target")
        for name, value in RELEASED_FIXED.items() if released else ():
            if name != "policy_lr" and getattr(self, name) != value:
                raise TeachbackError(
                    f"STUDENT_UPDATE=released needs {name.upper()}={value}, not {getattr(self, name)}; unset it, "
                    "or set STUDENT_UPDATE=episode, which takes any value"
                )
        if self.gamma is None:  # an improvement is due to its own step; a level depends on all steps before
            self.gamma = 0.0 if self.advantage == "improvement" else 0.99


# Argument classes that the command lines of the training stages are parsed into, in the order in which the stages unpack them.
TEACHER_STAGE = (DataArguments, TeacherArguments, OptimizerArguments)
STUDENT_STAGES = (
    DataArguments, StudentArguments, FirstStageArguments, SecondStageArguments, MetaTeacherArguments, OptimizerArguments,
)  # fmt: skip
CURRICULUM_STAGE = (DataArguments, MetaTeacherArguments, CurriculumArguments)


def as_arguments(*parts, without: tuple[str, ...] = ()) -> dict:
    """Several dataclasses and dicts as one flat dict for stage.json."""
    dicts = [part if isinstance(part, dict) else recorded(part) for part in parts]
    return {name: value for part in dicts for name, value in part.items() if name not in without}
