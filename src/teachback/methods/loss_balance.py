"""Terms of a loss divided by their own size, so that their weights say what share of the loss each has.

Unlike scales hide what a weight does: raw attention scores outweigh all else in stage 4, whatever the weights are.
"""

from collections.abc import Sequence

import torch
from torch import distributed, nn

FIRST_BATCHES = 20  # whose mean is a term's initial size
MEMORY = 0.99  # of the running mean, by batch


class LossBalance(nn.Module):
    """Divides each term [B] by its size, a mean over batches that moves in training mode alone.

    ``kind`` "initial": the mean of the first batches; "running": an exponential moving mean. Scored rows (eval mode) are always
    divided by the initial sizes, so that scores of different epochs can be compared. Sizes are buffers: a checkpoint brings them,
    and of several processes each takes the mean of all.
    """

    def __init__(self, kind: str, names: Sequence[str]):
        super().__init__()
        self.kind, self.names = kind, list(names)
        self.batches: torch.Tensor
        self.initial: torch.Tensor
        self.running: torch.Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("initial", torch.ones(len(self.names)))
        self.register_buffer("running", torch.ones(len(self.names)))

    def forward(self, terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The terms over their sizes: by name [B] -> by name [B]. A term that is 0 in every batch stays 0."""
        if self.training:
            self._learn(torch.stack([terms[name].detach().float().mean() for name in self.names]))
        running = self.training and self.kind == "running"
        sizes = self.running if running else self.initial
        return {name: terms[name] / sizes[number] for number, name in enumerate(self.names)}

    @torch.no_grad()
    def _learn(self, seen: torch.Tensor) -> None:
        """Take in a batch's mean of each term [T], of all processes together."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(seen)
            seen = seen / distributed.get_world_size()
        seen = seen.clamp_min(torch.finfo(seen.dtype).tiny)
        count = self.batches.float()
        share = torch.where(count < FIRST_BATCHES, 1 / (count + 1), 0.0)
        self.initial.lerp_(seen, share)
        self.running.lerp_(seen, torch.clamp(1 / (count + 1), min=1 - MEMORY))
        self.batches += 1
