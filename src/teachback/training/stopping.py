"""Graceful stop: on SIGTERM (sent before preemption) or Ctrl-C, training writes a checkpoint and ends."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import TrainerCallback

from teachback.core.errors import Stopped

AGREE_EVERY = 10  # steps; processes must stop at the same step, and synchronising them takes time


SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Records a signal that asks training to stop."""

    def __init__(self):
        self.made = False
        self.signal: int = signal.SIGTERM
        self.before: dict[int, Callable | int | None] = {}

    def make(self, number: int, frame=None) -> None:
        """Signal handler: record the signal; a second Ctrl-C interrupts at once."""
        before = self.before.get(number)
        if self.made and number == signal.SIGINT and callable(before):
            before(number, frame)
        self.made, self.signal = True, number

    def agreed(self, device: torch.device) -> bool:
        """Whether any process has received a signal. Collective: all processes must call it together."""
        made = torch.tensor(int(self.made), device=device)
        torch.distributed.all_reduce(made, op=torch.distributed.ReduceOp.MAX)
        return bool(made)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Record stop signals within the block instead of being killed by them."""
    request = StopRequest()
    try:
        request.before = {number: signal.signal(number, request.make) for number in SIGNALS}
    except ValueError:  # only the main thread can set handlers; in other threads the caller handles signals
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in request.before.items():
            signal.signal(number, handler)


class SaveBetween(TrainerCallback):
    """Saves a checkpoint every ``save_steps`` steps within an epoch, and on a stop request, after which training ends.

    It saves nothing at the end of an epoch: that checkpoint is saved after the evaluation, which a run that resumed from an
    earlier checkpoint would skip.
    """

    def __init__(self, request: StopRequest):
        self.request, self.stopping = request, False

    def on_step_end(self, args, state, control, **kwargs):
        self.stopping = self._should_stop(args, state)
        due = args.save_strategy == "epoch" and state.save_steps and state.global_step % state.save_steps == 0
        if (due or self.stopping) and not float(state.epoch).is_integer():
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.stopping and state.global_step < state.max_steps:
            raise Stopped(
                self.request.signal,
                f"step {state.global_step} of {state.max_steps} was saved as a checkpoint; run the same command again to continue",
            )

    def _should_stop(self, args, state) -> bool:
        if args.world_size == 1:
            return self.request.made
        return self.stopping or (state.global_step % AGREE_EVERY == 0 and self.request.agreed(args.device))
