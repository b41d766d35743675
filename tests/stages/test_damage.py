"""Damaged files of earlier stages: their readers report them, and the stage that wrote them recreates them."""

import json
import shutil
from pathlib import Path

import pytest
from commands import Finished, command, stage

from teachback.core import integrity

VARIABLES = {
    "SUITE": "custom", "SOURCE": "mine.tsv", "DOMAIN": "a", "DATA_DIR": "data", "OUTPUT_DIR": "outputs", "MAX_LENGTH": "8",
    "TEACHER_MODEL": "scratch:tiny", "STUDENT_MODEL": "scratch:tiny", "EMBEDDING_MODEL": "scratch:tiny", "BATCH_SIZE": "8",
    "STUDENT_LAYERS": "1", "STUDENT_INIT": "teacher", "TEACHER_EPOCHS": "1", "FIRST_EPOCHS": "1", "SECOND_EPOCHS": "1",
    "EPISODES": "2", "EVAL_EVERY": "1", "EPISODE_STEPS": "2", "PRECISION": "fp32", "DEVICE": "cpu", "TEACHER_CACHE_GB": "1",
}  # fmt: skip
SCRIPTS = ("2_process_data.sh", "3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh", "6_curriculum.sh")
SEED = Path("outputs/custom/seed42")
SECOND = SEED / "a/student_second"


def run(home: Path, script: str, **variables: str) -> Finished:
    done = stage(script, home, **VARIABLES | variables)
    assert "Traceback" not in done.error
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Folder in which stages 2 to 6 have run."""
    home = tmp_path_factory.mktemp("damage")
    lines = [f"{word} {i} {d}\t{label}\t{d}" for d in "ab" for label, word in (("yes", "good"), ("no", "bad")) for i in range(12)]
    (home / "mine.tsv").write_text("text_a\tlabel\tdomain\n" + "\n".join(lines) + "\n")
    for script in SCRIPTS:
        done = run(home, script)
        assert done.status == 0, done.error
    return home


@pytest.fixture
def home(finished, tmp_path) -> Path:
    """Copy of `finished` that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "home"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 6 // 10] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def remove_last_row(path: Path) -> None:
    """Remove the last row, which leaves a file of whole lines."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tsv", ".safetensors", ".npy", ".png")}


# Cases of a damaged folder: the stage that writes it, the folder, the damaged file, and the damage
PUBLISHED = {
    "rows": ("2_process_data.sh", Path("data/custom"), "train.tsv", remove_last_row),
    "embeddings": ("2_process_data.sh", Path("data/custom"), "embeddings.npy", flip),
    "teacher without weights": ("3_train_teacher.sh", SEED / "teacher-meta", "model.safetensors", Path.unlink),
    "teacher cut": ("3_train_teacher.sh", SEED / "teacher-meta", "training_only.safetensors", halve),
    "first student": ("4_student_first.sh", SEED / "a/student_first", "model.safetensors", flip),
    "second student": ("5_student_second.sh", SECOND, "tokenizer.json", zeros),
    "trajectory": ("6_curriculum.sh", SEED / "a/curriculum", "trajectory.tsv", remove_last_row),
    "rewards": ("6_curriculum.sh", SEED / "a/curriculum", "rewards.tsv", zeros),
    "last student": ("6_curriculum.sh", SEED / "a/curriculum", "last/model.safetensors", flip),
    "meta-teacher": ("6_curriculum.sh", SEED / "a/meta_teacher", "training_only.safetensors", flip),
    "description": ("3_train_teacher.sh", SEED / "teacher-meta", "stage.json", flip),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_damaged_folder_is_kept_aside_and_recreated(name, home, finished, caplog):
    script, folder, file, spoil = PUBLISHED[name]
    before = content(finished / folder)
    spoil(home / folder / file)
    done = run(home, script)
    assert done.status == 0 and f"{folder} is damaged and is being recreated; the damaged copy is kept as " in caplog.text
    assert file in caplog.text and f"wrote {folder}" in done.output
    assert content(home / folder) == before
    assert (home / folder / file).exists() and (home / folder.parent / f".{folder.name}.damaged").is_dir()
    assert "is up to date" in run(home, script).output


def test_a_dry_run_reports_damaged_files(home):
    flip(home / SECOND / "model.safetensors")
    done = stage("5_student_second.sh", home, "--dry_run", **VARIABLES)
    assert f"{SECOND} would be recreated because it is damaged: model.safetensors has changed since it was written" in done.output
    assert not (home / SECOND.parent / ".student_second.damaged").exists()


def test_a_dry_run_writes_nothing_not_even_the_record_of_hashed_files(home, monkeypatch):
    monkeypatch.setattr(integrity, "SETTLED_SECONDS", 0)  # the copies have just been made
    for record in list(home.rglob(".checked.json")):
        record.unlink()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    for script in (*SCRIPTS, "7_eval.sh"):
        done = stage(script, home, "--dry_run", **VARIABLES)
        assert done.status == 0, done.error
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before
    run(home, SCRIPTS[1])
    assert (home / SEED / "teacher-meta/.checked.json").is_file()


# Cases of a damaged input: the file, the damage, the stage that reads it, and the command that the message names
READERS = {
    "stage 3 reads rows": ("data/custom/train.tsv", remove_last_row, "3_train_teacher.sh", "bash 2_process_data.sh"),
    "stage 3 reads the suite": ("data/custom/suite.json", flip, "3_train_teacher.sh", "bash 2_process_data.sh"),
    "stage 4 reads the teacher": (SEED / "teacher-meta/model.safetensors", flip, "4_student_first.sh", "TEACHER=meta bash 3_train_teacher.sh"),
    "stage 5 reads the student": (SEED / "a/student_first/model.safetensors", flip, "5_student_second.sh", "DOMAIN=a bash 4_student_first.sh"),
    "stage 6 reads the student": (SECOND / "model.safetensors", halve, "6_curriculum.sh", "DOMAIN=a bash 5_student_second.sh"),
    "stage 7 scores": (SECOND / "model.safetensors", flip, "7_eval.sh", "DOMAIN=a bash 5_student_second.sh"),
    "the report reads rewards": (SEED / "a/curriculum/rewards.tsv", remove_last_row, "7_eval.sh", "DOMAIN=a bash 6_curriculum.sh"),
    "rows are scored": ("data/custom/test.tsv", remove_last_row, "7_eval.sh", "bash 2_process_data.sh"),
    "stage.json": (SECOND / "stage.json", flip, "7_eval.sh", "run its stage again"),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_reading_a_damaged_file_names_it_and_the_stage_to_run(name, home):
    path, spoil, script, advice = READERS[name]
    spoil(home / path)
    if script == "3_train_teacher.sh":
        shutil.rmtree(home / SEED / "teacher-meta")
    done = run(home, script)
    last = done.error.splitlines()[-1]
    assert done.status == 1 and last.startswith("error: ") and Path(path).name in last and advice in last
    assert not (home / SEED / "results.tsv").exists()


def test_predicting_and_exporting_refuse_a_damaged_student(home, monkeypatch):
    monkeypatch.chdir(home)
    flip(SECOND / "model.safetensors")
    Path("texts").write_text("good\n")
    for flags in (("predict.py", "--folder", SECOND, "--input", "texts"), ("export.py", "--folder", SECOND, "--data_dir", "data")):
        done = command(*map(str, flags))
        assert done.status == 1 and "model.safetensors has changed since it was written" in done.error, done
        assert "DOMAIN=a bash 5_student_second.sh" in done.error


# Cached outputs of the teacher


@pytest.mark.parametrize("spoil", [halve, empty, flip, Path.unlink], ids=lambda spoil: spoil.__name__)
def test_damaged_teacher_states_are_recreated_and_give_the_same_student(spoil, home, finished, caplog):
    shutil.rmtree(home / SEED / "a/student_first")
    shutil.rmtree(home / SECOND)
    arrays = sorted((home / SEED.parent / "teacher_states").rglob("*.npy"))
    assert {path.name for path in arrays} >= {"tokens.npy", "means.npy", "pooled.npy"}
    before = {path: path.read_bytes() for path in arrays}
    for path in arrays:
        spoil(path)
    for script, folder in (("4_student_first.sh", SEED / "a/student_first"), ("5_student_second.sh", SECOND)):
        done = run(home, script)
        assert done.status == 0, done.error
        assert content(home / folder) == content(finished / folder)
    assert "is damaged and is being recreated: " in caplog.text and "tokens.npy" in caplog.text and "pooled.npy" in caplog.text
    again = {path: path.read_bytes() for path in arrays if path.parent.name in caplog.text}
    assert again and all(before[path] == found for path, found in again.items())


# Runs of earlier versions


def remove_hashes(folder: Path) -> None:
    for path in folder.rglob("stage.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in record.items() if name not in ("files", "checksum")}))


def test_folders_of_earlier_versions_without_hashes_are_read(home):
    remove_hashes(home)
    for script in SCRIPTS:
        done = run(home, script)
        assert done.status == 0 and "is up to date" in done.output
    assert run(home, "7_eval.sh", REPORT="0").status == 0


def test_the_number_of_rows_is_checked_in_folders_without_hashes(home):
    remove_hashes(home)
    remove_last_row(home / "data/custom/train.tsv")
    shutil.rmtree(home / SEED / "teacher-meta")
    done = run(home, "3_train_teacher.sh")
    assert done.status == 1 and "train.tsv has" in done.error and "rows, but suite.json records" in done.error
    (home / "data/custom/stage.json").unlink()
    assert run(home, "2_process_data.sh").status == 0
    assert run(home, "3_train_teacher.sh").status == 0
