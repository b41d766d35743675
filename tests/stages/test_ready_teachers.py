"""External teachers: a fine-tuned checkpoint in stage 3, and predictions in a file in stage 5."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import Finished, stage
from safetensors.torch import load_file
from tiny_suite import DOMAINS, write_tiny_suite
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from teachback.core.errors import TeachbackError
from teachback.core.published import read_stage
from teachback.data.schema import read_rows, write_rows
from teachback.stages.check import check_stages

SMALL = {
    "SUITE": "tiny", "DOMAIN": "books", "TEACHER": "mix", "TKD_WEIGHT": "0", "TEACHER_MODEL": "scratch:tiny", "STUDENT_MODEL": "scratch:tiny",
    "EMBEDDING_MODEL": "scratch:tiny", "MAX_LENGTH": "16", "BATCH_SIZE": "8", "PRECISION": "fp32", "DEVICE": "cpu", "EPOCHS": "2", "LR": "1e-3",
}  # fmt: skip
MAP = "LABEL_0=positive,LABEL_1=negative"


def run(script: str, home: Path, *flags: str, **variables: str) -> Finished:
    places = {"DATA_DIR": str(home / "data"), "OUTPUT_DIR": str(home / "outputs")}
    return stage(script, home, *flags, **SMALL | places | variables)


def printed(script: str, home: Path, *flags: str, **variables: str) -> str:
    done = run(script, home, *flags, **variables)
    assert done.status == 0, f"{script}\n{done.output}\n{done.error}"
    return done.output + done.error


def refused(script: str, home: Path, *flags: str, **variables: str) -> str:
    done = run(script, home, *flags, **variables)
    assert done.status == 1, f"{script}\n{done.output}\n{done.error}"
    return done.error


def check_stage(script: str, home: Path, monkeypatch, **variables: str) -> None:
    """Check the variables of one stage as --check does."""
    for name, value in (SMALL | {"DATA_DIR": str(home / "data")} | variables).items():
        monkeypatch.setenv(name, value)
    check_stages([script])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Suite with quiz rows, an external checkpoint with reversed labels, and stages 3 and 4 run with it as mix teacher."""
    home = tmp_path_factory.mktemp("made")
    write_tiny_suite(home / "data")
    rows = read_rows(home / "data/tiny/train.tsv")
    write_rows(home / "data/tiny/quiz.tsv", rows[:12] + rows[24:36])
    printed("3_train_teacher.sh", home, EPOCHS="12", OUTPUT_DIR=str(home / "elsewhere"))
    outside = home / "outside"
    outside.mkdir()
    model = AutoModelForSequenceClassification.from_pretrained(home / "elsewhere/tiny/seed42/teacher-mix")
    with torch.no_grad():
        for values in (model.classifier.weight, model.classifier.bias):
            values.copy_(values[[1, 0]])
    model.config.update({"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}})
    model.save_pretrained(outside)
    AutoTokenizer.from_pretrained(home / "elsewhere/tiny/seed42/teacher-mix").save_pretrained(outside)
    printed("3_train_teacher.sh", home, TEACHER_CHECKPOINT=str(outside), TEACHER_LABELS=MAP)
    printed("4_student_first.sh", home)
    return home


@pytest.fixture
def home(made, tmp_path) -> Path:
    """Copy of `made` that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def write_predictions(home: Path, name: str = "soft.tsv", count: int | None = None) -> str:
    """Write the predictions of the teacher on the train rows, or on the first ``count``, and return the path of the file."""
    path, teacher = home / name, home / "outputs/tiny/seed42/teacher-mix"
    flags = ["--input", str(home / "data/tiny/train.tsv"), "--text_a", "text_a", "--keep", "guid", "--output", str(path)]
    done = stage("scripts/predict.sh", home, str(teacher), *flags, DEVICE="cpu")
    assert done.status == 0, done.error
    if count is not None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: count + 1]))
    return str(path)


def weights(home: Path, outputs: str = "outputs", name: str = "books/student_second") -> dict[str, torch.Tensor]:
    return load_file(home / outputs / "tiny/seed42" / name / "model.safetensors")


def largest_difference(first: dict, second: dict) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_an_external_checkpoint_becomes_the_teacher_unchanged(made):
    folder = made / "outputs/tiny/seed42/teacher-mix"
    record = read_stage(folder)
    assert record["teacher_checkpoint"] == record["base_model"] == str(made / "outside") and record["arguments"]["label_order"] == [1, 0]
    assert not {"learning_rate", "num_train_epochs", "teacher_model"} & record["arguments"].keys()
    text = "the plot is very good"
    ours, theirs = (pipeline("text-classification", str(path), device="cpu", top_k=None)([text])[0] for path in (folder, made / "outside"))
    names = dict(pair.split("=") for pair in MAP.split(","))
    assert {one["label"]: one["score"] for one in ours} == {names[one["label"]]: one["score"] for one in theirs}
    card = (folder / "README.md").read_text()
    assert "fine-tuned elsewhere" in card and "It was trained for" not in card and "somewhat optimistic" not in card


def test_an_external_checkpoint_with_swapped_labels_causes_a_warning(home, caplog):
    said = printed("3_train_teacher.sh", home, TEACHER_CHECKPOINT=str(home / "outside"), TEACHER_LABELS="LABEL_0=negative,LABEL_1=positive")
    assert said.index("majority") < said.index("wrote ") and "dvd             accuracy" in said
    assert "does not beat the majority class on books (0.000" in caplog.text and "labels in the right order (TEACHER_LABELS)?" in caplog.text
    assert "is up to date" in printed(
        "3_train_teacher.sh", home, TEACHER_CHECKPOINT=str(home / "outside"), TEACHER_LABELS="LABEL_0=negative,LABEL_1=positive", LR="1"
    )
    config = json.loads((home / "outside/config.json").read_text())
    (home / "outside/config.json").write_text(json.dumps(config | {"id2label": {"0": "Positive", "1": "NEGATIVE"}}))
    said = printed("3_train_teacher.sh", home, TEACHER_CHECKPOINT=str(home / "outside"))
    assert "recreated because this changed: label_order" in caplog.text and "books           accuracy       1.000     0.500" in said


def test_later_stages_work_with_an_external_checkpoint(home):
    printed("5_student_second.sh", home)
    printed("6_curriculum.sh", home, EPISODES="1", EPISODE_STEPS="2", EVAL_EVERY="1", BATCH_SIZE="4")
    printed("7_eval.sh", home)
    with open(home / "outputs/tiny/seed42/results.tsv", encoding="utf-8", newline="") as file:
        stages = {row["stage"] for row in csv.DictReader(file, delimiter="\t")}
    assert stages == {"teacher-mix", "books/student_second", "books/meta_teacher", "books/curriculum"}
    assert (home / "outputs/tiny/seed42/report.html").is_file()
    single = {"TEACHER": "single", "DOMAIN": "all", "TEACHER_CHECKPOINT": str(home / "outside"), "TEACHER_LABELS": MAP}
    printed("3_train_teacher.sh", home, **single)
    assert all((home / f"outputs/tiny/seed42/teacher-single-{name}/stage.json").is_file() for name in DOMAINS)
    cut = {"STUDENT_INIT": "teacher", "STUDENT_LAYERS": "1", "FIRST": "none", "OUTPUT_DIR": str(home / "cut"), "TEACHER_DIR": str(home / "outputs")}
    printed("4_student_first.sh", home, **cut)
    printed("5_student_second.sh", home, **cut | {"METHOD": "mpdistil", "BETA_PKD": "0"})
    assert "which is unknown for a TEACHER_CHECKPOINT; set STUDENT_INIT=pretrained" in " ".join(
        refused("5_student_second.sh", home, **cut | {"METHOD": "finetune", "OUTPUT_DIR": str(home / "outputs")}).split()
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TEACHER": "meta"}, "TEACHER=meta cannot be a TEACHER_CHECKPOINT: .*transferable knowledge.*TEACHER=mix"),
        ({"TEACHER": "mtl"}, "TEACHER=mtl cannot be a TEACHER_CHECKPOINT: .*one head, not one per domain"),
        ({"TEACHER_CHECKPOINT": ""}, f"TEACHER_LABELS={MAP} needs TEACHER_CHECKPOINT"),
        ({"TEACHER_LABELS": ""}, "TEACHER_LABELS=LABEL_0=negative,LABEL_1=positive"),
        ({"TEACHER_CHECKPOINT": "/no/such/folder"}, "there is no such folder"),
    ],
)  # fmt: skip
def test_invalid_external_teachers_are_refused_by_the_stage_and_its_check(made, monkeypatch, variables, message):
    variables = {"TEACHER_CHECKPOINT": str(made / "outside"), "TEACHER_LABELS": MAP} | variables
    assert re.search(message, refused("3_train_teacher.sh", made, **variables))
    with pytest.raises(TeachbackError, match=f"3_train_teacher.sh: .*{message}"):
        check_stage("3_train_teacher.sh", made, monkeypatch, **variables)


def test_a_checkpoint_with_one_head_needs_domains_with_equal_labels(home):
    path = home / "data/tiny/suite.json"
    suite = json.loads(path.read_text())
    suite["domains"]["dvd"] |= {"head": "disc", "labels": ["negative", "positive"]}
    path.write_text(json.dumps(suite))
    said = refused("3_train_teacher.sh", home, TEACHER_CHECKPOINT=str(home / "outside"), TEACHER_LABELS=MAP)
    assert "has one head, but books and dvd have different labels" in said
    assert "accuracy" in printed("3_train_teacher.sh", home, TEACHER_CHECKPOINT=str(home / "outside"), TEACHER_LABELS=MAP, DOMAINS="dvd", DOMAIN="dvd")


def test_soft_labels_of_a_teacher_give_the_student_that_it_gives_itself(home):
    printed("5_student_second.sh", home)
    elsewhere = {"SOFT_LABELS": write_predictions(home), "STUDENT_DIR": str(home / "outputs"), "OUTPUT_DIR": str(home / "file")}
    said = printed("5_student_second.sh", home, **elsewhere)
    assert "has probabilities for 24 of 24 rows of books; 0 have only a label; 24 rows of the file match no row" in said
    assert largest_difference(weights(home), weights(home, "file")) < 1e-4
    assert largest_difference(weights(home), weights(home, name="books/student_first")) > 1e-3


def test_soft_labels_need_no_teacher_and_the_report_is_written(home, caplog):
    file = write_predictions(home, "soft.jsonl")
    shutil.rmtree(home / "outputs")
    alone = {"FIRST": "none", "METHOD": "mpdistil", "SOFT_LABELS": file, "TEACHER": "meta"}
    for script in ("4_student_first.sh", "5_student_second.sh", "7_eval.sh"):
        printed(script, home, **alone)
    assert {path.name for path in (home / "outputs/tiny/seed42").iterdir()} >= {"books", "results.tsv", "report.html"}
    record = read_stage(home / "outputs/tiny/seed42/books/student_second")
    assert record["arguments"]["beta_pkd"] == 0 and record["arguments"]["meta_teacher_every_epoch"] is False
    assert record["arguments"]["teacher"] == "soft_labels" and "soft labels" in record["inputs"] and "teacher" not in record["inputs"]
    assert "is up to date" in printed("5_student_second.sh", home, **alone)
    changed = Path(file).read_text().replace("{", '{"note": "checked", ', 1)
    Path(file).write_text(changed)
    printed("5_student_second.sh", home, **alone)
    assert "recreated because this changed: soft labels" in caplog.text
    assert "first run: TEACHER=meta" in refused("6_curriculum.sh", home, TEACHER="meta")


def test_rows_without_soft_labels_learn_from_their_gold_labels(home):
    file = write_predictions(home, count=12)
    said = printed("5_student_second.sh", home, SOFT_LABELS=file)
    assert "has probabilities for 12 of 24 rows of books; 12 have only a label; 0 rows of the file" in said
    some, folder = weights(home), home / "outputs/tiny/seed42/books/student_second"
    shutil.rmtree(folder)
    table = [row.split("\t") for row in Path(file).read_text().splitlines()]
    labels = {row.guid: row.label for row in read_rows(home / "data/tiny/train.tsv")}
    certain = [[guid, label, str(float(label == "negative")), str(float(label == "positive"))] for guid, label in labels.items()]
    known = {row[0] for row in table}
    (home / "full.tsv").write_text("".join("\t".join(row) + "\n" for row in [*table, *(row for row in certain if row[0] not in known)]))
    printed("5_student_second.sh", home, SOFT_LABELS=str(home / "full.tsv"))
    assert largest_difference(some, weights(home)) < 1e-5  # with certain predictions, Meta-KD's loss at temperature 1 is the loss on labels


def test_soft_labels_of_unlabelled_texts_are_matched_by_text(home):
    (home / "more.txt").write_text("a good disc\nquite bad plot\nvery thin paper\n")
    file = home / "texts.tsv"
    rows = [row.text_a for row in read_rows(home / "data/tiny/train.tsv") if row.domain == "books"][:5]
    file.write_text("text\tnegative\tpositive\n" + "".join(f"{text}\t0.3\t0.7\n" for text in dict.fromkeys([*rows, "a good disc"])))
    said = printed("5_student_second.sh", home, SOFT_LABELS=str(file), UNLABELLED=str(home / "more.txt"))
    assert "of 27 rows of books" in said and "2 have neither and are left out" in said


def test_inner_states_come_from_the_teacher_even_with_soft_labels(home):
    file = write_predictions(home)
    same = {"METHOD": "mpdistil", "META_TEACHER_EVERY_EPOCH": "0", "BETA_PKD": "10", "STUDENT_DIR": str(home / "outputs")}
    printed("5_student_second.sh", home, **same)
    other = {"SOFT_LABELS": file, "OUTPUT_DIR": str(home / "file"), "TEACHER_DIR": str(home / "outputs")}
    printed("5_student_second.sh", home, **same | other)
    assert largest_difference(weights(home), weights(home, "file")) < 1e-4
    assert "META_TEACHER_EVERY_EPOCH=1 changes the teacher's predictions" in refused("5_student_second.sh", home, **same | other | {"META_TEACHER_EVERY_EPOCH": "1"})
    assert "set TRANSFER_WINDOWS=0" in refused("5_student_second.sh", home, **same | other | {"TRANSFER_WINDOWS": "1"})
    assert "there is no finished stage at" in refused("5_student_second.sh", home, **same | other | {"TEACHER_DIR": str(home / "none")})


def test_invalid_files_of_soft_labels_are_refused_by_stage_and_check(made, tmp_path, monkeypatch):
    (tmp_path / "soft.tsv").write_text("guid\tnegative\nbooks-1\t0.5\n")
    for file, message in ((str(tmp_path / "soft.tsv"), "no column for positive"), ("gone", "SOFT_LABELS=gone: there is no such file")):
        assert message in refused("5_student_second.sh", made, SOFT_LABELS=file, OUTPUT_DIR=str(tmp_path), STUDENT_DIR=str(made / "outputs"))
        with pytest.raises(TeachbackError, match=f"5_student_second.sh: .*{message}"):
            check_stage("5_student_second.sh", made, monkeypatch, SOFT_LABELS=file)
