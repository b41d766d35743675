"""Base class of what the Trainer trains: models and their losses as one module."""

import torch
from torch import nn

from teachback.data.encoding import EncodedRows


class TrainingModule(nn.Module):
    """Base of training modules: models and losses together, so that wrappers such as DDP see a single forward pass."""

    accepts_loss_kwargs = False  # losses are means over the batch, so the Trainer averages accumulation steps

    def __init__(self):
        super().__init__()
        self.term_sums: dict[str, torch.Tensor] = {}
        self.term_count = 0

    def note(self, **terms: torch.Tensor) -> None:
        """Add per-example loss terms [B] to the running means, without leaving the device."""
        if not self.training:
            return
        self.term_count += 1
        for name, values in terms.items():
            self.term_sums[name] = self.term_sums.get(name, 0) + values.detach().mean()

    def further_rows(self) -> list[EncodedRows]:
        """Rows that the models read in addition to the train and selection rows."""
        return []

    def further_state(self) -> dict:
        """State to save in checkpoints besides the weights."""
        return {}

    def load_further_state(self, state: dict) -> None:
        """Restore the state from `further_state`."""

    def on_epoch_end(self) -> dict[str, float]:
        """Hook after an epoch's last step, before its evaluation and checkpoint; returns values to log."""
        return {}

    def take_terms(self) -> dict[str, float]:
        """Return the mean of each term since the last call, and reset."""
        means = {name: (total / self.term_count).item() for name, total in self.term_sums.items()}
        self.term_sums, self.term_count = {}, 0
        return means
