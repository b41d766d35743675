"""Arguments for optimisation and checkpoints of stages 3 to 5, from which Hugging Face's ``TrainingArguments`` are built."""

import difflib
import sys
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from teachback.core.errors import TeachbackError
from teachback.core.options import (
    BelowOne,
    Checked,
    Count,
    FromMinusOne,
    Natural,
    NonNegative,
    Parser,
    Part,
    Positive,
    Seed,
    Tracker,
    one_of,
    option,
    recorded,
)

if TYPE_CHECKING:
    from transformers import TrainingArguments  # imports PyTorch, for which --check and --help need not wait


@dataclass
class OptimizerArguments(Checked):
    """Training arguments with the papers' values as defaults; all except `WITHOUT_EFFECT` are part of the fingerprint."""

    learning_rate: Positive = 2e-5
    num_train_epochs: Positive = 3.0
    per_device_train_batch_size: Count = 32
    per_device_eval_batch_size: Count = 64
    lr_scheduler_type: str = "linear"
    layer_decay: Part = 1.0
    patience: Natural = 0
    average_checkpoints: int = 0
    keep_start: bool = False
    save_steps: NonNegative = 0
    seed: Seed = 42
    report_to: Tracker = "none"
    weight_decay: NonNegative = option(0.01, "Weight decay (paper: 0.01).")
    warmup_steps: NonNegative = option(0.1, "Warm-up: below 1 a share of all steps, else a number of steps (paper: 0.1).")
    adam_beta1: BelowOne = option(0.9, "Decay of Adam's mean of gradients.")
    adam_beta2: BelowOne = option(0.999, "Decay of Adam's mean of squared gradients.")
    adam_epsilon: NonNegative = option(1e-8, "Adam's epsilon.")
    max_grad_norm: NonNegative = option(1.0, "Maximum norm of gradients; 0: no clipping.")
    gradient_accumulation_steps: Count = option(1, "Batches per optimizer step.")
    max_steps: FromMinusOne = option(-1, "Number of training steps, overrides the epochs; -1: use the epochs.")
    save_total_limit: Natural = option(2, "Number of checkpoints to keep, the best one so far among them; 0: all.")
    logging_steps: Positive = option(50, "Steps between log entries; with the default of 50, short runs log more often: at least ten losses and one per epoch.")
    dataloader_num_workers: FromMinusOne = option(-1, "Processes that prepare batches; -1: 2 with a GPU, else 0.")
    resume_from_checkpoint: str | None = option(None, "Checkpoint of the same run to resume from; unset: the last one.")
    trainer: list[str] | None = field(default=None, metadata={"action": "append", "help": (
        "Field of Hugging Face's TrainingArguments as key=value, such as optim=adafactor or data_seed=3; may be repeated. "
        "If a value changes, a finished stage runs again."
    )})  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        if self.average_checkpoints < 0 or self.average_checkpoints == 1:
            raise TeachbackError(f"AVERAGE_CHECKPOINTS={self.average_checkpoints}: must be 0, or at least 2")
        self.trainer = [word for part in self.trainer or () for word in ([part] if isinstance(part, str) else part)]
        if self.lr_scheduler_type in WITHOUT_WARM_UP and self.warmup_steps != OptimizerArguments.warmup_steps:
            raise TeachbackError(
                f"--warmup_steps {self.warmup_steps:g} has no effect with the schedule {self.lr_scheduler_type!r}; "
                "remove it, or use the schedule constant_with_warmup"
            )
        self._require_strategies(FIXED | trainer_values(self.trainer))

    def _require_strategies(self, values: dict) -> None:
        """Refuse evaluation, saving and loading strategies that contradict other arguments."""
        if self.patience and values["eval_strategy"] == "no":
            raise TeachbackError(f"PATIENCE={self.patience} counts evaluations, but --trainer eval_strategy=no turns them off; unset one of them")
        for name, other in (("average_checkpoints", "the averaged weights"), ("keep_start", "the initial weights")):
            if getattr(self, name) and not values["load_best_model_at_end"]:
                raise TeachbackError(f"{name.upper()} compares {other} with the best epoch; remove --trainer load_best_model_at_end")
        if values["save_strategy"] == "steps" and not self.save_steps:
            raise TeachbackError("--trainer save_strategy=steps needs --save_steps, a number of steps")

    def training_arguments(self, device_type: str, precision: str, **more) -> "TrainingArguments":
        """Build Hugging Face's arguments; this also joins the process group that torchrun started.

        ``precision`` must be resolved. ``more``: further fields of `TrainingArguments`.
        """
        from transformers import SchedulerType, TrainingArguments
        from transformers.utils.logging import disable_progress_bar

        one_of(*(kind.value for kind in SchedulerType))("LR_SCHEDULER_TYPE", self.lr_scheduler_type)
        cpu = device_type == "cpu"
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in OUTSIDE_TRAINER}
        values |= FIXED | {"logging_nan_inf_filter": False, "report_to": "none", "disable_tqdm": not sys.stderr.isatty()}
        values |= {"use_cpu": cpu, "bf16": precision == "bf16", "fp16": precision == "fp16", "dataloader_pin_memory": not cpu}
        if self.dataloader_num_workers == -1:
            values["dataloader_num_workers"] = 0 if cpu else 2
        try:
            args = TrainingArguments(**values | more | trainer_values(self.trainer))
        except (ValueError, TypeError, ArithmeticError) as error:  # its own checks of values
            raise TeachbackError(f"{' '.join(str(error).split())} (see --help)") from error
        args._n_gpu = min(1, args.n_gpu)  # else the Trainer would use DataParallel on several GPUs
        if args.disable_tqdm:
            disable_progress_bar()
        return args

    def fingerprint(self, args: "TrainingArguments") -> dict:
        """Arguments that determine a result, and the number of processes; ``args`` is what `training_arguments` built."""
        without = WITHOUT_EFFECT - ({"save_steps"} if args.save_strategy == "steps" else set())
        values, built = recorded(self), args.to_dict()
        names = [*(name for name in values if name not in without), *FIXED, "bf16", "fp16", *trainer_values(self.trainer)]
        return {name: built.get(name, values.get(name)) for name in names} | {"processes": args.world_size}


WITHOUT_WARM_UP = ("constant", "reduce_lr_on_plateau", "greedy")  # schedules
# Arguments that do not change a result.
WITHOUT_EFFECT = {
    "per_device_eval_batch_size", "save_steps", "report_to", "save_total_limit", "logging_steps", "dataloader_num_workers",
    "resume_from_checkpoint", "trainer",
}  # fmt: skip
# Arguments that `TrainingArguments` does not have, or that are not given to it as they are.
OUTSIDE_TRAINER = {"layer_decay", "patience", "average_checkpoints", "keep_start", "report_to", "trainer"}
# Fields of `TrainingArguments` that are recorded in stage.json beside the arguments.
FIXED = {
    "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "remove_unused_columns": False,
    "label_names": ["label"], "ddp_find_unused_parameters": False,
}  # fmt: skip
# Fields of `TrainingArguments` that would have no effect, or break the training.
REFUSED = {
    "output_dir": "stage folders lie under --output_root",
    "do_train": "a stage always trains", "do_eval": "see 7_eval.sh", "do_predict": "see 7_eval.sh",
    "save_only_model": "a stage resumes from its checkpoints", "local_rank": "torchrun sets it",
    "use_cpu": "see --device", "bf16": "see --precision", "fp16": "see --precision", "label_smoothing_factor": "see --label_smoothing",
    "remove_unused_columns": "batches carry what the losses need", "label_names": "batches carry what the losses need",
    "run_name": "a run is named after its folder", "project": "see WANDB_PROJECT", "trackio_space_id": "see --report_to",
    "push_to_hub": "it is a flag", "hub_model_id": "it is a flag", "hub_private_repo": "it is a flag", "hub_token": "it is a flag",
    "gradient_checkpointing": "no module here supports it; to save memory see --gradient_accumulation_steps",
    "hub_strategy": "a folder is uploaded once, when it is finished", "hub_always_push": "a folder is uploaded once, when it is finished",
    "hub_revision": "a folder is uploaded to the main branch", "train_sampling_strategy": "batches are always of similar length",
    "group_by_length": "batches are always of similar length",
}  # fmt: skip


def trainer_values(words: list[str] | None) -> dict:
    """Values of ``--trainer key=value`` by key, of the types that `TrainingArguments` has.

    Raises:
        TeachbackError: the key is unknown, has a flag of its own or has no effect, or the value is invalid.
    """
    if not words:
        return {}
    from transformers import TrainingArguments

    own, known = {f.name for f in fields(OptimizerArguments)}, {f.name for f in fields(TrainingArguments)}
    values = {}
    for key, sign, value in (word.partition("=") for word in words):
        if not sign:
            raise TeachbackError(f"--trainer {key}: expected key=value")
        if key in REFUSED or key in own or key in values:
            why = REFUSED.get(key) or (f"it is a flag, --{key} {value}" if key in own else "it is given twice")
            raise TeachbackError(f"--trainer {key} has no effect here: {why}")
        if key not in known:
            hint = difflib.get_close_matches(key, known, 1)
            raise TeachbackError(f"--trainer {key}: TrainingArguments has no such field{f'; did you mean {hint[0]}?' if hint else ''}")
        values[key] = getattr(Parser([TrainingArguments]).parse_args([f"--{key}={value}"]), key)  # type: ignore[list-item]  # a NewType of theirs
    return values
