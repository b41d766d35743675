"""Loading encoders, classifiers and tokenizers: from the hub, a folder, or from scratch."""

import logging
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import BertWordPieceTokenizer
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
)
from transformers.utils.logging import disable_progress_bar

from teachback.core.errors import TeachbackError, unreadable_file
from teachback.data.schema import Domain, label_options
from teachback.models import configs
from teachback.models.admission import admit_classifier, admit_encoder, embeddings_of
from teachback.models.hub_access import go_offline_if_hub_unreachable
from teachback.models.location import SCRATCH_SIZES, locate

TRAINING_ONLY = "training_only.safetensors"  # file beside a checkpoint with the other trained weights
SCRATCH_VOCABULARY = 4000
INNER = re.compile(r"layer(?!_?norm)|embed|attn|attention")  # names of encoder weights, as opposed to pre-training heads
LONGEST_WORD = 100  # characters; WordPiece maps longer words to [UNK]
LONG = re.compile(rf"\S{{{LONGEST_WORD + 1}}}")


@contextmanager
def explained(name: str, place: str = ""):
    """Convert errors of a loader to TeachbackError with advice."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of new heads as missing weights, which _check_loaded checks
    disable_progress_bar()
    go_offline_if_hub_unreachable(place or name)
    try:
        yield
    except (TeachbackError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise anything; Rust libraries raise Exception itself
        if closed := unreadable_file(name):
            raise TeachbackError(f"cannot load model {name!r}: {closed}") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TeachbackError(
            f"cannot load model {name!r}: {reason} "
            "Use a folder with config.json, model.safetensors and tokenizer files, or a hub name that can be reached, "
            "or fetch it with MODELS=1 bash 1_get_data.sh on a machine with network."
        ) from error
    finally:
        logger.setLevel(level)


def load_config(place: str | Path, name: str = ""):
    """Load the config of the model in ``place``, and refuse unsupported kinds. ``name``: for messages, by default ``place``."""
    with explained(name or str(place), str(place)):
        return configs.load_config(name or str(place), str(place))


def model_depth(name: str, data_dir: str | Path = "data") -> int:
    """Number of layers by a model's config; raises TeachbackError if it cannot be loaded."""
    place = locate(name, data_dir)
    if place in SCRATCH_SIZES:
        return SCRATCH_SIZES[place][0]
    config = load_config(place, name)
    if Path(place).is_dir() and not any(Path(place).glob("*.safetensors")):
        raise TeachbackError(f"model {name!r}: there is no model.safetensors in {place}; use a complete checkpoint")
    return config.num_hidden_layers


def load_tokenizer(name: str, data_dir: str | Path = "data", texts: list[str] | None = None):
    """Load the fast tokenizer of a model; for ``scratch:`` train a WordPiece vocabulary on ``texts``."""
    place = locate(name, data_dir)
    if place in SCRATCH_SIZES:
        return _learnt_tokenizer(texts or [])
    configs.refuse_files(name, place)
    with explained(name, place):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, padding_side="right", truncation_side="right")
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # built from a config alone, without a vocabulary
        raise TeachbackError(f"model {name!r} has no vocabulary; put its tokenizer.json beside its config.json")
    if tokenizer.pad_token is None:  # many decoders; the attention mask distinguishes padding from the end of a text
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise TeachbackError(f"the tokenizer of {name!r} has no padding token; add one to tokenizer_config.json")
    if not tokenizer.is_fast:
        raise TeachbackError(
            f"model {name!r} has no fast tokenizer (tokenizer.json); convert it with the tokenizers library"
        )
    tokenizer.backend_tokenizer.no_truncation()  # every call sets its own, and checkpoints should store none
    tokenizer.backend_tokenizer.no_padding()
    for key in ("is_local", "local_files_only"):  # else saved files would depend on HF_HUB_OFFLINE
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def _learnt_tokenizer(texts: list[str]):
    if not texts:
        raise TeachbackError(
            "a model from scratch learns its vocabulary from the suite's train texts, but there are none"
        )
    learner = BertWordPieceTokenizer(lowercase=True)
    words = {word for text in texts for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalize(text))}
    # The trainer numbers continuing characters in hash order, and merges equally frequent pairs by number. Numbering all
    # of them in advance makes the vocabulary deterministic.
    continuing = sorted({f"##{character}" for word in words for character in word[1:]})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    learnable = [_without_long_words(text, learner) for text in texts]  # before training, during which the tokenizer is locked
    learner.train_from_iterator(
        learnable, vocab_size=SCRATCH_VOCABULARY, min_frequency=2, special_tokens=special + continuing,
        limit_alphabet=len({character for word in words for character in word}), show_progress=False,
    )  # fmt: skip
    pieces = sorted(set(learner.get_vocab()) - set(special))
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(special + pieces)}, model_max_length=512)


def _without_long_words(text: str, learner: BertWordPieceTokenizer) -> str:
    """Drop words too long for WordPiece, as training on a megabyte-long word would take minutes."""
    if not LONG.search(text):
        return text
    words = [word for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalize(text))]
    return " ".join(word for word in words if len(word) <= LONGEST_WORD)


def load_encoder(name: str, texts: list[str] | None = None, seed: int = 0, data_dir: str | Path = "data"):
    """Load (encoder in eval mode, fast tokenizer), pretrained and without a head."""
    tokenizer = load_tokenizer(name, data_dir, texts)
    place = locate(name, data_dir)
    if place in SCRATCH_SIZES:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModel.from_config(_scratch_config(place, tokenizer), attn_implementation="sdpa")
    else:
        model = _pretrained(name, place, AutoModel, tokenizer)
        admit_encoder(name, model, tokenizer)
    return model.eval(), tokenizer


def _pretrained(name: str, place: str, auto_class, tokenizer, labels: dict | None = None, dropout: float | None = None,
                whole: bool = False):  # fmt: skip
    """Load a checkpoint's weights in float32 into a model built from `configs.explicit_config`.

    ``whole``: refuse new weights of a pooler or head too.
    """
    with explained(name, place):
        config = configs.explicit_config(name, place, labels, dropout)
        try:
            model_class = auto_class._model_mapping[type(config)]
        except KeyError:
            raise TeachbackError(
                f"models of the type {config.model_type!r}, such as {name!r}, have no class for sequence classification; "
                f"supported: {configs.SUPPORTED}"
            ) from None
        model, report = auto_class.from_pretrained(
            place, config=config, dtype=torch.float32, attn_implementation=configs.attention_for(model_class),
            use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    _check_loaded(name, model, report, whole)
    _check_vocabulary(name, model, tokenizer)
    if hasattr(model, "score"):  # a decoder, which needs the pad token to find the last token of a text; many define none
        model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _scratch_config(name: str, tokenizer) -> BertConfig:
    layers, width = SCRATCH_SIZES[name]
    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width, max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def load_classifier(name: str, domain: Domain, tokenizer, data_dir: str | Path = "data", dropout: float | None = None):
    """Load a Hugging Face sequence classifier with ``domain``'s labels and a new head, in train mode.

    ``dropout``: every dropout probability; None for the defaults of the model's family.
    """
    place = locate(name, data_dir)
    if place in SCRATCH_SIZES:
        config = _scratch_config(place, tokenizer)
        config.update(label_options(domain))
        configs.set_dropout(config, dropout)
        return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").train()
    model = _pretrained(name, place, AutoModelForSequenceClassification, tokenizer, label_options(domain), dropout)
    admit_classifier(name, model, tokenizer)
    return model.train()


def load_whole_classifier(name: str, tokenizer, data_dir: str | Path = "data", dropout: float | None = None):
    """Load a fine-tuned sequence classifier with its own head and labels; none of its weights may be missing."""
    return _pretrained(name, locate(name, data_dir), AutoModelForSequenceClassification, tokenizer, dropout=dropout, whole=True)


def _check_loaded(name: str, model, report: dict, whole: bool) -> None:
    """Refuse a checkpoint that lacks encoder weights, as they would be random; unless ``whole``, pooler and head may be new."""
    base = "" if model.base_model is model else f"{model.base_model_prefix}."
    lost = {*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])}
    encoder = sorted(key for key in lost if key.startswith(base) and "pooler" not in key)
    if encoder:
        raise TeachbackError(
            f"model {name!r} lacks {len(encoder)} weights of its encoder, such as {encoder[0]!r}; use a complete checkpoint"
        )
    if whole and lost:
        raise TeachbackError(
            f"model {name!r} lacks {len(lost)} weights of its head, such as {min(lost)!r}, so it is not a fine-tuned text classifier; "
            "to train one on its encoder, set it as TEACHER_MODEL"
        )
    check_finite(f"model {name!r}", model)
    unused = [key for key in report["unexpected_keys"] if INNER.search(key)]
    if unused and getattr(model.config, "auto_map", None):
        raise TeachbackError(
            f"model {name!r} needs code that comes with the checkpoint (auto_map), which is never run: {len(unused)} of its weights, such as "
            f"{unused[0]!r}, do not exist in {type(model).__name__}; supported: {configs.SUPPORTED}"
        )


def check_finite(where: str, model: nn.Module, advice: str = "use another checkpoint") -> None:
    """Refuse weights with NaN or infinite values."""
    for key, value in model.state_dict().items():
        if not value.isfinite().all():
            raise TeachbackError(f"{where}: the weight {key!r} contains NaN or infinity; {advice}")


def _check_vocabulary(name: str, model, tokenizer) -> None:
    table = embeddings_of(model)
    rows = getattr(table, "num_embeddings", model.config.vocab_size)
    last = max(tokenizer.get_vocab().values())  # ids may have gaps
    if last >= rows:
        raise TeachbackError(
            f"model {name!r} embeds {rows} tokens, but its tokenizer has {len(tokenizer)}, with ids up to {last}; "
            "use the tokenizer that the model was trained with"
        )


def load_finished_classifier(folder: str | Path):
    """Load the classifier of a finished stage in eval mode; raises TeachbackError for missing or unexpected weights."""
    with explained(str(folder)):
        config = configs.load_config(str(folder), str(folder))
        model_class = AutoModelForSequenceClassification._model_mapping[type(config)]
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=configs.attention_for(model_class), use_safetensors=True,
            trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
    wrong = {*report["missing_keys"], *report["unexpected_keys"], *(key[0] for key in report["mismatched_keys"])}
    if wrong:
        remedy = "remove the folder and run its stage again" if (Path(folder) / "stage.json").is_file() else "use a complete checkpoint"
        raise TeachbackError(f"{folder}: the weight {min(wrong)!r} is only in the checkpoint, only in the model, or of another shape; {remedy}")
    check_finite(str(folder), model)
    return model.eval()


def save_checkpoint(folder: Path, model, tokenizer, rest: dict[str, torch.Tensor] | None = None) -> None:
    """Write a plain checkpoint with its tokenizer, and weights that it does not contain, if given, to `TRAINING_ONLY`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if rest is not None:
        save_file({name: value.contiguous() for name, value in rest.items()}, folder / TRAINING_ONLY)


def write_checkpoint(folder: str | Path, model, tokenizer) -> None:
    """Save a checkpoint to a temporary folder and move its files into place, config.json last; other files are kept."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        save_checkpoint(Path(partial), model, tokenizer)
        written = {path.name for path in Path(partial).iterdir()}
        for path in folder.glob("model*.safetensors*"):
            if path.name not in written:  # shards of an older model, which would be loaded instead
                path.unlink()
        for path in sorted(Path(partial).iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)
