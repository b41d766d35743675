"""Progress of a training: a line per epoch, occasional lines in between, and a progress bar on a terminal."""

import time
from collections.abc import Mapping
from statistics import fmean

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from teachback.core.pass_progress import QUIET, duration
from teachback.core.training_arguments import OptimizerArguments

LOSSES = 10  # minimum number of logged losses, enough for a curve
SPEED = ("runtime", "samples_per_second", "steps_per_second")
NO_TERM = {"learning_rate", "grad_norm", "epoch", "total_flos", "padding_share"}


def show_progress(trainer: Trainer, settings: OptimizerArguments) -> None:
    """Replace the Trainer's printed logs and progress bar by those of this module."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if settings.logging_steps == OptimizerArguments.logging_steps:
        trainer.add_callback(EnoughLosses())
    bar = None if trainer.args.disable_tqdm else LossBar()
    if bar:
        trainer.add_callback(bar)
    trainer.add_callback(EpochLines(bar, settings.patience))


class EnoughLosses(TrainerCallback):
    """Shortens the logging interval to log at least `LOSSES` losses, and one per epoch."""

    def on_train_begin(self, args, state, control, **kwargs):
        wanted = max(LOSSES, int(args.num_train_epochs))
        state.logging_steps = max(1, min(state.logging_steps, state.max_steps // wanted))


class LossBar(ProgressCallback):
    """Hugging Face's progress bar with the loss in its postfix, and without printed dicts."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is not None and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4g}")

    def say(self, line: str) -> bool:
        """Print a line above the bar; returns False if there is no bar."""
        if self.training_bar is None:
            return False
        self.training_bar.write(line)
        return True


class EpochLines(TrainerCallback):
    """Prints a line after each epoch's evaluation: mean losses by term, and the selection scores."""

    def __init__(self, bar: LossBar | None = None, patience: int = 0):
        self.bar, self.patience, self.training = bar, patience, False
        self.logged: list[dict[str, float]] = []  # since the last epoch's line
        self.began = self.last = self.epoch_began = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.training, self.first_step = True, state.global_step
        self.began = self.last = self.epoch_began = time.monotonic()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not (self.training and state.is_world_process_zero and logs) or "train_runtime" in logs:
            return
        if any(name.startswith("eval_") for name in logs):
            self._say(self._epoch(state, logs))
            self.logged, self.epoch_began = [], time.monotonic()
            return
        self.logged.append({name: value for name, value in logs.items() if name not in NO_TERM})
        if self.bar is None and time.monotonic() - self.last > QUIET:
            self._say(self._between(state))

    def on_train_end(self, args, state, control, **kwargs):
        if self.training and state.is_world_process_zero:
            seconds = time.monotonic() - self.began
            early = f", and stopped early: no improvement in {self.patience} evaluations" if state.global_step < state.max_steps else ""
            self._say(f"trained {state.global_step - self.first_step:,} steps in {duration(seconds)}{early}")
        self.training = False  # later evaluations repeat the best checkpoint's, which was printed

    def _epoch(self, state, logs: Mapping[str, float]) -> str:
        seconds = duration(time.monotonic() - self.epoch_began)
        where = f"epoch {_number(state.epoch)} of {_number(state.num_train_epochs)}"
        return f"{where}: {', '.join([*_losses(self.logged), *_scores(logs), seconds])}"

    def _between(self, state) -> str:
        done = state.global_step - self.first_step
        left = (time.monotonic() - self.began) / max(1, done) * (state.max_steps - state.global_step)
        share = 100 * state.global_step / state.max_steps
        where = f"step {state.global_step:,} of {state.max_steps:,} ({share:.0f} %)"
        return ", ".join([where, *_losses(self.logged[-1:]), f"about {duration(left)} left"])

    def _say(self, line: str) -> None:
        self.last = time.monotonic()
        if self.bar is None or not self.bar.say(line):
            print(line, flush=True)


def _losses(logged: list[dict[str, float]]) -> list[str]:
    """Format the mean loss, its terms in brackets, and other logged values."""
    names = list(dict.fromkeys(name for entry in logged for name in entry))
    means = {name: f"{fmean(entry[name] for entry in logged if name in entry):.4g}" for name in names}
    terms = [f"{name.removeprefix('loss_')} {means[name]}" for name in names if name.startswith("loss_")]
    others = [f"{name} {means[name]}" for name in names if not name.startswith("loss")]
    whole = [f"loss {means['loss']}"] if "loss" in means else []
    if whole and terms:
        whole = [f"{whole[0]} ({', '.join(terms)})"]
    return [text.replace("_", " ") for text in [*(whole or terms), *others]]


def _scores(logs: Mapping[str, float]) -> list[str]:
    """Format the loss and score on the selection rows, with the parts of a score in brackets."""
    values = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
    values = {name: value for name, value in values.items() if name not in SPEED}
    parts = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items() if name not in ("loss", "score")]
    shown = [f"loss on the selection rows {values['loss']:.4g}"] if "loss" in values else []
    if "score" in values:
        shown.append(f"score {values['score']:.4f}" + (f" ({', '.join(parts)})" if parts else ""))
    return shown


def _number(value: float | None) -> str:
    return f"{value or 0:.3g}"
