"""What a training prints: a line an epoch, losses enough for a curve, and nothing of the evaluation after it."""

import re

import pytest
from test_stages import suite, teach  # noqa: F401
from transformers import TrainerState

from teachback.core.runs import read_stage
from teachback.training import progress
from teachback.training.progress import EnoughLosses, EpochLines, duration


@pytest.fixture
def printed(suite, capsys):  # noqa: F811
    """The lines of a teacher's training on a redirected output, and its folder."""
    folder = teach(suite, "--num_train_epochs", "3", "--logging_steps", "50")
    return capsys.readouterr().out.splitlines(), folder


def test_an_epoch_is_one_readable_line_and_the_last_evaluation_is_said_once(printed):
    lines, _ = printed
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in epochs] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    form = r"epoch \d of 3: loss [\d.]+ \(hard [\d.]+, domain corruption [\d.]+\), .*score [01]\.\d{4} \(books accuracy [\d.]+, dvd accuracy [\d.]+\), [\d.]+ s"
    assert all(re.fullmatch(form, line) for line in epochs), epochs
    assert sum("score" in line for line in lines) == 3 and not any("{" in line for line in lines)
    assert any(re.fullmatch(r"trained 18 steps in [\d.]+ s", line) for line in lines)


def test_a_short_run_logs_ten_losses_unless_told_otherwise(printed, suite):  # noqa: F811
    _, folder = printed
    assert len([entry for entry in read_stage(folder)["history"] if "loss" in entry]) == 18


@pytest.mark.parametrize(("steps", "epochs", "every"), [(18, 3, 1), (120, 3, 12), (5000, 3, 50), (100, 50, 2), (4, 4, 1)])
def test_how_often_a_loss_is_logged(steps, epochs, every):
    state, args = TrainerState(max_steps=steps, logging_steps=50), type("Args", (), {"num_train_epochs": float(epochs)})
    EnoughLosses().on_train_begin(args, state, None)
    assert state.logging_steps == every


def test_a_long_epoch_says_how_far_it_is(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    lines, state = EpochLines(), TrainerState(max_steps=100, is_world_process_zero=True)
    lines.on_train_begin(None, state, None)
    state.global_step = 25
    lines.on_log(None, state, None, logs={"loss": 0.5, "loss_hard": 0.25, "learning_rate": 1e-5})
    assert re.fullmatch(r"step 25 of 100 \(25 %\), loss 0.5 \(hard 0.25\), about \d+ min left\n", capsys.readouterr().out)


def test_times_in_units_that_suit_them():
    assert [duration(seconds) for seconds in (4.21, 95, 720, 11_160)] == ["4.2 s", "95 s", "12 min", "3.1 h"]
