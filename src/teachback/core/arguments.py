"""The arguments of the training stages: small dataclasses beside Hugging Face ``TrainingArguments``."""

import sys
from dataclasses import MISSING, Field, asdict, dataclass, field, fields

import torch
from transformers import TrainingArguments
from transformers.utils.logging import disable_progress_bar

from teachback.core.devices import choose_gpu, resolve_device, resolve_precision
from teachback.core.errors import TeachbackError
from teachback.core.options import (
    Parser,
    option,
    parse_options,
    require,
    require_above_zero,
    require_at_least,
    without_unset,
)
from teachback.core.tracking import require_installed

SEEDS = 2**32


@dataclass
class DataArguments:
    """Which data and which machine; the same in every training stage."""

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
    train_fraction: float = option(1.0, "Share of the target domain's train rows that is used (stages 3 to 5).")
    dry_run: bool = option(False, "Only say what would be made and why; nothing is touched.")

    def __post_init__(self):
        require(self, "protocol", ("honest", "paper"))
        require_at_least(self, "max_length", 4)
        if not 0 < self.train_fraction <= 1:
            raise TeachbackError(f"TRAIN_FRACTION={self.train_fraction}: must be above 0 and at most 1")
        if self.teacher_cache_gb is not None:
            require_at_least(self, "teacher_cache_gb", 0)


@dataclass
class TeacherArguments:
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

    def __post_init__(self):
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
    teacher_domain: str = option("", "With teacher single: whose; empty: the target domain's own.")
    use_sample_weights: bool = option(True, "lambda reads the examples' prototype scores; without: 1 for each.")

    def __post_init__(self):
        require(self, "stage", ("first", "second"))
        require(self, "teacher", ("meta", "mix", "mtl", "single", "multi"))
        require(self, "student_init", ("pretrained", "teacher"))
        require_at_least(self, "expertise_power", 0)
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
    unlabelled: str = option("", "File of further texts of the target domain: one a line, a pair separated by a tab.")
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
class SecondStageArguments:
    """Stage 5: the losses on predictions. What is unset takes the value that the method's paper has."""

    method: str = option("metakd", "metakd and mpdistil: distil stage 4's student; finetune: hard labels, no teacher.")
    soft_loss: str = option(None, "ce, kl or mse between teacher's and student's predictions.")
    temperature: float = option(None, "Temperature; the soft loss is multiplied by its square.")
    alpha_soft: float = option(None, "Share of the soft loss, 0 to 1; the labels' loss has the rest.")
    beta_pkd: float = option(None, "Weight of the loss between normalised [CLS] states of inner layers (PKD).")
    pkd_layers: str = option("first", "Teacher layers for it: first (released code), skip or last.")
    meta_teacher_every_epoch: bool | None = option(
        None, "After each epoch train the teacher's heads on quiz; they answer in the next epoch."
    )

    def __post_init__(self):
        require(self, "method", ("metakd", "mpdistil", "finetune"))
        for name, value in PAPER_SECOND_STAGE.get(self.method, PAPER_SECOND_STAGE["metakd"]).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        require(self, "soft_loss", ("ce", "kl", "mse"))
        require(self, "pkd_layers", ("first", "skip", "last"))
        require_above_zero(self, "temperature")
        require_at_least(self, "beta_pkd", 0)
        if not 0 <= self.alpha_soft <= 1:
            raise TeachbackError(f"ALPHA_SOFT={self.alpha_soft}: must be between 0 and 1")


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
        require_at_least(self, "entropy_weight", 0)
        if self.gamma is None:  # what a step improved, it improved at once; a level tells of all steps before
            self.gamma = 0.0 if self.advantage == "improvement" else 0.99
        if not 0 <= self.gamma <= 1:
            raise TeachbackError(f"GAMMA={self.gamma}: must be between 0 and 1")


@dataclass
class OptimizerArguments(TrainingArguments):
    """Hugging Face's training arguments with the papers' values as defaults."""

    output_dir: str | None = option(None, "Not used: stage folders lie under --output_root.")
    learning_rate: float = option(2e-5, "Peak learning rate.")
    per_device_train_batch_size: int = option(32, "Rows a process and step.")
    per_device_eval_batch_size: int = option(64, "Rows a process and evaluation step.")
    weight_decay: float = option(0.01, "Weight decay (paper: 0.01).")
    warmup_steps: float = option(0.1, "Warm-up: a share of all steps below 1, else a number of steps (paper: 0.1).")
    eval_strategy: str = option("epoch", "When to score the selection rows.")
    save_strategy: str = option("epoch", "When to write a checkpoint.")
    save_steps: float = option(0, "Write one every so many steps as well; 0: at the ends of epochs alone.")
    save_total_limit: int | None = option(2, "Checkpoints kept; the best one so far is among them.")
    load_best_model_at_end: bool = option(True, "Restore the checkpoint that scored best.")
    logging_steps: float = option(50, "Log every so many steps; left at 50: in a run of few steps more often, ten losses in all and one an epoch.")
    logging_nan_inf_filter: bool = option(False, "Off: a loss that is no number is seen, and stops the stage.")
    report_to: str = option("none", "tensorboard, wandb or none.")
    remove_unused_columns: bool = option(False, "Kept off: batches carry what the losses need.")
    label_names: list[str] | None = field(default_factory=lambda: ["label"])
    disable_tqdm: bool | None = option(None, "No progress bars; default: only where the output is no terminal.")
    ddp_find_unused_parameters: bool | None = option(False, "Off: every trained weight is used in every step.")
    dataloader_pin_memory: bool = option(None, "Pin host memory; default: only with a GPU.")
    dataloader_num_workers: int = option(-1, "Processes that make batches; -1: 2 with a GPU, else 0.")

    def __post_init__(self):
        # Before Hugging Face fills values in. No field, so that it is in no record.
        self.chosen = {f.name for f in fields(self) if getattr(self, f.name) != _default(f)}
        super().__post_init__()
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            require_at_least(self, name, 1)
        for name in ("learning_rate", "num_train_epochs"):
            require_above_zero(self, name)
        for name in ("weight_decay", "warmup_steps", "save_steps", "max_grad_norm"):
            require_at_least(self, name, 0)
        require_seed(self)
        if self.save_strategy == "steps" and not self.save_steps:
            raise TeachbackError("--save_strategy steps needs --save_steps, a number of steps")
        if self.dataloader_num_workers == -1:
            self.dataloader_num_workers = 2 if self.device.type == "cuda" else 0


# What the command lines of the training stages are parsed into, in the order in which the stages take it.
TEACHER_STAGE = (DataArguments, TeacherArguments, OptimizerArguments)
STUDENT_STAGES = (
    DataArguments, StudentArguments, FirstStageArguments, SecondStageArguments, MetaTeacherArguments, OptimizerArguments,
)  # fmt: skip
CURRICULUM_STAGE = (DataArguments, MetaTeacherArguments, CurriculumArguments)

# Arguments of TrainingArguments that do not change a stage's result: where it writes, logs, uploads and how it reports.
WITHOUT_EFFECT_ON_RESULT = {
    "output_dir", "logging_dir", "logging_strategy", "logging_first_step", "logging_steps", "logging_nan_inf_filter",
    "log_level", "log_level_replica", "log_on_each_node", "report_to", "run_name", "disable_tqdm", "project",
    "resume_from_checkpoint", "save_total_limit", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "per_device_eval_batch_size", "local_rank",
    "ddp_timeout", "trackio_space_id", "use_cpu", "include_num_input_tokens_seen", "restore_callback_states_from_checkpoint",
    "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token",
}  # fmt: skip
# Arguments of TrainingArguments that stand in stage.json also where they have Hugging Face's default, beside those whose
# default is ours. Of the many others only those that were given another value do: a release of transformers that has
# more, fewer or other ones leaves finished stages as they are.
ALWAYS_COMPARED = {
    "num_train_epochs", "max_steps", "seed", "lr_scheduler_type", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "gradient_accumulation_steps", "bf16", "fp16",
}  # fmt: skip
# Arguments that these stages could only ignore.
REFUSED = {
    "output_dir": "stage folders lie under --output_root",
    "do_train": "a stage always trains", "do_eval": "see 7_eval.sh", "do_predict": "see 7_eval.sh",
    "save_only_model": "a stage goes on from its checkpoints",
    "hub_strategy": "a folder is uploaded once, when it is finished", "hub_always_push": "see --hub_strategy",
    "hub_revision": "a folder is uploaded to the main branch", "train_sampling_strategy": "batches are always of similar length",
    "label_smoothing_factor": "the losses are the methods' own", "group_by_length": "batches are always of similar length",
}  # fmt: skip


def require_seed(arguments) -> None:
    """numpy takes no other seeds."""
    if not 0 <= arguments.seed < SEEDS:
        raise TeachbackError(f"SEED={arguments.seed}: must be from 0 to {SEEDS - 1}")


def parse(*classes, argv: list[str] | None = None):
    """Parse the command line into the classes; arguments that would have no effect are refused."""
    argv = sys.argv[1:] if argv is None else argv
    for flag in (word.split("=")[0].lstrip("-") for word in argv if word.startswith("--")):
        if flag in REFUSED and OptimizerArguments in classes:
            raise TeachbackError(f"--{flag} has no effect here: {REFUSED[flag]}")
    argv = without_unset(tuple(c for c in classes if c is not OptimizerArguments), argv)
    if OptimizerArguments in classes and not {"-h", "--help"} & set(argv):
        argv = argv + _hardware_flags(argv)
    return parse_options(*classes, argv=argv)


def parse_some(*classes, argv: list[str]) -> list:
    """Parse what the classes know of a command line, and leave the rest: nothing is set up that other arguments ask for."""
    if not classes:
        return []
    try:
        parsed = Parser(classes, allow_abbrev=False).parse_args_into_dataclasses(
            args=without_unset(tuple(c for c in classes if c is not OptimizerArguments), argv), return_remaining_strings=True
        )
    except (ValueError, TypeError, ArithmeticError) as error:
        raise TeachbackError(f"{' '.join(str(error).split())} (--help lists what there is)") from error
    return list(parsed[:-1])


def _hardware_flags(argv: list[str]) -> list[str]:
    """Hugging Face's flags for DEVICE and PRECISION, which it must know before it sets up processes and devices."""
    parser = Parser(DataArguments, allow_abbrev=False)  # type: ignore[arg-type]  # a NewType of theirs
    data, *_ = parser.parse_args_into_dataclasses(args=argv, return_remaining_strings=True)
    device = resolve_device("cpu" if "--use_cpu" in argv else data.device)
    choose_gpu(device)
    flags = ["--use_cpu"] if device.type == "cpu" else []
    if not {"--bf16", "--fp16"} & set(argv):
        precision = resolve_precision(data.precision, device)
        flags += [f"--{precision}"] if precision != "fp32" else []
    return flags


def prepare_machine(training: OptimizerArguments) -> str:
    """Finish what depends on device, terminal and installed loggers; return the precision that is computed in."""
    training.disable_tqdm = training.disable_tqdm or not sys.stderr.isatty()
    if training.disable_tqdm:
        disable_progress_bar()
    require_installed(training.report_to)
    if training.dataloader_pin_memory is None:
        training.dataloader_pin_memory = not training.use_cpu
    return "bf16" if training.bf16 else "fp16" if training.fp16 else "fp32"


def on_one_device(device: torch.device, precision: str, **options) -> OptimizerArguments:
    """Arguments of a training in this process alone, in a resolved precision, where no command line gives them."""
    args = OptimizerArguments(
        use_cpu=device.type == "cpu", bf16=precision == "bf16", fp16=precision == "fp16", **options
    )
    args._n_gpu = min(1, args.n_gpu)  # else the Trainer wraps the model in DataParallel where it sees several
    return args


def relevant(training: OptimizerArguments) -> dict:
    """The training arguments that a result depends on, and the number of processes."""
    values = training.to_dict()  # hides tokens
    compared = ALWAYS_COMPARED | set(OptimizerArguments.__annotations__) | training.chosen
    without = WITHOUT_EFFECT_ON_RESULT | (set() if training.save_strategy == "steps" else {"save_steps"})
    kept = {f.name: values[f.name] for f in fields(training) if f.name in compared - without}
    return {**kept, "processes": training.world_size}


def _default(one: Field):
    return one.default if one.default_factory is MISSING else one.default_factory()


def as_arguments(*parts, without: tuple[str, ...] = ()) -> dict:
    """Several dataclasses and dicts as one flat dict for stage.json."""
    dicts = [part if isinstance(part, dict) else asdict(part) for part in parts]
    return {name: value for part in dicts for name, value in part.items() if name not in without}
