"""Leaving on request: a training that is told to end (SIGTERM, as preempted machines are) writes a checkpoint first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import TrainerCallback

from teachback.errors import Stopped

AGREE_EVERY = 10  # steps; several processes have to leave at the same one, and asking the others takes time


class StopRequest:
    """Whether SIGTERM has come."""

    def __init__(self):
        self.made = False

    def make(self, *_) -> None:
        self.made = True

    def agreed(self, device: torch.device) -> bool:
        """Whether it has come to any of the processes; all of them have to ask together."""
        made = torch.tensor(int(self.made), device=device)
        torch.distributed.all_reduce(made, op=torch.distributed.ReduceOp.MAX)
        return bool(made)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note SIGTERM instead of dying of it, for the time of the block."""
    request = StopRequest()
    try:
        before = signal.signal(signal.SIGTERM, request.make)
    except ValueError:  # only the main thread may; elsewhere whoever called us decides what a signal does
        yield request
        return
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)


class SaveBetween(TrainerCallback):
    """Checkpoints within an epoch: every ``save_steps`` steps, and when told to stop, after which it stops.

    The end of an epoch has a checkpoint of its own, written once the epoch's evaluation is over; one before that would
    let a continued run leave the evaluation out.
    """

    def __init__(self, request: StopRequest):
        self.request, self.stopping = request, False

    def on_step_end(self, args, state, control, **kwargs):
        self.stopping = self._told(args, state)
        due = args.save_strategy == "epoch" and state.save_steps and state.global_step % state.save_steps == 0
        if (due or self.stopping) and not float(state.epoch).is_integer():
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.stopping and state.global_step < state.max_steps:
            raise Stopped(
                f"told to stop (SIGTERM), and stopped after step {state.global_step} of {state.max_steps} with a checkpoint; "
                "run the same command again to continue"
            )

    def _told(self, args, state) -> bool:
        if args.world_size == 1:
            return self.request.made
        return self.stopping or (state.global_step % AGREE_EVERY == 0 and self.request.agreed(args.device))
