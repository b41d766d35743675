"""Output of training: one line per epoch, enough logged losses for a curve, and no line for the final evaluation."""

import re

import pytest
from test_stages import suite, teach  # noqa: F401
from transformers import TrainerState

from teachback.core.runs import read_stage
from teachback.training import progress
from teachback.training.progress import EnoughLosses, EpochLines


@pytest.fixture
def printed(suite, capsys):  # noqa: F811
    """Lines that the training of a teacher prints to redirected output."""
    teach(suite, "--num_train_epochs", "3", "--logging_steps", "50")
    return capsys.readouterr().out.splitlines()


def test_each_epoch_prints_one_line_and_the_last_evaluation_is_not_repeated(printed):
    epochs = [line for line in printed if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in epochs] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    form = r"epoch \d of 3: loss [\d.]+ \(hard [\d.]+, domain corruption [\d.]+\), .*score [01]\.\d{4} \(books accuracy [\d.]+, dvd accuracy [\d.]+\), [\d.]+ s"
    assert all(re.fullmatch(form, line) for line in epochs), epochs
    assert sum("score" in line for line in printed) == 3 and not any("{" in line for line in printed)
    assert any(re.fullmatch(r"trained 18 steps in [\d.]+ s", line) for line in printed)


@pytest.mark.parametrize(("given", "logged"), [(50, [1, 2, 3, 4, 5, 6]), (4, [4]), (2, [2, 4, 6])])
def test_short_run_logs_every_step_unless_logging_steps_is_set(suite, given, logged):  # noqa: F811
    folder = teach(suite, "--num_train_epochs", "1", "--logging_steps", str(given))
    assert [entry["step"] for entry in read_stage(folder)["history"] if "loss" in entry] == logged


@pytest.mark.parametrize(("steps", "epochs", "every"), [(120, 3, 12), (5000, 3, 50), (100, 50, 2), (4, 4, 1)])
def test_logging_interval_depends_on_the_number_of_steps_and_epochs(steps, epochs, every):
    state, args = TrainerState(max_steps=steps, logging_steps=50), type("Args", (), {"num_train_epochs": float(epochs)})
    EnoughLosses().on_train_begin(args, state, None)
    assert state.logging_steps == every


def test_long_epoch_prints_its_progress(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    lines, state = EpochLines(), TrainerState(max_steps=100, is_world_process_zero=True)
    lines.on_train_begin(None, state, None)
    state.global_step = 25
    lines.on_log(None, state, None, logs={"loss": 0.5, "loss_hard": 0.25, "learning_rate": 1e-5})
    assert re.fullmatch(r"step 25 of 100 \(25 %\), loss 0.5 \(hard 0.25\), about \d+ min left\n", capsys.readouterr().out)
