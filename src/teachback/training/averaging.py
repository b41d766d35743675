"""Averaging of the weights at the ends of the last epochs; the average is kept if it scores no worse on the selection rows."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from transformers import Trainer, TrainerCallback

from teachback.core.files import write_atomically
from teachback.training.alternatives import take_if_no_worse

FOLDER = "epochs"  # within the folder of checkpoints


class KeepEpochs(TrainerCallback):
    """Writes the weights of ``model`` at the end of each epoch to ``folder``, and keeps those of the last ``count``.

    An epoch's file is written before its checkpoint, so that a resumed run has the files of all epochs before it.
    """

    def __init__(self, model: torch.nn.Module, folder: Path, count: int):
        self.model, self.folder, self.count = model, folder / FOLDER, count

    def on_epoch_end(self, args, state, control, **kwargs):
        if not args.should_save:
            return
        self.folder.mkdir(exist_ok=True)
        weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        write_atomically(self.folder / f"{state.global_step:09}.safetensors", save(weights))
        for old in _files(self.folder)[: -self.count]:
            old.unlink()


def _files(folder: Path) -> list[Path]:
    """Weights of the kept epochs in order, without partial files of a killed process."""
    return sorted(folder.glob("[!.]*.safetensors"))


def mean_weights(files: list[Path]) -> dict[str, torch.Tensor]:
    """Mean of state dicts in files; integers are those of the last."""
    mean = load_file(files[-1])
    floats = {name: value for name, value in mean.items() if value.is_floating_point()}
    for path in files[:-1]:
        state = load_file(path)
        for name, total in floats.items():
            total += state[name]
    for total in floats.values():
        total /= len(files)
    return mean


def take_average(trainer: Trainer, checkpoints: Path) -> bool:
    """Load the mean of the kept epochs' weights in place of the best checkpoint if it scores no worse; returns whether it does.

    Collective: all processes must call it.
    """
    trainer.accelerator.wait_for_everyone()  # the main process has written the files
    files = _files(checkpoints / FOLDER)
    return take_if_no_worse(trainer, mean_weights(files), f"mean weights of the last {len(files)} epochs")
