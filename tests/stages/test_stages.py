"""Stages 3 to 5 on two-layer models: files, reruns, changes, interruptions, processes, and the effect of each flag."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_suite import DOMAINS, write_tiny_suite
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from teachback.core import pass_progress
from teachback.core.arguments import STUDENT_STAGES, TEACHER_STAGE
from teachback.core.errors import Stopped, TeachbackError
from teachback.core.integrity import describe, with_checksum
from teachback.core.locks import release_lock
from teachback.core.parsing import parse
from teachback.core.published import read_record, read_stage
from teachback.data.schema import TRAIN_COLUMNS, read_rows, read_suite, write_rows, write_suite
from teachback.methods.teacher import TeacherTraining
from teachback.stages import distillation, stage3_teacher
from teachback.training.trainer import DistillationTrainer

ROOT = Path(__file__).parents[2]
CHECKPOINT = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "stage.json", "README.md"}
SHORT = [
    "--num_train_epochs",
    "2",
    "--logging_steps",
    "4",
    "--learning_rate",
    "1e-3",
    "--per_device_train_batch_size",
    "8",
    "--max_length",
    "16",
]


def flags(root: Path, *more: str) -> list[str]:
    places = ["--suite", "tiny", "--data_dir", str(root / "data"), "--output_root", str(root / "outputs")]
    return [*places, "--device", "cpu", "--precision", "fp32", *SHORT, *more]


def teach(root: Path, *more: str) -> Path | None:
    argv = flags(root, "--teacher_model", "scratch:tiny", *more)
    made = stage3_teacher.train_teachers(*parse(*TEACHER_STAGE, argv=argv))
    return made[-1] if made else None  # a dry run writes nothing


def distil(root: Path, stage: str, *more: str) -> list[Path]:
    student = ["--stage", stage, "--student_layers", "1", "--student_init", "teacher"]
    return distillation.distil(*parse(*STUDENT_STAGES, argv=flags(root, *student, *more)))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Folder in which stages 3 to 5 have run for books. Tests only read it; those that write use `suite`."""
    root = tmp_path_factory.mktemp("finished")
    write_tiny_suite(root / "data")
    teach(root)
    distil(root, "first")
    distil(root, "second")
    return root / "outputs/tiny/seed42"


@pytest.fixture
def suite(tmp_path) -> Path:
    write_tiny_suite(tmp_path / "data")
    return tmp_path


def copied(finished: Path, output_root: Path, *stages: str) -> Path:
    """Copy finished stages to another output folder; return the folder of the last one."""
    for stage in stages:
        folder = Path(shutil.copytree(finished / stage, output_root / "tiny/seed42" / stage))
    return folder


def with_copy_of(finished: Path, output_root: Path, *stages: str) -> list[str]:
    """Flags for a new output folder that holds copies of finished stages."""
    copied(finished, output_root, *stages)
    return ["--output_root", str(output_root)]


def test_files_of_each_stage(finished):
    assert names(finished) == {"teacher-meta", "books", "logs"}  # no work folder is left
    assert names(finished / "logs") == {"3_train_teacher.log", "4_student_first.log", "5_student_second.log"}
    assert names(finished / "teacher-meta") == CHECKPOINT | {"training_only.safetensors"}
    assert names(finished / "books/student_first") == CHECKPOINT | {"training_only.safetensors"}
    assert names(finished / "books/student_second") == CHECKPOINT


def test_stage_json_records_arguments_inputs_scores_and_costs(finished):
    record = read_stage(finished / "teacher-meta")
    assert record["arguments"]["domain_loss_weight"] == 0.5 and record["arguments"]["learning_rate"] == 1e-3
    assert record["arguments"]["trained_domains"] == list(DOMAINS)
    assert set(record["inputs"]) == {"train rows", "selection rows", "domains", "vocabulary texts"}
    assert record["seed"] == 42 and record["selected_on"] == "dev" and record["versions"]["torch"] == torch.__version__
    assert 0 <= record["dev"]["books_accuracy"] <= 1 and record["wall_time_seconds"] > 0
    assert record["peak_memory_bytes"]["resident"] > 1e6
    assert any("loss_domain_corruption" in entry for entry in record["history"])
    cut_from_it = ("books/student_first", "books/student_second")
    assert {read_stage(finished / name)["base_model"] for name in ("teacher-meta", *cut_from_it)} == {"scratch:tiny"}


def test_a_student_loads_with_standard_loaders_and_names_its_labels(finished):
    folder = str(finished / "books/student_second")
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.id2label == {0: "negative", 1: "positive"}
    assert pipeline("text-classification", model=folder)("good plot")[0]["label"] in ("negative", "positive")
    assert AutoTokenizer.from_pretrained(folder).is_fast


def test_stages_change_the_weights_they_train(finished):
    teacher, first, second = (
        weights(finished / name) for name in ("teacher-meta", "books/student_first", "books/student_second")
    )
    layer, head = "bert.encoder.layer.0.attention.self.query.weight", "classifier.weight"
    assert not torch.equal(first[layer], teacher[layer]) and torch.equal(first[head], teacher[head])
    assert not torch.equal(second[layer], first[layer]) and not torch.equal(second[head], first[head])


def test_a_finished_stage_is_not_trained_again(suite, finished, capsys, monkeypatch):
    folder = copied(finished, suite / "outputs", "teacher-meta")
    before = (folder / "stage.json").stat().st_mtime_ns
    monkeypatch.setattr(DistillationTrainer, "train", lambda *a, **k: pytest.fail("trained again"))
    # Settings of logging and evaluation are no reason to train again.
    teach(suite, "--logging_steps", "3", "--per_device_eval_batch_size", "4")
    assert "up to date" in capsys.readouterr().out
    assert (folder / "stage.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change",
    [("--learning_rate", "2e-3"), ("--weight_decay", "0.5"), ("--warmup_steps", "0"), ("--domain_loss_weight", "2"), ("--seed", "7"),
     ("--use_sample_weights", "0"), ("--use_domain_loss", "0"), ("--domain_labels", "permuted"), ("--domain_loss_form", "code"),
     ("--max_length", "5"), ("--max_grad_norm", "0.01"), ("--lr_scheduler_type", "constant"), ("--gradient_accumulation_steps", "2"),
     ("--precision", "bf16"), ("--trainer", "data_seed=3"), ("--adam_beta2", "0.9"), ("--teacher", "mix"), ("--teacher", "mtl"),
     ("--class_weights", "negative=1,positive=3"), ("--label_smoothing", "0.2")],
    ids=lambda change: change[-2].lstrip("-") + "=" + change[-1],
)  # fmt: skip
def test_every_argument_of_the_teacher_has_an_effect(finished, change, tmp_path):
    folder = teach(finished.parents[2], "--output_root", str(tmp_path), *change)
    assert not same(weights(folder), weights(finished / "teacher-meta"))


def test_long_passes_of_the_teacher_print_their_progress(suite, finished, capsys, monkeypatch):
    copied(finished, suite / "outputs", "teacher-meta")
    monkeypatch.setattr(pass_progress, "QUIET", -1.0)
    distil(suite, "first", "--per_device_eval_batch_size", "8")
    distil(suite, "second", "--per_device_eval_batch_size", "8", "--teacher_cache_gb", "0")  # its cache would hold stage 4's states
    printed = capsys.readouterr().out
    for verb in ("stored the teacher's states of", "computed the states of"):
        assert f"{verb} 8 of " in printed, printed


def test_without_domain_loss_there_is_no_transferable_knowledge_to_distil(suite):
    assert read_stage(teach(suite, "--domain_loss_weight", "0"))["transferable"] is False
    with pytest.raises(TeachbackError, match="TKD_WEIGHT=0, or use TEACHER=meta with USE_DOMAIN_LOSS=1 and DOMAIN_LOSS_WEIGHT above 0"):
        distil(suite, "first")
    distil(suite, "first", "--tkd_weight", "0")


def test_changed_rows_and_arguments_are_named_and_the_stage_is_rerun(suite, finished, caplog):
    folder = copied(finished, suite / "outputs", "teacher-meta")
    before = weights(folder)
    path = suite / "data/tiny/train.tsv"
    rows = read_rows(path)
    write_rows(path, [replace(rows[0], text_a="changed text"), *rows[1:]], TRAIN_COLUMNS)
    teach(suite, "--num_train_epochs", "1")
    assert "num_train_epochs: 2.0 -> 1.0" in caplog.text and "train rows" in caplog.text
    assert not same(weights(folder), before)


class Interrupted(Exception):
    pass


def interrupt(*arguments):
    raise Interrupted


def interrupt_after(monkeypatch, steps: int):
    original = DistillationTrainer.training_step
    seen = []

    def step(self, *args, **kwargs):
        seen.append(1)
        if len(seen) > steps:
            raise Interrupted
        return original(self, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "training_step", step)
    return seen


@pytest.mark.parametrize(
    "how",
    [(), ("--save_steps", "4", "--trainer", "save_strategy=steps", "eval_strategy=steps", "eval_steps=4"),
     ("--average_checkpoints", "2", "--layer_decay", "0.8")],
)  # fmt: skip
def test_an_interrupted_stage_continues_to_the_same_result(suite, monkeypatch, how):
    uninterrupted = weights(teach(suite, *how))
    (suite / "outputs/tiny/seed42/teacher-meta").rename(suite / "kept")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9)  # of 12, in the second epoch
        with pytest.raises(Interrupted):
            teach(suite, *how)
    assert not (suite / "outputs/tiny/seed42/teacher-meta").exists()
    left = interrupt_after(monkeypatch, 1000)
    continued = teach(suite, *how)
    assert len(left) == (4 if "--save_steps" in how else 6)
    assert read_stage(continued).get("averaged") == (True if "--average_checkpoints" in how else None)
    assert same(weights(continued), uninterrupted)
    assert same(load_file(continued / "training_only.safetensors"), load_file(suite / "kept/training_only.safetensors"))


def stop_after(monkeypatch, steps: int, number: int = signal.SIGTERM):
    """Send this process a signal in a training step, as a cluster does before it takes a machine away."""
    original, seen = DistillationTrainer.training_step, []

    def step(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == steps:
            os.kill(os.getpid(), number)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "training_step", step)
    return seen


@pytest.mark.parametrize("steps", [2, 6, 8], ids=lambda steps: f"step {steps} of 12, 6 an epoch")
def test_a_stage_stopped_by_a_signal_continues_to_the_same_result(suite, finished, monkeypatch, steps):
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Stopped, match="run the same command again"):
            teach(suite)
    assert not (suite / "outputs/tiny/seed42/teacher-meta").exists()
    left = interrupt_after(monkeypatch, 1000)
    continued = teach(suite)
    assert len(left) == 12 - steps  # nothing was repeated
    assert same(weights(continued), weights(finished / "teacher-meta"))
    kept, again = (read_stage(folder)["dev"] for folder in (finished / "teacher-meta", continued))
    assert kept["loss"] == again["loss"] and kept["score"] == again["score"]


def test_a_signal_in_the_last_step_lets_the_stage_finish_but_no_other_start(suite, monkeypatch):
    stop_after(monkeypatch, 6)
    with pytest.raises(Stopped, match="teacher-single-books is finished, but nothing after"):
        teach(suite, "--teacher", "single", "--domain", "all")
    assert names(suite / "outputs/tiny/seed42") == {"teacher-single-books", "logs"}


def test_the_second_stage_continues_within_an_epoch(suite, finished, monkeypatch):
    copied(finished, suite / "outputs", "teacher-meta", "books/student_first")
    more = ("--method", "mpdistil", "--student_layers", "2", "--beta_pkd", "0", "--meta_teacher_every_epoch", "0")
    uninterrupted = weights(distil(suite, "second", *more)[0])
    shutil.rmtree(suite / "outputs/tiny/seed42/books/student_second")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, signal.SIGINT)
        with pytest.raises(Stopped, match=r"stopped by Ctrl-C: step 4 of 6 was saved as a checkpoint"):
            distil(suite, "second", *more)
    assert same(weights(distil(suite, "second", *more)[0]), uninterrupted)


def test_checkpoints_within_epochs_limit_the_steps_that_are_repeated(suite, finished, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            teach(suite, "--save_steps", "2")
    left = interrupt_after(monkeypatch, 1000)
    continued = teach(suite, "--save_steps", "4")  # another number of steps does not restart the training
    assert len(left) == 8
    assert same(weights(continued), weights(finished / "teacher-meta"))


def test_a_checkpoint_of_other_settings_is_never_used(suite, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            teach(suite, "--save_steps", "1")
    work = suite / "outputs/tiny/seed42/.teacher-meta.partial"
    assert names(work / "checkpoints") == {"checkpoint-4", "checkpoint-5"}  # no more than two are kept
    shutil.copytree(work / "checkpoints/checkpoint-5", suite / "elsewhere/checkpoint-5")
    for place in (work / "checkpoints/checkpoint-5", suite / "elsewhere/checkpoint-5"):
        with pytest.raises(TeachbackError, match="not a checkpoint of a run with these arguments and inputs"):
            teach(suite, "--learning_rate", "2e-3", "--resume_from_checkpoint", str(place))
    assert names(work / "checkpoints") == {"checkpoint-4", "checkpoint-5"}
    steps = interrupt_after(monkeypatch, 0)
    with pytest.raises(Interrupted):
        teach(suite, "--learning_rate", "2e-3")
    assert "unfinished work with other settings or data and is being removed" in caplog.text
    assert len(steps) == 1 and not list((work / "checkpoints").iterdir())  # from the beginning


def test_a_dry_run_names_changes_and_the_checkpoint_to_continue_from(suite, finished, tmp_path, capsys, monkeypatch):
    with_copy_of(finished, tmp_path / "outputs", "teacher-meta", "books")
    path = suite / "data/tiny/train.tsv"
    rows = read_rows(path)
    changed = [replace(row, text_a="changed text") if row.guid == "dvd-3" else row for row in rows]
    write_rows(path, changed, TRAIN_COLUMNS)
    teach(suite, "--dry_run", "--weight_decay", "0.5")
    said = capsys.readouterr().out
    assert "teacher-meta would be recreated because this changed: weight_decay: 0.01 -> 0.5; train rows: '" in said
    distil(suite, "first", "--dry_run")
    distil(suite, "second", "--dry_run")
    assert capsys.readouterr().out.count("is up to date with the earlier stages") == 2  # they do not read the changed row of dvd
    folder = suite / "outputs/tiny/seed42/teacher-meta"
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    described = read_record(folder) | {"files": describe(folder)}  # another teacher, but an undamaged one
    (folder / "stage.json").write_text(json.dumps(with_checksum(described)))
    for stage in ("first", "second"):
        distil(suite, stage, "--dry_run")
        assert f"student_{stage} would be recreated because this changed: teacher: '" in capsys.readouterr().out
    distil(suite, "second", "--dry_run", "--domain", "dvd")
    assert "would stop: there is no finished stage at" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9)
        with pytest.raises(Interrupted):
            teach(suite)
    teach(suite, "--dry_run")
    assert "it would continue from a checkpoint (checkpoint-6)" in capsys.readouterr().out
    teach(suite, "--dry_run", "--seed", "42", "--weight_decay", "0.5")
    assert "unfinished work with other settings would be removed" in capsys.readouterr().out
    assert (suite / "outputs/tiny/seed42/.teacher-meta.partial/checkpoints/checkpoint-6").is_dir()


def test_dropout_is_on_in_training_and_off_in_evaluation(suite, monkeypatch):
    original, seen = TeacherTraining.forward, []

    def forward(self, **batch):
        seen.append((torch.is_grad_enabled(), {module.training for module in self.modules()}))
        return original(self, **batch)

    monkeypatch.setattr(TeacherTraining, "forward", forward)
    teach(suite)
    assert all(modes == {learns} for learns, modes in seen)
    first_score = [learns for learns, _ in seen].index(False)
    assert any(learns for learns, _ in seen[first_score:])  # training goes on after the first evaluation


def test_no_pickle_is_written_while_training(suite, monkeypatch):
    interrupt_after(monkeypatch, 9)
    with pytest.raises(Interrupted):
        teach(suite)
    written = {path.name for path in (suite / "outputs").rglob("*") if path.is_file()}
    assert {"optimizer.safetensors", "random_0.safetensors"} <= written
    assert not [name for name in written if name.endswith((".pt", ".pth", ".bin", ".pkl"))]


def test_cut_off_and_incomplete_checkpoints_are_not_continued_from(suite, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            teach(suite, "--save_steps", "2")
    older, newest = sorted((suite / "outputs").rglob("checkpoint-*"))
    weights_file = newest / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-100])
    (older / "trainer_state.json").unlink()
    steps = interrupt_after(monkeypatch, 0)
    with pytest.raises(Interrupted):
        teach(suite)
    assert "checkpoint-4 is damaged and not used" in caplog.text
    assert len(steps) == 1 and not list((suite / "outputs").rglob("checkpoint-*"))  # from the beginning


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 6 // 10] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random_0.safetensors", "trainer_state.json"])
def test_a_checkpoint_with_a_flipped_bit_is_skipped_with_the_same_result(name, suite, finished, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9)
        with pytest.raises(Interrupted):
            teach(suite)
    (checkpoint,) = (suite / "outputs").rglob("checkpoint-6")
    flip(checkpoint / name)
    folder = teach(suite)
    assert f"checkpoint-6 is damaged and not used: {name} has changed since it was written" in caplog.text
    assert same(weights(folder), weights(finished / "teacher-meta"))


def test_a_best_checkpoint_with_a_flipped_bit_is_not_restored(suite, finished, monkeypatch):
    original = DistillationTrainer._load_best_model

    def spoilt(trainer):
        flip(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
        original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "_load_best_model", spoilt)
        with pytest.raises(TeachbackError, match="is damaged .* run the same command without"):
            teach(suite)
    assert same(weights(teach(suite)), weights(finished / "teacher-meta"))


def test_checkpoints_of_earlier_versions_without_a_seal_are_continued_from(suite, finished, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9)
        with pytest.raises(Interrupted):
            teach(suite)
    for seal in (suite / "outputs").rglob("checkpoint-*/files.json"):
        seal.unlink()
    steps = interrupt_after(monkeypatch, 1000)
    assert same(weights(teach(suite)), weights(finished / "teacher-meta")) and len(steps) == 6


def test_a_run_moved_after_its_last_step_finds_its_best_checkpoint(suite, finished, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "_load_best_model", interrupt)
        with pytest.raises(Interrupted):
            teach(suite)
    release_lock(suite / "outputs/tiny/seed42/teacher-meta")  # as the end of its process does
    (suite / "outputs").rename(suite / "moved")
    folder = teach(suite, "--output_root", str(suite / "moved"))
    assert same(weights(folder), weights(finished / "teacher-meta"))


def test_an_identical_student_is_copied_between_domains(finished, capsys, tmp_path):
    place = with_copy_of(finished, tmp_path, "teacher-meta")
    first, second = distil(finished.parents[2], "first", *place, "--transfer_set", "all", "--domain", "all")
    assert "copy of" in capsys.readouterr().out
    assert same(weights(first), weights(second))
    record = read_stage(second)
    assert record["domain"] == "dvd" and record["method"] == "metakd" and record["selected_on"] == "dev"
    assert list(record["answers"]) == ["dvd"] and "# tiny, dvd: student\\_first" in (second / "README.md").read_text()


def test_a_single_teacher_is_distilled_on_all_domains_with_its_labels(suite):
    teach(suite, "--teacher", "single", "--num_train_epochs", "1")
    outputs, all_texts = suite / "outputs", ("--transfer_set", "all")

    def student(place: str, *more: str) -> Path:
        there = with_copy_of(outputs / "tiny/seed42", suite / place, "teacher-single-books")
        return distil(suite, "first", *there, "--teacher", "single", "--tkd_weight", "0", *more)[0]

    def steps(folder: Path) -> int:
        return read_stage(folder)["history"][-1]["step"]

    own, every, without = student("own"), student("every", *all_texts), student("no_dvd", *all_texts, "--hold_out", "dvd")
    assert steps(every) == 2 * steps(own) and steps(without) == steps(own)  # the suite has two domains
    assert not same(weights(every), weights(own))


def test_students_with_heads_of_their_own_are_not_copied(suite):
    teacher = teach(suite, "--teacher", "mtl", "--num_train_epochs", "1")
    more = ("--teacher", "mtl", "--tkd_weight", "0", "--transfer_set", "all", "--num_train_epochs", "1")
    first, second = distil(suite, "first", "--domain", "all", *more)
    own = load_file(teacher / "training_only.safetensors")["classifier.other_heads.0.weight"]
    assert torch.equal(weights(second)["classifier.weight"], own)
    assert not torch.equal(weights(first)["classifier.weight"], own)


def test_students_of_single_domains_are_not_copied(finished, tmp_path):
    place = with_copy_of(finished, tmp_path, "teacher-meta")
    first, second = distil(finished.parents[2], "first", *place, "--domain", "all")
    assert not same(weights(first), weights(second))


@pytest.mark.parametrize(
    "change",
    [("--transfer_set", "all"), ("--use_expertise_weights", "0"), ("--tkd_weight", "0"), ("--tkd_form", "code"), ("--layer_map", "first"),
     ("--embedding_weight", "0"), ("--hidden_weight", "0"), ("--attention_weight", "0"), ("--attention_target", "probs"),
     ("--first_dropout", "0"),
     ("--student_layers", "2")],
    ids=lambda change: "=".join(change),
)  # fmt: skip
def test_every_argument_of_the_first_stage_has_an_effect(finished, change, tmp_path):
    place = with_copy_of(finished, tmp_path, "teacher-meta")
    (folder,) = distil(finished.parents[2], "first", *place, *change)
    assert not same(weights(folder), weights(finished / "books/student_first"))


def test_cached_teacher_states_give_the_student_of_the_live_teacher(suite, finished, capsys):
    copied(finished, suite / "outputs", "teacher-meta")
    (written,) = distil(suite, "first")
    assert "the teacher has run once" in capsys.readouterr().out
    kept = weights(written)
    shutil.rmtree(written)
    (live,) = distil(suite, "first", "--teacher_cache_gb", "0")
    assert "the teacher runs at each step" in capsys.readouterr().out
    for name, value in weights(live).items():
        torch.testing.assert_close(value, kept[name], rtol=0, atol=2e-3)


def test_a_continued_run_keeps_its_decision_to_cache_teacher_states(finished, tmp_path, monkeypatch, capsys):
    """Cached states are in half precision, which changes the last bits, so a run must continue as it began."""
    place = with_copy_of(finished, tmp_path, "teacher-meta")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)  # of 6
        with pytest.raises(Interrupted):
            distil(finished.parents[2], "first", *place)
    monkeypatch.setattr("teachback.core.disk_cache.SHARE_OF_DISK", 0)
    (folder,) = distil(finished.parents[2], "first", *place)
    assert read_stage(folder)["teacher_states_kept"] is True
    assert same(weights(folder), weights(finished / "books/student_first"))
    shutil.rmtree(folder)
    (folder,) = distil(finished.parents[2], "first", *place)
    assert "the teacher runs at each step, as its states are not cached" in capsys.readouterr().out
    assert read_stage(folder)["teacher_states_kept"] is False


def test_the_second_stage_runs_the_teacher_once(suite, finished, monkeypatch):
    copied(finished, suite / "outputs", "teacher-meta", "books/student_first")
    (folder,) = distil(suite, "second", "--beta_pkd", "0")
    once = weights(folder)
    shutil.rmtree(folder)
    monkeypatch.setattr("teachback.stages.teachers.features", None)  # a call would run the teacher
    (folder,) = distil(suite, "second", "--beta_pkd", "0")
    assert same(weights(folder), once)
    with pytest.raises(TypeError):
        distil(suite, "second", "--beta_pkd", "0", "--teacher_cache_gb", "0", "--num_train_epochs", "1")


def test_processes_that_load_data_do_not_change_the_result(finished, tmp_path):
    place = with_copy_of(finished, tmp_path, "teacher-meta")
    (folder,) = distil(finished.parents[2], "first", *place, "--dataloader_num_workers", "1")
    assert same(weights(folder), weights(finished / "books/student_first"))


def test_unlabelled_texts_change_the_student(suite, finished):
    before = weights(copied(finished, suite / "outputs", "teacher-meta", "books/student_first"))
    (suite / "more.txt").write_text("a good disc\nvery bad plot\n", encoding="utf-8")
    (folder,) = distil(suite, "first", "--unlabelled", str(suite / "more.txt"))
    assert not same(weights(folder), before)


def test_a_bad_unlabelled_file_is_named_with_its_line(suite, finished):
    copied(finished, suite / "outputs", "teacher-meta")
    (suite / "more.txt").write_text("a good disc\n\n", encoding="utf-8")
    with pytest.raises(TeachbackError, match="more.txt line 2: expected one text"):
        distil(suite, "first", "--unlabelled", str(suite / "more.txt"))
    with pytest.raises(TeachbackError, match="no such file"):
        distil(suite, "first", "--unlabelled", str(suite / "none.txt"))


@pytest.mark.parametrize(
    "change",
    [("--soft_loss", "kl", "--temperature", "2"), ("--soft_loss", "mse"), ("--temperature", "2.5"), ("--alpha_soft", "0.5"),
     ("--use_expertise_weights", "0")],
    ids=lambda change: "=".join(change),
)  # fmt: skip
def test_every_argument_of_the_second_stage_has_an_effect(finished, change, tmp_path):
    place = with_copy_of(finished, tmp_path, "teacher-meta", "books/student_first")
    (folder,) = distil(finished.parents[2], "second", *place, *change)
    assert not same(weights(folder), weights(finished / "books/student_second"))


@pytest.mark.parametrize("method", ["finetune", "mpdistil"])
@pytest.mark.parametrize("change", [("--class_weights", "negative=1,positive=3"), ("--label_smoothing", "0.2")])
def test_class_weights_and_smoothing_have_an_effect_in_other_methods(finished, method, change, tmp_path):
    place = with_copy_of(finished, tmp_path, "teacher-meta", "books/student_first")
    plain = ("--method", method, "--beta_pkd", "0", "--meta_teacher_every_epoch", "0", "--num_train_epochs", "1")
    (folder,) = distil(finished.parents[2], "second", *place, *plain)
    before = weights(folder)
    (folder,) = distil(finished.parents[2], "second", *place, *plain, *change)
    assert not same(weights(folder), before) and read_stage(folder)["arguments"][change[0][2:]]


def test_a_student_without_distillation_does_not_depend_on_the_teacher(suite, finished):
    copied(finished, suite / "outputs", "teacher-meta")
    (folder,) = distil(suite, "second", "--method", "finetune")
    before = weights(folder)
    teach(suite, "--learning_rate", "2e-3")
    (folder,) = distil(suite, "second", "--method", "finetune", "--seed", "42")
    assert same(weights(folder), before)
    assert names(folder) == CHECKPOINT and read_stage(folder)["method"] == "finetune"


@pytest.mark.parametrize(("name", "split"), [("glue", "test"), ("amazon", "dev")])
def test_the_paper_protocol_selects_on_the_split_of_the_suites_paper(suite, name, split):
    write_suite(suite / "data/tiny", replace(read_suite(suite / "data/tiny"), name=name))
    folder = teach(suite, "--protocol", "paper", "--num_train_epochs", "1")
    assert read_stage(folder)["selected_on"] == split
    assert ("selected on the reported rows" in (folder / "README.md").read_text()) == (split == "test")


def test_selection_rows_missing_because_of_the_protocol_are_explained(suite):
    folder = suite / "data/tiny"
    write_suite(folder, replace(read_suite(folder), settings={"protocol": "paper"}))
    write_rows(folder / "dev.tsv", [], TRAIN_COLUMNS[:-1])
    with pytest.raises(TeachbackError, match="stage 2 ran with PROTOCOL=paper, but this stage has PROTOCOL=honest"):
        teach(suite)


def test_a_missing_input_is_named_with_the_stage_to_run(suite, finished):
    with pytest.raises(TeachbackError, match="teacher-meta.*TEACHER=meta bash 3_train_teacher.sh"):
        distil(suite, "first")
    copied(finished, suite / "outputs", "teacher-meta")
    with pytest.raises(TeachbackError, match="books/student_first.*DOMAIN=books bash 4_student_first.sh"):
        distil(suite, "second")
    with pytest.raises(TeachbackError, match="TEACHER=single DOMAIN=dvd bash 3_train_teacher.sh"):
        distil(suite, "first", "--teacher", "single", "--domain", "dvd")
    (suite / "data/tiny/suite.json").unlink()
    with pytest.raises(TeachbackError, match="2_process_data.sh"):
        teach(suite)


def test_single_teachers_are_trained_for_every_domain(suite):
    last = teach(suite, "--teacher", "single", "--domain", "all", "--num_train_epochs", "1")
    assert names(last.parent) == {"teacher-single-books", "teacher-single-dvd", "logs"}
    assert read_stage(last)["arguments"]["trained_domains"] == ["dvd"]


def test_a_teacher_without_transferable_knowledge_needs_tkd_weight_0(suite):
    teach(suite, "--teacher", "mix")
    with pytest.raises(TeachbackError, match="TKD_WEIGHT=0"):
        distil(suite, "first", "--teacher", "mix")
    distil(suite, "first", "--teacher", "mix", "--tkd_weight", "0")


def test_a_domain_that_the_teacher_was_not_trained_on_is_refused(suite):
    teach(suite, "--domains", "books", "--teacher", "mix")
    with pytest.raises(TeachbackError, match="trained on books, not on dvd"):
        distil(suite, "first", "--teacher", "mix", "--tkd_weight", "0", "--domain", "dvd")


@pytest.mark.parametrize(
    ("argument", "message"),
    [(["--teacher", "meat"], "meta, mix, mtl, single"), (["--output_dir", "x"], "--output_root"), (["--do_predict"], "7_eval.sh"),
     (["--learning_rat", "1"], "unknown arguments: --learning_rat 1"), (["--device", "tpu"], "auto, cpu, cuda"), (["--domain_loss_weight", "-1"], "at least 0"), (["--max_length", "2"], "at least 4"),
     (["--domain", "toys", "--teacher", "single"], "books, dvd"), (["--teacher_model", "scratch:huge"], "scratch:tiny")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_arguments_are_explained(suite, argument, message):
    with pytest.raises(TeachbackError, match=message):
        teach(suite, *argument)


def test_a_teacher_no_better_than_the_majority_class_causes_a_warning(suite, caplog):
    teach(suite, "--num_train_epochs", "1", "--learning_rate", "1e-9")
    assert "does not beat the majority class" in caplog.text


def test_a_loss_of_nan_stops_the_stage(suite, monkeypatch):
    monkeypatch.setattr("teachback.methods.class_weights.hard_label_loss", lambda logits, *more: logits.sum(-1) * float("nan"))
    with pytest.raises(TeachbackError, match="loss became nan at step 1, with learning rate"):
        teach(suite, "--logging_steps", "1")
    assert not (suite / "outputs/tiny/seed42/teacher-meta").exists()


def on_two_processes(*commands: list[str]) -> str:
    """Run entry points in order in one torchrun, as imports take the longest, and return their output."""
    several = [str(ROOT / "tests/commands.py"), json.dumps(commands)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *several]
    environment = os.environ | {"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_equal_updates(start: dict, one: dict, two: dict, name: str) -> None:
    """Assert that a weight moved alike in both runs, up to 2 % of its largest change."""
    moved, gap = (one[name] - start[name]).abs().max(), (one[name] - two[name]).abs().max()
    assert moved > 0 and gap < 0.02 * moved, (gap, moved)


def test_two_processes_equal_one_process_with_a_doubled_batch(suite):
    """Stages 3 to 5 each start from the same weights; in stage 4 both processes read the cached teacher states."""
    half = ["--per_device_train_batch_size", "4", "--num_train_epochs", "1"]
    still = ["--use_domain_loss", "0", "--teacher_model", str(model_without_dropout(suite)), "--dropout", "0", "--num_train_epochs", "1"]
    teacher = teach(suite, *still)
    commands = [["train_teacher.py", *flags(suite, *still, *half, "--output_root", str(suite / "twice"))]]
    start, layer = weights(teacher), "bert.encoder.layer.{}.output.dense.weight"
    place = with_copy_of(teacher.parent, suite / "two", teacher.name)
    student = ["--tkd_weight", "0", "--student_layers", "1", "--student_init", "teacher"]
    for stage in ("first", "second"):
        commands.append(["distill_student.py", *flags(suite, *student, *half, *place, "--stage", stage)])
    printed = on_two_processes(*commands)
    two = weights(suite / "twice/tiny/seed42/teacher-meta")
    assert_equal_updates(weights(model_without_dropout(suite)), start, two, layer.format(1))
    for stage in ("first", "second"):
        one = weights(distil(suite, stage, "--tkd_weight", "0", "--num_train_epochs", "1")[0])
        assert_equal_updates(start, one, weights(suite / f"two/tiny/seed42/books/student_{stage}"), layer.format(0))
        start = one
    assert printed.count("the teacher has run once") == 1  # in stage 4 only
    kept = [names(root / "tiny/teacher_states") for root in (suite / "outputs", suite / "two")]
    assert kept[0] == kept[1] and len(kept[0]) == 3


def model_without_dropout(root: Path) -> Path:
    """Folder of a two-layer model without dropout, whose random masks would differ between processes."""
    folder = root / "still"
    if not folder.exists():
        from tiny import NO_DROPOUT, classifier, tokenizer

        classifier(seed=1, **NO_DROPOUT).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


def test_the_record_holds_no_secret(suite, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_word")
    folder = teach(suite, "--num_train_epochs", "1")
    assert "hf_secret_word" not in json.dumps(read_stage(folder))


def test_a_compiled_model_learns_the_weights_of_an_uncompiled_one(suite):
    still = ["--teacher_model", str(model_without_dropout(suite)), "--dropout", "0", "--max_steps", "2"]
    plain = weights(teach(suite, *still))
    compiled = weights(teach(suite, *still, "--trainer", "torch_compile=1", "torch_compile_backend=aot_eager"))
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=1e-5, msg=name)


def test_tensorboard_gets_losses_by_term_and_scores_by_domain(suite):
    folder = teach(suite, "--num_train_epochs", "1", "--report_to", "tensorboard")
    read = EventAccumulator(str(folder.parent / "logs/teacher-meta")).Reload()
    tags = set(read.Tags()["scalars"])
    assert {"train/loss", "train/learning_rate", "eval/books_accuracy", "eval/dvd_accuracy"} <= tags
    terms = {name for entry in read_stage(folder)["history"] for name in entry if name.startswith("loss_")}
    assert len(terms) > 1
    for term in terms:
        logged = [entry[term] for entry in read_stage(folder)["history"] if term in entry]
        assert [event.value for event in read.Scalars(f"train/{term}")] == pytest.approx(logged)


def test_a_logger_that_is_not_installed_is_named(suite, monkeypatch):
    monkeypatch.setattr("teachback.core.tracking.find_spec", lambda name: None)
    with pytest.raises(TeachbackError, match="REPORT_TO=tensorboard.*pip install tensorboard"):
        teach(suite, "--report_to", "tensorboard")


def test_a_stage_that_another_process_runs_is_refused(suite):
    hold = "import sys, time; from teachback.core.locks import take_lock; take_lock(sys.argv[1]); print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", hold, str(suite / "outputs/tiny/seed42/teacher-meta")]
    other = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": "src"}, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TeachbackError, match=f"teacher-meta is being created by process {other.pid}"):
            teach(suite)
    finally:
        other.kill()
        other.wait()
    assert not (teach(suite, "--num_train_epochs", "1").parent / ".teacher-meta.lock").exists()
