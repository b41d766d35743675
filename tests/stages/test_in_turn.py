"""Stages in sequence: command words, exit statuses, and the same files as the scripts write."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.stages import in_turn
from teachback.stages.in_turn import stage_calls

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHON": sys.executable, "CONFIG": "configs/sample.sh"}


def test_variables_apply_only_to_the_stage_after_them():
    calls = list(stage_calls(["1_get_data.sh", "METHOD=finetune", "LR=1e-3", "5_student_second.sh", "6_curriculum.sh"]))
    assert calls == [({}, "1_get_data.sh"), ({"METHOD": "finetune", "LR": "1e-3"}, "5_student_second.sh"), ({}, "6_curriculum.sh")]


@pytest.mark.parametrize("words", [["3_train.sh"], ["SEED=1"], []])
def test_unknown_and_missing_stages_are_refused(words):
    with pytest.raises(TeachbackError, match="3_train_teacher.sh"):
        list(stage_calls(words))


TIMED = ("stage.json", ".checked.json")  # hold times; .checked.json is written by a stage that reads the folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in TIMED}


def test_a_sequence_writes_the_files_of_single_stages_and_ends_at_a_failure(tmp_path):
    """All files but the logs, which hold times and folders, are equal byte by byte; after a failure no stage starts."""
    small = {"EMBEDDING_MODEL": "scratch:tiny", "MAX_LENGTH": "16", "DOMAINS": "books dvd", "DOMAIN": "books", "PRECISION": "fp32"}
    for name in ("forked", "called"):
        (tmp_path / name).mkdir()
    of = {name: ENVIRONMENT | small | {"DATA_DIR": str(tmp_path / name)} for name in ("forked", "called")}
    command = [sys.executable, "scripts/in_turn.py", "1_get_data.sh", "2_process_data.sh", "DOMAIN=kitchen", "3_train_teacher.sh", "7_eval.sh"]
    done = subprocess.run(command, cwd=ROOT, env=of["forked"], capture_output=True, text=True)
    for stage in ("1_get_data.sh", "2_process_data.sh"):
        subprocess.run(["bash", stage], cwd=ROOT, env=of["called"], capture_output=True, check=True)
    assert done.returncode == 1 and "DOMAIN=kitchen is not among the domains" in done.stderr
    assert "=== 2_process_data.sh took" in done.stdout and "=== 3_train_teacher.sh\n" in done.stdout and "7_eval.sh" not in done.stdout
    ours, theirs = (files(tmp_path / name) for name in ("forked", "called"))
    assert ours.keys() == theirs.keys() and "sample/train.tsv" in ours and "logs/sample-2_process_data.log" in ours
    assert {name for name in ours if ours[name] != theirs[name]} <= {name for name in ours if name.startswith("logs/")}
    log = [name.removeprefix("logs/") for name in ours if name.startswith("logs/")]
    said = [[text.decode().splitlines()[1:] for name, text in sorted(side.items()) if name.startswith("logs/")] for side in (ours, theirs)]
    assert log and str(said[0]).replace("/forked", "/called") == str(said[1])


def test_scripts_are_called_where_forking_is_unsafe(monkeypatch, tmp_path):
    """No library is imported, and the status of a failing stage is kept; the stages are scripts that print their names."""
    for name in ("1_get_data.sh", "2_process_data.sh", "3_train_teacher.sh"):
        (tmp_path / name).write_text(f'echo "{name} $* ${{SEED-}}" >> "{tmp_path}/said"; [[ $0 != */2_* ]] || exit 5\n')
    monkeypatch.delenv("SEED", raising=False)
    monkeypatch.setattr(in_turn, "FORKS", False)
    monkeypatch.setattr(in_turn, "scripts_root", lambda: tmp_path)
    with pytest.raises(SystemExit) as left:
        in_turn.run_in_turn(["SEED=3", "1_get_data.sh", "2_process_data.sh", "3_train_teacher.sh"], ["no.such.library"])
    assert left.value.code == 5
    assert (tmp_path / "said").read_text() == "1_get_data.sh --check \n1_get_data.sh  3\n2_process_data.sh  \n"
