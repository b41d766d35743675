"""Metrics logged to TensorBoard and Weights & Biases, compared with the values that both read back."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from teachback.core.tracking import NO_TRACKS, Tracks, grouped, tracking
from teachback.inference.metrics import Score
from teachback.inference.results import Evaluated
from teachback.stages.stage7_arguments import EvaluationArguments
from teachback.stages.stage7_evaluate import track_scores


class Listener:
    """Tracker that stores the values it receives."""

    def __init__(self):
        self.told = []

    def log(self, values, step):
        self.told.append((step, values))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("loss", "train/loss"), ("eval_books_accuracy", "eval/books_accuracy"), ("policy/entropy", "policy/entropy")],
)
def test_metrics_are_grouped_as_train_eval_or_by_their_own_prefix(name, expected):
    assert grouped(name) == expected


def test_every_tracker_gets_the_numbers_but_not_the_strings():
    listeners = [Listener(), Listener()]
    Tracks(listeners).log({"loss": 0.5, "epoch": 1, "note": "words"}, step=3)
    assert all(one.told == [(3, {"train/loss": 0.5, "train/epoch": 1})] for one in listeners)
    NO_TRACKS.log({"loss": 0.5}, step=3)


def test_stage_7_logs_scores_after_the_last_training_step_of_a_checkpoint(tmp_path):
    logs = tmp_path / "logs"
    with tracking(["tensorboard"], logs / "books/student_second", {}) as tracks:
        tracks.log({"loss": 0.5}, 6)
    record = {"arguments": {"episodes": 20}, "history": [{"step": 3}, {"step": 6}]}
    checkpoints = [SimpleNamespace(stage="books/student_second", record=record),
                   SimpleNamespace(stage="books/curriculum", record={"arguments": {"episodes": 20}})]  # fmt: skip
    scores = {"books": Score("accuracy", 0.75, 8)}
    found = [Evaluated(one.stage, "books", "teacher-meta", scores, 1, 1) for one in checkpoints]
    for kind in ("none", "tensorboard"):
        arguments = EvaluationArguments(report_to=kind)
        track_scores(SimpleNamespace(arguments=arguments, run=tmp_path), checkpoints, found)
        assert (logs / "books/curriculum").exists() == (kind != "none")
    read = [EventAccumulator(str(logs / one.stage)).Reload() for one in checkpoints]
    assert [[(event.step, event.value) for event in events.Scalars("test/books_accuracy")] for events in read] == [
        [(7, 0.75)], [(21, 0.75)]
    ]  # fmt: skip
    assert [event.step for event in read[0].Scalars("train/loss")] == [6]


def test_names_of_unsupported_trackers_are_ignored(tmp_path):
    with tracking(["mlflow"], tmp_path / "logs/run", {}) as tracks:
        assert not tracks.trackers
    assert not list(tmp_path.iterdir())


def test_tensorboard_reads_back_the_logged_values(tmp_path):
    with tracking(["tensorboard"], tmp_path / "logs/run", {"learning_rate": 1e-3, "layers": [1, 2]}) as tracks:
        for step in (1, 2):
            tracks.log({"loss": step / 4, "eval_score": 0.5}, step)
    read = EventAccumulator(str(tmp_path / "logs/run")).Reload()
    assert [(event.step, event.value) for event in read.Scalars("train/loss")] == [(1, 0.25), (2, 0.5)]
    assert len(read.Scalars("eval/score")) == 2


BLOCK, FILE_HEADER, RECORD_HEADER = (
    32768,
    7,
    struct.Struct("<IHB"),
)  # checksum, length, and which part of a record it is
WHOLE, LAST = 1, 4


def wandb_records(data: bytes) -> Iterator[bytes]:
    """Records of a .wandb file, whose format is that of LevelDB's log."""
    place, record = FILE_HEADER, b""
    while place + RECORD_HEADER.size <= len(data):
        if BLOCK - place % BLOCK < RECORD_HEADER.size:  # the rest of a block is filled with zeros
            place += BLOCK - place % BLOCK
        _, length, part = RECORD_HEADER.unpack_from(data, place)
        place += RECORD_HEADER.size
        record += data[place : place + length]
        place += length
        if part in (WHOLE, LAST):
            yield record
            record = b""


def wandb_history(folder: Path) -> list[dict]:
    """History steps that an offline run of Weights & Biases holds for upload."""
    (path,) = folder.rglob("*.wandb")
    steps = []
    for data in wandb_records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            steps.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return steps


def test_an_offline_wandb_run_holds_the_logged_values_and_no_api_key(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_API_KEY", "secret_word_" * 4)
    with tracking(["wandb"], tmp_path / "logs/books/student_first", {"learning_rate": 1e-3}) as tracks:
        tracks.log({"loss": 0.25, "loss_attention": 0.125}, 1)
        tracks.log({"eval_books_accuracy": 0.75}, 2)
    wandb.teardown()  # its service writes the end of the file on shutdown
    steps = wandb_history(tmp_path / "logs/books/student_first")
    assert [step["_step"] for step in steps] == [1, 2]
    assert (steps[0]["train/loss"], steps[0]["train/loss_attention"]) == (0.25, 0.125)
    assert steps[1]["eval/books_accuracy"] == 0.75
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(b"secret_word_" in data for data in files)
