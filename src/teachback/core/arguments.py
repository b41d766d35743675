"""The arguments of the training stages: small dataclasses beside those of Hugging Face.

A flag that a variable sets is described by the variable's line in the stages' scripts, which ``--help`` shows.
"""

from dataclasses import dataclass

from teachback.core.errors import TeachbackError
from teachback.core.options import (
    option,
    recorded,
    require,
    require_above_zero,
    require_at_least,
    require_share,
)
from teachback.core.training_arguments import OptimizerArguments


@dataclass
class DataArguments:
    """Arguments for data and machine, shared by all training stages."""

    suite: str = "amazon"
    domain: str = ""
    domains: str = ""
    data_dir: str = "data"
    output_root: str = "outputs"
    teacher_root: str = ""
    student_root: str = ""
    max_length: int = 128
    precision: str = "auto"
    device: str = "auto"
    teacher_cache_gb: float | None = None
    protocol: str = "honest"
    hold_out: str = ""
    train_fraction: float = 1.0
    dry_run: bool = option(False, "Only say what would be made and why; nothing is touched.")

    def __post_init__(self):
        require(self, "protocol", ("honest", "paper"))
        require_at_least(self, "max_length", 4)
        if not 0 < self.train_fraction <= 1:
            raise TeachbackError(f"TRAIN_FRACTION={self.train_fraction}: must be above 0 and at most 1")
        if self.teacher_cache_gb is not None:
            require_at_least(self, "teacher_cache_gb", 0)


@dataclass
class HardLabelArguments:
    """The loss on labels; stages 3 and 5."""

    class_weights: str = ""
    label_smoothing: float = 0.0

    def __post_init__(self):
        require_share(self, "label_smoothing")


HARD_LABEL = tuple(HardLabelArguments.__annotations__)


@dataclass
class TeacherArguments(HardLabelArguments):
    """Stage 3."""

    teacher: str = "meta"
    teacher_model: str = "bert-base-uncased"
    teacher_checkpoint: str = ""
    teacher_labels: str = ""
    use_sample_weights: bool = True
    use_domain_loss: bool = True
    domain_loss_weight: float = 0.5
    domain_labels: str = "false"
    domain_loss_form: str = option("paper", "paper: t*CE + gamma*L_DA; code: t*(CE + gamma*L_DA).")

    dropout: float | None = None

    def __post_init__(self):
        super().__post_init__()
        require_share(self, "dropout")
        require(self, "teacher", ("meta", "mix", "mtl", "single"))
        require(self, "domain_labels", ("false", "permuted", "reversal", "uniform"))
        require(self, "domain_loss_form", ("paper", "code"))
        require_at_least(self, "domain_loss_weight", 0)
        if self.teacher_labels and not self.teacher_checkpoint:
            raise TeachbackError(f"TEACHER_LABELS={self.teacher_labels} needs TEACHER_CHECKPOINT, whose labels it translates")
        if self.teacher_checkpoint and self.teacher in ("meta", "mtl"):
            lacks = {"meta": "no transferable knowledge, which the domain loss trains", "mtl": "one head, not one a domain"}
            raise TeachbackError(
                f"TEACHER={self.teacher} cannot be a TEACHER_CHECKPOINT: a fine-tuned classifier has {lacks[self.teacher]}; set "
                "TEACHER=mix in stages 3 to 7, or TEACHER=single for a teacher of DOMAIN alone"
            )


@dataclass
class StudentArguments:
    """Where a student comes from, and its teacher; stages 4 and 5."""

    stage: str = option("first", "first (inner layers) or second (predictions).")
    teacher: str = "meta"
    student_model: str = "huawei-noah/TinyBERT_General_4L_312D"
    student_layers: str = ""
    student_init: str = "pretrained"
    use_expertise_weights: bool | None = None
    expertise_power: float = 1.0
    dropout: float | None = None
    teacher_domain: str = ""
    unlabelled: str = ""
    transfer_windows: int = 0
    use_sample_weights: bool = True

    def __post_init__(self):
        require(self, "stage", ("first", "second"))
        require_share(self, "dropout")
        require(self, "teacher", ("meta", "mix", "mtl", "single", "multi"))
        require(self, "student_init", ("pretrained", "teacher"))
        for name in ("expertise_power", "transfer_windows"):
            require_at_least(self, name, 0)
        if self.teacher_domain and self.teacher != "single":
            raise TeachbackError(f"TEACHER_DOMAIN={self.teacher_domain} needs TEACHER=single, not {self.teacher}")
        if self.student_init == "teacher" and not self.student_layers:
            raise TeachbackError("STUDENT_INIT=teacher needs STUDENT_LAYERS, for example 3 or spread:3")


@dataclass
class FirstStageArguments:
    """Stage 4: the losses on inner layers."""

    first: str = "metakd"
    layer_map: str = "uniform"
    transfer_set: str = "domain"
    attention_target: str = "scores"
    relation_heads: int | None = None
    embedding_weight: float = 1.0
    hidden_weight: float = 1.0
    attention_weight: float = 1.0
    tkd_weight: float = 0.5
    loss_balance: str = "none"
    tkd_form: str = option("paper", "Compare h_d after its tanh (paper) or before (code).")
    first_dropout: bool = True

    def __post_init__(self):
        require(self, "first", ("metakd", "none"))
        require(self, "transfer_set", ("domain", "all"))
        require(self, "attention_target", ("scores", "probs", "relations"))
        if self.relation_heads is not None:
            require_at_least(self, "relation_heads", 1)
        require(self, "tkd_form", ("paper", "code"))
        require(self, "loss_balance", ("none", "initial", "running"))
        weights = ("embedding_weight", "hidden_weight", "attention_weight", "tkd_weight")
        for name in weights:
            require_at_least(self, name, 0)
        if self.first != "none" and not any(getattr(self, name) for name in weights):
            raise TeachbackError(
                f"{', '.join(name.upper() for name in weights)} are all 0, so stage 4 would learn nothing; set one above 0, "
                "or FIRST=none to pass the initial student on"
            )


# What the papers take for an argument of stage 5 that is left unset.
PAPER_SECOND_STAGE = {
    "metakd": {"soft_loss": "ce", "temperature": 1.0, "alpha_soft": 1.0, "beta_pkd": 0.0, "meta_teacher_every_epoch": False},
    "mpdistil": {"soft_loss": "mse", "temperature": 5.0, "alpha_soft": 0.5, "beta_pkd": 100.0, "meta_teacher_every_epoch": True},
}  # fmt: skip


@dataclass
class SecondStageArguments(HardLabelArguments):
    """Stage 5: the losses on predictions. What is unset takes the value that the method's paper has."""

    method: str = "metakd"
    soft_loss: str = option(None)
    temperature: float = option(None)
    alpha_soft: float = option(None)
    beta_pkd: float = option(None)
    pkd_layers: str = "first"
    teacher_seeds: str = ""
    second_transfer_set: str = "domain"
    meta_teacher_every_epoch: bool | None = None
    soft_labels: str = ""

    def __post_init__(self):
        super().__post_init__()
        require(self, "method", ("metakd", "mpdistil", "finetune"))
        if self.soft_labels:
            self._no_inner_states()
        for name, value in PAPER_SECOND_STAGE.get(self.method, PAPER_SECOND_STAGE["metakd"]).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        require(self, "soft_loss", ("ce", "kl", "mse"))
        require(self, "pkd_layers", ("first", "skip", "last"))
        require(self, "second_transfer_set", ("domain", "all"))
        words = self.teacher_seeds.replace(",", " ").split()
        if not all(word.isdecimal() for word in words):
            raise TeachbackError(f"TEACHER_SEEDS={self.teacher_seeds}: expected seeds, separated by blanks or commas")
        self.teacher_seeds = " ".join(map(str, sorted({int(word) for word in words})))
        require_above_zero(self, "temperature")
        require_at_least(self, "beta_pkd", 0)
        if not 0 <= self.alpha_soft <= 1:
            raise TeachbackError(f"ALPHA_SOFT={self.alpha_soft}: must be between 0 and 1")

    def require_label_share(self) -> None:
        """Refuse arguments of the loss on labels where it has no share. Not at once: they may be meant for stage 3 alone."""
        for name in HARD_LABEL:
            if getattr(self, name) and self.alpha_soft == 1 and self.method != "finetune" and not self.soft_labels:
                raise TeachbackError(
                    f"{name.upper()}={getattr(self, name)} is of the loss on labels, which has no share with ALPHA_SOFT=1 (the "
                    "default of METHOD=metakd); set ALPHA_SOFT below 1, or leave it unset in stage 5"
                )

    def _no_inner_states(self) -> None:
        """Fill in what is unset so that no teacher is needed beside its soft labels."""
        self.beta_pkd = 0.0 if self.beta_pkd is None else self.beta_pkd
        if self.meta_teacher_every_epoch:
            raise TeachbackError(
                "META_TEACHER_EVERY_EPOCH=1 changes the teacher's answers after each epoch, and those of SOFT_LABELS are fixed; leave one unset"
            )
        self.meta_teacher_every_epoch = False
        if self.teacher_seeds:
            raise TeachbackError(f"TEACHER_SEEDS={self.teacher_seeds} averages teachers, whose place SOFT_LABELS takes; leave one unset")


@dataclass
class MetaTeacherArguments:
    """How the meta-teacher's heads learn on quiz; stages 5 and 6."""

    meta_loss: str = "collaborative"
    meta_epochs: int = 1
    meta_lr: float = 1e-3

    def __post_init__(self):
        require(self, "meta_loss", ("collaborative", "competitive"))
        require_at_least(self, "meta_epochs", 1)
        require_above_zero(self, "meta_lr")


# What an argument of stage 6 that is left unset stands for, and what the released trainer's schedule leaves no choice of.
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
class CurriculumArguments:
    """Stage 6: the student chooses what to study."""

    teacher: str = "meta"
    episodes: int = 200
    curriculum_lr: float = 3e-5
    policy_lr: float = option(None)
    reward: str = "real"
    advantage: str = option(None)
    reward_rows: str = option(None)
    gamma: float = option(None)
    entropy_weight: float = option(None)
    policy: str = "learned"
    choose_from: str = "all"
    first_action: str = option(None)
    state: str = option(None)
    student_update: str = "step"
    meta_gradient: str = "detach"
    eval_every: int = 10
    patience: int = 0
    episode_steps: int | None = None
    batch_size: int = 8
    eval_batch_size: int = 64
    seed: int = 42
    report_to: str = "none"

    def __post_init__(self):
        require(self, "student_update", ("step", "episode", "released"))
        released = self.student_update == "released"
        for name, value in (RELEASED_CURRICULUM if released else CURRICULUM).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        require(self, "teacher", ("meta", "mix", "mtl", "single"))
        require(self, "reward", ("binary", "real"))
        require(self, "advantage", ("level", "improvement"))
        require(self, "reward_rows", ("held_out", "all"))
        require(self, "policy", ("learned", *BANDITS, "uniform", "target_only", "round_robin"))
        require(self, "first_action", ("learnt", "ignored"))
        require(self, "choose_from", ("all", "others"))
        if self.choose_from == "others" and self.policy == "target_only":
            raise TeachbackError("POLICY=target_only needs CHOOSE_FROM=all, as the others leave the target out")
        require(self, "state", ("progress", "pooler"))
        require(self, "meta_gradient", ("detach", "flow"))
        for name, value in RELEASED_FIXED.items() if released else ():
            if name != "policy_lr" and getattr(self, name) != value:
                raise TeachbackError(
                    f"STUDENT_UPDATE=released has {name.upper()}={value}, not {getattr(self, name)}; leave it unset, "
                    "or set STUDENT_UPDATE=episode, which takes any"
                )
        require(self, "report_to", ("none", "tensorboard", "wandb"))
        for name in ("episodes", "eval_every", "batch_size", "eval_batch_size", "episode_steps"):
            if getattr(self, name) is not None:
                require_at_least(self, name, 1)
        for name in ("curriculum_lr", "policy_lr"):
            require_above_zero(self, name)
        for name in ("entropy_weight", "patience"):
            require_at_least(self, name, 0)
        if self.gamma is None:  # what a step improved, it improved at once; a level tells of all steps before
            self.gamma = 0.0 if self.advantage == "improvement" else 0.99
        if not 0 <= self.gamma <= 1:
            raise TeachbackError(f"GAMMA={self.gamma}: must be between 0 and 1")


# What the command lines of the training stages are parsed into, in the order in which the stages take it.
TEACHER_STAGE = (DataArguments, TeacherArguments, OptimizerArguments)
STUDENT_STAGES = (
    DataArguments, StudentArguments, FirstStageArguments, SecondStageArguments, MetaTeacherArguments, OptimizerArguments,
)  # fmt: skip
CURRICULUM_STAGE = (DataArguments, MetaTeacherArguments, CurriculumArguments)


def as_arguments(*parts, without: tuple[str, ...] = ()) -> dict:
    """Several dataclasses and dicts as one flat dict for stage.json."""
    dicts = [part if isinstance(part, dict) else recorded(part) for part in parts]
    return {name: value for part in dicts for name, value in part.items() if name not in without}
