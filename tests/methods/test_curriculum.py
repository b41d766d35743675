"""Stage 6 on two-layer models: single steps, written files, reproducibility by seed, and resumption after an interruption."""

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
def skip_plots(request, monkeypatch):
    """Write empty plot files, except in the test with "drawn" in its name: drawing takes longer than training."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr(curriculum_record, "save_png", lambda plot, path, title: path.touch())


# Components, on models in memory


def quiz(name: str, head: int, meta_head: str, seed: int, flipped: bool = False) -> DomainQuiz:
    rows = text_rows(12)
    random.Random(seed).shuffle(rows)
    encoded = encode(rows, tokenizer(), 16)
    labels = torch.tensor([int(row.label == "positive") for row in rows])
    encoded.columns = {"label": 1 - labels if flipped else labels}
    return DomainQuiz(name, encoded, head, meta_head, torch.full((12,), 0.5))


def curriculum(units: torch.Tensor | None = None, **arguments) -> Curriculum:
    """Curriculum over two domains: ``books``, the target, and ``wrong``, the same texts with flipped labels."""
    args = CurriculumArguments(**{"batch_size": 4, "curriculum_lr": 1e-2, "policy": "target_only", **arguments})
    OptimizerArguments().training_arguments("cpu", "fp32")  # initialises the process state that accelerate reads
    model = classifier(seed=1, **NO_DROPOUT)
    student = Classifier(model, {"sentiment": BOOKS, "topic": GENRE})
    meta = MetaTeacher(meta_heads(tiny_teacher(), [BOOKS]), 32).requires_grad_(False)
    quizzes = [quiz("books", 0, "sentiment", 1), quiz("wrong", 0, "sentiment", 2, flipped=True)]
    torch.manual_seed(args.seed)
    return Curriculum(Student(student, meta, args, Accelerator(cpu=True), 0), quizzes, 0, args, units)


def rewards_with_constant_action(domain: int, **arguments) -> list[float]:
    """Rewards of an episode in which every step trains on ``domain``."""
    run = curriculum(**arguments)
    run._choose = lambda position, part: Choice(domain, 1.0)
    run.run_episode()
    return [step["reward"] for step in run.record.steps]


@pytest.mark.parametrize("advantage", ["level", "improvement"])
@pytest.mark.parametrize("reward_rows", ["held_out", "all"])
def test_reward_depends_on_the_action(advantage, reward_rows):
    right, wrong = (rewards_with_constant_action(i, reward="real", advantage=advantage, reward_rows=reward_rows) for i in (0, 1))
    assert all(a != b for a, b in zip(right, wrong))
    if reward_rows == "all":
        assert sum(right) > sum(wrong)


def test_reward_is_independent_of_the_action_with_one_update_per_episode():
    right, wrong = (rewards_with_constant_action(i, reward="real", student_update="episode") for i in (0, 1))
    assert right == wrong and all(right)


def test_resumed_run_restores_the_fp16_loss_scale(tmp_path):
    run, resumed = curriculum(), curriculum()
    for one, scale in ((run, 8.0), (resumed, 65536.0)):
        one.student.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        one.student.accelerator.scaler.scale(torch.ones(()))  # the scaler creates its tensor at the first use
    save_state(tmp_path / "state", run.state())
    resumed.load_state(load_state(tmp_path / "state"))
    assert resumed.student.accelerator.scaler.get_scale() == 8
    resumed.load_state({name: value for name, value in run.state().items() if name != "scaler"})  # earlier versions saved no scaler


def test_improvement_advantage_is_rejected_with_one_update_per_episode():
    args = CurriculumArguments(student_update="episode")
    assert (args.advantage, args.gamma, args.reward_rows) == ("level", 0.99, "held_out")
    with pytest.raises(TeachbackError, match="ADVANTAGE=improvement is 0 at every step with STUDENT_UPDATE=episode"):
        CurriculumArguments(student_update="episode", advantage="improvement")


def test_one_update_per_episode_changes_the_student():
    run = curriculum(student_update="episode")
    before = run.student.classifier.model.classifier.weight.detach().clone()
    run.run_episode()
    assert not torch.equal(run.student.classifier.model.classifier.weight, before)


def test_level_reward_by_hand():
    run = curriculum(reward="real", advantage="level", reward_rows="all")
    rows = torch.arange(4)
    expected = (run.student.certainty(run.quizzes[0], rows) - 0.5).sum().item() / 12
    assert run._level(rows) == pytest.approx(expected)
    run.args.reward = "binary"
    sure = run.student.certainty(run.quizzes[0], rows) > 0.5
    assert run._level(rows) == pytest.approx(sure.sum().item() / 12)


def test_improvement_rewards_sum_to_the_change_over_the_episode():
    run = curriculum(reward="real", advantage="improvement", reward_rows="all", episode_steps=5)
    everything = torch.arange(12)
    before = run._level(everything)
    run.run_episode()
    rewards = [step["reward"] for step in run.record.steps]
    assert len(rewards) == 5 and sum(rewards) == pytest.approx(run._level(everything) - before, abs=1e-6)


def test_held_out_rows_are_never_trained_on():
    run = curriculum(reward_rows="held_out", episode_steps=9)
    learnt = []
    learn = run.student.learn
    run.student.learn = lambda quiz, rows, *more: learnt.extend(rows.tolist()) or learn(quiz, rows, *more)
    run.run_episode()
    assert set(learnt) and not set(learnt) & set(run.reward_rows.tolist())


def test_quiz_halves_have_the_same_label_distribution():
    labels = torch.tensor([1] * 11 + [0] * 10 + [2])
    splits = [halves(labels, seed) for seed in range(5)]
    for learnt, rewarded in splits:
        assert sorted([*learnt.tolist(), *rewarded.tolist()]) == list(range(22)) and len(learnt) == len(rewarded)
        counts = [torch.bincount(labels[rows], minlength=3) for rows in (learnt, rewarded)]
        assert (counts[0] - counts[1]).abs().max() <= 1
    assert len({tuple(learnt.tolist()) for learnt, _ in splits}) == 5  # the seed decides which rows of a label are in which half
    assert [len(rows) for rows in halves(torch.zeros(7, dtype=torch.long), 1)] == [3, 4]


def test_rows_of_one_group_stay_in_the_same_half():
    labels, units = torch.tensor([0, 1] * 12), torch.arange(24) // 3 * 3
    for seed in range(5):
        learnt, rewarded = halves(labels, seed, units)
        assert sorted([*learnt.tolist(), *rewarded.tolist()]) == list(range(24)) and len(learnt) == len(rewarded)
        assert not set(units[learnt].tolist()) & set(units[rewarded].tolist())


def test_quiz_of_a_single_group_is_used_whole_for_training_and_rewards():
    run = curriculum(units=torch.zeros(12, dtype=torch.long), reward_rows="held_out")
    run.run_episode()
    assert run.training_rows[0].tolist() == run.reward_rows.tolist() == list(range(12))


def test_halves_of_a_regression_quiz_have_the_same_mean_label():
    numbers = torch.linspace(0, 5, 41)
    learnt, rewarded = (numbers[rows].mean().item() for rows in halves(numbers, 3))
    assert learnt == pytest.approx(2.5) and rewarded == pytest.approx(2.5)


def test_policy_learns_from_the_random_first_action_unless_it_is_ignored():
    for first, learns in (("learnt", True), ("ignored", False)):
        run = curriculum(policy="learned", first_action=first, episode_steps=1, reward="real", policy_lr=0.1)
        run.baseline = 1.0  # with the default baseline, a single reward would be its own
        run.run_episode()
        assert bool(run.policy.choice.bias.abs().sum() > 0) == learns
        assert run.record.steps[0]["probability"] == 0.5


def test_random_first_action_is_importance_weighted_by_the_policy():
    run = curriculum(policy="learned")
    with torch.no_grad():
        run.policy.choice.bias.copy_(torch.tensor([math.log(3), 0.0]))
    firsts = [run._choose(0, 0.0) for _ in range(20)]
    assert {(choice.action, round(choice.weight, 6)) for choice in firsts} == {(0, 1.5), (1, 0.5)}
    assert {choice.probability for choice in firsts} == {0.5} and run._choose(1, 0.5).weight == 1.0


@pytest.mark.parametrize("policy", ["learned", "uniform", "round_robin"])
def test_target_domain_can_be_excluded_from_the_choice(policy):
    run = curriculum(policy=policy, choose_from="others", episode_steps=3)
    run.run_episode()
    assert {step["domain"] for step in run.record.steps} == {"wrong"}
    assert run.record.steps[0]["probability"] == 1.0


@pytest.mark.parametrize("state", ["progress", "pooler"])
def test_policy_update_changes_the_policy_but_not_the_student(state):
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


def test_policy_state_changes_over_an_episode():
    run = curriculum(policy="learned")
    first = run._state(0.0)
    run.run_episode()
    assert not torch.equal(run._state(0.0), first)
    pooler = curriculum(policy="learned", state="pooler")
    first = pooler._state(0.0)
    pooler.run_episode()
    assert not torch.equal(pooler._state(0.0), first) and not pooler._state(0.0).requires_grad


@pytest.mark.parametrize("policy", ["learned", "bandit", "ucb"])
def test_policy_learns_to_avoid_the_harmful_domain(policy):
    run = curriculum(
        policy=policy, policy_lr=0.1, reward="real", reward_rows="all", curriculum_lr=2e-3, episode_steps=6, seed=1
    )
    for _ in range(20):
        run.run_episode()
    late = [step for step in run.record.steps if step["episode"] >= 10 and step["step"] > 0]
    assert sum(step["domain"] == "books" for step in late) / len(late) > 0.7


# Written files


def test_moving_mean_and_chosen_shares_by_hand():
    assert moving_mean([1.0, 3.0, 5.0, 7.0], window=2).tolist() == [1, 2, 4, 6]
    steps = [{"episode": e, "domain": d} for e, d in ((0, "a"), (0, "b"), (1, "a"), (1, "a"))]
    assert chosen_shares(steps, ["a", "b", "c"], 2).tolist() == [[0.5, 0.5, 0], [1, 0, 0]]


def test_rewards_and_chosen_domains_are_drawn_and_tabulated(tmp_path):
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


def common_arguments(root: Path, *more: str) -> list[str]:
    return [
        "--suite", "mixed", "--data_dir", str(root / "data"), "--output_root", str(root / "outputs"),
        "--device", "cpu", "--precision", "fp32", "--max_length", "24", *more,
    ]  # fmt: skip


def run_stages_3_to_5(root: Path, domain: str, method: str = "mpdistil", *more: str) -> None:
    """Run stages 3 to 5 for ``domain``."""
    train = common_arguments(root, "--domain", domain, "--per_device_train_batch_size", "8", "--learning_rate", "1e-3", *more)
    short = [*train, "--num_train_epochs", "1", "--logging_steps", "2"]
    teacher = ["--teacher", "single", "--teacher_model", "scratch:tiny"]
    train_teachers(*parse(*TEACHER_STAGE, argv=[*short, *teacher]))
    student = ["--teacher", "single", "--student_model", "scratch:tiny", "--first", "none", "--method", method]
    for stage in ("first", "second"):
        distil(*parse(*STUDENT_STAGES, argv=[*short, *student, "--stage", stage]))


def run_stage_6(root: Path, domain: str, *more: str) -> Path:
    argv = common_arguments(root, "--domain", domain, "--teacher", "single", "--episodes", "4", "--eval_every", "2")
    return run_curriculum(
        *parse(*CURRICULUM_STAGE, argv=[*argv, "--batch_size", "4", "--episode_steps", "4", "--curriculum_lr", "1e-3", *more])
    )[0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Folder with the results of stages 3 to 5 for one domain of each kind."""
    root = tmp_path_factory.mktemp("mixed")
    write_mixed_suite(root / "data")
    for domain in DOMAINS:
        run_stages_3_to_5(root, domain)
    return root


@pytest.fixture
def root(prepared, tmp_path) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_tensorboard_logs_rewards_entropy_probabilities_and_scores(root):
    folder = run_stage_6(root, "books", "--report_to", "tensorboard")
    read = EventAccumulator(str(folder.parent.parent / "logs/books/curriculum")).Reload()
    shares = [name for name in read.Tags()["scalars"] if name.startswith("policy/probability of ")]
    assert len(shares) == len(DOMAINS)
    by_episode = [[event.value for event in read.Scalars(name)] for name in shares]
    assert [sum(values) for values in zip(*by_episode)] == pytest.approx([1.0] * 4)
    assert [event.step for event in read.Scalars("train/reward")] == [1, 2, 3, 4]
    assert [event.step for event in read.Scalars("eval/books_score")] == [0, 2, 4]
    assert all(event.value > 0 for event in read.Scalars("policy/entropy"))


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_stage_runs_on_domains_with_different_heads(root, domain):
    folder = run_stage_6(root, domain, "--policy", "round_robin")
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


def test_stage_json_records_the_selected_episode_and_the_selection_split(root):
    folder = run_stage_6(root, "books")
    record = read_stage(folder)
    assert record["method"] == "curriculum" and record["selected_on"] == "dev" and record["domain"] == "books"
    scores = {int(episode): score for episode, score in record["scores_by_episode"].items()}
    assert sorted(scores) == [0, 2, 4] and scores[record["best_episode"]] == max(scores.values())
    assert json.dumps(record["arguments"]["gamma"]) == "0.0"
    again = load_file(folder / "training_only.safetensors")
    assert {name.split(".")[0] for name in again} == {"policy", "other_heads"}


def test_rows_with_the_same_text_stay_in_the_same_half_of_the_quiz(root, monkeypatch):
    described = root / "data/mixed/suite.json"
    suite = json.loads(described.read_text())
    suite["domains"]["books"]["marks"] = ["*"]
    described.write_text(json.dumps(suite))
    rows = list(read_rows(root / "data/mixed/quiz.tsv"))
    other_half = {}  # guid of a books row -> guid of the row whose text differs in a mark only
    own = [row for row in rows if row.domain == "books"]
    for first, second in zip(own[::2], own[1::2]):
        other_half |= {first.guid: second.guid, second.guid: first.guid}
    texts = {second.guid: f"*{first.text_a}" for first, second in zip(own[::2], own[1::2])}
    write_rows(root / "data/mixed/quiz.tsv", [replace(row, text_a=texts.get(row.guid, row.text_a)) for row in rows])
    made = []
    monkeypatch.setattr(curriculum_run, "Curriculum", lambda *more: made.append(Curriculum(*more)) or made[-1])
    run_stage_6(root, "books")
    guids = made[0].quizzes[made[0].target].rows.guids
    learnt = {guids[place] for place in made[0].training_rows[made[0].target].tolist()}
    assert learnt and {other_half[guid] for guid in learnt} == learnt


def test_a_seed_reproduces_the_whole_stage(root, prepared, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    shutil.copytree(prepared, other, dirs_exist_ok=True)
    first, second = (run_stage_6(place, "books") for place in (root, other))
    for name in ("rewards.tsv", "trajectory.tsv"):
        assert (first / name).read_text() == (second / name).read_text()
    assert same_weights(first, second) and same_weights(first / "last", second / "last")
    third = run_stage_6(other, "books", "--seed", "42", "--policy_lr", "0.5")
    assert (first / "trajectory.tsv").read_text() != (third / "trajectory.tsv").read_text()


def test_a_finished_stage_does_nothing_when_run_again(root, capsys):
    folder = run_stage_6(root, "books")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    run_stage_6(root, "books")
    assert capsys.readouterr().out.count("is up to date") == 2
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_stage_stopped_by_a_signal_resumes_to_the_same_result(
    root, prepared, tmp_path_factory, monkeypatch
):
    whole = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, whole, dirs_exist_ok=True)
    uninterrupted = run_stage_6(whole, "books")
    run_episode, episodes = Curriculum.run_episode, []

    def stop(self):
        episodes.append(self.episode)
        if self.episode == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        run_episode(self)

    monkeypatch.setattr(Curriculum, "run_episode", stop)
    with pytest.raises(Stopped, match="episode 3 of 4 was saved as a checkpoint"):
        run_stage_6(root, "books")
    folder = run_stage_6(root, "books")
    assert episodes == [0, 1, 2, 3]
    assert same_weights(folder, uninterrupted) and same_weights(folder / "last", uninterrupted / "last")
    assert (folder / "trajectory.tsv").read_text() == (uninterrupted / "trajectory.tsv").read_text()


@pytest.mark.parametrize(
    ("damaged", "policy"), [(False, "learned"), (True, "learned"), (False, "bandit")], ids=["whole", "newest checkpoint damaged", "bandit"]
)
def test_interrupted_stage_resumes_from_a_checkpoint_to_the_same_result(damaged, policy, root, prepared, tmp_path_factory, monkeypatch, caplog):
    whole = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, whole, dirs_exist_ok=True)
    uninterrupted = run_stage_6(whole, "books", "--policy", policy)
    run_episode = Curriculum.run_episode

    def stop(self):
        if self.episode == 3:
            raise KeyboardInterrupt
        run_episode(self)

    monkeypatch.setattr(Curriculum, "run_episode", stop)
    with pytest.raises(KeyboardInterrupt):
        run_stage_6(root, "books", "--policy", policy)
    assert not (root / "outputs/mixed/seed42/books/curriculum").exists()
    checkpoints = root / "outputs/mixed/seed42/books/.curriculum.partial/checkpoints"
    (checkpoints / "partial").mkdir()
    if damaged:
        path = checkpoints / "episode-000002/state.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    episodes = []
    monkeypatch.setattr(Curriculum, "run_episode", lambda self: episodes.append(self.episode) or run_episode(self))
    folder = run_stage_6(root, "books", "--policy", policy)
    assert episodes == ([0, 1, 2, 3] if damaged else [2, 3])
    assert ("episode-000002 is damaged and not used: state.safetensors has changed" in caplog.text) == damaged
    assert same_weights(folder, uninterrupted) and same_weights(folder / "last", uninterrupted / "last")
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
    folder = run_stage_6(root, "books", *change)
    assert (folder / "trajectory.tsv").read_text() != standard[0] or not all(
        torch.equal(value, standard[1][name]) for name, value in weights(folder / "last").items()
    )


@pytest.fixture(scope="module")
def standard(prepared, tmp_path_factory) -> tuple[str, dict[str, torch.Tensor]]:
    place = tmp_path_factory.mktemp("standard")
    shutil.copytree(prepared, place, dirs_exist_ok=True)
    folder = run_stage_6(place, "books")
    return (folder / "trajectory.tsv").read_text(), weights(folder / "last")


def test_paper_protocol_selects_on_the_test_split_as_in_the_paper(root, monkeypatch):
    monkeypatch.setitem(SUITES, "mixed", SUITES["superglue"])
    folder = run_stage_6(root, "books", "--protocol", "paper")
    assert read_stage(folder)["selected_on"] == "test"


def test_best_and_last_students_are_both_saved(root, monkeypatch):
    scores = iter([0.5, 0.9, 0.1])
    monkeypatch.setattr(CurriculumRun, "_selection_score", lambda self, student: next(scores))
    folder = run_stage_6(root, "books", "--curriculum_lr", "1e-2")
    assert read_stage(folder)["best_episode"] == 2 and not same_weights(folder, folder / "last")


def test_nan_loss_is_reported_with_step_learning_rate_and_rows(root, monkeypatch):
    def spoilt(*arguments):
        calls.append(1)
        return curriculum_student_loss(*arguments) * (torch.nan if len(calls) == 3 else 1)

    calls = []
    monkeypatch.setattr("teachback.methods.curriculum.curriculum_student_loss", spoilt)
    message = r"nan at step 1 of episode 2, on \w+, with learning rate 3e-05, on the rows \w+-\d+"
    with pytest.raises(TeachbackError, match=message):
        run_stage_6(root, "books", "--episode_steps", "2", "--curriculum_lr", "3e-5")


def test_missing_quiz_is_reported_with_the_command_that_creates_it(root):
    folder = root / "data/mixed"
    write_rows(folder / "quiz.tsv", [], TRAIN_COLUMNS[:-1])
    suite = read_suite(folder)
    write_suite(folder, replace(suite, domains={name: replace(d, rows=d.rows | {"quiz": 0}) for name, d in suite.domains.items()}))
    with pytest.raises(TeachbackError, match="QUIZ_FRACTION=0.1 bash 2_process_data.sh"):
        run_stage_6(root, "books")


def test_missing_stage_5_is_reported_with_the_command_that_runs_it(root):
    shutil.rmtree(root / "outputs/mixed/seed42/books/student_second")
    with pytest.raises(TeachbackError, match=r"DOMAIN=books bash 5_student_second.sh"):
        run_stage_6(root, "books")


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
def test_invalid_arguments_are_reported(root, argument, message):
    with pytest.raises(TeachbackError, match=message):
        run_stage_6(root, "books", *argument)


def test_train_fraction_reduces_only_the_quiz_of_the_target_domain(root, monkeypatch):
    few = ("--train_fraction", "0.25")
    with pytest.raises(TeachbackError, match="made with TRAIN_FRACTION=1, but this stage has 0.25"):
        run_stage_6(root, "books", *few)
    np.save(root / "data/mixed/embeddings.npy", np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32))
    quizzes, run = [], Context.run
    monkeypatch.setattr(Context, "run", lambda self, *args, **rows: quizzes.append(rows.get("quiz")) or run(self, *args, **rows))
    run_stages_3_to_5(root, "books", "mpdistil", *few)
    run_stage_6(root, "books", *few, "--train_fraction", "1")  # a student of a reduced train split may use the whole quiz
    run_stage_6(root, "books", *few)
    whole = [row.guid for row in read_rows(root / "data/mixed/quiz.tsv")]
    of_books = [[row.guid for row in rows if row.domain == "books"] for rows in quizzes if rows]
    assert [len(rows) for rows in of_books] == [4, 16, 16, 4, 4] and of_books[0] == of_books[-1]  # stage 5, then two runs of stage 6 in two steps
    assert sorted(row.label for row in quizzes[-1] if row.domain == "books") == ["negative"] * 2 + ["positive"] * 2
    assert [row.guid for row in quizzes[-1] if row.domain != "books"] == [guid for guid in whole if not guid.startswith("books")]
    learnt = {step.split("\t")[2] for step in (root / "outputs/mixed/seed42/books/curriculum/trajectory.tsv").read_text().splitlines()[1:]}
    assert learnt - {"books"}


def test_stage_6_reuses_the_meta_teacher_head_of_stage_5_and_fits_new_heads(root, monkeypatch):
    begun = []
    train = curriculum_run.train_meta_teacher
    monkeypatch.setattr(
        curriculum_run, "train_meta_teacher", lambda meta, *more: begun.append(copy.deepcopy(meta)) or train(meta, *more)
    )
    run_stage_6(root, "books")
    learnt = load_file(root / "outputs/mixed/seed42/books/student_second/training_only.safetensors")
    assert torch.equal(begun[0].head("sentiment").weight, learnt["meta.heads.sentiment.weight"])
    teacher = load_file(root / "outputs/mixed/seed42/teacher-single-books/model.safetensors")
    assert not torch.equal(begun[0].head("sentiment").weight, teacher["classifier.weight"])
    record = read_stage(root / "outputs/mixed/seed42/books/meta_teacher")
    assert record["heads_of_stage_5"] == ["sentiment"] and record["new_heads"] == ["quest", "score", "topic"]


def test_resumed_stage_5_restores_the_meta_teachers_optimizer_and_row_order(root, monkeypatch):
    folder = root / "outputs/mixed/seed42/books/student_second"
    train = common_arguments(root, "--domain", "books", "--per_device_train_batch_size", "8", "--learning_rate", "1e-3", "--num_train_epochs", "3",
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


def test_mpdistil_in_stage_5_saves_the_meta_teacher_head_and_logs_its_losses(root):
    folder = root / "outputs/mixed/seed42/books/student_second"
    assert set(load_file(folder / "training_only.safetensors")) == {
        "meta.heads.sentiment.weight", "meta.heads.sentiment.bias",
    }  # fmt: skip
    history = read_stage(folder)["history"]
    assert any("loss_meta_teacher" in entry for entry in history) and any("loss_pkd" in entry for entry in history)
