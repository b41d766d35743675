"""Stages 3 to 7 with every family of encoders as teacher and as student, and with decoders as teachers."""

from pathlib import Path

import pytest
import torch
from test_stages import review
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

from teachback.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE, parse
from teachback.curriculum_run import run_curriculum
from teachback.errors import TeachbackError
from teachback.evaluate import EvaluationArguments, evaluate
from teachback.models import Classifier, last_token
from teachback.stages import distil, train_teachers
from teachback.suites.schema import TRAIN_COLUMNS, Domain, Suite, write_rows, write_suite

BOOKS = Domain("books", "sentiment", ("negative", "positive"))
WORDS = "books the a plot disc was is very quite bad good".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {"vocab_size": 20, "max_position_embeddings": 64, "pad_token_id": 0}
LAYERS = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
DISTILBERT = {"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64}
CONFIGS = {
    "bert": BertConfig(**SIZES, **LAYERS),
    "roberta": RobertaConfig(**SIZES, **LAYERS | {"hidden_size": 64}),
    "distilbert": DistilBertConfig(**SIZES, **DISTILBERT),
    "electra": ElectraConfig(**SIZES, **LAYERS | {"num_attention_heads": 4}, embedding_size=16),
    "deberta-v2": DebertaV2Config(
        **SIZES, **LAYERS, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8
    ),
    "modernbert": ModernBertConfig(**SIZES, **LAYERS, local_attention=8),
    "albert": AlbertConfig(**SIZES, **LAYERS, embedding_size=16),
    "qwen2": Qwen2Config(**SIZES | {"vocab_size": 300, "pad_token_id": None}, **LAYERS, num_key_value_heads=1),
    "llama": LlamaConfig(**SIZES | {"pad_token_id": None}, **LAYERS, num_key_value_heads=1),
}
DECODERS = ("qwen2", "llama")
READABLE = ("bert", "roberta", "distilbert", "electra")  # whose attention scores are queries times keys


def tokenizer(decoder: bool = False, backwards: bool = False) -> PreTrainedTokenizerFast:
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
    """Of the kind that Qwen's must be: pieces of bytes, no special tokens added, none for padding."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(WORDS, vocab_size=280, min_frequency=1, special_tokens=["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """A folder with a checkpoint of each family, as published: without a head."""
    root = tmp_path_factory.mktemp("encoders")
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(root / name)
        (byte_tokenizer() if name == "qwen2" else tokenizer(name in DECODERS)).save_pretrained(root / name)
    AutoModel.from_config(CONFIGS["bert"]).save_pretrained(root / "other-words")
    tokenizer(backwards=True).save_pretrained(root / "other-words")
    return root


@pytest.fixture
def root(tmp_path) -> Path:
    folder, rows = tmp_path / "data/tiny", {}
    for split, first, last in (("train", 0, 12), ("quiz", 12, 20), ("dev", 20, 24), ("test", 24, 28)):
        rows[split] = [review(number, "books") for number in range(first, last)]
        write_rows(folder / f"{split}.tsv", rows[split], TRAIN_COLUMNS if split == "train" else TRAIN_COLUMNS[:-1])
    write_suite(folder, Suite("tiny", {"books": BOOKS}))
    return tmp_path


def places(root: Path, *more: str) -> list[str]:
    return [
        "--suite", "tiny", "--domain", "books", "--data_dir", str(root / "data"), "--output_root", str(root / "outputs"),
        "--device", "cpu", "--precision", "fp32", "--max_length", "12", "--teacher", "single", *more,
    ]  # fmt: skip


def short(root: Path, *more: str) -> list[str]:
    return places(
        root, "--num_train_epochs", "1", "--learning_rate", "1e-3", "--per_device_train_batch_size", "8", *more
    )


def teach(root: Path, model: Path) -> None:
    train_teachers(*parse(*TEACHER_STAGE, argv=short(root, "--teacher_model", str(model))))


def learn(root: Path, stage: str, model: Path, *more: str) -> Path:
    flags = ["--stage", stage, "--student_model", str(model), "--tkd_weight", "0", "--method", "mpdistil"]
    return distil(*parse(*STUDENT_STAGES, argv=short(root, *flags, *more)))[0]


def finish(root: Path) -> set[str]:
    """Stages 6 and 7; the stages that were scored."""
    run_curriculum(*parse(*CURRICULUM_STAGE, argv=places(root, "--episodes", "1", "--batch_size", "4")))
    return {one.stage for one in evaluate(*parse(EvaluationArguments, argv=places(root)))}


PAIRS = [
    ("bert", "roberta"), ("roberta", "distilbert"), ("distilbert", "electra"), ("electra", "deberta-v2"),
    ("deberta-v2", "modernbert"), ("modernbert", "albert"), ("albert", "bert"), ("qwen2", "bert"), ("llama", "distilbert"),
]  # fmt: skip


@pytest.mark.parametrize(("teacher", "student"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_all_stages_of_a_pair(teacher, student, encoders, root):
    teach(root, encoders / teacher)
    same_tokens, readable = teacher != "qwen2", {teacher, student} <= set(READABLE)
    inner = ["--attention_weight", "1" if readable else "0"] if same_tokens else ["--first", "none"]
    before = AutoModelForSequenceClassification.from_pretrained(learn(root, "first", encoders / student, *inner))
    after = AutoModelForSequenceClassification.from_pretrained(learn(root, "second", encoders / student))
    assert before.config.model_type == after.config.model_type == student
    assert not torch.equal(next(before.parameters()), next(after.parameters()))
    assert {"teacher-single-books", "books/student_second", "books/curriculum"} <= finish(root)


@pytest.mark.parametrize(("teacher", "student"), [("bert", "modernbert"), ("albert", "bert"), ("llama", "bert")])
def test_where_attention_cannot_be_read_the_loss_and_its_switch_are_named(teacher, student, encoders, root):
    teach(root, encoders / teacher)
    with pytest.raises(TeachbackError, match="ATTENTION_WEIGHT=0 to distil without the attention loss"):
        learn(root, "first", encoders / student)


def test_other_tokens_refuse_what_aligns_tokens_and_learn_from_predictions(encoders, root):
    teach(root, encoders / "bert")
    with pytest.raises(TeachbackError, match="different tokenizers.*hidden-state and attention losses.*FIRST=none"):
        learn(root, "first", encoders / "other-words")
    learn(root, "first", encoders / "other-words", "--first", "none")
    folder = learn(root, "second", encoders / "other-words")
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 2


@pytest.mark.parametrize("family", ["modernbert", "deberta-v2", "electra"])
def test_a_student_is_cut_from_a_teacher_of_the_family(family, encoders, root):
    teach(root, encoders / family)
    cut = ["--student_init", "teacher", "--student_layers", "1", "--attention_weight", "0"]
    folder = learn(root, "first", encoders / family, *cut)
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_hidden_layers == 1


def test_pooled_of_a_decoder_is_what_its_logits_are_made_of(encoders):
    path, options = encoders / "qwen2", {"num_labels": 2, "pad_token_id": 0}
    model = AutoModelForSequenceClassification.from_pretrained(path, **options).eval()
    ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    outputs = Classifier(model, {"sentiment": BOOKS})(batch)
    assert outputs.pooled.shape == (2, 32)
    torch.testing.assert_close(model.score(outputs.pooled), outputs.logits)


def test_the_last_token_is_the_last_that_is_no_padding():
    states = torch.arange(2 * 4 * 3).reshape(2, 4, 3)
    found = last_token(states, torch.tensor([[5, 5, 0, 0], [0, 5, 5, 5]]), 0)
    assert torch.equal(found, torch.stack([states[0, 1], states[1, 3]]))
