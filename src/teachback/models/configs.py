"""Loading of a checkpoint's config, with run settings made explicit and unsupported checkpoints refused.

Precision, dropout, attention, pooling and labels are set by the run, so that checkpoints with the same weights train
alike whatever their config.json says.
"""

import logging
from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig

from teachback.core.errors import TeachbackError

logger = logging.getLogger(__name__)

SUPPORTED = (
    "BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT, ELECTRA, ALBERT, MPNet, DeBERTa, ModernBERT, and decoders such as Qwen and "
    "Llama; see docs/models.md"
)
# Set where a family has the field: the key-value cache is for generation, and `is_decoder` adds a causal mask.
FIXED = {
    "output_hidden_states": False, "output_attentions": False, "use_cache": False, "is_decoder": False,
    "add_cross_attention": False, "tie_word_embeddings": False,
}  # fmt: skip
POOLING = {"classifier_pooling": "cls"}  # of ModernBERT: the losses on pooled states assume the first token
SAFE, PICKLED = "*.safetensors", "*.bin"


def load_config(name: str, place: str):
    """Load the unmodified config of the model ``name`` in ``place``, a folder or a hub name.

    Raises:
        TeachbackError: custom code, an encoder-decoder, an adapter without its base model, quantised or pickled weights.
    """
    refuse_files(name, place)
    raw, _ = PretrainedConfig.get_config_dict(place)
    _refuse_own_code(place, raw)
    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    _refuse_kind(name, config)
    return config


def _refuse_own_code(name: str, raw: dict) -> None:
    """Refuse a model type unknown to transformers, whose message would advise to run the checkpoint's code."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = raw.get("model_type")
    if kind not in CONFIG_MAPPING and raw.get("auto_map"):
        raise TeachbackError(
            f"model {name!r} is of the type {kind!r}, which needs code that comes with the checkpoint (auto_map); such code is never "
            f"run; supported: {SUPPORTED}"
        )


def explicit_config(name: str, place: str, labels: dict | None = None, dropout: float | None = None):
    """Config to build a model with: that of ``place``, with all settings that training depends on made explicit.

    ``labels``: config fields that describe the head's outputs; ``dropout``: in place of the defaults of the family. Overridden
    settings of the checkpoint are logged.
    """
    config = load_config(name, place)
    asked = {"dtype": getattr(config, "dtype", None)} | _run_settings(config)
    config.dtype = torch.float32
    for field, value in _defaults(config).items():
        setattr(config, field, value)
    set_dropout(config, dropout)
    for field, value in (FIXED | POOLING).items():
        if hasattr(config, field):
            setattr(config, field, value)
    config.update(labels or {})
    _log_changes(name, asked, {"dtype": config.dtype} | _run_settings(config))
    return config


def set_dropout(config, dropout: float | None) -> None:
    """Set all dropout probabilities of a config, except those that are None and follow another; None changes nothing."""
    if dropout is None:
        return
    for field, value in _run_settings(config).items():
        if field not in POOLING and isinstance(value, (int, float)):
            setattr(config, field, dropout)


def _run_settings(config) -> dict:
    """Config fields that are set by the run: all dropout probabilities, and the pooling."""
    return {
        field: value
        for field, value in vars(config).items()
        if ("drop" in field and (value is None or isinstance(value, (int, float)))) or field in POOLING
    }


def _defaults(config) -> dict:
    """Default run settings of the config's class; None for fields that the class does not define."""
    known = _run_settings(type(config)())
    return {field: known.get(field) for field in _run_settings(config) if field not in POOLING}


def _log_changes(name: str, asked: dict, used: dict) -> None:
    changed = [
        f"{field}={_plain(used[field])} (config.json: {_plain(value)})"
        for field, value in asked.items()
        if value != used[field] and not (field == "dtype" and value is None)
    ]
    if changed:
        logger.warning("model %r is used with %s", name, ", ".join(changed))


def _plain(value) -> str:
    return str(value).removeprefix("torch.")


def refuse_files(name: str, place: str) -> None:
    """Refuse a folder with only an adapter's weights, or only pickled weights."""
    folder = Path(place)
    if (folder / "adapter_config.json").is_file():
        raise TeachbackError(
            f"model {name!r} is an adapter (adapter_config.json), not a whole model; merge it into its base model with PEFT's "
            "merge_and_unload(), save_pretrained() the result, and name that folder"
        )
    if folder.is_dir() and not any(folder.glob(SAFE)) and any(folder.glob(PICKLED)):
        raise TeachbackError(
            f"model {name!r} has only pickled weights ({next(folder.glob(PICKLED)).name}), which are never read here; convert "
            f"them to safetensors with SUITE=custom MODELS=1 TEACHER_MODEL={name} STUDENT_MODEL= bash 1_get_data.sh"
        )


def _refuse_kind(name: str, config) -> None:
    """Refuse unsupported models by their config, before anything is loaded."""
    if getattr(config, "is_encoder_decoder", False):
        raise TeachbackError(
            f"model {name!r} is an encoder-decoder ({config.model_type}), which is not supported; supported: {SUPPORTED}"
        )
    if getattr(config, "quantization_config", None):
        raise TeachbackError(
            f"model {name!r} has quantised weights (quantization_config), which cannot be trained or cut; use the float32, "
            "float16 or bfloat16 checkpoint that it was made from"
        )


def attention_for(model_class) -> str:
    """Attention implementation to load a model with: fused if the family supports it."""
    return "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"
