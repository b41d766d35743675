"""The Python API where teacher and student have different tokenizers, and with decoders as teachers."""

import random
from pathlib import Path

import pytest
import torch
from families import byte_tokenizer, save_family, word_tokenizer
from tiny import LABELS, WORDS
from torch.utils.data import ConcatDataset, DataLoader, Subset

from teachback import MetaKD, MPDistil, TeachbackError, create_simple_dataloader
from teachback.data.schema import Domain
from teachback.loader_batches import LoaderBatches, gathered, keys_of, row_keys
from teachback.methods.predictions import PredictionDistillation
from teachback.methods.teacher import Teacher, TeacherTraining
from teachback.models.loading import load_classifier, load_tokenizer
from teachback.own_tokens import OwnTokens, token_datasets
from teachback.phases import FrozenTeacher

TASK = Domain("toy", "toy", LABELS)
QUICK = {"teacher_epochs": 1, "student_epochs": 1, "num_episodes": 1, "beta": 1.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Checkpoints of different families, widths and depths, and of three tokenizers."""
    root = tmp_path_factory.mktemp("models")
    save_family(root / "qwen2", "qwen2", layers=3, width=48)
    save_family(root / "llama", "llama", width=64)
    save_family(root / "bert", "bert")
    save_family(root / "distilbert", "distilbert", word_tokenizer(backwards=True), width=16)
    return root


def texts(count: int, seed: int) -> tuple[list[str], list[int]]:
    chance = random.Random(seed)
    found = [" ".join([WORDS[i % 2], *chance.sample(WORDS[2:], chance.randint(2, 6))]) for i in range(count)]
    return found, [i % 2 for i in range(count)]


def loader(count: int, seed: int, tokenizer=None, **more) -> DataLoader:
    return create_simple_dataloader(*texts(count, seed), tokenizer or word_tokenizer(), 40, 4, **more)


def batches(plain: DataLoader, **more) -> LoaderBatches:
    return LoaderBatches(plain, "train", TASK, len(plain.dataset.tokenizer), **more)


def words_of(batch: dict, tokenizer) -> list[str]:
    return tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
def test_each_row_of_a_batch_is_read_again_whatever_order_and_padding(pair):
    given, labels = texts(9, 0)
    rows = [(text, "good plot") for text in given] if pair else given
    plain = create_simple_dataloader(rows, labels, word_tokenizer(), 32, 4, shuffle=True)
    other = word_tokenizer(backwards=True)
    own = OwnTokens.of(plain, "train", other, None)
    for batch in batches(plain):
        again = own.batch(batch)
        assert words_of(again, other) == words_of(batch, word_tokenizer())
        assert torch.equal(again["label"], batch["label"]) and not torch.equal(again["input_ids"], batch["input_ids"])
    kept = gathered(batches(plain))
    again = own.encoded(kept)
    assert len(again) == 9 and again.columns is kept.columns
    assert sorted(keys_of(kept)) == sorted(key for batch in batches(plain) for key in row_keys(batch))


def test_texts_are_found_through_subsets_and_joined_data_sets_and_nowhere_else():
    one, two = loader(6, 0).dataset, loader(4, 1).dataset
    collate = loader(1, 0).collate_fn
    joined = DataLoader(ConcatDataset([Subset(one, [0, 3]), two]), batch_size=3, collate_fn=collate)
    assert {id(found) for found in token_datasets(joined)} == {id(one), id(two)}
    own = OwnTokens.of(joined, "train", byte_tokenizer_with_padding(), None)
    assert len(own.encoded(gathered(LoaderBatches(joined, "train", TASK, 60)))) == 6
    assert OwnTokens.of(joined, "train", word_tokenizer(), byte_tokenizer()) is None
    bare = [(torch.ones(2, 3).long(),) * 3 + (torch.tensor([0, 1]),)]
    assert OwnTokens.of(bare, "train", word_tokenizer(), word_tokenizer()) is None
    with pytest.raises(
        TeachbackError, match="meta yields the tokens of one without the texts.*create_simple_dataloader"
    ):
        OwnTokens.of(bare, "meta", word_tokenizer(), byte_tokenizer())


def byte_tokenizer_with_padding():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_a_collate_fn_that_changes_tokens_is_named_where_the_text_is_needed():
    plain = loader(4, 0)
    own = OwnTokens.of(plain, "train", word_tokenizer(backwards=True), None)
    changed = [(ids.flip(1), mask.flip(1), *rest) for ids, mask, *rest in plain]
    with pytest.raises(TeachbackError, match="train: the tokens of 4 of 4 rows are none of its data set's"):
        list(LoaderBatches(changed, "train", TASK, 60, translate=own.batch))


class Watch:
    """The tokens that reached each model."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.teacher, self.answering, self.student = [], [], []
        patch.setattr(TeacherTraining, "forward", self._noting(TeacherTraining.forward, self.teacher))
        patch.setattr(PredictionDistillation, "forward", self._noting(PredictionDistillation.forward, self.student))
        answer = FrozenTeacher.__call__

        def answered(frozen, batch):
            self.answering.append(batch["input_ids"])
            return answer(frozen, batch)

        patch.setattr(FrozenTeacher, "__call__", answered)

    def _noting(self, forward, into: list):
        def noted(module, **batch):
            into.append(batch["input_ids"])
            return forward(module, **batch)

        return noted


@pytest.mark.parametrize("teacher", ["qwen2", "llama"])
def test_a_decoder_teaches_an_encoder_of_other_tokens_through_all_phases(teacher, models, tmp_path, monkeypatch):
    watch = Watch(monkeypatch)
    model = MPDistil("toy", 2, teacher_model=models / teacher, student_model=models / "distilbert", student_layers=-1,
                     device="cpu", output_dir=tmp_path, precision="fp32", labels=list(LABELS))  # fmt: skip
    history = model.train(loader(24, 0, shuffle=False), loader(8, 1), loader(6, 2), {"aux": loader(8, 3)}, **QUICK)
    assert list(history) == ["phase1", "phase2", "phase3", "phase4", "test", "config"]
    assert set(history["phase2"]["loss_terms"]) == {"hard", "pkd", "soft"}
    assert model.teacher.config.model_type == teacher and model.student.config.model_type == "distilbert"
    own, other = model.tokenizer, word_tokenizer()
    learnt = [text for ids in watch.student for text in own.batch_decode(ids, skip_special_tokens=True)]
    answered = [text for ids in watch.answering for text in other.batch_decode(ids, skip_special_tokens=True)]
    assert set(answered) <= set(learnt) and set(answered) <= set(texts(24, 0)[0])
    if teacher == "qwen2":
        spelt = {text for ids in watch.teacher for text in byte_tokenizer().batch_decode(ids, skip_special_tokens=True)}
        assert set(answered) <= spelt
    # Of whatever tokens a loader is, the student reads its own.
    assert model.predict(loader(6, 2, shuffle=False)) == model.predict(loader(6, 2, own, shuffle=False))


def test_a_teacher_answers_a_batch_of_other_tokens_as_it_answers_its_own(models):
    name = str(models / "qwen2")
    tokenizer = load_tokenizer(name)
    teacher = Teacher(load_classifier(name, TASK, tokenizer), "single", [TASK], transferable=False).eval()
    plain = loader(8, 0, shuffle=False)
    own = OwnTokens.of(plain, "train", tokenizer, None)
    answer = FrozenTeacher(teacher, (1,), torch.device("cpu"), "fp32", own.batch)
    direct = FrozenTeacher(teacher, (1,), torch.device("cpu"), "fp32")
    for batch, same in zip(batches(plain), batches(loader(8, 0, tokenizer, shuffle=False))):
        for told, expected in zip(answer(batch).values(), direct(same).values()):
            torch.testing.assert_close(told, expected)


def test_a_student_cut_from_a_decoder_needs_no_model_of_its_own(models, tmp_path):
    rows = create_simple_dataloader(*texts(12, 0), models / "llama", 16, 4)
    model = MPDistil("toy", 2, teacher_model=models / "llama", student_layers=1, student_init="teacher", device="cpu",
                     output_dir=tmp_path, precision="fp32")  # fmt: skip
    model.train(rows, rows, **QUICK | {"beta": 0, "meta_epochs": 0})
    assert model.student.config.model_type == "llama" and model.student.config.num_hidden_layers == 1


def test_metakd_with_a_decoder_as_teacher_names_the_switches_and_takes_them(models, tmp_path):
    given, labels = texts(40, 0)
    table = {"text_a": given, "label": [LABELS[i] for i in labels], "domain": ["ab"[i // 2 % 2] for i in range(40)]}
    model = MetaKD(teacher_model=models / "qwen2", student_model=models / "bert", device="cpu", output_dir=tmp_path,
                   precision="fp32")  # fmt: skip
    epochs = {"teacher_epochs": 1, "first_epochs": 1, "second_epochs": 1}
    switches = {"embedding_weight": 0, "hidden_weight": 0, "attention_weight": 0}
    with pytest.raises(TeachbackError, match=" ".join(f"{name.upper()}=0" for name in switches)):
        model.train(table, **epochs)
    found = model.train(table, **epochs, **switches)
    assert set(found) == {"teacher", "a", "b"} and model.teacher.config.model_type == "qwen2"
    assert {student.config.model_type for student in model.students.values()} == {"bert"}
