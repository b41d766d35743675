"""Early stopping by PATIENCE: the epoch in which stages stop, and the same epoch and weights after an interruption."""

import shutil
from types import SimpleNamespace

import pytest
from test_stages import (
    Interrupted,
    distil,
    interrupt,
    interrupt_after,
    same,
    stop_after,
    teach,
    weights,
    write_tiny_suite,
)

from teachback.core.errors import Stopped, TeachbackError
from teachback.core.locks import release_lock
from teachback.core.published import read_stage
from teachback.methods.episodes import Episodes
from teachback.training.trainer import DistillationTrainer

LONG = ("--num_train_epochs", "8", "--patience", "2", "--learning_rate", "1e-3")
STEPS = 6  # per epoch


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """Folder of an uninterrupted teacher that stopped early, and the root folder with its suite."""
    root = tmp_path_factory.mktemp("early")
    write_tiny_suite(root / "data")
    return teach(root, *LONG), root


def scores(folder, name="eval_score") -> list[float]:
    """Evaluation scores during training, without the final evaluation of the best checkpoint."""
    return [entry[name] for entry in read_stage(folder)["history"] if name in entry][:-1]


def expected_epochs(values: list[float], patience: int = 2) -> int:
    best, since = float("-inf"), 0
    for epoch, value in enumerate(values, start=1):
        best, since = (value, 0) if value > best else (best, since + 1)
        if since == patience:
            return epoch
    return len(values)


def test_stage_stops_after_patience_evaluations_without_improvement(early):
    folder, root = early
    found = scores(folder)
    assert len(found) == expected_epochs(found) < 8
    assert read_stage(folder)["dev"]["score"] == max(found) and read_stage(folder)["arguments"]["patience"] == 2
    assert "no improvement in 2 evaluations" in (root / "outputs/tiny/seed42/logs/3_train_teacher.log").read_text()


@pytest.mark.parametrize("place", ["within the last epoch", "in its last step", "before it is published"])
def test_interrupted_stage_stops_in_the_same_epoch_with_the_same_weights(early, place, tmp_path, monkeypatch):
    uninterrupted, _ = early
    steps = STEPS * len(scores(uninterrupted))
    write_tiny_suite(tmp_path / "data")
    with monkeypatch.context() as patch:
        if place == "within the last epoch":
            interrupt_after(patch, steps - 3)
        elif place == "in its last step":
            stop_after(patch, steps)
        else:
            patch.setattr(DistillationTrainer, "_load_best_model", interrupt)
        with pytest.raises((Interrupted, Stopped)):
            teach(tmp_path, *LONG)
    release_lock(tmp_path / "outputs/tiny/seed42/teacher-meta")
    left = interrupt_after(monkeypatch, 1000)
    folder = teach(tmp_path, *LONG)
    assert len(left) == (STEPS if place == "within the last epoch" else 0)
    assert same(weights(folder), weights(uninterrupted)) and scores(folder) == scores(uninterrupted)
    ours, theirs = (read_stage(place)["dev"] for place in (folder, uninterrupted))
    assert ours["loss"] == theirs["loss"] and ours["score"] == theirs["score"]


def test_stage_4_stops_by_its_loss_and_stage_5_by_its_score(early, tmp_path):
    folder, root = early
    target = tmp_path / "outputs/tiny/seed42"
    shutil.copytree(folder, target / "teacher-meta")
    place = ("--output_root", str(tmp_path / "outputs"), "--num_train_epochs", "6", "--patience", "1")
    (first,) = distil(root, "first", *place, "--learning_rate", "0.05")
    losses = scores(first, "eval_loss")
    assert len(losses) == expected_epochs([-loss for loss in losses], 1) < 6
    (second,) = distil(root, "second", *place)
    found = scores(second)
    assert len(found) == expected_epochs(found, 1) < 6


def test_patience_without_evaluations_is_rejected(early):
    with pytest.raises(TeachbackError, match="PATIENCE=2 counts evaluations"):
        teach(early[1], *LONG, "--trainer", "eval_strategy=no", "load_best_model_at_end=false")


def episodes(values: list[float], patience: int) -> Episodes:
    """Episodes of a dummy curriculum that is evaluated every second episode, with scores from ``values``."""
    curriculum = SimpleNamespace(args=SimpleNamespace(episodes=20, eval_every=2, patience=patience), episode=0, student=SimpleNamespace(classifier=None))
    curriculum.record = SimpleNamespace(episodes=[{"reward": 0, "student_loss": 0, "policy_loss": 0, "probabilities": {}, "entropy": 0}])
    curriculum.run_episode = lambda: setattr(curriculum, "episode", curriculum.episode + 1)
    curriculum.state = lambda: {"episode": curriculum.episode}
    curriculum.load_state = lambda state: setattr(curriculum, "episode", state["episode"])
    return Episodes(curriculum, lambda student: values[curriculum.episode // 2])


@pytest.mark.parametrize("stop", [None, 5, 8])
def test_curriculum_stops_by_patience_also_after_resuming(stop, monkeypatch):
    monkeypatch.setattr("teachback.methods.episodes.weights", lambda student: {})
    values = [0.5, 0.6, 0.6, 0.7, 0.7, 0.6, 0.5, 0.9, 0.9, 0.9, 0.9]
    run = episodes(values, patience=3)
    run.start()
    while run.left and run.done != stop:
        run.run_next()
    if stop:
        state, run = run.state(), episodes(values, patience=3)
        run.load_state(state)
        run.start()
        while run.left:
            run.run_next()
    assert run.done == 12 and run.best_episode == 6
