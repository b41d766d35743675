"""Layers of a model: finding them, cutting a student out of them, and their attention implementation."""

import copy
import inspect

import torch
from torch import nn
from transformers import PreTrainedModel

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, label_options
from teachback.models.configs import set_dropout


def use_training_attention(module: nn.Module, device: torch.device) -> None:
    """Switch the Hugging Face models in ``module`` to the attention that trains fastest on the device.

    On a CPU that is eager attention: the fused kernel does not support dropout, and its backward pass takes nearly as long
    as all matrix products. Frozen models keep the fused kernel.
    """
    if device.type == "cpu":
        for part in module.modules():
            if isinstance(part, PreTrainedModel):
                part.set_attn_implementation("eager")


TOKEN_FIELDS = ("input_ids", "attention_mask", "token_type_ids")


def token_fields(model) -> tuple[str, ...]:
    """Tokenizer fields that a model's forward pass uses; many families have no token types, or only one."""
    typed = "token_type_ids" in inspect.signature(model.forward).parameters
    return TOKEN_FIELDS if typed and getattr(model.config, "type_vocab_size", 0) > 1 else TOKEN_FIELDS[:2]


def final_layer(model) -> nn.Linear:
    """Final linear layer of a classifier: the last one with as many outputs as labels."""
    candidates = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == model.config.num_labels]
    if not candidates:
        raise TeachbackError(f"{type(model).__name__} has no final linear layer with {model.config.num_labels} outputs")
    return candidates[-1]


def backbone(model):
    """Encoder within a sequence classifier."""
    return getattr(model, model.base_model_prefix)


def layer_list(model) -> nn.ModuleList:
    """Transformer layers of an encoder, independent of the architecture's names."""
    depth = model.config.num_hidden_layers
    for module in backbone(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise TeachbackError(
        f"{type(model).__name__} has no list of its {depth} layers (do they share weights?), so it cannot be cut; set "
        "STUDENT_INIT=pretrained and leave STUDENT_LAYERS empty"
    )


def cut_layers(model, keep: list[int], domain: Domain, head: nn.Linear | None = None, dropout: float | None = None):
    """Copy a classifier with only the layers ``keep`` (from 0), ``domain``'s labels, and ``head`` as final layer.

    Without ``head`` the final layer is newly initialised. ``dropout``: every dropout probability; None for the model's own.
    """
    layers = layer_list(model)
    config = copy.deepcopy(model.config)  # building a model modifies its config
    config.num_hidden_layers = len(keep)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in keep]
    config.update(label_options(domain))
    set_dropout(config, dropout)
    student = type(model)(config)
    _copy_all_but(model, student, (_name_of(layer_list, model), _name_of(final_layer, model)))
    for target, source in zip(layer_list(student), keep):
        _copy_layer(layers[source], target)
    if head is not None:
        final_layer(student).load_state_dict(head.state_dict())
    return student.train()


def _copy_layer(source: nn.Module, target: nn.Module) -> None:
    """Copy a layer's weights to a place in another model.

    ModernBERT's first layer has no norm before attention, as the embeddings have just been normalised. The gain of another layer
    in its place moves into the projection behind it; the first layer in another place gets a gain of 1.
    """
    weights, wanted = dict(source.state_dict()), target.state_dict()
    norm, projection = "attn_norm.weight", "attn.Wqkv.weight"
    if norm in weights and norm not in wanted:
        weights[projection] = weights[projection] * weights.pop(norm)
    elif norm in wanted and norm not in weights:
        weights[norm] = torch.ones_like(wanted[norm])
    target.load_state_dict(weights)


def _name_of(find, model) -> str:
    target = find(model)
    return next(name for name, module in model.named_modules() if module is target) + "."


def _copy_all_but(source, target, prefixes: tuple[str, ...]) -> None:
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith(prefixes)}
    missing, unexpected = target.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith(prefixes) for name in missing)


def spread_layers(count: int, depth: int) -> list[int]:
    """Indices (from 0) of ``count`` of ``depth`` layers, evenly spaced and ending with the last."""
    return [(i + 1) * depth // count - 1 for i in range(count)]
