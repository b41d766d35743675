"""The arguments of the training stages: small dataclasses beside those of Hugging Face."""

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

    suite: str = option("amazon", "Suite, a folder of data_dir that stage 2 wrote.")
    domain: str = option("", "Target domain; empty: the suite's first; all: every domain in turn (students).")
    domains: str = option("", "Only these domains of the suite, separated by blanks or commas; empty: all.")
    data_dir: str = option("data", "Folder of the processed suites and of fetched models.")
    output_root: str = option("outputs", "Folder under which stage folders are made.")
    teacher_root: str = option("", "Output root of another run, whose teacher is used; empty: output_root.")
    student_root: str = option("", "Output root of another run, whose student of the stage before is used.")
    max_length: int = option(128, "Tokens after which a text is cut (paper: 128).")
    precision: str = option("auto", "auto, fp32, bf16 or fp16.")
    device: str = option("auto", "auto, cpu, cuda or cuda:<number>.")
    teacher_cache_gb: float | None = option(
        None,
        "Most disk for what teachers said, which is read instead of running them again; unset: a fifth of what is free.",
    )
    protocol: str = option("honest", "honest selects on dev; paper on the split that the suite's paper selects on: in superglue and glue the reported one.")
    hold_out: str = option("", "A domain that no teacher of several domains is trained on (stages 3 to 5).")
    train_fraction: float = option(1.0, "Share of the target domain's train and quiz rows that is used.")
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

    class_weights: str = option(
        "", "Weights of the classes in it: balanced (inverse to their frequency), or name=weight,...; their mean over the train rows is 1."
    )
    label_smoothing: float = option(0.0, "Share of a label that is spread evenly over the classes of its domain, 0 to 1.")

    def __post_init__(self):
        require_share(self, "label_smoothing")


HARD_LABEL = tuple(HardLabelArguments.__annotations__)


@dataclass
class TeacherArguments(HardLabelArguments):
    """Stage 3."""

    teacher: str = option("meta", "meta, mix (all domains pooled), mtl (a head a domain) or single (one domain).")
    teacher_model: str = option("bert-base-uncased", "Hub name, folder, or scratch:tiny|mini (paper: BERT-base).")
    use_sample_weights: bool = option(True, "Weight the meta-teacher's examples by prototype score.")
    use_domain_loss: bool = option(True, "Add the domain-corruption loss to the meta-teacher.")
    domain_loss_weight: float = option(0.5, "Its weight gamma_1 (released code: 0.5).")
    domain_labels: str = option(
        "false",
        "Labels of the domain loss: false (never the true one), permuted (released code); or, to drive the domain out of "
        "h_d, which then has no domain embedding: reversal (of the gradient) or uniform (confusion).",
    )
    domain_loss_form: str = option("paper", "paper: t*CE + gamma*L_DA; code: t*(CE + gamma*L_DA).")

    dropout: float | None = option(None, "Every dropout probability of the teacher; unset: the defaults of its family.")

    def __post_init__(self):
        super().__post_init__()
        require_share(self, "dropout")
        require(self, "teacher", ("meta", "mix", "mtl", "single"))
        require(self, "domain_labels", ("false", "permuted", "reversal", "uniform"))
        require(self, "domain_loss_form", ("paper", "code"))
        require_at_least(self, "domain_loss_weight", 0)


@dataclass
class StudentArguments:
    """Where a student comes from, and its teacher; stages 4 and 5."""

    stage: str = option("first", "first (inner layers) or second (predictions).")
    teacher: str = option(
        "meta", "Kind of the teacher: meta, mix, mtl or single; or multi: the single teachers of all domains together."
    )
    student_model: str = option("huawei-noah/TinyBERT_General_4L_312D", "Hub name, folder, or scratch:tiny|mini.")
    student_layers: str = option("", "Cut: 3 (the first three), spread:3, or a list 1,3,5; empty: the whole model.")
    student_init: str = option(
        "pretrained", "pretrained: from student_model; teacher: cut from the fine-tuned teacher."
    )
    use_expertise_weights: bool | None = option(
        None, "Weight each example by lambda, the teacher's domain expertise; unset: with metakd only (paper)."
    )
    expertise_power: float = option(1.0, "Power that lambda is raised to; above 1 it tells rows apart more sharply.")
    dropout: float | None = option(
        None, "Every dropout probability of a new student; unset: the defaults of its family, or the teacher's that it is cut from."
    )
    teacher_domain: str = option("", "With teacher single: whose; empty: the target domain's own.")
    unlabelled: str = option("", "File of further texts of the target domain: one a line, a pair separated by a tab.")
    transfer_windows: int = option(
        0, "Further windows of each text longer than max_length that are learnt on, at most; the teacher answers them."
    )
    use_sample_weights: bool = option(True, "lambda reads the examples' prototype scores; without: 1 for each.")

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

    first: str = option("metakd", "metakd; or none: pass the initial student on as it is.")
    layer_map: str = option("uniform", "Teacher layer of each student layer: uniform, last, first, a list 3,6,9,12, or one for the last.")
    transfer_set: str = option("domain", "Texts to distil on: domain (paper) or all domains (no labels are needed).")
    attention_target: str = option(
        "scores", "Compare attention scores, their probs, or relations of tokens (MiniLMv2), which every family has."
    )
    relation_heads: int | None = option(
        None, "With relations: heads that states are split into; unset: as many as 48 that divide all widths."
    )
    embedding_weight: float = option(1.0, "Weight of the embedding loss.")
    hidden_weight: float = option(1.0, "Weight of the hidden-state loss.")
    attention_weight: float = option(1.0, "Weight of the attention loss.")
    tkd_weight: float = option(0.5, "Weight gamma_2 of the transferable-knowledge loss (released code: 0.5).")
    loss_balance: str = option(
        "none", "Divide each loss by its own size: initial (of the first batches), running (a moving mean) or none (paper)."
    )
    tkd_form: str = option("paper", "Compare h_d after its tanh (paper) or before (code).")
    first_dropout: bool = option(
        True, "The student learns with its dropout (released code); without, a step is faster."
    )

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

    method: str = option("metakd", "metakd and mpdistil: distil stage 4's student; finetune: hard labels, no teacher.")
    soft_loss: str = option(None, "ce, kl or mse between teacher's and student's predictions.")
    temperature: float = option(None, "Temperature; the soft loss is multiplied by its square.")
    alpha_soft: float = option(None, "Share of the soft loss, 0 to 1; the labels' loss has the rest.")
    beta_pkd: float = option(None, "Weight of the loss between normalised [CLS] states of inner layers (PKD).")
    pkd_layers: str = option("first", "Teacher layers for it: first (released code), skip or last.")
    teacher_seeds: str = option(
        "", "Seeds of runs whose teachers' predictions are averaged, separated by blanks or commas; empty: this run's teacher."
    )
    second_transfer_set: str = option(
        "domain", "Texts to learn on: domain (paper), or all: the texts of domains with the same labels too, which the teacher answers."
    )
    meta_teacher_every_epoch: bool | None = option(
        None, "After each epoch train the teacher's heads on quiz; they answer in the next epoch."
    )

    def __post_init__(self):
        super().__post_init__()
        require(self, "method", ("metakd", "mpdistil", "finetune"))
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
        for name in HARD_LABEL:
            if getattr(self, name) and self.alpha_soft == 1 and self.method != "finetune":
                raise TeachbackError(
                    f"{name.upper()}={getattr(self, name)} is of the loss on labels, which has no share with ALPHA_SOFT=1 (the "
                    "default of METHOD=metakd); set ALPHA_SOFT below 1, or leave it unset in stage 5"
                )


@dataclass
class MetaTeacherArguments:
    """How the meta-teacher's heads learn on quiz; stages 5 and 6."""

    meta_loss: str = option("collaborative", "collaborative or competitive.")
    meta_epochs: int = option(1, "Passes over quiz (released code: 1).")
    meta_lr: float = option(1e-3, "Learning rate (released code: 1e-3).")

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
RELEASED_FIXED = {"policy": "learned", "choose_from": "all", "meta_gradient": "detach", **RELEASED_CURRICULUM}


@dataclass
class CurriculumArguments:
    """Stage 6: the student chooses what to study."""

    teacher: str = option("meta", "Kind of the teacher: meta, mix, mtl or single.")
    episodes: int = option(200, "Walks over the target domain's quiz (released code: 200).")
    curriculum_lr: float = option(3e-5, "The student's learning rate (released code: 3e-5).")
    policy_lr: float = option(None, "The policy's learning rate; unset: 0.05, or 1e-3 for released.")
    reward: str = option("real", "binary: rows on which the student is surer than the meta-teacher; real: by how much.")
    advantage: str = option(
        None, "Reward of a step: its level after it, or its improvement by it; unset: improvement, for released level."
    )
    reward_rows: str = option(
        None, "Half of the target's quiz that it never learns from, held_out, or all of it; unset: for released all."
    )
    gamma: float = option(None, "Discount of later rewards, 0 to 1; unset: 0 for improvement, 0.99 for level.")
    entropy_weight: float = option(
        None, "Reward for the policy's entropy, in units of the rewards' size; unset: 0.1, for released 0."
    )
    policy: str = option("learned", "learned; or, to compare with: uniform, target_only or round_robin.")
    choose_from: str = option("all", "Domains to choose from: all (paper), or the others than the target.")
    first_action: str = option(
        None,
        "An episode's first domain is drawn uniformly; the policy learns from it, weighed by K times its own probability, "
        "or it is ignored; unset: learnt, for released ignored.",
    )
    state: str = option(
        None, "What the policy sees: progress by domain, or the student's pooler weight; unset: for released pooler."
    )
    student_update: str = option(
        "step", "The student learns at each step, once at the end of an episode, or as in the released trainer (released)."
    )
    meta_gradient: str = option(
        "detach", "p_T'(y|h_S) in the student's loss: a constant (detach, released code), or with its gradient (flow)."
    )
    eval_every: int = option(10, "Episodes between two scores on the selection rows.")
    patience: int = option(0, "End after so many scores on them in a row without a better one; 0: never.")
    episode_steps: int | None = option(None, "Steps an episode; unset: one for each batch of the target's quiz.")
    batch_size: int = option(8, "Rows a step (released code: 8).")
    eval_batch_size: int = option(64, "Rows a step where nothing is learnt.")
    seed: int = option(42, "Fixes everything on one machine.")
    report_to: str = option("none", "tensorboard, wandb or none.")

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
        require(self, "policy", ("learned", "uniform", "target_only", "round_robin"))
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
