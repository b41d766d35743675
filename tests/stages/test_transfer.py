"""Additional texts for stages 4 and 5: windows of long texts, texts of other domains, and unlabelled texts."""

import shutil

import pytest
from test_stages import Interrupted, copied, distil, finished, interrupt_after, same, suite, weights  # noqa: F401

from teachback.core.errors import TeachbackError
from teachback.core.published import read_stage
from teachback.data.schema import read_rows
from teachback.stages.context import Context

EIGHT = ("--max_length", "8")  # room for 6 words, and texts have up to 8
WINDOWS = (*EIGHT, "--transfer_windows", "2")


@pytest.fixture
def fitted(monkeypatch):
    """List to which each training adds its encoded train rows."""
    seen, original = [], Context.fit

    def fit(self, run, module, rows, *args, **kwargs):
        seen.append(rows)
        return original(self, run, module, rows, *args, **kwargs)

    monkeypatch.setattr(Context, "fit", fit)
    return seen


@pytest.mark.parametrize("stage", ["first", "second"])
def test_only_windows_of_the_train_texts_of_the_domain_are_added(suite, finished, fitted, stage):  # noqa: F811
    copied(finished, suite / "outputs", "teacher-meta", "books/student_first")
    (folder,) = distil(suite, stage, *EIGHT)
    plain = weights(folder)
    shutil.rmtree(folder)
    (folder,) = distil(suite, stage, *WINDOWS)
    assert not same(weights(folder), plain) and read_stage(folder)["arguments"]["transfer_windows"] == 2
    before, rows = fitted
    train = {row.guid: row for row in read_rows(suite / "data/tiny/train.tsv") if row.domain == "books"}
    long = [guid for guid, row in train.items() if len(row.text_a.split()) > 6]
    assert rows.guids == [*train, *(f"{guid}-window-1" for guid in long)] and long
    assert rows.columns["label"].tolist() == [*before.columns["label"].tolist(), *[-1] * len(long)]
    assert rows.columns["weight"][len(train) :].tolist() == [1.0] * len(long)


def test_unused_arguments_of_transfer_texts_are_not_recorded(finished):  # noqa: F811
    for stage in ("student_first", "student_second"):
        assert not {"transfer_windows", "second_transfer_set"} & read_stage(finished / "books" / stage)["arguments"].keys()


def test_the_second_stage_learns_from_texts_of_every_domain(suite, finished, fitted):  # noqa: F811
    copied(finished, suite / "outputs", "teacher-meta", "books/student_first", "books/student_second")
    (suite / "more.txt").write_text("a good disc\nvery bad plot\n", encoding="utf-8")
    folder = distil(suite, "second", "--second_transfer_set", "all", "--unlabelled", str(suite / "more.txt"))[0]
    train = read_rows(suite / "data/tiny/train.tsv")
    (rows,) = fitted
    assert rows.guids == [*(row.guid for row in train), "unlabelled-1", "unlabelled-2"]
    known = [int(row.label == "positive") if row.domain == "books" else -1 for row in train]
    assert rows.columns["label"].tolist() == [*known, -1, -1]
    assert rows.columns["weight"].tolist() == pytest.approx([*(row.weight for row in train), 1, 1])
    assert rows.columns["teacher_logits"].shape == (50, 2)
    assert not same(weights(folder), weights(finished / "books/student_second"))


@pytest.mark.parametrize(
    "method",
    [("--alpha_soft", "0.5", "--average_checkpoints", "2", "--layer_decay", "0.8"), ("--method", "mpdistil", "--meta_teacher_every_epoch", "0", "--student_layers", "2", "--keep_start", "1")],
)
def test_an_interrupted_stage_with_transfer_texts_gives_the_same_result(suite, finished, monkeypatch, method):  # noqa: F811
    more = (*method, *WINDOWS, "--second_transfer_set", "all")
    copied(finished, suite / "outputs", "teacher-meta")
    distil(suite, "first", "--student_layers", "2")
    uninterrupted = distil(suite, "second", *more)[0]
    kept = weights(uninterrupted)
    shutil.rmtree(uninterrupted)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9)
        with pytest.raises(Interrupted):
            distil(suite, "second", *more)
    assert same(weights(distil(suite, "second", *more)[0]), kept)


def test_the_teacher_runs_once_on_the_texts_of_both_stages(suite, finished, monkeypatch):  # noqa: F811
    copied(finished, suite / "outputs", "teacher-meta")
    distil(suite, "first", *WINDOWS, "--transfer_set", "all")
    monkeypatch.setattr("teachback.stages.teachers.features", None)  # a call would run the teacher
    (student,) = distil(suite, "second", *WINDOWS, "--second_transfer_set", "all")
    assert student.name == "student_second" and (student / "model.safetensors").is_file()


def test_transfer_set_all_needs_another_domain_with_equal_labels(suite, finished):  # noqa: F811
    copied(finished, suite / "outputs", "teacher-meta", "books/student_first")
    with pytest.raises(TeachbackError, match="no other domain of this run has books's labels"):
        distil(suite, "second", "--second_transfer_set", "all", "--domains", "books")


def test_keep_start_keeps_the_first_student_if_training_makes_it_worse(suite, finished):  # noqa: F811
    copied(finished, suite / "outputs", "teacher-meta")
    first = distil(suite, "first", "--student_layers", "2")[0]
    harmful = ("--learning_rate", "30", "--num_train_epochs", "1", "--trainer", "metric_for_best_model=eval_loss", "greater_is_better=false")
    kept = distil(suite, "second", *harmful, "--keep_start", "1")[0]
    assert read_stage(kept)["start_kept"] is True and same(weights(kept), weights(first))
    harmed = distil(suite, "second", *harmful)[0]  # the option is part of the fingerprint
    assert "start_kept" not in read_stage(harmed) and not same(weights(harmed), weights(first))


def test_a_domain_with_few_texts_causes_a_hint_on_those_of_others(suite, finished, capsys, monkeypatch):  # noqa: F811
    copied(finished, suite / "outputs", "teacher-meta", "books/student_first")
    hint = "books has only 24 texts to train on; SECOND_TRANSFER_SET=all adds those of dvd"
    distil(suite, "second", "--second_transfer_set", "all")
    assert "SECOND_TRANSFER_SET=all adds" not in capsys.readouterr().out
    distil(suite, "second")
    assert hint in capsys.readouterr().out
    distil(suite, "second")  # the stage is up to date
    assert hint not in capsys.readouterr().out
    monkeypatch.setattr("teachback.stages.stage5_predictions.FEW_TEXTS", 24)
    distil(suite, "second", "--num_train_epochs", "1")
    assert hint not in capsys.readouterr().out
