"""Leaving on request: a training that is told to end (SIGTERM, as preempted machines are; Ctrl-C) writes a checkpoint first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import TrainerCallback

from teachback.core.errors import Stopped

AGREE_EVERY = 10  # steps; several processes have to leave at the same one, and asking the others takes time


SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a signal has come that asks to leave, and which."""

    def __init__(self):
        self.made = False
        self.signal: int = signal.SIGTERM
        self.before: dict[int, Callable | int | None] = {}

    def make(self, number: int, frame=None) -> None:
        """Note the signal; Ctrl-C pressed once more does not wait."""
        before = self.before.get(number)
        if self.made and number == signal.SIGINT and callable(before):
            before(number, frame)
        self.made, self.signal = True, number

    def agreed(self, device: torch.device) -> bool:
        """Whether it has come to any of the processes; all of them have to ask together."""
        made = torch.tensor(int(self.made), device=device)
        torch.distributed.all_reduce(made, op=torch.distributed.ReduceOp.MAX)
        return bool(made)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note the signals instead of dying of them, for the time of the block."""
    request = StopRequest()
    try:
        request.before = {number: signal.signal(number, request.make) for number in SIGNALS}
    except ValueError:  # only the main thread may; elsewhere whoever called us decides what a signal does
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in request.before.items():
            signal.signal(number, handler)


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
                self.request.signal,
                f"stopped after step {state.global_step} of {state.max_steps} with a checkpoint, "
                "run the same command again to continue",
            )

    def _told(self, args, state) -> bool:
        if args.world_size == 1:
            return self.request.made
        return self.stopping or (state.global_step % AGREE_EVERY == 0 and self.request.agreed(args.device))
