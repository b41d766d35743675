"""Python API on two-layer models: training on the rows of loaders, histories, predictions and saved checkpoints."""

import inspect
import json
import math
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from tiny import LABELS, WORDS, classifier, tokenizer
from torch.utils.data import DataLoader, Sampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import teachback
from teachback import (
    MetaKD,
    MetaKDConfig,
    MPDistil,
    TeachbackError,
    TrainingConfig,
    create_simple_dataloader,
    load_superglue_dataset,
)
from teachback.core.arguments import TeacherArguments
from teachback.data.loader_rows import UserLoader, cut_quiz, keys_of
from teachback.data.schema import Domain
from teachback.inference.task_metrics import chosen_metric, metric_values
from teachback.methods import teacher_outputs
from teachback.methods.curriculum import Student
from teachback.methods.predictions import PredictionDistillation
from teachback.methods.student import new_student
from teachback.methods.teacher import Teacher, TeacherTraining
from teachback.methods.teacher_outputs import own_logits
from teachback.models.layers import token_fields
from teachback.stages import phases
from teachback.stages.phase_inputs import tokenizers_of
from teachback.training.trainer import DistillationTrainer

ROOT = Path(__file__).parents[1]
QUICK = {"teacher_epochs": 1, "student_epochs": 1, "num_episodes": 1, "teacher_lr": 2e-3, "beta": 0}
TASK = Domain("toy", "toy", LABELS)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with two checkpoints, ``big`` and ``small``, of one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for name, layers in (("big", 2), ("small", 1)):
        classifier(layers=layers, seed=layers).save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    return folder


def toy(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Random texts that contain "good" or "bad", and their labels."""
    chance = random.Random(seed)
    texts = []
    for number in range(count):
        words = [chance.choice(WORDS[2:]) for _ in range(chance.randint(2, 6))]
        words.insert(chance.randrange(len(words)), WORDS[number % 2])
        texts.append(" ".join(words))
    return texts, [number % 2 for number in range(count)]


def loader(models: Path, count: int, seed: int, shuffle: bool = False) -> DataLoader:
    return create_simple_dataloader(*toy(count, seed), str(models / "big"), 32, 8, shuffle)


class RecordingSampler(Sampler):
    """Sampler of the rows in reverse order, with the first one three times; counts its passes."""

    def __init__(self, count: int):
        self.order, self.passes = [*range(count - 1, -1, -1), 0, 0], 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self):
        self.passes += 1
        return iter(self.order)


class RecordingCollate:
    def __init__(self, collate):
        self.collate, self.made = collate, []

    def __call__(self, items):
        self.made.append(self.collate(items))
        return self.made[-1]


def recording(plain: DataLoader) -> DataLoader:
    """Loader of the same rows in batches of 7, with a custom sampler and a custom collate_fn."""
    sampler = RecordingSampler(len(plain.dataset))
    return DataLoader(plain.dataset, batch_size=7, sampler=sampler, collate_fn=RecordingCollate(plain.collate_fn))


class Watch:
    """Record of the batches that reach the models, and of the teacher's weights and mode."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.trained: dict[str, list[dict]] = {"teacher": [], "student": [], "curriculum": []}
        self.answered, self.teacher_trains, self.teacher_at_first = [], [], {}
        patch.setattr(TeacherTraining, "forward", self._forward(TeacherTraining.forward, "teacher"))
        patch.setattr(PredictionDistillation, "forward", self._forward(PredictionDistillation.forward, "student"))
        patch.setattr(phases, "features", self._answers(phases.features))
        patch.setattr(teacher_outputs, "states", self._states(teacher_outputs.states))
        patch.setattr(Student, "_placed", self._placed(Student._placed))

    def _forward(self, forward, name):
        def watched(module, **batch):
            if module.training:
                self.trained[name].append(batch)
            return forward(module, **batch)

        return watched

    def _answers(self, features):
        """Record the rows of each call; the first call in these phases is the teacher's, on the train rows."""

        def watched(classifier, rows, **settings):
            self.answered.append(rows)
            state = classifier.model.state_dict()
            self.teacher_at_first = self.teacher_at_first or {name: value.clone() for name, value in state.items()}
            return features(classifier, rows, **settings)

        return watched

    def _states(self, states):
        def watched(classifier, *args, **settings):
            self.teacher_trains.append(classifier.training)
            return states(classifier, *args, **settings)

        return watched

    def _placed(self, placed):
        def watched(student, study, batch):
            if student.classifier.training:
                self.trained["curriculum"].append(batch | {"study": study.name})
            return placed(student, study, batch)

        return watched


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory):
    """One training in all four phases, with its `Watch`."""
    train, aux = recording(loader(models, 48, 0)), recording(loader(models, 24, 2))
    model = MPDistil("toy", 2, teacher_model=models / "big", student_model=models / "big", student_layers=2,
                     device="cpu", output_dir=tmp_path_factory.mktemp("run"), labels=list(LABELS),
                     precision="fp32")  # fmt: skip
    train.dataset.labels = torch.tensor(toy(48, 0)[1])  # a tensor without names of labels, as in many data sets
    with pytest.MonkeyPatch.context() as patch:
        watch = Watch(patch)
        history = model.train(
            train, loader(models, 24, 1), test_loader=loader(models, 16, 3), meta_loaders={"aux": aux},
            config=TrainingConfig(teacher_epochs=4, student_epochs=9, beta=1.0), num_episodes=4, eval_every=2,
            teacher_lr=5e-3, student_lr=5e-3, student_epochs=5, batch_size=2,
        )  # fmt: skip
    return SimpleNamespace(model=model, history=history, train=train, aux=aux, watch=watch)


def row_keys(batch: dict) -> list[tuple[int, ...]]:
    """The real tokens of each row of a padded batch."""
    return [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch["input_ids"], batch["attention_mask"])]


def keys(batches) -> list[tuple[int, ...]]:
    return [key for batch in batches for key in row_keys(batch)]


def as_dict(values) -> dict:
    return dict(zip(("input_ids", "attention_mask", "token_type_ids", "label"), values))


def test_batches_of_a_custom_sampler_are_drawn_once_and_kept_in_all_epochs(trained):
    made = [as_dict(values) for values in trained.train.collate_fn.made]
    an_epoch = math.ceil(50 / 7)
    assert trained.train.sampler.passes == 1 and len(made) == an_epoch
    reached = trained.watch.trained["teacher"] + trained.watch.trained["student"]
    quiz = set(keys(made)) - set(keys(reached))
    assert 2 <= len(quiz) <= 6
    expected = [[key for key in row_keys(batch) if key not in quiz] for batch in made]
    assert [row_keys(batch) for batch in reached] == 9 * [batch for batch in expected if batch]
    first = row_keys(as_dict(trained.train.collate_fn.collate([trained.train.dataset[0]])))[0]
    assert first in quiz or keys(reached).count(first) == 3 * 9
    labels = dict(zip(keys(made), torch.cat([batch["label"] for batch in made]).tolist()))
    assert all(labels[key] == label for batch in reached for key, label in zip(row_keys(batch), batch["label"].tolist()))


def test_training_batches_have_no_columns_of_padding_only(trained):
    """Rows lose the padding of their collate_fn, which does not affect the loss."""
    wide = DataLoader(trained.train.dataset, 4, collate_fn=lambda items: padded_to(20, trained.train.collate_fn(items)))
    rows = UserLoader(wide, "train").rows(TASK, 60)
    assert next(iter(wide))[0].shape == (4, 20) and max(rows.lengths) < 12
    reached = trained.watch.trained["teacher"] + trained.watch.trained["student"]
    assert all(batch["attention_mask"].any(0).all() for batch in reached)


def padded_to(width: int, batch: tuple) -> tuple:
    tokens = [torch.nn.functional.pad(values, (0, width - values.shape[1])) for values in batch[:3]]
    return (*tokens, batch[3])


def test_the_quiz_has_both_labels_and_shares_no_row_with_training(models):
    rows = UserLoader(loader(models, 48, 0), "train").rows(TASK, 60)
    quiz, left = cut_quiz(rows, TASK, 0.2, 1, "train")
    assert sorted(rows.columns["label"][quiz].tolist()) == [0] * 5 + [1] * 5 and sorted(quiz + left) == list(range(48))
    assert cut_quiz(rows, TASK, 0.2, 1, "train") == (quiz, left) != cut_quiz(rows, TASK, 0.2, 2, "train")
    assert len(cut_quiz(rows, TASK, 0.01, 1, "train")[0]) == 2
    twice = UserLoader(DataLoader(loader(models, 48, 0).dataset, 8, sampler=[*range(48), *range(48)],
                                  collate_fn=loader(models, 1, 0).collate_fn), "train").rows(TASK, 60)  # fmt: skip
    quiz, left = cut_quiz(twice, TASK, 0.2, 1, "train")
    kept, others = keys_of(twice.chosen(quiz)), keys_of(twice.chosen(left))
    assert len(set(kept)) == len(kept) == 10 and len(left) == 76 and not set(kept) & set(others)
    with pytest.raises(TeachbackError, match="has 2 different rows, too few.*meta_loaders"):
        cut_quiz(UserLoader(loader(models, 2, 0), "train").rows(TASK, 60), TASK, 0.1, 1, "train")


def test_a_shuffling_loader_is_read_whole_in_order_and_then_shuffled(models, tmp_path, monkeypatch):
    plain = loader(models, 21, 0)
    shuffled = DataLoader(plain.dataset, 4, shuffle=True, drop_last=True, collate_fn=plain.collate_fn)
    given = UserLoader(shuffled, "train")
    rows = given.rows(TASK, 60)
    assert given.shuffles and given.drops_last and not rows.batches and rows.guids[20] == "train[20]"
    assert keys_of(rows) == keys_of(plain.dataset.encoded)
    assert UserLoader(plain, "train").rows(TASK, 60).batches == [[*range(8)], [*range(8, 16)], [*range(16, 21)]]
    watch = Watch(monkeypatch)
    model = MPDistil("toy", 2, "accuracy", models / "small", models / "small", -1, "cpu", tmp_path, precision="fp32")
    settings = {**QUICK, "teacher_epochs": 2, "meta_epochs": 0}
    model.train(shuffled, loader(models, 8, 1), **settings)
    one, two = watch.trained["teacher"][:5], watch.trained["teacher"][5:]
    assert len(two) == 5 and all(len(batch["label"]) == 4 for batch in one + two)
    assert keys(one) != keys(two) and sorted(keys(one)) != sorted(keys(two))  # drop_last leaves out another row
    assert len(watch.trained["student"]) == 5
    with pytest.raises(TeachbackError, match="train_loader has 19 rows.*drop_last leaves out batches of fewer than 21"):
        model.train(DataLoader(plain.dataset, 21, shuffle=True, drop_last=True, collate_fn=plain.collate_fn),
                    loader(models, 8, 1), **QUICK)  # fmt: skip


def test_the_teacher_predicts_each_row_once_in_eval_mode_and_is_unchanged(trained):
    assert trained.watch.teacher_trains and not any(trained.watch.teacher_trains)
    now = trained.model.teacher.state_dict()
    assert all(torch.equal(now[name], value) for name, value in trained.watch.teacher_at_first.items())
    learnt = {key for batch in trained.watch.trained["student"] for key in row_keys(batch)}
    asked = [rows for rows in trained.watch.answered if len(rows) > 30]
    assert len(asked) == 1 and len(set(keys_of(asked[0]))) == len(learnt)


def test_batches_of_phase_2_carry_the_teachers_outputs_for_their_rows(trained):
    batch = trained.watch.trained["student"][-1]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        told = trained.model.teacher(**inputs, output_hidden_states=True)
    torch.testing.assert_close(batch["teacher_logits"], told.logits)
    torch.testing.assert_close(batch["teacher_cls"][:, 0, 0].float(), told.hidden_states[1][:, 0], atol=1e-2, rtol=1e-2)


def test_teacher_and_student_learn(trained):
    accuracy = {phase: [m["acc"] for m in trained.history[phase]["val_metrics"]] for phase in ("phase1", "phase2")}
    assert max(accuracy["phase1"]) > 0.9 and max(accuracy["phase2"]) > 0.9 > accuracy["phase2"][0]
    assert trained.history["test"]["metrics"]["acc"] > 0.8


def test_the_curriculum_uses_each_row_of_another_task_before_repeating_one(trained):
    learnt = [batch for batch in trained.watch.trained["curriculum"] if batch["study"] == "aux"]
    chosen = [task for episode in trained.history["phase4"]["tasks"] for task in episode]
    assert 0 < len(learnt) == chosen.count("aux") < len(chosen)
    assert trained.aux.sampler.passes == 1
    made = keys(as_dict(values) for values in trained.aux.collate_fn.made)
    assert all(len(batch["label"]) == 2 and set(row_keys(batch)) <= set(made) for batch in learnt)
    for episode in trained.history["phase4"]["tasks"]:
        of_episode, learnt = keys(learnt[: episode.count("aux")]), learnt[episode.count("aux") :]
        assert all(of_episode.count(key) <= made.count(key) for key in of_episode[: len(made)])


def test_the_history_holds_losses_metrics_tasks_and_rewards_of_the_phases(trained):
    history = trained.history
    assert list(history) == ["phase1", "phase2", "phase3", "phase4", "test", "config"]
    assert len(history["phase1"]["train_losses"]) == len(history["phase1"]["val_metrics"]) == 4
    assert set(history["phase2"]["loss_terms"]) == {"hard", "pkd", "soft"}
    assert len(history["phase2"]["train_losses"]) == 5 and history["config"]["student_epochs"] == 5  # keywords override the config
    assert len(history["phase3"]["train_losses"]) == 1 and set(history["phase3"]["val_metrics"][0]) == {"acc", "score"}
    phase4 = history["phase4"]
    assert len(phase4["rewards"]) == len(phase4["tasks"]) == len(phase4["train_losses"]) == 4
    assert phase4["episodes"] == [0, 2, 4] and phase4["best_episode"] in phase4["episodes"]
    best = max(m["score"] for m in phase4["val_metrics"])
    assert phase4["val_metrics"][phase4["episodes"].index(phase4["best_episode"])]["score"] == best
    for phase in ("phase1", "phase2", "phase3", "phase4"):  # names that code for MPDistil's library uses
        assert history[phase]["train_loss"] == history[phase]["train_losses"]
    assert phase4["trajectories"] == phase4["tasks"]
    json.dumps(history)


def test_predictions_are_the_kept_students_in_the_order_of_the_loader(trained, models):
    rows = loader(models, 24, 1)
    forwards = trained.model.predict(rows)
    assert np.argmax(trained.model.predict_proba(rows), -1).tolist() == forwards
    sampler = list(range(23, -1, -1))
    backwards = DataLoader(rows.dataset, batch_size=5, sampler=sampler, collate_fn=rows.collate_fn)
    assert trained.model.predict(backwards) == forwards[::-1] and len(set(forwards)) == 2
    right = np.mean(np.array(forwards) == np.array(toy(24, 1)[1]))
    phase4 = trained.history["phase4"]
    assert right == phase4["val_metrics"][phase4["episodes"].index(phase4["best_episode"])]["acc"]


@pytest.mark.parametrize(("given", "computed"), [("auto", "fp32"), ("bf16", "bf16")])
def test_predictions_use_fp32_or_the_given_precision_as_in_stage_7(given, computed, trained, models, monkeypatch):
    monkeypatch.setattr("teachback.core.precision._cpu_computes_in_bfloat16", lambda: True)
    model = MPDistil("toy", 2, device="cpu", precision=given)
    model.load_student(trained.model.output_dir / "student")
    asked = []
    monkeypatch.setattr("teachback.mpdistil.own_logits", lambda *rows, **settings: asked.append(settings) or own_logits(*rows, **settings))
    answers = model.predict(loader(models, 8, 1))
    assert model.precision == "bf16" and [settings["precision"] for settings in asked] == [computed] and len(answers) == 8


def test_a_saved_student_is_a_plain_checkpoint_and_can_be_reloaded(trained, models, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model-00001-of-00002.safetensors").write_text("of another model")
    trained.model.save_student(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine" and not (
        tmp_path / "model-00001-of-00002.safetensors"
    ).exists()
    assert not list(tmp_path.glob(".partial*"))
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.id2label == dict(enumerate(LABELS))
    texts, _ = toy(6, 9)
    rows = create_simple_dataloader(texts, None, AutoTokenizer.from_pretrained(tmp_path), 32, 4, shuffle=False)
    again = MPDistil("toy", 2, device="cpu")
    with pytest.raises(TeachbackError, match="load_student"):
        again.predict(rows)
    again.load_student(tmp_path)
    predicted = again.predict(rows)
    assert predicted == trained.model.predict(rows)
    said = pipeline("text-classification", str(tmp_path), device="cpu")(texts)
    assert [answer["label"] for answer in said] == [LABELS[number] for number in predicted]
    with pytest.raises(TeachbackError, match="2 outputs, but num_labels is 3"):
        MPDistil("toy", 3, device="cpu").load_student(tmp_path)
    with pytest.raises(TeachbackError, match="nowhere does not hold a model"):
        again.load_student("nowhere")


def test_a_saved_student_has_the_model_card_of_its_training(trained, tmp_path):
    trained.model.save_student(tmp_path / "mine")
    card = ModelCard.load(tmp_path / "mine/README.md")
    found = {result.dataset_split: result.metric_value for result in card.data.eval_results}
    phase4 = trained.history["phase4"]
    kept = phase4["val_metrics"][phase4["episodes"].index(phase4["best_episode"])]["acc"]
    assert found == {"val": pytest.approx(kept), "test": pytest.approx(trained.history["test"]["metrics"]["acc"])}
    assert "a curriculum chosen by reinforcement learning" in card.text and "the loaders of toy, seed 42" in card.text
    assert re.search(r"\| toy +\| negative, positive +\| a text +\| accuracy +\| +48 +\| +24 +\|", card.text)
    assert "first 32 tokens" in card.text and re.search(r"student\\_epochs +\| 5 ", card.text)
    teacher = ModelCard.load(trained.model.output_dir / "teacher/README.md")
    assert teacher.data.eval_results[0].metric_value == pytest.approx(
        max(metrics["acc"] for metrics in trained.history["phase1"]["val_metrics"])
    )
    (tmp_path / "mine/README.md").write_text("my own")
    again = MPDistil("toy", 2, device="cpu", labels=list(LABELS))
    again.load_student(trained.model.output_dir / "student")
    again.save_student(tmp_path / "mine")
    again.save_student(tmp_path / "other")
    assert (tmp_path / "mine/README.md").read_text() == "my own"
    assert (tmp_path / "other/README.md").read_text() == str(card)
    (tmp_path / "other/README.md").unlink()
    again.load_student(tmp_path / "other")
    again.save_student(tmp_path / "bare")
    assert "No score has been measured" in (tmp_path / "bare/README.md").read_text()


def test_predictions_are_saved_as_a_table_with_names_of_classes(trained, tmp_path):
    trained.model.save_predictions([1, 0], tmp_path / "new/p.tsv", {0: "no", 1: "yes"})
    assert (tmp_path / "new/p.tsv").read_text() == "index\tprediction\n0\tyes\n1\tno\n"
    trained.model.save_predictions([0.5], tmp_path / "p.tsv")
    assert (tmp_path / "p.tsv").read_text() == "index\tprediction\n0\t0.5\n"
    with pytest.raises(TeachbackError, match="no name for the prediction 2"):
        trained.model.save_predictions([2], tmp_path / "p.tsv", {0: "no"})


def train_quickly(models: Path, folder: Path, **more) -> dict:
    model = MPDistil("toy", 2, teacher_model=models / "small", student_model=models / "small", student_layers=-1,
                     device="cpu", output_dir=folder, precision="fp32")  # fmt: skip
    own = {"toy": loader(models, 8, 4)} if more.get("meta_epochs", 1) else None
    return model.train(loader(models, 16, 0, shuffle=True), loader(models, 8, 1), meta_loaders=own, **{**QUICK, **more})


def test_the_learning_rate_is_constant_unless_a_schedule_is_given(models, tmp_path, monkeypatch):
    rates: list[float] = []
    step = DistillationTrainer.training_step

    def watched(trainer, *args, **kwargs):
        rates.append(trainer._get_learning_rate())
        return step(trainer, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "training_step", watched)
    train_quickly(models, tmp_path / "a", meta_epochs=0, teacher_lr=1e-3, student_lr=2e-3)
    assert set(rates) == {1e-3, 2e-3}
    rates.clear()
    train_quickly(models, tmp_path / "b", meta_epochs=0, student_epochs=0, schedule="linear")
    assert len(set(rates)) == len(rates) == 2  # one rate per step
    with pytest.raises(TeachbackError, match="schedule=cosine"):
        TrainingConfig(schedule="cosine")


@pytest.mark.parametrize("given", [[1, 3], torch.tensor([1.0, 3.0]), {1: 3, "LABEL_0": 1}, "balanced"])
def test_class_weights_and_smoothing_reach_the_label_loss_of_both_models(given, models, tmp_path, monkeypatch):
    seen: list[tuple[type, float, list]] = []
    step = DistillationTrainer.training_step

    def watched(trainer, module, inputs, *args):
        arguments = module.arguments
        pairs = zip(inputs["label"].tolist(), inputs["class_weight"].tolist(), strict=True)
        seen.append((type(module), arguments.label_smoothing, list(pairs)))
        return step(trainer, module, inputs, *args)

    monkeypatch.setattr(DistillationTrainer, "training_step", watched)
    kept = loader(models, 24, 0)
    subset = DataLoader(torch.utils.data.Subset(kept.dataset, range(0, 24, 2)), 4, collate_fn=kept.collate_fn)  # of class 0 alone
    both = torch.utils.data.ConcatDataset([subset.dataset, torch.utils.data.Subset(kept.dataset, [1, 3, 5, 7])])
    model = MPDistil("toy", 2, "accuracy", models / "big", models / "small", None, device="cpu", output_dir=tmp_path, precision="fp32")
    model.train(DataLoader(both, 4, collate_fn=kept.collate_fn), loader(models, 8, 1), meta_epochs=0, class_weights=given, label_smoothing=0.1, **QUICK)
    assert {kind for kind, _, _ in seen} == {TeacherTraining, PredictionDistillation} and {smoothing for _, smoothing, _ in seen} == {0.1}
    weights = {label: {weight for _, _, pairs in seen for its, weight in pairs if its == label} for label in (0, 1)}
    assert all(len(values) == 1 for values in weights.values())  # 12 rows of class 0, 4 of class 1: three times the weight, given or balanced
    assert (*weights[0], *weights[1]) == (pytest.approx(2 / 3), pytest.approx(2))


def test_patience_ends_the_phases_early(models, tmp_path):
    history = train_quickly(models, tmp_path, teacher_epochs=6, student_epochs=6, teacher_lr=1e-12, student_lr=1e-12, patience=2, num_episodes=9, eval_every=1)
    assert [len(history[phase]["val_metrics"]) for phase in ("phase1", "phase2")] == [3, 3]  # the first epoch is the best
    assert len(history["phase4"]["train_losses"]) == 2  # no better than the student of phase 2


@pytest.mark.parametrize("given", [[1], [1, 0], [1, float("nan")], {0: 1}, {"good": 1, "LABEL_1": 1}, "balance", "12", 3])
def test_class_weights_without_one_weight_per_class_are_refused(given, models, tmp_path):
    with pytest.raises(TeachbackError, match=r"class_weights=.*pass 'balanced', 2 weights above 0 in the order .*LABEL_0, LABEL_1"):
        train_quickly(models, tmp_path, class_weights=given)


def test_metakd_passes_patience_weights_and_smoothing_to_its_stages(models, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr("teachback.metakd.train_teachers", lambda data, teacher, optimizer: taken.append((teacher, optimizer)) or [])
    monkeypatch.setattr("teachback.metakd.distil", lambda data, student, first, second, meta, optimizer: taken.append((second, optimizer)) or [])
    model = MetaKD(None, models / "small", models / "small", device="cpu", output_dir=tmp_path)
    habits = {"patience": 2, "class_weights": {"bad": 1, "good": 2.5}, "label_smoothing": 0.1}
    model._run_stages(MetaKDConfig(**habits))
    model._run_stages(MetaKDConfig(alpha=0.5, **habits))
    assert {optimizer.patience for _, optimizer in taken} == {2}
    losses = [(part.class_weights, part.label_smoothing) for part, _ in taken]
    given, none = ("bad=1,good=2.5", 0.1), ("", 0.0)
    assert losses == [given, none, none, given, given, given]  # with alpha 1 the labels have no share in the students' loss
    assert [part.alpha_soft for part, _ in taken if not isinstance(part, TeacherArguments)] == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize("given", [[1, 2], {"good, or so": 1, "bad": 2}])
def test_metakd_refuses_class_weights_that_its_stages_cannot_express(given, models, tmp_path):
    model = MetaKD(None, models / "small", models / "small", device="cpu", output_dir=tmp_path)
    with pytest.raises(TeachbackError, match="pass 'balanced', or a dict with a weight for each label"):
        model.train({}, class_weights=given)


def test_the_seed_fixes_the_history_and_a_given_quiz_holds_no_rows_out(models, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    watch = Watch(monkeypatch)
    torch.manual_seed(1)
    first = train_quickly(models, tmp_path / "a", report_to="tensorboard")
    assert sum(len(batch["label"]) for batch in watch.trained["teacher"]) == 16
    assert {path.parent.name for path in tmp_path.glob("a/logs/*/events*")} >= {"phase1", "phase2"}
    assert list(tmp_path.glob("a/logs/phase4/**/events*"))
    torch.manual_seed(2)
    second = train_quickly(models, tmp_path / "b")
    assert first.pop("config") != second.pop("config") and first == second
    other = train_quickly(models, tmp_path / "c", seed=1, meta_epochs=0)
    assert list(other) == ["phase1", "phase2", "config"]
    with pytest.raises(TeachbackError, match="which meta_epochs=0 skips"):
        MPDistil("toy", 2, device="cpu").train([], [], meta_loaders={"toy": None}, meta_epochs=0)
    assert other["phase1"]["train_losses"] != first["phase1"]["train_losses"]


def test_a_regression_task_is_trained_and_predicted(models, tmp_path):
    texts, labels = toy(20, 0)
    rows = create_simple_dataloader(texts, [label + 0.5 for label in labels], str(models / "big"), 32, 4)
    model = MPDistil("score", 1, "auto", models / "small", models / "small", 1, "cpu", tmp_path, True, precision="fp32")
    history = model.train(rows, rows, meta_loaders={"toy": loader(models, 12, 1)}, **QUICK)
    assert set(history["phase1"]["val_metrics"][0]) == {"loss", "pearson", "spearmanr", "corr", "score"}
    assert all(isinstance(value, float) for value in model.predict(rows)) and history["phase4"]["rewards"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MPDistil("toy", 2, teacher_modle="a"), "'teacher_modle'; did you mean 'teacher_model'"),
        (lambda: MPDistil("toy", 2, device="cpu").train([], [], teacher_epoch=1), "did you mean 'teacher_epochs'"),
        (lambda: TrainingConfig(apha=1), "TrainingConfig has no argument 'apha'; did you mean 'alpha'"),
        (lambda: MetaKD(studnet_model="a"), "did you mean 'student_model'"),
        (lambda: MetaKD(device="cpu").train({}, first_epoch=1), "did you mean 'first_epochs'"),
    ],
)
def test_an_unknown_argument_is_refused_naming_the_closest_one(call, message):
    with pytest.raises(TypeError, match=message) as raised:
        call()
    assert isinstance(raised.value, TeachbackError)


def test_signatures_list_the_settings_as_parameters():
    shown = inspect.signature(MPDistil.train).parameters
    assert list(shown)[:6] == ["self", "train_loader", "val_loader", "test_loader", "meta_loaders", "config"]
    assert set(TrainingConfig.names()) < set(shown)
    assert {"dataframe", "first_epochs", "seed"} < set(inspect.signature(MetaKD.train).parameters)


def test_the_defaults_are_the_published_ones():
    config = TrainingConfig()
    assert (config.teacher_epochs, config.student_epochs, config.meta_epochs, config.num_episodes) == (10, 10, 1, 200)
    assert (config.teacher_lr, config.student_lr, config.meta_lr) == (2e-5, 3e-5, 1e-3)
    assert (config.alpha, config.beta, config.temperature, config.batch_size, config.seed) == (0.5, 100, 5, 8, 42)
    assert (config.use_competitive_loss, config.reward_type, config.report_to) == (False, "binary", None)


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": 2}, {"reward_type": "best"}, {"report_to": "mail"}, {"temperature": 0}, {"num_episodes": -1}, {"seed": -1}, {"seed": 1.5},
     {"alpha": "0.5"}, {"student_epochs": 2.5}],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(TeachbackError, match=f"^{next(iter(wrong))}="):
        TrainingConfig(**wrong)


def test_numpy_numbers_and_whole_floats_are_accepted_as_settings():
    config = TrainingConfig(batch_size=np.int64(4), student_epochs=2.0, student_lr=np.float32(1e-3), seed=np.uint8(7))
    assert json.dumps([config.batch_size, config.student_epochs, config.seed]) == "[4, 2, 7]"
    assert type(config.student_lr) is float and config.student_lr == np.float32(1e-3)
    with pytest.raises(TeachbackError, match="^seed=-1: must be from 0"):
        MetaKDConfig(seed=-1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.train([], [], config={"seed": 1}), "config is a dict; pass a TrainingConfig"),
        (lambda model: model.train([], [], meta_loaders=[[]]), "meta_loaders is a list; pass a dict"),
        (lambda model: MPDistil("toy", "2"), "num_labels='2': expected a whole number"),
        (lambda model: MPDistil("toy", 2, teacher_model=torch.nn.Linear(1, 1)), "teacher_model is a Linear; pass a hub name"),
        (lambda model: MetaKD(student_model=torch.nn.Linear(1, 1)), "student_model is a Linear; pass a hub name"),
        (lambda model: load_superglue_dataset("CB", max_samples=0), "max_samples=0: must be at least 1"),
    ],
)
def test_arguments_of_wrong_type_are_refused_by_name(call, message):
    with pytest.raises(TeachbackError, match=message):
        call(MPDistil("toy", 2, device="cpu"))


IDS = torch.ones(4, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((IDS, IDS, IDS), "train, batch 2: there are no labels"),
        ((IDS, IDS, IDS, torch.tensor([0, 1, 2, 0])), r"labels are \[0, 1, 2\]; expected whole numbers from 0 to 1"),
        ((IDS, IDS, IDS, torch.ones(4)), "expected whole numbers"),
        ((IDS, IDS, IDS, torch.ones(3).long()), r"labels have the shape \(3,\); expected one label for each of the 4 rows"),
        ((IDS, IDS[:, :2], IDS, IDS[:, 0]), r"attention_mask \(4, 2\).*expected \[B, L\] for all three"),
        ((IDS, 0 * IDS, IDS, IDS[:, 0]), "no real token"),
        ((60 * IDS, IDS, IDS, IDS[:, 0]), "token 60 is not among the 60"),
        ({"input_ids": IDS}, "expected tensors .* not dict"),
    ],
)
def test_a_malformed_batch_is_refused_with_its_number_and_problem(batch, message):
    whole = (IDS, IDS, IDS, IDS[:, 0])
    with pytest.raises(TeachbackError, match=message):
        UserLoader([whole, batch], "train").rows(TASK, 60)


@pytest.mark.parametrize(
    ("given", "message"),
    [(iter([1]), "pass a DataLoader"), (3, "of type int"), ([], "no batches"),
     (type("Endless", (), {"__iter__": iter})(), "no length")],
)  # fmt: skip
def test_objects_that_are_not_loaders_are_refused(given, message):
    with pytest.raises(TeachbackError, match=message):
        UserLoader(given, "train_loader")


@pytest.mark.parametrize(
    ("batches", "message"),
    [([(IDS, IDS, IDS, torch.tensor([0, 1, 2, 0]))], r"test_loader, batch 1: labels are \[0, 1, 2\]; expected whole numbers from 0 to 1"),
     ([(IDS, IDS, IDS, torch.tensor([0.2, 1.7, 0, 1]))], "expected whole numbers from 0 to 1"), ([{"input_ids": IDS}], "test_loader, batch 1: expected tensors")],
)  # fmt: skip
def test_a_malformed_test_loader_is_refused_before_training(batches, message, models, tmp_path):
    model = MPDistil("toy", 2, teacher_model=models / "big", student_model=models / "small", device="cpu", output_dir=tmp_path / "out")
    with pytest.raises(TeachbackError, match=message):
        model.train(loader(models, 16, 0), loader(models, 8, 1), batches)
    assert not (tmp_path / "out").exists()


def test_loaders_with_missing_labels_are_recognised():
    def of(*labels, regression=False):
        return UserLoader([(IDS, IDS, IDS, *part) for part in labels], "test").is_labelled(regression)

    ones = torch.ones(4)
    assert of([ones.long()]) and of([torch.arange(4) + 5]) and not of([ones.long()], [-ones.long()]) and not of([])
    assert of([-ones], regression=True) and not of([ones * math.nan], regression=True)


def test_padding_is_removed_from_rows_on_either_side():
    left = torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    right = torch.tensor([[7, 8], [9, 0]]), torch.tensor([[1, 1], [1, 0]])
    passed = [(ids, mask, 0 * ids, torch.tensor([1, 0])) for ids, mask in (left, right)]
    rows = UserLoader(passed, "train").rows(TASK, 60)
    assert [ids.tolist() for ids in rows.inputs["input_ids"]] == [[7, 8], [5, 6, 7, 8], [7, 8], [9]]
    assert rows.columns["label"].tolist() == [1, 0, 1, 0]
    assert len(set(keys_of(rows))) == 3 and rows.batches == [[0, 1], [2, 3]]


def test_create_simple_dataloader_reads_texts_and_pairs():
    single = create_simple_dataloader(["good plot", "bad"], [1, 0], tokenizer(), batch_size=2, shuffle=False)
    ids, mask, types, labels = next(iter(single))
    assert ids.tolist() == [[2, 5, 7, 3], [2, 6, 3, 0]] and mask.sum(1).tolist() == [4, 3] and labels.tolist() == [1, 0]
    pair = create_simple_dataloader([("good", "bad plot paper")], None, tokenizer(), max_length=6)
    ids, mask, types = next(iter(pair))
    assert ids.tolist() == [[2, 5, 3, 6, 7, 3]] and types.tolist() == [[0, 0, 0, 1, 1, 1]]
    learnt = create_simple_dataloader(*toy(8, 0), "scratch:tiny")
    assert "good" in learnt.dataset.tokenizer.get_vocab()
    for length in (0, 3):
        with pytest.raises(TeachbackError, match=f"max_length={length}: must be at least 4"):
            create_simple_dataloader(["good"], [0], tokenizer(), max_length=length)
    for texts, labels, message in (
        (["a"], [0, 1], "1 texts and 2 labels"), ([3], [0], r"texts\[0\] is 3"), (["a"], ["x"], "must be numbers"),
    ):  # fmt: skip
        with pytest.raises(TeachbackError, match=message):
            create_simple_dataloader(texts, labels, tokenizer())


def archive(folder: Path, task: str, lines: list[dict]) -> None:
    """Write a SuperGLUE archive with the same lines in train, val and, without labels, test."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{task}.zip", "w") as file:
        for part in ("train", "val", "test"):
            hidden = ("label",) if part == "test" else ()
            rows = [{k: v for k, v in line.items() if k not in hidden} | {"idx": i} for i, line in enumerate(lines)]
            file.writestr(f"{task}/{part}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def test_superglue_is_read_from_the_data_folder_of_the_stages(tmp_path, capsys):
    labels = ["entailment", "contradiction", "neutral"]
    archive(
        tmp_path / "there",
        "CB",
        [{"premise": f"good {i}", "hypothesis": "plot", "label": labels[i % 3]} for i in range(30)],
    )
    places = {"data_dir": tmp_path / "data", "tokenizer_name": tokenizer()}
    with pytest.raises(TeachbackError, match="expected 250, found 30"):
        load_superglue_dataset("CB", source=str(tmp_path / "there"), **places)
    loaders, count = load_superglue_dataset("cb", source=str(tmp_path / "there"), allow_partial=True, **places)
    assert count == 3 and {name: len(one.dataset) for name, one in loaders.items()} == {
        "train": 27,
        "val": 3,
        "test": 30,
    }
    assert next(iter(loaders["test"]))[3].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert loaders["train"].dataset.label_names == tuple(labels)
    loaders, _ = load_superglue_dataset("CB", protocol="paper", max_samples=10, **places)  # the data are in the folder already
    assert {name: len(one.dataset) for name, one in loaders.items()} == {"train": 10, "val": 5, "test": 5}
    assert len(next(iter(loaders["test"]))) == 3
    with pytest.raises(TeachbackError, match="'CD' is unknown; SuperGLUE has: BoolQ, CB"):
        load_superglue_dataset("CD", **places)


def test_multiple_choice_works_from_the_archive_to_predictions(models, tmp_path):
    line = {"premise": "good plot", "choice1": "watch it", "choice2": "never", "question": "effect"}
    archive(
        tmp_path / "there", "COPA", [line | {"premise": f"{WORDS[i % 15]} plot", "label": i % 2} for i in range(20)]
    )
    loaders, count = load_superglue_dataset(
        "COPA", str(models / "big"), data_dir=tmp_path / "data", source=str(tmp_path / "there"), allow_partial=True
    )
    assert next(iter(loaders["train"]))[0].shape[:2] == (8, 2) and count == 2
    model = MPDistil(
        "COPA", count, "auto", models / "small", models / "small", 1, "cpu", tmp_path / "run", precision="fp32"
    )
    history = model.train(loaders["train"], loaders["val"], meta_loaders={"toy": loader(models, 12, 1)}, **QUICK)
    assert history["phase4"]["rewards"] and model.student.config.num_labels == 1
    assert set(model.predict(loaders["test"])) <= {0, 1} and len(model.predict(loaders["test"])) == 20


@pytest.mark.parametrize(
    ("name", "task", "regression", "metric"),
    [("auto", "CB", False, "f1"), ("auto", "cola", False, "mcc"), ("auto", "mine", False, "accuracy"),
     ("auto", "mine", True, "correlation"), ("mcc", "CB", False, "mcc"), ("auto", "MRPC", False, "binary_f1"),
     ("f1", "qqp", False, "binary_f1"), ("f1", "mine", False, "f1"), ("binary_f1", "mine", False, "binary_f1")],
)  # fmt: skip
def test_the_metric_is_chosen_by_name_and_task(name, task, regression, metric):
    assert chosen_metric(name, task, regression) == metric


def test_metric_values_equal_hand_computed_ones():
    logits = np.array([[2.0, 1], [0, 1], [0, 1], [0, 1]])
    values = metric_values("f1", np.array([0, 1, 1, 0]), logits)
    assert values["acc"] == 0.75 and values["f1"] == values["score"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert values["acc_and_f1"] == pytest.approx((values["acc"] + values["f1"]) / 2)
    binary = metric_values("binary_f1", np.array([0, 1, 1, 0]), logits)
    assert binary["f1"] == binary["score"] == pytest.approx(0.8) and binary["acc"] == 0.75
    with pytest.raises(TeachbackError, match="binary_f1.*num_labels=3"):
        chosen_metric("binary_f1", "mine", False, 3)
    assert metric_values("correlation", np.array([1.0, 2, 3]), np.array([[2.0], [4], [6]]))["corr"] == pytest.approx(1)
    for wrong, regression in (("rouge", False), ("correlation", False), ("accuracy", True)):
        with pytest.raises(TeachbackError, match=wrong):
            chosen_metric(wrong, "mine", regression)


def test_new_students_are_loaded_whole_cut_or_taken_from_the_teacher(models):
    teacher = Teacher(classifier(layers=3, seed=5), "single", [TASK], transferable=False)
    name, first = str(models / "big"), tokenizer()
    assert new_student(name, -1, TASK, first, "data").config.num_hidden_layers == 2
    assert new_student(name, 1, TASK, first, "data").config.num_hidden_layers == 1
    cut = new_student(name, "1,3", TASK, first, "data", teacher)
    assert torch.equal(cut.classifier.weight, teacher.classifier.model.classifier.weight)
    assert cut.config.num_hidden_layers == 2 and cut.config.id2label == dict(enumerate(LABELS))
    with pytest.raises(TeachbackError, match="student_layers.: the model has 2"):
        new_student(name, 6, TASK, first, "data")


def test_token_fields_of_models_and_the_choice_of_their_tokenizer(models):
    fields = {kind: len(token_fields(classifier(kind))) for kind in ("bert", "roberta", "distilbert", "electra")}
    assert fields == {"bert": 3, "roberta": 3, "distilbert": 2, "electra": 3}
    name, scratch = str(models / "big"), "scratch:tiny"
    both = tokenizers_of((name, scratch), None, None, "data")
    assert both[1] is both[0] and tokenizers_of((scratch, scratch), both[0], None, "data") == [both[0]] * 2
    with pytest.raises(TeachbackError, match="tokenizer="):
        tokenizers_of((scratch, scratch), None, None, "data")


def test_metakd_trains_a_student_for_each_domain_of_a_table(models, tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    texts, labels = toy(60, 0)
    names = ["books", "films", "other"]
    table = {"text_a": texts, "label": [LABELS[i] for i in labels], "domain": [names[i // 2 % 3] for i in range(60)]}
    model = MetaKD(names[:2], models / "small", models / "small", device="cpu", output_dir=".", precision="fp32")
    monkeypatch.chdir(models)  # a relative output_dir is resolved when it is given
    with pytest.raises(TeachbackError, match="lacks domain"):
        model.train({"text_a": texts, "label": labels})
    epochs = {"teacher_epochs": 1, "first_epochs": 1, "second_epochs": 1}
    found = model.train(pandas.DataFrame(table), **epochs)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("outputs/**/stage.json")}
    assert len(made) == 5 and model.train(table, **epochs) == found
    assert made == {path: path.stat().st_mtime_ns for path in made}  # every stage was up to date
    assert set(found) == {"teacher", "books", "films"} and set(found["books"]) == {"dev", "test"}
    assert set(model.students) == {"books", "films"} and set(model.predict(texts[:9], "films")) <= set(LABELS)
    said, sure = model.predict(texts[:9], "films"), model.predict_proba(texts[:9], "films")
    assert said == [max(one, key=one.get) for one in sure] and all(abs(sum(one.values()) - 1) < 1e-5 for one in sure)
    assert model.predict(texts[0], "films") == said[0] and set(model.predict_proba(texts[0], "films")) == set(LABELS)
    assert model.predict([], "films") == model.predict_proba([], "films") == []
    dropped = model.train({name: [*values, values[0] * (name != "text_a")] for name, values in table.items()},
                          skip_bad_rows=True, **epochs)  # fmt: skip
    assert dropped == found
    pandas.DataFrame(table).to_csv(tmp_path / "rows.csv", index=False)
    assert set(model.train(tmp_path / "rows.csv", **epochs)) == set(found)
    model.save_student("books", tmp_path / "mine")
    scores = {
        result.dataset_split: result.metric_value
        for result in ModelCard.load(tmp_path / "mine/README.md").data.eval_results
    }
    assert scores == {
        "dev": pytest.approx(found["books"]["dev"]["books_accuracy"]),
        "test": pytest.approx(found["books"]["test"]["accuracy"]),
    }
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "mine").config.id2label == dict(
        enumerate(LABELS)
    )
    with pytest.raises(TeachbackError, match="no student of 'other'; available: books, films"):
        model.predict(texts, "other")


def test_the_worked_example_of_the_documentation_runs(models, tmp_path, monkeypatch):
    """The example of docs/api.md runs with a two-layer model in place of BERT."""
    example = (ROOT / "docs/api.md").read_text(encoding="utf-8").split("## Loaders")[0]
    train, use, _ = re.findall("```python\n(.*?)```", example, re.DOTALL)
    small = train.replace("student_layers=6", 'student_layers=2, device="cpu", teacher_model=BIG, student_model=BIG')
    monkeypatch.chdir(tmp_path)
    code = (small + use).replace('"bert-base-uncased"', "BIG")
    exec(code, {"BIG": str(models / "big")})
    assert (tmp_path / "tickets/answers.tsv").read_text().split("\t")[-1] in ("urgent\n", "later\n")
    assert AutoModelForSequenceClassification.from_pretrained("tickets/mine").config.id2label == {
        0: "urgent",
        1: "later",
    }


def test_importing_the_package_loads_no_pytorch():
    code = "import sys, teachback; assert 'torch' not in sys.modules and 'MPDistil' in dir(teachback), 1"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, check=True)
    with pytest.raises(AttributeError, match="MPDistill"):
        teachback.MPDistill


def test_each_public_name_can_be_imported_first():
    code = """
import importlib, sys
for name in importlib.import_module("teachback").__all__:
    for module in [module for module in sys.modules if module.split(".")[0] == "teachback"]:
        del sys.modules[module]
    getattr(importlib.import_module("teachback"), name)
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
