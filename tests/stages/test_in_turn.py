"""Stages in sequence: command words, exit statuses, signals, and the same files as the scripts write."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from teachback.core.child import in_child
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


def test_the_exit_status_of_the_child_is_returned():
    def leave() -> None:
        os._exit(7)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(leave) == 7 and in_child(die) == 128 + signal.SIGKILL
    assert in_child(lambda: os._exit(0)) == 0


def test_environment_changes_of_a_child_do_not_reach_its_parent(monkeypatch):
    monkeypatch.setenv("OF_THE_PARENT", "1")

    def change() -> None:
        os.environ["OF_THE_PARENT"] = "2"
        os._exit(0)

    assert in_child(change) == 0 and os.environ["OF_THE_PARENT"] == "1"


@pytest.mark.parametrize("in_the_end", [0, 143])
def test_sigterm_is_forwarded_to_the_stage_and_ends_the_sequence(in_the_end):
    """The next stage does not start, whether this one stops because of the signal or ends without an error."""
    code = f"""
import os, signal, sys, time
from teachback.stages.in_turn import in_child

def work():
    signal.signal(signal.SIGTERM, lambda *_: os._exit({in_the_end}))
    print("ready", flush=True)
    time.sleep(60)

sys.exit(in_child(work))
"""
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


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


def test_ctrl_c_ends_stage_and_sequence(tmp_path):
    code = """
import os, sys, time
from teachback.core.errors import run_entry_point
from teachback.stages.in_turn import in_child

def stage():
    print("ready", flush=True)
    time.sleep(60)

sys.exit(in_child(lambda: run_entry_point(stage)))
"""
    process = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and error.count(b"stopped by Ctrl-C") == 1
