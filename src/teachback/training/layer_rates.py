"""Learning rates that decay from the last layer to the embeddings (Howard & Ruder 2018; Clark et al. 2020)."""

import torch
from torch import nn

from teachback.core.errors import TeachbackError
from teachback.models.heads import Classifier
from teachback.models.layers import backbone, layer_list


def decay_by_layer(optimizer: torch.optim.Optimizer, module: nn.Module, decay: float) -> None:
    """Split the parameter groups of a new optimizer so that k layers below the heads the learning rate is ``decay``^k times theirs.

    The last of N layers has k = 1, the embeddings have N + 1. Parameters outside encoders have the full rate.
    """
    exponents: dict[int, int] = {}
    for part in module.modules():
        if isinstance(part, Classifier):
            exponents |= _exponents(part.model)
    groups = []
    for group in optimizer.param_groups:
        by_exponent: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_exponent.setdefault(exponents.get(id(parameter), 0), []).append(parameter)
        groups += [group | {"params": part, "lr": group["lr"] * decay**k} for k, part in sorted(by_exponent.items())]
    optimizer.param_groups[:] = sorted(groups, key=lambda group: -group["lr"])  # the first one's rate is logged


def _exponents(model) -> dict[int, int]:
    """Exponent of each parameter of an encoder, by its id: those before the layers and all tables count as embeddings."""
    encoder = backbone(model)
    try:
        layers = layer_list(model)
    except TeachbackError:
        raise TeachbackError(
            f"{type(model).__name__} has no list of layers (do they share weights?), so all layers have one learning rate; set LAYER_DECAY=1"
        ) from None
    depth = len(layers)
    of_layers = {id(p): depth - place for place, layer in enumerate(layers) for p in layer.parameters()}
    every = list(map(id, encoder.parameters()))
    first = min(every.index(key) for key in of_layers)
    tables = [id(p) for part in encoder.modules() if isinstance(part, nn.Embedding) for p in part.parameters()]
    return dict.fromkeys([*every[:first], *tables], depth + 1) | of_layers
