"""The Python API where teacher and student have different tokenizers, and with decoders as teachers."""

import random
from pathlib import Path

import pytest
import torch
from families import byte_tokenizer, save_family, word_tokenizer
from tiny import LABELS, WORDS
from tokenizers import normalizers
from torch.utils.data import ConcatDataset, DataLoader, Subset

from teachback import MetaKD, MPDistil, TeachbackError, create_simple_dataloader
from teachback.data.loader_rows import UserLoader, keys_of
from teachback.data.schema import Domain
from teachback.methods.predictions import PredictionDistillation, teacher_columns
from teachback.methods.teacher import Teacher, TeacherTraining
from teachback.methods.teacher_outputs import features
from teachback.models.loading import load_classifier, load_tokenizer
from teachback.stages import phases

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


def words_of(rows, tokenizer) -> list[str]:
    return tokenizer.batch_decode([ids.tolist() for ids in rows.inputs["input_ids"]], skip_special_tokens=True)


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
def test_rows_are_tokenised_again_in_any_order_and_padding(pair):
    given, labels = texts(9, 0)
    rows = [(text, "good plot") for text in given] if pair else given
    plain = create_simple_dataloader(rows, labels, word_tokenizer(), 32, 4)
    other = word_tokenizer(backwards=True)
    order = [8, 0, 3, 3, 1, 2, 7, 4, 5, 6]
    mine = UserLoader(DataLoader(plain.dataset, 4, sampler=order, collate_fn=plain.collate_fn), "train")
    first = mine.rows(TASK, 60)
    again = mine.read_by(other, first, None)
    assert words_of(again, other) == words_of(first, word_tokenizer()) and again.columns is first.columns
    assert keys_of(again) != keys_of(first) and again.batches == first.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert keys_of(first) == [keys_of(plain.dataset.encoded)[i] for i in order]


def test_texts_are_found_only_through_subsets_and_concatenated_data_sets():
    one, two = loader(6, 0).dataset, loader(4, 1).dataset
    collate = loader(1, 0).collate_fn
    joined = UserLoader(DataLoader(ConcatDataset([Subset(one, [0, 3]), two]), batch_size=3, collate_fn=collate), "train")
    assert {id(found) for found in joined.texts} == {id(one), id(two)}
    rows = joined.rows(TASK, 60)
    assert len(joined.read_by(byte_tokenizer_with_padding(), rows, None)) == 6
    assert joined.read_by(word_tokenizer(), rows, byte_tokenizer()) is rows
    bare = UserLoader([(torch.ones(2, 3).long(),) * 3 + (torch.tensor([0, 1]),)], "meta")
    rows = bare.rows(TASK, 60)
    assert bare.read_by(word_tokenizer(), rows, word_tokenizer()) is rows
    with pytest.raises(
        TeachbackError, match="meta yields the tokens of one of them without the texts.*create_simple_dataloader"
    ):
        bare.read_by(word_tokenizer(), rows, byte_tokenizer())


def test_texts_are_tokenised_again_if_only_the_normaliser_differs():
    other = word_tokenizer()
    other.backend_tokenizer.normalizer = normalizers.Replace("good", "bad")
    mine = UserLoader(loader(4, 0), "train")
    again = mine.read_by(other, mine.rows(TASK, 60), None)
    assert "good" not in " ".join(words_of(again, other))
    bare = UserLoader([(torch.ones(2, 3).long(),) * 3 + (torch.tensor([0, 1]),)], "train")
    with pytest.raises(TeachbackError, match="choose models that share a tokenizer"):
        bare.read_by(other, bare.rows(TASK, 60), word_tokenizer())


def byte_tokenizer_with_padding():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_a_collate_fn_that_changes_tokens_is_refused_if_texts_are_needed():
    plain = loader(4, 0)
    changing = DataLoader(plain.dataset, 4, collate_fn=lambda items: (plain.collate_fn(items)[0].flip(1), *plain.collate_fn(items)[1:]))
    changed = UserLoader(changing, "train")
    with pytest.raises(TeachbackError, match="train: the tokens of 4 of 4 rows are not in its data set"):
        changed.read_by(word_tokenizer(backwards=True), changed.rows(TASK, 60), None)


class Watch:
    """Record of the token ids that reach each model."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.teacher, self.answering, self.student = [], [], []
        patch.setattr(TeacherTraining, "forward", self._noting(TeacherTraining.forward, self.teacher))
        patch.setattr(PredictionDistillation, "forward", self._noting(PredictionDistillation.forward, self.student))
        answer = phases.features

        def answered(classifier, rows, **settings):
            if not self.answering:  # the first call is the teacher's on the train rows; later ones are on other rows or of the student
                self.answering += [torch.tensor(ids)[None] for ids in rows.inputs["input_ids"]]
            return answer(classifier, rows, **settings)

        patch.setattr(phases, "features", answered)

    def _noting(self, forward, into: list):
        def noted(module, **batch):
            into.append(batch["input_ids"])
            return forward(module, **batch)

        return noted


@pytest.mark.parametrize("teacher", ["qwen2", "llama"])
def test_a_decoder_teaches_an_encoder_with_another_tokenizer_in_all_phases(teacher, models, tmp_path, monkeypatch):
    watch = Watch(monkeypatch)
    model = MPDistil("toy", 2, teacher_model=models / teacher, student_model=models / "distilbert", student_layers=-1,
                     device="cpu", output_dir=tmp_path, precision="fp32", labels=list(LABELS))  # fmt: skip
    history = model.train(loader(24, 0, shuffle=False), loader(8, 1), loader(6, 2), {"aux": loader(8, 3)}, **QUICK)
    assert list(history) == ["phase1", "phase2", "phase3", "phase4", "test", "config"]
    assert set(history["phase2"]["loss_terms"]) == {"hard", "pkd", "soft"}
    assert model.teacher.config.model_type == teacher and model.student.config.model_type == "distilbert"
    own = model.tokenizer
    learnt = [text for ids in watch.student for text in own.batch_decode(ids, skip_special_tokens=True)]
    read = byte_tokenizer() if teacher == "qwen2" else word_tokenizer()
    answered = [text for ids in watch.answering for text in read.batch_decode(ids, skip_special_tokens=True)]
    spelt = {text for ids in watch.teacher for text in read.batch_decode(ids, skip_special_tokens=True)}
    assert 20 < len(answered) <= 24 and set(answered) <= set(learnt) & spelt & set(texts(24, 0)[0])
    # The student reads texts with its own tokenizer, whatever tokens the loader yields.
    assert model.predict(loader(6, 2, shuffle=False)) == model.predict(loader(6, 2, own, shuffle=False))


def test_teacher_outputs_do_not_depend_on_the_tokenizer_of_the_loader(models):
    name = str(models / "qwen2")
    tokenizer = load_tokenizer(name)
    teacher = Teacher(load_classifier(name, TASK, tokenizer), "single", [TASK], transferable=False).eval()
    given, direct = UserLoader(loader(8, 0), "train"), UserLoader(loader(8, 0, tokenizer), "train")
    settings = {"pad_token_id": tokenizer.pad_token_id, "batch_size": 3, "device": "cpu", "precision": "fp32", "layers": (1,)}
    rows = given.read_by(tokenizer, given.rows(TASK, 60), None)
    told, same = (features(teacher.classifier, one, **settings) for one in (rows, direct.rows(TASK, len(tokenizer))))
    for name, values in teacher_columns(teacher, told, TASK).items():
        torch.testing.assert_close(values, teacher_columns(teacher, same, TASK)[name])


def test_a_student_cut_from_a_decoder_needs_no_student_model(models, tmp_path):
    rows = create_simple_dataloader(*texts(12, 0), models / "llama", 16, 4)
    model = MPDistil("toy", 2, teacher_model=models / "llama", student_layers=1, student_init="teacher", device="cpu",
                     output_dir=tmp_path, precision="fp32")  # fmt: skip
    model.train(rows, rows, **QUICK | {"beta": 0, "meta_epochs": 0})
    assert model.student.config.model_type == "llama" and model.student.config.num_hidden_layers == 1


def test_metakd_with_a_decoder_as_teacher_names_the_losses_to_switch_off(models, tmp_path):
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
