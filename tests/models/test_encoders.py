"""Stages 3 to 7 with every family of encoders as teacher and as student, and with decoders as teachers."""

from pathlib import Path

import pytest
import torch
from families import DECODERS, ENCODERS, READABLE, save_family, word_tokenizer
from tiny import BOOKS, DVD, LABELS, WORDS
from tokenizers import normalizers
from transformers import AutoModelForSequenceClassification

from teachback.core.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE
from teachback.core.errors import TeachbackError
from teachback.core.parsing import parse
from teachback.core.published import read_stage
from teachback.data.schema import TRAIN_COLUMNS, Row, Suite, write_rows, write_suite
from teachback.models.heads import Classifier, last_places
from teachback.models.loading import load_tokenizer
from teachback.stages.distillation import distil
from teachback.stages.stage3_teacher import train_teachers
from teachback.stages.stage6_curriculum import run_curriculum
from teachback.stages.stage7_arguments import EvaluationArguments
from teachback.stages.stage7_evaluate import evaluate


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """A folder with a checkpoint of each family, of different widths, depths and numbers of heads."""
    root = tmp_path_factory.mktemp("encoders")
    other = {"roberta": {"width": 64}, "electra": {"heads": 4}, "qwen2": {"layers": 3}, "llama": {"layers": 3}}
    for name in (*ENCODERS, *DECODERS):
        save_family(root / name, name, **other.get(name, {}))
    save_family(root / "other-words", "bert", word_tokenizer(backwards=True), width=48, layers=3)
    return root


def review(number: int, domain: str) -> Row:
    text = " ".join([WORDS[number % 2], domain, *WORDS[2 + number % 5 : 3 + number % 11]])
    return Row(f"{domain}-{number}", text, "", LABELS[number % 2], domain, weight=0.25 + 0.01 * number)


@pytest.fixture
def root(tmp_path) -> Path:
    folder, rows = tmp_path / "data/tiny", {}
    for split, first, last in (("train", 0, 12), ("quiz", 12, 20), ("dev", 20, 24), ("test", 24, 28)):
        rows[split] = [review(number, name) for name in ("books", "dvd") for number in range(first, last)]
        write_rows(folder / f"{split}.tsv", rows[split], TRAIN_COLUMNS if split == "train" else TRAIN_COLUMNS[:-1])
    write_suite(folder, Suite("tiny", {"books": BOOKS, "dvd": DVD}))
    return tmp_path


def common_flags(root: Path, *more: str) -> list[str]:
    teacher = [] if "--teacher" in more else ["--teacher", "single"]
    return [
        "--suite", "tiny", "--domain", "books", "--data_dir", str(root / "data"), "--output_root", str(root / "outputs"),
        "--device", "cpu", "--precision", "fp32", "--max_length", "12", *teacher, *more,
    ]  # fmt: skip


def training_flags(root: Path, *more: str) -> list[str]:
    return common_flags(
        root, "--num_train_epochs", "1", "--learning_rate", "1e-3", "--per_device_train_batch_size", "8", *more
    )


def train_teacher(root: Path, model: Path, *more: str) -> Path:
    return train_teachers(*parse(*TEACHER_STAGE, argv=training_flags(root, "--teacher_model", str(model), *more)))[0]


def train_student(root: Path, stage: str, model: Path, *more: str) -> Path:
    flags = ["--stage", stage, "--student_model", str(model), "--tkd_weight", "0", "--method", "mpdistil"]
    return distil(*parse(*STUDENT_STAGES, argv=training_flags(root, *flags, *more)))[0]


def distil_transferable_knowledge(root: Path, model: Path, *more: str) -> Path:
    """Run stage 4 on a meta-teacher's transferable knowledge alone, which needs no common tokens."""
    flags = ["--teacher", "meta", "--tkd_weight", "1"]
    flags += [f"--{name}_weight=0" for name in ("embedding", "hidden", "attention")]
    return train_student(root, "first", model, *flags, *more)


def run_stages_6_and_7(root: Path) -> set[str]:
    """Run stages 6 and 7 and return the stages that were scored."""
    run_curriculum(*parse(*CURRICULUM_STAGE, argv=common_flags(root, "--episodes", "1", "--batch_size", "4")))
    return {one.stage for one in evaluate(*parse(EvaluationArguments, argv=common_flags(root)))}


PAIRS = [
    ("bert", "roberta"), ("roberta", "distilbert"), ("distilbert", "electra"), ("electra", "mpnet"), ("mpnet", "deberta-v2"),
    ("deberta-v2", "modernbert"), ("modernbert", "albert"), ("albert", "bert"), ("qwen2", "bert"), ("llama", "distilbert"),
]  # fmt: skip


@pytest.mark.parametrize(("teacher", "student"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_all_stages_run_for_a_pair_of_families(teacher, student, encoders, root):
    train_teacher(root, encoders / teacher)
    same_tokens, readable = teacher not in DECODERS, {teacher, student} <= set(READABLE)
    inner = ["--attention_weight", "1" if readable else "0"] if same_tokens else ["--first", "none"]
    before = AutoModelForSequenceClassification.from_pretrained(train_student(root, "first", encoders / student, *inner))
    after = AutoModelForSequenceClassification.from_pretrained(train_student(root, "second", encoders / student))
    assert before.config.model_type == after.config.model_type == student
    assert not torch.equal(next(before.parameters()), next(after.parameters()))
    assert {"teacher-single-books", "books/student_second", "books/curriculum"} <= run_stages_6_and_7(root)


@pytest.mark.parametrize(("teacher", "student"), [("bert", "modernbert"), ("albert", "bert")])
def test_unreadable_attention_scores_are_refused_naming_the_alternative(teacher, student, encoders, root):
    train_teacher(root, encoders / teacher)
    with pytest.raises(TeachbackError, match="ATTENTION_TARGET=relations"):
        train_student(root, "first", encoders / student)


def test_different_tokenizers_only_allow_losses_without_token_alignment(encoders, root):
    train_teacher(root, encoders / "bert")
    refused = "different tokenizers.*losses: embedding, hidden states, attention; set FIRST=none"
    with pytest.raises(TeachbackError, match=refused):
        train_student(root, "first", encoders / "other-words")
    train_student(root, "first", encoders / "other-words", "--first", "none")
    with pytest.raises(TeachbackError, match="student with 2 to 2 layers, but this one has 3; set BETA_PKD=0"):
        train_student(root, "second", encoders / "other-words")
    folder = train_student(root, "second", encoders / "other-words", "--beta_pkd", "0")
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 2


def upper_case_tokenizer():
    """Tokenizer with the same vocabulary and a normaliser that changes words into unknown ones."""
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("g", "G")
    return tokenizer


def test_equal_vocabularies_with_different_normalisers_are_refused(encoders, root, tmp_path):
    train_teacher(root, encoders / "bert")
    student = save_family(tmp_path / "upper", "bert", upper_case_tokenizer())
    assert load_tokenizer(str(student)).get_vocab() == load_tokenizer(str(encoders / "bert")).get_vocab()
    with pytest.raises(TeachbackError, match="different tokenizers"):
        train_student(root, "first", student)


def test_tokenizers_that_agree_on_all_texts_count_as_equal(encoders, root, tmp_path):
    train_teacher(root, encoders / "bert")
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("Q", "q")
    tokenizer.add_tokens(["unheard"])
    assert train_student(root, "first", save_family(tmp_path / "more", "bert", tokenizer))


def test_transferable_knowledge_is_distilled_across_tokenizers_in_stage_4(encoders, root):
    """The decoder and the student share no tokens, only the texts."""
    train_teacher(root, encoders / "qwen2", "--teacher", "meta")
    with pytest.raises(TeachbackError, match="losses: hidden states; set HIDDEN_WEIGHT=0 to learn from the transferable"):
        distil_transferable_knowledge(root, encoders / "bert", "--hidden_weight", "1")
    folder = distil_transferable_knowledge(root, encoders / "bert", "--transfer_set", "all", "--logging_steps", "1")
    terms = [entry for entry in read_stage(folder)["history"] if "loss_transferable" in entry]
    assert terms and "loss_hidden" not in terms[-1]
    before = AutoModelForSequenceClassification.from_pretrained(encoders / "bert").bert.encoder.state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(folder).bert.encoder.state_dict()
    assert not any(torch.equal(value, before[name]) for name, value in after.items() if name.endswith("weight"))
    assert AutoModelForSequenceClassification.from_pretrained(
        train_student(root, "second", encoders / "bert", "--teacher", "meta")
    )


def test_the_teacher_reads_the_texts_with_its_own_tokenizer(encoders, root):
    """A copy of the teacher with permuted token ids has a loss of zero, as it has nothing to learn."""
    teacher = train_teacher(root, encoders / "bert", "--teacher", "meta")
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    own, other = word_tokenizer().get_vocab(), word_tokenizer(backwards=True).get_vocab()
    words = model.bert.embeddings.word_embeddings.weight
    moved = words.detach().clone()
    for word, number in own.items():
        moved[other[word]] = words[number]
    model.bert.embeddings.word_embeddings.weight = torch.nn.Parameter(moved)
    model.save_pretrained(root / "same")
    word_tokenizer(backwards=True).save_pretrained(root / "same")
    losses = []
    for name in (root / "same", encoders / "bert"):
        place = (
            "--learning_rate",
            "1e-12",
            "--output_root",
            str(root / name.name),
            "--teacher_root",
            str(root / "outputs"),
        )
        losses.append(read_stage(distil_transferable_knowledge(root, name, *place))["dev"]["loss"])
    assert losses[0] < 1e-10 < 1e-6 < losses[1]


@pytest.mark.parametrize("family", ["modernbert", "deberta-v2", "electra"])
def test_a_student_can_be_cut_from_a_teacher_of_the_same_family(family, encoders, root):
    train_teacher(root, encoders / family)
    cut = ["--student_init", "teacher", "--student_layers", "spread:1", "--attention_weight", "0"]
    folder = train_student(root, "first", encoders / family, *cut)
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_hidden_layers == 1


def test_pooled_states_of_a_decoder_are_the_input_of_its_head(encoders):
    path, options = encoders / "qwen2", {"num_labels": 2, "pad_token_id": 0}
    model = AutoModelForSequenceClassification.from_pretrained(path, **options).eval()
    ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    outputs = Classifier(model, {"sentiment": BOOKS})(batch)
    assert outputs.pooled.shape == (2, 32)
    torch.testing.assert_close(model.score(outputs.pooled), outputs.logits)


def test_a_decoder_represents_a_sequence_by_its_last_real_token(encoders):
    ids = torch.tensor([[5, 6, 7, 0, 0], [0, 8, 9, 10, 11]])
    assert last_places(ids, 0).tolist() == [2, 4]
    options = {"num_labels": 2, "pad_token_id": 0}
    model = AutoModelForSequenceClassification.from_pretrained(encoders / "llama", **options).eval()
    outputs = Classifier(model, {"sentiment": BOOKS})(
        {"input_ids": ids, "attention_mask": (ids != 0).long()}, None, True
    )
    hidden = outputs.hidden_states
    assert torch.equal(outputs.cls((0, 1)), torch.stack([hidden[i][[0, 1], [2, 4]] for i in (0, 1)], 1))
    torch.testing.assert_close(outputs.cls((len(hidden) - 1,))[:, 0], outputs.pooled)
