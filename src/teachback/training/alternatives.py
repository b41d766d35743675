"""Weights other than the best epoch's, such as those before training, which take its place by their score on the selection rows."""

from collections.abc import Mapping

import torch
from transformers import Trainer


def is_no_worse(value: float, other: float, greater_is_better: bool) -> bool:
    return value >= other if greater_is_better else value <= other


def copy_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State dict of a module that later training does not change."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def take_if_no_worse(trainer: Trainer, weights: Mapping[str, torch.Tensor], what: str) -> bool:
    """Load ``weights`` in place of the trained ones if their selection metric is no worse; returns whether it is.

    Compared with the best epoch, or with what took its place in an earlier call. Collective: all processes must call it.
    """
    assert trainer.model is not None and trainer.state.best_metric is not None  # evaluated at the end of each epoch
    held, before, name = copy_of(trainer.model), trainer.state.best_metric, str(trainer.args.metric_for_best_model).removeprefix("eval_")
    trainer.model.load_state_dict(weights)
    loss_only = trainer.compute_metrics is None
    metrics = trainer.evaluation_loop(trainer.get_eval_dataloader(), "Evaluation", loss_only, metric_key_prefix="eval").metrics or {}
    value = metrics[f"eval_{name}"]
    taken = is_no_worse(value, before, bool(trainer.args.greater_is_better))
    if taken:
        trainer.state.best_metric = value
    else:
        trainer.model.load_state_dict(held)
    if trainer.is_world_process_zero():
        print(f"{what}: {name} {value:.4f}, otherwise {before:.4f}; {'kept' if taken else 'not kept'}")
    return taken
