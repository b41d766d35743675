"""Stops training at the first non-finite loss, naming the rows, before a checkpoint is affected."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import TrainerCallback

from teachback.core.errors import TeachbackError

EVERY = 16  # steps between transfers of losses from a GPU, as each synchronises
SHOWN = 8  # guids in the message


def refuse_bad_loss(
    loss: float, where: str, rate: float, guids: Sequence[str] = (), rows: torch.Tensor | None = None
) -> None:
    """Raise TeachbackError if the loss is not finite. ``rows`` [B]: indices of the batch in ``guids``, for the message."""
    if math.isfinite(loss):
        return
    names = [guids[row] for row in rows.tolist()] if guids and rows is not None else []
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    raise TeachbackError(
        f"the loss became {loss} at {where}, with learning rate {rate:g}, on the rows {shown or '(unknown)'}; "
        "lower the learning rate, use PRECISION=fp32, or check these rows. The checkpoint before it is kept"
    )


@dataclass(frozen=True)
class Step:
    """Number, learning rate, rows and loss of a step; rows and loss stay on the device."""

    number: int
    rate: float
    index: torch.Tensor | None  # row numbers [B]
    loss: torch.Tensor


@dataclass
class LossWatch:
    """Losses of steps that have not been checked yet. ``guids``: names of the train rows, if any."""

    guids: Sequence[str] = ()
    steps: list[Step] = field(default_factory=list)

    def add(self, number: int, rate: float, index: torch.Tensor | None, loss: torch.Tensor) -> None:
        """Record a step's loss; on a CPU check it at once, before the optimizer step."""
        self.steps.append(Step(number, rate, index, loss.detach()))
        if loss.device.type == "cpu" or len(self.steps) >= EVERY:
            self.check()

    def check(self) -> None:
        """Raise TeachbackError for the first recorded loss that is not finite."""
        steps, self.steps = self.steps, []
        losses = torch.stack([step.loss for step in steps]).tolist() if steps else []
        for step, loss in zip(steps, losses):
            refuse_bad_loss(loss, f"step {step.number}", step.rate, self.guids, step.index)


class StopOnBadLoss(TrainerCallback):
    """Ends a run with a non-finite loss instead of publishing its weights."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss", (logs or {}).get("eval_loss", 0.0))
        if not math.isfinite(loss):
            raise TeachbackError(
                f"the loss became {loss} by step {state.global_step}; lower the learning rate ({args.learning_rate})"
            )
