"""The plain Hugging Face models of the Python API: built from names, written to folders."""

import inspect
import os
import tempfile
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain
from teachback.loader_batches import TOKENS
from teachback.methods.student import kept_layers
from teachback.methods.teacher import Teacher
from teachback.models.layers import cut_layers, layer_list
from teachback.models.loading import load_classifier, load_tokenizer
from teachback.own_tokens import tokenizer_of


def tokenizers_of(names: tuple[str, str], given, loader, data_dir: str) -> list:
    """The tokenizers of teacher and student.

    A model from scratch takes the other's, or the one that the loader's texts were tokenised with.
    """
    loaded = [_tokenizer_of_model(name, given, data_dir) for name in names]
    of_loader = tokenizer_of(loader, getattr(getattr(loader, "dataset", None), "tokenizer", None))
    known = next((one for one in (given, *loaded, of_loader) if one is not None), None)
    if known is None:
        raise TeachbackError(
            "models from scratch have no tokenizer of their own; give the one of the loaders' tokens as tokenizer="
        )
    return [one or known for one in loaded]


def _tokenizer_of_model(name: str, given, data_dir: str):
    """A model's own tokenizer; the given one where it has none, and None from scratch."""
    if name.startswith("scratch:"):
        return None
    try:
        return load_tokenizer(name, data_dir)
    except TeachbackError:
        if given is None:
            raise
        return given


def new_student(
    name: str, layers: int | str | None, domain: Domain, tokenizer, data_dir: str, teacher: Teacher | None = None
):
    """The student before it learns, cut from the model of that name, or from ``teacher`` with its head."""
    model = teacher.classifier.model if teacher else load_classifier(name, domain, tokenizer, data_dir)
    whole = layers in (None, "") or (isinstance(layers, int) and layers < 1)
    if whole and teacher is None:
        return model
    depth = len(layer_list(model))
    if isinstance(layers, int) and layers > depth:
        raise TeachbackError(f"student_layers={layers}: the model has {depth}; give 1 to {depth}, or -1 for all")
    keep = list(range(depth)) if whole else kept_layers(str(layers), depth)
    return cut_layers(model, keep, domain, teacher.head_for(domain) if teacher else None)


def fields_of(model) -> tuple[str, ...]:
    """The token fields that a model reads; many know no token types."""
    typed = "token_type_ids" in inspect.signature(model.forward).parameters
    return TOKENS if typed and getattr(model.config, "type_vocab_size", 0) > 1 else TOKENS[:2]


def write_checkpoint(folder: str | Path, model, tokenizer) -> None:
    """Write a checkpoint beside and move its files to their place, config.json last; other files there stay."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        written = {path.name for path in Path(partial).iterdir()}
        for path in folder.glob("model*.safetensors*"):
            if path.name not in written:  # of an older model in other parts, which would be read instead
                path.unlink()
        for path in sorted(Path(partial).iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)
