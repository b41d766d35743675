"""Hugging Face's ``TrainingArguments`` with the papers' defaults, and the fields that determine a result."""

import sys
from dataclasses import MISSING, Field, dataclass, field, fields

import torch
from transformers import TrainingArguments
from transformers.utils.logging import disable_progress_bar

from teachback.core.errors import TeachbackError
from teachback.core.options import (
    ADDED,
    option,
    require_above_zero,
    require_at_least,
)
from teachback.core.tracking import require_installed

SEEDS = 2**32


@dataclass
class OptimizerArguments(TrainingArguments):
    """Hugging Face's training arguments with the papers' values as defaults."""

    output_dir: str | None = option(None, "Not used: stage folders lie under --output_root.")
    learning_rate: float = option(2e-5)
    per_device_train_batch_size: int = option(32)
    per_device_eval_batch_size: int = option(64)
    weight_decay: float = option(0.01, "Weight decay (paper: 0.01).")
    warmup_steps: float = option(0.1, "Warm-up: a share of all steps below 1, else a number of steps (paper: 0.1).")
    eval_strategy: str = option("epoch", "When to score the selection rows.")
    save_strategy: str = option("epoch", "When to write a checkpoint.")
    save_steps: float = option(0)
    patience: int = option(0)
    save_total_limit: int | None = option(2, "Checkpoints kept; the best one so far is among them.")
    average_checkpoints: int = option(0)
    layer_decay: float = option(1.0)
    load_best_model_at_end: bool = option(True, "Restore the checkpoint that scored best.")
    logging_steps: float = option(50, "Log every so many steps; left at 50: in a run of few steps more often, ten losses in all and one an epoch.")
    logging_nan_inf_filter: bool = option(False, "Off: a loss that is no number is seen, and stops the stage.")
    report_to: str = option("none")
    remove_unused_columns: bool = option(False, "Kept off: batches carry what the losses need.")
    label_names: list[str] | None = field(default_factory=lambda: ["label"])
    disable_tqdm: bool | None = option(None, "No progress bars; default: only where the output is no terminal.")
    ddp_find_unused_parameters: bool | None = option(False, "Off: every trained weight is used in every step.")
    dataloader_pin_memory: bool = option(None, "Pin host memory; default: only with a GPU.")
    dataloader_num_workers: int = option(-1, "Processes that make batches; -1: 2 with a GPU, else 0.")

    def __post_init__(self):
        # Before Hugging Face fills in values. Not a dataclass field, so that it is not recorded.
        self.chosen = {f.name for f in fields(self) if getattr(self, f.name) != _default(f)}
        super().__post_init__()
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            require_at_least(self, name, 1)
        for name in ("learning_rate", "num_train_epochs"):
            require_above_zero(self, name)
        for name in ("weight_decay", "warmup_steps", "save_steps", "max_grad_norm", "patience"):
            require_at_least(self, name, 0)
        if self.patience and self.eval_strategy == "no":
            raise TeachbackError(f"PATIENCE={self.patience} counts evaluations, and --eval_strategy no makes none; leave one of them out")
        require_seed(self)
        require_schedule(self)
        if self.save_strategy == "steps" and not self.save_steps:
            raise TeachbackError("--save_strategy steps needs --save_steps, a number of steps")
        if self.dataloader_num_workers == -1:
            self.dataloader_num_workers = 2 if self.device.type == "cuda" else 0

# Fields of TrainingArguments that do not change a stage's result: where it writes, logs, uploads and how it reports.
WITHOUT_EFFECT_ON_RESULT = {
    "output_dir", "logging_dir", "logging_strategy", "logging_first_step", "logging_steps", "logging_nan_inf_filter",
    "log_level", "log_level_replica", "log_on_each_node", "report_to", "run_name", "disable_tqdm", "project",
    "resume_from_checkpoint", "save_total_limit", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "per_device_eval_batch_size", "local_rank",
    "ddp_timeout", "trackio_space_id", "use_cpu", "include_num_input_tokens_seen", "restore_callback_states_from_checkpoint",
    "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token",
}  # fmt: skip
# Fields of TrainingArguments that are always recorded in stage.json, as are those with our own defaults. All others are
# recorded only if set to another value, so that a release of transformers with different fields keeps finished stages valid.
ALWAYS_COMPARED = {
    "num_train_epochs", "max_steps", "seed", "lr_scheduler_type", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "gradient_accumulation_steps", "bf16", "fp16",
}  # fmt: skip
# Flags that would have no effect in these stages.
REFUSED = {
    "output_dir": "stage folders lie under --output_root",
    "do_train": "a stage always trains", "do_eval": "see 7_eval.sh", "do_predict": "see 7_eval.sh",
    "save_only_model": "a stage goes on from its checkpoints",
    "hub_strategy": "a folder is uploaded once, when it is finished", "hub_always_push": "see --hub_strategy",
    "hub_revision": "a folder is uploaded to the main branch", "train_sampling_strategy": "batches are always of similar length",
    "label_smoothing_factor": "the losses are the methods' own", "group_by_length": "batches are always of similar length",
}  # fmt: skip


def require_seed(arguments) -> None:
    """Refuse seeds outside numpy's range."""
    if not 0 <= arguments.seed < SEEDS:
        raise TeachbackError(f"SEED={arguments.seed}: must be from 0 to {SEEDS - 1}")


def require_schedule(arguments) -> None:
    """Refuse numbers of averaged epochs and decays of the learning rate that mean nothing."""
    if arguments.average_checkpoints < 0 or arguments.average_checkpoints == 1:
        raise TeachbackError(f"AVERAGE_CHECKPOINTS={arguments.average_checkpoints}: must be 0, or at least 2")
    if arguments.average_checkpoints and not getattr(arguments, "load_best_model_at_end", True):
        raise TeachbackError("AVERAGE_CHECKPOINTS compares the mean with the best epoch; leave --load_best_model_at_end out")
    if not 0 < arguments.layer_decay <= 1:
        raise TeachbackError(f"LAYER_DECAY={arguments.layer_decay}: must be above 0 and at most 1")


def prepare_machine(training: OptimizerArguments) -> str:
    """Fill in settings that depend on device and terminal, check the loggers, and return the precision."""
    training.disable_tqdm = training.disable_tqdm or not sys.stderr.isatty()
    if training.disable_tqdm:
        disable_progress_bar()
    require_installed(training.report_to)
    if training.dataloader_pin_memory is None:
        training.dataloader_pin_memory = not training.use_cpu
    return "bf16" if training.bf16 else "fp16" if training.fp16 else "fp32"


def on_one_device(device: torch.device, precision: str, **options) -> OptimizerArguments:
    """Training arguments for this process alone, without a command line; ``precision`` must be resolved."""
    args = OptimizerArguments(
        use_cpu=device.type == "cpu", bf16=precision == "bf16", fp16=precision == "fp16", **options
    )
    args._n_gpu = min(1, args.n_gpu)  # else the Trainer would use DataParallel on several GPUs
    return args


def relevant(training: OptimizerArguments) -> dict:
    """Training arguments that determine a result, and the number of processes."""
    values = training.to_dict()  # hides tokens
    compared = ALWAYS_COMPARED | (set(OptimizerArguments.__annotations__) - ADDED) | training.chosen
    without = WITHOUT_EFFECT_ON_RESULT | (set() if training.save_strategy == "steps" else {"save_steps"})
    kept = {f.name: values[f.name] for f in fields(training) if f.name in compared - without}
    return {**kept, "processes": training.world_size}


def _default(argument: Field):
    return argument.default if argument.default_factory is MISSING else argument.default_factory()
