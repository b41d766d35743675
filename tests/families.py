"""Models of every documented family, with random weights, and tokenizers of the same kinds."""

from pathlib import Path

import torch
from tiny import WORDS
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

ENCODERS = ("bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "modernbert", "albert")
DECODERS = ("qwen2", "llama")
READABLE = ("bert", "roberta", "distilbert", "electra", "mpnet")  # whose attention scores can be read
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ENCODER = {"vocab_size": 60, "max_position_embeddings": 64, "pad_token_id": 0}
DECODER = ENCODER | {"pad_token_id": None, "num_key_value_heads": 1}  # as published, without a padding token


def family_config(family: str, layers: int = 2, width: int = 32, heads: int = 2, **more):
    """A small config of a family."""
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads, "intermediate_size": 64}
    disentangled = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    if family == "distilbert":
        return DistilBertConfig(**ENCODER | more, n_layers=layers, dim=width, n_heads=heads, hidden_dim=64)
    kind, own = {
        "bert": (BertConfig, ENCODER),
        "roberta": (RobertaConfig, ENCODER),
        "electra": (ElectraConfig, ENCODER | {"embedding_size": 16}),
        "mpnet": (MPNetConfig, ENCODER),
        "deberta-v2": (DebertaV2Config, ENCODER | disentangled),
        "modernbert": (ModernBertConfig, ENCODER | {"local_attention": 8}),
        "albert": (AlbertConfig, ENCODER | {"embedding_size": 16}),
        "qwen2": (Qwen2Config, DECODER | {"vocab_size": 300}),
        "llama": (LlamaConfig, DECODER),
    }[family]
    return kind(**own | sizes | more)


def word_tokenizer(decoder: bool = False, backwards: bool = False) -> PreTrainedTokenizerFast:
    """Tokenizer with one token per word.

    With ``decoder`` it adds no special tokens and has no padding token; with ``backwards`` the token ids are reversed.
    """
    words = [*SPECIAL, *(WORDS[::-1] if backwards else WORDS)]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if not decoder:
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
        )
    names = {"unk_token": "[UNK]", "eos_token": "[SEP]", "model_input_names": ["input_ids", "attention_mask"]}
    names |= {} if decoder else {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level tokenizer as Qwen models need, which adds no special tokens and has no padding token."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(WORDS, vocab_size=280, min_frequency=1, special_tokens=["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="<|endoftext|>")


def save_family(folder: Path, family: str, tokenizer=None, **sizes) -> Path:
    """Save a checkpoint as published, without a head, with a tokenizer of its kind unless another is given."""
    torch.manual_seed(0)
    AutoModel.from_config(family_config(family, **sizes)).save_pretrained(folder)
    own = byte_tokenizer() if family == "qwen2" else word_tokenizer(family in DECODERS)
    (tokenizer or own).save_pretrained(folder)
    return folder
