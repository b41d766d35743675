"""Normalisation of loss terms by their magnitude, so that a term's weight is its share of the loss.

On different scales a weight has little meaning: raw attention scores dominate the loss of stage 4 at any weights.
"""

from collections.abc import Sequence

import torch
from torch import distributed, nn

FIRST_BATCHES = 20  # number of batches in the mean that is a term's initial magnitude
MEMORY = 0.99  # decay of the running mean per batch
# Smallest divisor as a share of the largest term's magnitude. A term may start near 0, as the embedding loss of a student cut from
# its teacher does; divided by that it would outweigh all others.
LEAST_SHARE = 1e-4


class LossBalance(nn.Module):
    """Divide each term [B] by its magnitude, a mean over batches that is updated in training mode only.

    ``kind`` "initial": the mean of the first batches; "running": an exponential moving mean. Eval mode always uses the
    initial magnitudes, so that evaluations are comparable; the first one fixes them if there were fewer batches before it.
    Magnitudes are buffers, so checkpoints include them, and are averaged over processes.
    """

    def __init__(self, kind: str, names: Sequence[str]):
        super().__init__()
        self.kind, self.names = kind, list(names)
        self.settled = False
        self.batches: torch.Tensor
        self.initial: torch.Tensor
        self.running: torch.Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("initial", torch.ones(len(self.names)))
        self.register_buffer("running", torch.ones(len(self.names)))

    def forward(self, terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Divide the terms by their magnitudes: by name [B] -> by name [B]. A term that is 0 in every batch stays 0."""
        if self.training:
            self._learn(torch.stack([terms[name].detach().float().mean() for name in self.names]))
        running = self.training and self.kind == "running"
        sizes = self.running if running else self.initial
        sizes = torch.maximum(sizes, LEAST_SHARE * sizes.max())  # on the device: a number would be copied from it at each step
        return {name: terms[name] / sizes[number] for number, name in enumerate(self.names)}

    def train(self, mode: bool = True):
        """Set the mode; the first change to eval mode after a batch fixes the initial magnitudes."""
        self.settled |= not mode and bool(self.batches > 0)
        return super().train(mode)

    @torch.no_grad()
    def _learn(self, seen: torch.Tensor) -> None:
        """Update the magnitudes with the mean of each term [T] over a batch and all processes."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(seen)
            seen = seen / distributed.get_world_size()
        seen = seen.clamp_min(torch.finfo(seen.dtype).tiny)
        count = self.batches.float()
        if not self.settled:
            self.initial.lerp_(seen, torch.where(count < FIRST_BATCHES, 1 / (count + 1), 0.0))
        self.running.lerp_(seen, torch.clamp(1 / (count + 1), min=1 - MEMORY))
        self.batches += 1
