"""The numbered scripts in order, as a user runs them, on the generated suite with tiny models."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Finished, stage
from transformers import pipeline

from teachback.core.published import read_stage
from teachback.data.schema import read_rows

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    "1_get_data.sh",
    "2_process_data.sh",
    "3_train_teacher.sh",
    "4_student_first.sh",
    "5_student_second.sh",
    "6_curriculum.sh",
    "7_eval.sh",
]
TRAINING = {"3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh"}


def flags(script: str) -> list[str]:
    few = ["--max_steps", "6", "--trainer", "eval_strategy=no", "save_strategy=no", "load_best_model_at_end=0"]
    return few if script in TRAINING else []


def settings(home: Path) -> dict[str, str]:
    return {
        "CONFIG": "configs/sample.sh", "DATA_DIR": str(home / "data"), "OUTPUT_DIR": str(home / "outputs"),
        "TEACHER_MODEL": "scratch:tiny", "MAX_LENGTH": "24", "PRECISION": "fp32", "DEVICE": "cpu", "OMP_NUM_THREADS": "1",
        "EPISODES": "2", "EVAL_EVERY": "1", "EPISODE_STEPS": "2",
    }  # fmt: skip


def bash(script: str, home: Path) -> str:
    """Run one numbered script from another folder, with few steps; return what it printed."""
    command, environment = ["bash", str(ROOT / script), *flags(script)], {"PYTHON": sys.executable, **settings(home)}
    done = subprocess.run(command, cwd=home, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_in_process(script: str, home: Path, **variables: str) -> Finished:
    """Run one numbered script with few steps in this process."""
    return stage(script, home, *flags(script), **settings(home) | variables)


def output_of(script: str, home: Path, **variables: str) -> str:
    done = run_in_process(script, home, **variables)
    assert done.status == 0, f"{script}\n{done.output}\n{done.error}"
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Folder in which every stage has run, and the output of each."""
    home = tmp_path_factory.mktemp("home")
    printed = {}
    for script in SCRIPTS[:-1]:  # stage 5 has the entry point of stage 4, which a new interpreter has run before
        printed[script] = (output_of if script == "5_student_second.sh" else bash)(script, home)
    output_of("5_student_second.sh", home, METHOD="finetune")
    return home, printed | {"7_eval.sh": bash("7_eval.sh", home)}


def test_the_results_list_every_checkpoint(run):
    home, printed = run
    with open(home / "outputs/sample/seed42/results.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    of_books = ["meta_teacher", "student_finetune", "student_second", "curriculum"]
    stages = ["teacher-meta", *(f"books/{name}" for name in of_books)]
    assert list(dict.fromkeys(row["stage"] for row in rows)) == stages
    assert {"teacher-meta", "metakd", "finetune", "curriculum"} <= {row["method"] for row in rows}
    assert {row["domain"] for row in rows} == {"books", "dvd", "electronics", "kitchen"}
    assert all(0 <= float(row["value"]) <= 1 and int(row["n"]) > 20 and row["split"] == "test" for row in rows)
    assert all(stage in printed["7_eval.sh"] for stage in stages)


def test_every_checkpoint_records_its_base_model(run):
    folder = run[0] / "outputs/sample/seed42"
    students = ("student_first", "student_second", "curriculum")
    for place in (folder / name for name in ("teacher-meta", *(f"books/{student}" for student in students))):
        assert read_stage(place)["base_model"] == "scratch:tiny", place
        assert "base model | scratch:tiny" in re.sub(" +", " ", (place / "README.md").read_text())


def test_the_steps_and_rewards_of_the_curriculum_are_recorded(run):
    folder = run[0] / "outputs/sample/seed42/books/curriculum"
    with open(folder / "trajectory.tsv", encoding="utf-8", newline="") as file:
        steps = list(csv.DictReader(file, delimiter="\t"))
    assert len(steps) == 4  # two episodes of two steps
    assert {step["domain"] for step in steps} <= {"books", "dvd", "electronics", "kitchen"}
    assert all(0 < float(step["probability"]) < 1 and -1 <= float(step["reward"]) <= 1 for step in steps)
    for name in ("rewards.tsv", "rewards.png", "domains.png", "last/model.safetensors", "training_only.safetensors"):
        assert (folder / name).stat().st_size > 0


@pytest.mark.parametrize("student", ["student_second", "curriculum"])
def test_a_student_in_a_pipeline_predicts_what_stage_7_predicts(run, student):
    home, _ = run
    folder = home / "outputs/sample/seed42"
    with open(folder / f"predictions/books__{student}-test.tsv", encoding="utf-8", newline="") as file:
        predicted = {row["guid"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    rows = [row for row in read_rows(home / "data/sample/test.tsv") if row.domain == "books"][:20]
    classify = pipeline("text-classification", str(folder / "books" / student), top_k=None, device="cpu")
    answers = classify([row.text_a for row in rows], truncation=True, max_length=24)
    for row, answer in zip(rows, answers):
        assert answer[0]["label"] == predicted[row.guid]["predicted"]
        for label in answer:
            assert label["score"] == pytest.approx(float(predicted[row.guid][f"p({label['label']})"]), abs=1e-5)


def test_every_stage_is_up_to_date_when_run_again(run):
    home, _ = run
    for script in ("3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh", "6_curriculum.sh"):
        assert "is up to date" in output_of(script, home)


def test_mpdistil_end_to_end(run):
    """A teacher of one domain, no first stage, a meta-teacher after each epoch, and a curriculum over other domains."""
    home, _ = run
    other = {"OUTPUT_DIR": str(home / "mpdistil"), "TEACHER": "single", "FIRST": "none", "METHOD": "mpdistil"}
    printed = {script: output_of(script, home, **other) for script in SCRIPTS[2:]}
    assert "FIRST=none" in printed["4_student_first.sh"]
    for name in ("teacher-single-books", "books/meta_teacher", "books/student_second", "books/curriculum"):
        assert (home / "mpdistil/sample/seed42" / name / "stage.json").is_file()
        assert name in printed["7_eval.sh"]


def test_stages_print_what_they_have_done(run):
    _, printed = run
    assert "complete" in printed["1_get_data.sh"] and "prototype scores" in printed["2_process_data.sh"]
    assert "majority" in printed["3_train_teacher.sh"] and "student_first" in printed["4_student_first.sh"]


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ("2_process_data.sh", "1_get_data.sh"),
        ("3_train_teacher.sh", "2_process_data.sh"),
        ("6_curriculum.sh", "2_process_data.sh"),
        ("7_eval.sh", "2_process_data.sh"),
    ],
)
def test_a_stage_without_its_input_names_the_stage_to_run(tmp_path, script, advice):
    done = run_in_process(script, tmp_path)
    assert done.status == 1 and advice in done.error
