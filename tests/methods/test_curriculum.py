"""Stage 6 on two-layer models: what a step does, what is written, that a seed fixes it, and that it goes on when killed."""

import copy
import json
import math
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import BOOKS, GENRE, NO_DROPOUT, classifier, text_rows, tiny_teacher, tokenizer
from transformers import AutoModelForSequenceClassification

from teachback.core.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE, CurriculumArguments
from teachback.core.errors import Stopped, TeachbackError
from teachback.core.parsing import parse
from teachback.core.published import read_stage
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import encode
from teachback.data.schema import (
    TRAIN_COLUMNS,
    Domain,
    Row,
    Suite,
    read_rows,
    read_suite,
    with_row_counts,
    write_rows,
    write_suite,
)
from teachback.data.suites import SUITES
from teachback.methods import curriculum_record
from teachback.methods.curriculum import Curriculum, DomainQuiz, Student, halves
from teachback.methods.curriculum_record import chosen_shares, moving_mean, write_record
from teachback.methods.losses import curriculum_student_loss
from teachback.methods.meta_teacher import MetaTeacher, load_meta_teacher, meta_heads
from teachback.methods.policy import Choice
from teachback.methods.predictions import TeacherStep
from teachback.models.heads import Classifier
from teachback.stages import stage6_curriculum as curriculum_run
from teachback.stages.context import Context
from teachback.stages.distillation import distil
from teachback.stages.stage3_teacher import train_teachers
from teachback.stages.stage6_curriculum import CurriculumRun, run_curriculum
from teachback.training.checkpoints import load_state, save_state


@pytest.fixture(autouse=True)
def no_drawing(request, monkeypatch):
    """Leave the plots' files empty but in the test that looks at them: drawing takes longer than studying."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr(curriculum_record, "save_png", lambda plot, path, title: path.touch())


# The parts, on models in memory


def study(name: str, head: int, meta_head: str, seed: int, flipped: bool = False) -> DomainQuiz:
    rows = text_rows(12)
    random.Random(seed).shuffle(rows)
    encoded = encode(rows, tokenizer(), 16)
    labels = torch.tensor([int(row.label == "positive") for row in rows])
    encoded.columns = {"label": 1 - labels if flipped else labels}
    return DomainQuiz(name, encoded, head, meta_head, torch.full((12,), 0.5))


def curriculum(units: torch.Tensor | None = None, **arguments) -> Curriculum:
    """Two domains: ``books``, the target, and ``wrong``, the same texts with flipped labels."""
    args = CurriculumArguments(**{"batch_size": 4, "curriculum_lr": 1e-2, "policy": "target_only", **arguments})
    OptimizerArguments().training_arguments("cpu", "fp32")  # sets up the one process that accelerate then finds
    model = classifier(seed=1, **NO_DROPOUT)
    student = Classifier(model, {"sentiment": BOOKS, "topic": GENRE})
    meta = MetaTeacher(meta_heads(tiny_teacher(), [BOOKS]), 32).requires_grad_(False)
    studies = [study("books", 0, "sentiment", 1), study("wrong", 0, "sentiment", 2, flipped=True)]
    torch.manual_seed(args.seed)
    return Curriculum(Student(student, meta, args, Accelerator(cpu=True), 0), studies, 0, args, units)


def rewards_of_always(domain: int, **arguments) -> list[float]:
    """The rewards of an episode in which one domain is studied at every step."""
    run = curriculum(**arguments)
    run._choose = lambda position, part: Choice(domain, 1.0)
    run.run_episode()
    return [step["reward"] for step in run.record.steps]


@pytest.mark.parametrize("advantage", ["level", "improvement"])
@pytest.mark.parametrize("reward_rows", ["held_out", "all"])
def test_the_reward_changes_when_the_action_does(advantage, reward_rows):
    right, wrong = (rewards_of_always(i, reward="real", advantage=advantage, reward_rows=reward_rows) for i in (0, 1))
    assert all(a != b for a, b in zip(right, wrong))
    if reward_rows == "all":
        assert sum(right) > sum(wrong)


def test_with_one_update_an_episode_no_reward_can_depend_on_the_action():
    right, wrong = (rewards_of_always(i, reward="real", student_update="episode") for i in (0, 1))
    assert right == wrong and all(right)


def test_the_loss_scale_of_fp16_goes_on_in_a_resumed_run(tmp_path):
    run, resumed = curriculum(), curriculum()
    for one, scale in ((run, 8.0), (resumed, 65536.0)):
        one.student.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        one.student.accelerator.scaler.scale(torch.ones(()))  # its tensor is made at the first use
    save_state(tmp_path / "state", run.state())
    resumed.load_state(load_state(tmp_path / "state"))
    assert resumed.student.accelerator.scaler.get_scale() == 8
    resumed.load_state({name: value for name, value in run.state().items() if name != "scaler"})  # as earlier versions wrote it


def test_an_episode_that_is_learnt_from_at_its_end_has_no_improvements_to_reward():
    args = CurriculumArguments(student_update="episode")
    assert (args.advantage, args.gamma, args.reward_rows) == ("level", 0.99, "held_out")
    with pytest.raises(TeachbackError, match="ADVANTAGE=improvement is 0 at every step with STUDENT_UPDATE=episode"):
        CurriculumArguments(student_update="episode", advantage="improvement")


def test_the_student_learns_even_so_at_the_end_of_the_episode():
    run = curriculum(student_update="episode")
    before = run.student.classifier.model.classifier.weight.detach().clone()
    run.run_episode()
    assert not torch.equal(run.student.classifier.model.classifier.weight, before)


def test_a_reward_is_the_level_by_hand():
    run = curriculum(reward="real", advantage="level", reward_rows="all")
    rows = torch.arange(4)
    expected = (run.student.certainty(run.studies[0], rows) - 0.5).sum().item() / 12
    assert run._level(rows) == pytest.approx(expected)
    run.args.reward = "binary"
    sure = run.student.certainty(run.studies[0], rows) > 0.5
    assert run._level(rows) == pytest.approx(sure.sum().item() / 12)


def test_improvements_add_up_to_what_the_episode_changed():
    run = curriculum(reward="real", advantage="improvement", reward_rows="all", episode_steps=5)
    everything = torch.arange(12)
    before = run._level(everything)
    run.run_episode()
    rewards = [step["reward"] for step in run.record.steps]
    assert len(rewards) == 5 and sum(rewards) == pytest.approx(run._level(everything) - before, abs=1e-6)


def test_held_out_rows_are_never_learnt_from():
    run = curriculum(reward_rows="held_out", episode_steps=9)
    learnt = []
    learn = run.student.learn
    run.student.learn = lambda study, rows, *more: learnt.extend(rows.tolist()) or learn(study, rows, *more)
    run.run_episode()
    assert set(learnt) and not set(learnt) & set(run.rewarded_on.tolist())


def test_both_halves_of_a_quiz_have_its_labels_in_the_same_shares():
    labels = torch.tensor([1] * 11 + [0] * 10 + [2])
    splits = [halves(labels, seed) for seed in range(5)]
    for learnt, rewarded in splits:
        assert sorted([*learnt.tolist(), *rewarded.tolist()]) == list(range(22)) and len(learnt) == len(rewarded)
        counts = [torch.bincount(labels[rows], minlength=3) for rows in (learnt, rewarded)]
        assert (counts[0] - counts[1]).abs().max() <= 1
    assert len({tuple(learnt.tolist()) for learnt, _ in splits}) == 5  # which rows of a label is the seed's choice
    assert [len(rows) for rows in halves(torch.zeros(7, dtype=torch.long), 1)] == [3, 4]


def test_rows_that_belong_together_are_in_one_half():
    labels, units = torch.tensor([0, 1] * 12), torch.arange(24) // 3 * 3
    for seed in range(5):
        learnt, rewarded = halves(labels, seed, units)
        assert sorted([*learnt.tolist(), *rewarded.tolist()]) == list(range(24)) and len(learnt) == len(rewarded)
        assert not set(units[learnt].tolist()) & set(units[rewarded].tolist())


def test_a_quiz_on_one_text_is_learnt_from_and_rewarded_on_as_a_whole():
    run = curriculum(units=torch.zeros(12, dtype=torch.long), reward_rows="held_out")
    run.run_episode()
    assert run.learnt_from[0].tolist() == run.rewarded_on.tolist() == list(range(12))


def test_both_halves_of_a_regression_quiz_have_low_and_high_numbers():
    numbers = torch.linspace(0, 5, 41)
    learnt, rewarded = (numbers[rows].mean().item() for rows in halves(numbers, 3))
    assert learnt == pytest.approx(2.5) and rewarded == pytest.approx(2.5)


def test_the_policy_learns_from_a_first_action_that_is_drawn_unless_it_is_ignored():
    for first, learns in (("learnt", True), ("ignored", False)):
        run = curriculum(policy="learned", first_action=first, episode_steps=1, reward="real", policy_lr=0.1)
        run.baseline = 1.0  # one step alone is its own baseline
        run.run_episode()
        assert bool(run.policy.choice.bias.abs().sum() > 0) == learns
        assert run.record.steps[0]["probability"] == 0.5


def test_a_first_action_counts_by_what_the_policy_thinks_of_it():
    run = curriculum(policy="learned")
    with torch.no_grad():
        run.policy.choice.bias.copy_(torch.tensor([math.log(3), 0.0]))
    firsts = [run._choose(0, 0.0) for _ in range(20)]
    assert {(choice.action, round(choice.weight, 6)) for choice in firsts} == {(0, 1.5), (1, 0.5)}
    assert {choice.probability for choice in firsts} == {0.5} and run._choose(1, 0.5).weight == 1.0


@pytest.mark.parametrize("policy", ["learned", "uniform", "round_robin"])
def test_the_target_can_be_left_out_of_the_choice(policy):
    run = curriculum(policy=policy, choose_from="others", episode_steps=3)
    run.run_episode()
    assert {step["domain"] for step in run.record.steps} == {"wrong"}
    assert run.record.steps[0]["probability"] == 1.0


@pytest.mark.parametrize("state", ["progress", "pooler"])
def test_the_policy_learns_and_no_gradient_of_it_reaches_the_student(state):
    run = curriculum(policy="learned", state=state, policy_lr=0.1, episode_steps=4, reward="real")
    seen = []
    loss = run._learn_to_choose

    def watch(steps):
        before = [p.detach().clone() for p in run.student.classifier.parameters()]
        grads = [None if p.grad is None else p.grad.clone() for p in run.student.classifier.parameters()]
        loss(steps)
        after = run.student.classifier.parameters()
        seen.append(all(torch.equal(a, b) for a, b in zip(before, after)))
        seen.append(all((g is None) == (p.grad is None) for g, p in zip(grads, run.student.classifier.parameters())))

    run._learn_to_choose = watch
    policy = {name: value.detach().clone() for name, value in run.policy.state_dict().items()}
    for _ in range(3):
        run.run_episode()
    assert all(seen) and len(seen) == 6
    assert any(not torch.equal(value, policy[name]) for name, value in run.policy.state_dict().items())


def test_the_state_changes_from_step_to_step():
    run = curriculum(policy="learned")
    first = run._state(0.0)
    run.run_episode()
    assert not torch.equal(run._state(0.0), first)
    pooler = curriculum(policy="learned", state="pooler")
    first = pooler._state(0.0)
    pooler.run_episode()
    assert not torch.equal(pooler._state(0.0), first) and not pooler._state(0.0).requires_grad


@pytest.mark.parametrize("policy", ["learned", "bandit", "ucb"])
def test_a_policy_learns_to_avoid_the_harmful_domain(policy):
    run = curriculum(
        policy=policy, policy_lr=0.1, reward="real", reward_rows="all", curriculum_lr=2e-3, episode_steps=6, seed=1
    )
    for _ in range(20):
        run.run_episode()
    late = [step for step in run.record.steps if step["episode"] >= 10 and step["step"] > 0]
    assert sum(step["domain"] == "books" for step in late) / len(late) > 0.7


# What is written


def test_moving_mean_and_shares_by_hand():
    assert moving_mean([1.0, 3.0, 5.0, 7.0], window=2).tolist() == [1, 2, 4, 6]
    steps = [{"episode": e, "domain": d} for e, d in ((0, "a"), (0, "b"), (1, "a"), (1, "a"))]
    assert chosen_shares(steps, ["a", "b", "c"], 2).tolist() == [[0.5, 0.5, 0], [1, 0, 0]]


def test_rewards_and_choices_are_drawn_and_tabulated(tmp_path):
    episode = {"episode": 0, "steps": 2, "reward": 0.5, "student_loss": 1.0, "policy_loss": 0.0, "entropy": 0.7}
    step = {"episode": 0, "step": 0, "domain": "a", "reward": 0.25, "probability": 0.5}
    write_record(tmp_path, [episode, episode | {"episode": 1}], [step, step | {"episode": 1}], ["a", "b"])
    assert (tmp_path / "rewards.tsv").read_text().splitlines()[1] == "0\t2\t0.5\t1.0\t0.0\t0.7"
    assert (tmp_path / "trajectory.tsv").read_text().splitlines()[2] == "1\t0\ta\t0.25\t0.5"
    for name in ("rewards.png", "domains.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


# The stage, on domains with different heads

DOMAINS = {
    "books": Domain("books", "sentiment", ("negative", "positive")),
    "genre": Domain("genre", "topic", ("fact", "fiction", "verse")),
    "quest": Domain("quest", "quest", ("choice1", "choice2"), kind="choices"),
    "score": Domain("score", "score", (), "pearson+spearman", task="regression"),
}


def row(number: int, domain: str) -> Row:
    generator = random.Random(f"{number} {domain}")
    words = " ".join(
        generator.choices(["the", "a", "plot", "disc", "was", "is", "very", "quite"], k=generator.randint(2, 6))
    )
    if domain == "quest":
        right, wrong = f"{words} good", f"{words} bad"
        choices = (right, wrong) if number % 2 == 0 else (wrong, right)
        return Row(f"quest-{number}", words, " ||| ".join(choices), ("choice1", "choice2")[number % 2], domain)
    if domain == "score":
        return Row(f"score-{number}", f"{words} {'good ' * (number % 3)}", "", str(float(number % 3)), domain)
    labels = DOMAINS[domain].labels
    label = labels[number % len(labels)]
    return Row(f"{domain}-{number}", f"{words} {label}", "", label, domain)


def write_mixed_suite(data_dir: Path) -> None:
    folder, rows = data_dir / "mixed", {}
    for split, first, last in (("train", 0, 24), ("quiz", 24, 40), ("dev", 40, 48), ("test", 48, 56)):
        rows[split] = [row(number, domain) for domain in DOMAINS for number in range(first, last)]
        write_rows(folder / f"{split}.tsv", rows[split], TRAIN_COLUMNS if split == "train" else TRAIN_COLUMNS[:-1])
    write_suite(folder, with_row_counts(Suite("mixed", DOMAINS), rows))


def places(root: Path, *more: str) -> list[str]:
    return [
        "--suite", "mixed", "--data_dir", str(root / "data"), "--output_root", str(root / "outputs"),
        "--device", "cpu", "--precision", "fp32", "--max_length", "24", *more,
    ]  # fmt: skip


def make_students(root: Path, domain: str, method: str = "mpdistil", *more: str) -> None:
    """Stages 3 to 5."""
    train = places(root, "--domain", domain, "--per_device_train_batch_size", "8", "--learning_rate", "1e-3", *more)
    short = [*train, "--num_train_epochs", "1", "--logging_steps", "2"]
    teacher = ["--teacher", "single", "--teacher_model", "scratch:tiny"]
    train_teachers(*parse(*TEACHER_STAGE, argv=[*short, *teacher]))
    student = ["--teacher", "single", "--student_model", "scratch:tiny", "--first", "none", "--method", method]
    for stage in ("first", "second"):
        distil(*parse(*STUDENT_STAGES, argv=[*short, *student, "--stage", stage]))


def study_on(root: Path, domain: str, *more: str) -> Path:
    argv = places(root, "--domain", domain, "--teacher", "single", "--episodes", "4", "--eval_every", "2")
    return run_curriculum(
        *parse(*CURRICULUM_STAGE, argv=[*argv, "--batch_size", "4", "--episode_steps", "4", "--curriculum_lr", "1e-3", *more])
    )[0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder in which stages 3 to 5 ran for a domain of each kind."""
    root = tmp_path_factory.mktemp("mixed")
    write_mixed_suite(root / "data")
    for domain in DOMAINS:
        make_students(root, domain)
    return root


@pytest.fixture
def root(prepared, tmp_path) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_tensorboard_gets_reward_entropy_probabilities_and_scores(root):
    folder = study_on(root, "books", "--report_to", "tensorboard")
    read = EventAccumulator(str(folder.parent.parent / "logs/books/curriculum")).Reload()
    shares = [name for name in read.Tags()["scalars"] if name.startswith("policy/probability of ")]
    assert len(shares) == len(DOMAINS)
    by_episode = [[event.value for event in read.Scalars(name)] for name in shares]
    assert [sum(values) for values in zip(*by_episode)] == pytest.approx([1.0] * 4)
    assert [event.step for event in read.Scalars("train/reward")] == [1, 2, 3, 4]
    assert [event.step for event in read.Scalars("eval/books_score")] == [0, 2, 4]
    assert all(event.value > 0 for event in read.Scalars("policy/entropy"))


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_domains_with_different_heads_in_one_run(root, domain):
    folder = study_on(root, domain, "--policy", "round_robin")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.num_labels == {"genre": 3, "books": 2}.get(domain, 1)
    lines = [line.split("\t") for line in (folder / "trajectory.tsv").read_text().splitlines()]
    assert lines[0] == ["episode", "step", "domain", "reward", "probability"] and len(lines) == 1 + 4 * 4
    assert {line[2] for line in lines[1:]} == set(DOMAINS)
    assert {path.name for path in folder.iterdir()} >= {
        "stage.json", "last", "training_only.safetensors", "rewards.tsv", "trajectory.tsv", "rewards.png", "domains.png",
    }  # fmt: skip
    assert (folder / "last" / "model.safetensors").is_file()
    teacher, _ = load_meta_teacher(folder.parent / "meta_teacher", read_suite(root / "data" / "mixed"))
    assert teacher.domains[0].name == domain and len(teacher.domains) == 4


def test_stage_json_tells_what_was_selected_and_on_what(root):
    folder = study_on(root, "books")
    record = read_stage(folder)
    assert record["method"] == "curriculum" and record["selected_on"] == "dev" and record["domain"] == "books"
    scores = {int(episode): score for episode, score in record["scores_by_episode"].items()}
    assert sorted(scores) == [0, 2, 4] and scores[record["best_episode"]] == max(scores.values())
    assert json.dumps(record["arguments"]["gamma"]) == "0.0"
    again = load_file(folder / "training_only.safetensors")
    assert {name.split(".")[0] for name in again} == {"policy", "other_heads"}


def test_questions_on_one_text_are_on_one_side_of_the_quiz(root, monkeypatch):
    described = root / "data/mixed/suite.json"
    suite = json.loads(described.read_text())
    suite["domains"]["books"]["marks"] = ["*"]
    described.write_text(json.dumps(suite))
    rows = list(read_rows(root / "data/mixed/quiz.tsv"))
    other_half = {}  # a row of books -> the one before it, whose text it has with another mark
    own = [row for row in rows if row.domain == "books"]
    for first, second in zip(own[::2], own[1::2]):
        other_half |= {first.guid: second.guid, second.guid: first.guid}
    texts = {second.guid: f"*{first.text_a}" for first, second in zip(own[::2], own[1::2])}
    write_rows(root / "data/mixed/quiz.tsv", [replace(row, text_a=texts.get(row.guid, row.text_a)) for row in rows])
    made = []
    monkeypatch.setattr(curriculum_run, "Curriculum", lambda *more: made.append(Curriculum(*more)) or made[-1])
    study_on(root, "books")
    guids = made[0].studies[made[0].target].rows.guids
    learnt = {guids[place] for place in made[0].learnt_from[made[0].target].tolist()}
    assert learnt and {other_half[guid] for guid in learnt} == learnt


def test_a_seed_reproduces_the_whole_stage(root, prepared, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    shutil.copytree(prepared, other, dirs_exist_ok=True)
    first, second = (study_on(place, "books") for place in (root, other))
    for name in ("rewards.tsv", "trajectory.tsv"):
        assert (first / name).read_text() == (second / name).read_text()
    assert same(first, second) and same(first / "last", second / "last")
    third = study_on(other, "books", "--seed", "42", "--policy_lr", "0.5")
    assert (first / "trajectory.tsv").read_text() != (third / "trajectory.tsv").read_text()


def test_a_finished_stage_does_nothing_when_run_again(root, capsys):
    folder = study_on(root, "books")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    study_on(root, "books")
    assert capsys.readouterr().out.count("is up to date") == 2
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_stage_that_is_told_to_stop_writes_a_checkpoint_and_ends_the_same(
    root, prepared, tmp_path_factory, monkeypatch
):
    whole = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, whole, dirs_exist_ok=True)
    uninterrupted = study_on(whole, "books")
    run_episode, episodes = Curriculum.run_episode, []

    def stop(self):
        episodes.append(self.episode)
        if self.episode == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        run_episode(self)

    monkeypatch.setattr(Curriculum, "run_episode", stop)
    with pytest.raises(Stopped, match="episode 3 of 4 was saved as a checkpoint"):
        study_on(root, "books")
    folder = study_on(root, "books")
    assert episodes == [0, 1, 2, 3]
    assert same(folder, uninterrupted) and same(folder / "last", uninterrupted / "last")
    assert (folder / "trajectory.tsv").read_text() == (uninterrupted / "trajectory.tsv").read_text()


@pytest.mark.parametrize(
    ("damaged", "policy"), [(False, "learned"), (True, "learned"), (False, "bandit")], ids=["whole", "newest checkpoint damaged", "bandit"]
)
def test_an_interrupted_stage_continues_and_ends_the_same(damaged, policy, root, prepared, tmp_path_factory, monkeypatch, caplog):
    whole = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, whole, dirs_exist_ok=True)
    uninterrupted = study_on(whole, "books", "--policy", policy)
    run_episode = Curriculum.run_episode

    def stop(self):
        if self.episode == 3:
            raise KeyboardInterrupt
        run_episode(self)

    monkeypatch.setattr(Curriculum, "run_episode", stop)
    with pytest.raises(KeyboardInterrupt):
        study_on(root, "books", "--policy", policy)
    assert not (root / "outputs/mixed/seed42/books/curriculum").exists()
    checkpoints = root / "outputs/mixed/seed42/books/.curriculum.partial/checkpoints"
    (checkpoints / "partial").mkdir()
    if damaged:
        path = checkpoints / "episode-000002/state.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    episodes = []
    monkeypatch.setattr(Curriculum, "run_episode", lambda self: episodes.append(self.episode) or run_episode(self))
    folder = study_on(root, "books", "--policy", policy)
    assert episodes == ([0, 1, 2, 3] if damaged else [2, 3])
    assert ("episode-000002 is damaged and not used: state.safetensors has changed" in caplog.text) == damaged
    assert same(folder, uninterrupted) and same(folder / "last", uninterrupted / "last")
    for name in ("rewards.tsv", "trajectory.tsv"):
        assert (folder / name).read_text() == (uninterrupted / name).read_text()


@pytest.mark.parametrize(
    "change",
    [
        ("--policy", "uniform"), ("--policy", "target_only"), ("--policy", "round_robin"), ("--policy", "bandit"), ("--policy", "ucb"), ("--state", "pooler"),
        ("--reward", "binary"), ("--advantage", "level"), ("--gamma", "0.9"), ("--entropy_weight", "0.5"), ("--first_action", "ignored"), ("--choose_from", "others"),
        ("--reward_rows", "all"), ("--student_update", "episode"), ("--student_update", "released"), ("--curriculum_lr", "1e-4"), ("--policy_lr", "0.9"),
        ("--episode_steps", "2"), ("--batch_size", "3"), ("--meta_loss", "competitive"), ("--meta_epochs", "3"),
        ("--meta_gradient", "flow"), ("--meta_lr", "0.1"), ("--domains", "books genre"), ("--seed", "42", "--episodes", "3"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_argument_has_an_effect(root, change, standard):
    folder = study_on(root, "books", *change)
    assert (folder / "trajectory.tsv").read_text() != standard[0] or not all(
        torch.equal(value, standard[1][name]) for name, value in weights(folder / "last").items()
    )


@pytest.fixture(scope="module")
def standard(prepared, tmp_path_factory) -> tuple[str, dict[str, torch.Tensor]]:
    place = tmp_path_factory.mktemp("standard")
    shutil.copytree(prepared, place, dirs_exist_ok=True)
    folder = study_on(place, "books")
    return (folder / "trajectory.tsv").read_text(), weights(folder / "last")


def test_the_papers_protocol_selects_on_the_reported_rows_where_the_paper_did(root, monkeypatch):
    monkeypatch.setitem(SUITES, "mixed", SUITES["superglue"])
    folder = study_on(root, "books", "--protocol", "paper")
    assert read_stage(folder)["selected_on"] == "test"


def test_the_best_student_is_kept_and_the_last_beside_it(root, monkeypatch):
    scores = iter([0.5, 0.9, 0.1])
    monkeypatch.setattr(CurriculumRun, "_selection_score", lambda self, student: next(scores))
    folder = study_on(root, "books", "--curriculum_lr", "1e-2")
    assert read_stage(folder)["best_episode"] == 2 and not same(folder, folder / "last")


def test_a_loss_that_is_no_number_names_step_rate_and_rows(root, monkeypatch):
    def spoilt(*arguments):
        calls.append(1)
        return curriculum_student_loss(*arguments) * (torch.nan if len(calls) == 3 else 1)

    calls = []
    monkeypatch.setattr("teachback.methods.curriculum.curriculum_student_loss", spoilt)
    message = r"nan at step 1 of episode 2, on \w+, with learning rate 3e-05, on the rows \w+-\d+"
    with pytest.raises(TeachbackError, match=message):
        study_on(root, "books", "--episode_steps", "2", "--curriculum_lr", "3e-5")


def test_without_a_quiz_it_says_how_to_get_one(root):
    folder = root / "data/mixed"
    write_rows(folder / "quiz.tsv", [], TRAIN_COLUMNS[:-1])
    suite = read_suite(folder)
    write_suite(folder, replace(suite, domains={name: replace(d, rows=d.rows | {"quiz": 0}) for name, d in suite.domains.items()}))
    with pytest.raises(TeachbackError, match="QUIZ_FRACTION=0.1 bash 2_process_data.sh"):
        study_on(root, "books")


def test_without_stage_5_it_says_to_run_it(root):
    shutil.rmtree(root / "outputs/mixed/seed42/books/student_second")
    with pytest.raises(TeachbackError, match=r"DOMAIN=books bash 5_student_second.sh"):
        study_on(root, "books")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (("--reward", "sparse"), "REWARD=sparse is unknown"), (("--gamma", "1.5"), "GAMMA=1.5"),
        (("--episodes", "0"), "EPISODES=0"), (("--policy_lr", "0"), "POLICY_LR=0"), (("--policy", "bandit", "--student_update", "released"), "needs POLICY=learned, not bandit"), (("--policy", "best"), "POLICY=best"), (("--choose_from", "none"), "CHOOSE_FROM=none"),
        (("--choose_from", "others", "--policy", "target_only"), "CHOOSE_FROM=all"),
        (("--choose_from", "others", "--domains", "books"), "only domain"),
        (("--meta_gradient", "half"), "META_GRADIENT=half"), (("--meta_loss", "kind"), "META_LOSS=kind"), (("--episode_steps", "0"), "EPISODE_STEPS=0"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)  # fmt: skip
def test_bad_arguments_are_explained(root, argument, message):
    with pytest.raises(TeachbackError, match=message):
        study_on(root, "books", *argument)


def test_with_a_fraction_of_the_labels_the_targets_quiz_alone_is_smaller(root, monkeypatch):
    few = ("--train_fraction", "0.25")
    with pytest.raises(TeachbackError, match="made with TRAIN_FRACTION=1, but this stage has 0.25"):
        study_on(root, "books", *few)
    np.save(root / "data/mixed/embeddings.npy", np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32))
    quizzes, run = [], Context.run
    monkeypatch.setattr(Context, "run", lambda self, *args, **rows: quizzes.append(rows.get("quiz")) or run(self, *args, **rows))
    make_students(root, "books", "mpdistil", *few)
    study_on(root, "books", *few, "--train_fraction", "1")  # a student of few rows may still study the whole quiz
    study_on(root, "books", *few)
    whole = [row.guid for row in read_rows(root / "data/mixed/quiz.tsv")]
    of_books = [[row.guid for row in rows if row.domain == "books"] for rows in quizzes if rows]
    assert [len(rows) for rows in of_books] == [4, 16, 16, 4, 4] and of_books[0] == of_books[-1]  # of stage 5, then 6
    assert sorted(row.label for row in quizzes[-1] if row.domain == "books") == ["negative"] * 2 + ["positive"] * 2
    assert [row.guid for row in quizzes[-1] if row.domain != "books"] == [guid for guid in whole if not guid.startswith("books")]
    learnt = {step.split("\t")[2] for step in (root / "outputs/mixed/seed42/books/curriculum/trajectory.tsv").read_text().splitlines()[1:]}
    assert learnt - {"books"}


def test_stage_6_goes_on_with_the_head_that_stage_5_has_taught_and_fits_the_new_ones(root, monkeypatch):
    begun = []
    train = curriculum_run.train_meta_teacher
    monkeypatch.setattr(
        curriculum_run, "train_meta_teacher", lambda meta, *more: begun.append(copy.deepcopy(meta)) or train(meta, *more)
    )
    study_on(root, "books")
    learnt = load_file(root / "outputs/mixed/seed42/books/student_second/training_only.safetensors")
    assert torch.equal(begun[0].head("sentiment").weight, learnt["meta.heads.sentiment.weight"])
    teacher = load_file(root / "outputs/mixed/seed42/teacher-single-books/model.safetensors")
    assert not torch.equal(begun[0].head("sentiment").weight, teacher["classifier.weight"])
    record = read_stage(root / "outputs/mixed/seed42/books/meta_teacher")
    assert record["heads_of_stage_5"] == ["sentiment"] and record["new_heads"] == ["quest", "score", "topic"]


def test_a_killed_stage_5_keeps_the_meta_teachers_optimizer_and_shuffles(root, monkeypatch):
    folder = root / "outputs/mixed/seed42/books/student_second"
    train = places(root, "--domain", "books", "--per_device_train_batch_size", "8", "--learning_rate", "1e-3", "--num_train_epochs", "3",
                   "--teacher", "single", "--method", "mpdistil", "--stage", "second", "--meta_lr", "0.05",
                   "--trainer", "load_best_model_at_end=false")  # fmt: skip
    stages = parse(*STUDENT_STAGES, argv=train)
    uninterrupted = weights(distil(*stages)[0]), load_file(folder / "training_only.safetensors")
    shutil.rmtree(folder)
    take, taken = TeacherStep.take, []

    def killed(self, student):
        taken.append(1)
        if len(taken) == 2:
            raise KeyboardInterrupt
        return take(self, student)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TeacherStep, "take", killed)
        distil(*parse(*STUDENT_STAGES, argv=train))
    assert not folder.exists()
    continued = weights(distil(*parse(*STUDENT_STAGES, argv=train))[0]), load_file(folder / "training_only.safetensors")
    for whole, again in zip(uninterrupted, continued):
        assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_teacher_that_learns_back_in_stage_5_changes_its_student(root):
    folder = root / "outputs/mixed/seed42/books/student_second"
    assert set(load_file(folder / "training_only.safetensors")) == {
        "meta.heads.sentiment.weight", "meta.heads.sentiment.bias",
    }  # fmt: skip
    history = read_stage(folder)["history"]
    assert any("loss_meta_teacher" in entry for entry in history) and any("loss_pkd" in entry for entry in history)
