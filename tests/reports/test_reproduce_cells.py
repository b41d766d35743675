"""Tests of running, skipping, failing and resuming cells, with stages that are short bash scripts."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.core.runs import StageRun
from teachback.reports.cells import CHANGED, DAMAGED, DONE, FAILED, TODO, Cell, Workplace
from teachback.reports.run_cells import BLOCKED, LocalLauncher, Schedule, expected_seconds, runs_elsewhere

STAGE = """
: "${SEED=42}"    # a variable
: "${EPOCHS=}"    # another
: "${OUTPUT_DIR=}"    # a third
echo "$SEED ${EPOCHS-} ${OUTPUT_DIR-} threads=${OMP_NUM_THREADS-} gpu=${CUDA_VISIBLE_DEVICES-}" >> "$HOME/ran"
if [[ -e $HOME/broken-$SEED ]]; then echo "stage 3 broke" >&2; exit 3; fi
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Workplace:
    """Project of one stage, which records its runs in the file `ran`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "3_train_teacher.sh").write_text(STAGE)
    (tmp_path / "config.sh").write_text("EPOCHS=1\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/suite.json").write_text("{}")
    return Workplace(tmp_path, tmp_path / "data", tmp_path / "config.sh", {"PATH": os.environ["PATH"]})


def cell(place, seed, *needs, **changes) -> Cell:
    made = Cell(
        f"teacher.seed{seed}", place.root / "cells", ("3_train_teacher.sh",), {"SEED": str(seed)}, "teacher", needs
    )
    return replace(made, **changes)


def ran(place) -> list[str]:
    path = place.root / "ran"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.is_file() else []


def schedule(place, cells, jobs=1, gpus=(), retries=0) -> tuple[Schedule, list[str]]:
    said: list[str] = []
    launcher = LocalLauncher(jobs, list(gpus))
    launcher.pause = 0.01
    return Schedule(cells, place, launcher, jobs, retries, said.append), said


def run(place, cells, **options) -> tuple[Schedule, list[str]]:
    made, said = schedule(place, cells, **options)
    made.run()
    return made, said


def test_cells_run_once_and_are_skipped_when_done(place):
    cells = [cell(place, 1), cell(place, 2)]
    made, said = run(place, cells)
    assert set(made.states.values()) == {DONE} and ran(place) == ["1", "2"]
    assert "0 of 2 cells done, 0 running, 2 left" in said[0] and "2 of 2 cells done" in said[-1]
    again, _ = run(place, cells)
    assert set(again.states.values()) == {DONE} and ran(place) == ["1", "2"]


def test_a_cell_runs_after_those_that_it_needs(place):
    made, _ = run(place, [cell(place, 3, "teacher.seed2"), cell(place, 2, "teacher.seed1"), cell(place, 1)], jobs=3)
    assert ran(place) == ["1", "2", "3"]
    assert set(made.states.values()) == {DONE}


def test_a_failed_cell_is_reported_with_its_log_and_blocks_only_dependents(place):
    (place.root / "broken-1").touch()
    cells = [cell(place, 1), cell(place, 2, "teacher.seed1"), cell(place, 3, "teacher.seed2"), cell(place, 4)]
    made, said = run(place, cells)
    assert list(made.states.values()) == [FAILED, BLOCKED, BLOCKED, DONE] and ran(place) == ["1", "4"]
    with pytest.raises(TeachbackError, match="1 of 4 cells failed; the same command retries them"):
        made.report_failures()
    end = "\n".join(said)
    assert f"failed: teacher.seed1\n  log: {cells[0].log}\n  stage 3 broke" in end
    assert "not run: teacher.seed2 needs teacher.seed1" in end and "not run: teacher.seed3 needs teacher.seed2" in end
    assert cells[0].mark("failed").read_text() == "3\n"


def test_a_failed_cell_is_retried_by_the_next_call(place):
    (place.root / "broken-1").touch()
    cells = [cell(place, 1), cell(place, 2, "teacher.seed1")]
    run(place, cells)
    (place.root / "broken-1").unlink()
    made, _ = run(place, cells)
    assert set(made.states.values()) == {DONE} and ran(place) == ["1", "1", "2"]
    assert not cells[0].mark("failed").exists()


def test_a_stopped_cell_is_retried_in_the_same_call(place):
    stop = 'if [[ $(grep -c "^$SEED " "$HOME/ran") -le 2 ]]; then exit 143; fi\n'
    (place.root / "3_train_teacher.sh").write_text(STAGE + stop)
    (place.root / "broken-2").touch()  # an error is not a stop, so it is not retried
    made, said = run(place, [cell(place, 1), cell(place, 2)], retries=2)
    assert list(made.states.values()) == [DONE, FAILED] and sorted(ran(place)) == ["1", "1", "1", "2"]
    assert "teacher.seed1 was stopped and continues from its last checkpoint; retries left: 0" in said
    (place.root / "3_train_teacher.sh").write_text(STAGE + "exit 143\n")
    made, _ = run(place, [cell(place, 3)], retries=1)
    assert made.states == {"teacher.seed3": FAILED} and ran(place)[4:] == ["3", "3"]


def running_elsewhere(place, call: str) -> subprocess.Popen:
    """Start a process that evaluates ``call``, in which ``t`` is this module and ``place`` is the same."""
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_reproduce_cells as t; "
        f"root = Path(sys.argv[1]); place = t.Workplace(root, root / 'data', root / 'config.sh', {{}}); {call}"
    )
    places = [str(place.root), str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
    return subprocess.Popen([sys.executable, "-c", script, *places], stderr=subprocess.PIPE, text=True)


def test_an_interrupted_cell_is_run_again(place):
    slow = """trap 'sleep 0.3; touch "$HOME/saved"; exit 1' TERM\ntouch "$HOME/started"\nsleep 60 & wait\n"""
    (place.root / "3_train_teacher.sh").write_text(STAGE + slow)
    child = running_elsewhere(place, "t.run(place, [t.cell(place, 1)])")
    one = cell(place, 1)
    wait_for((place.root / "started").exists)
    assert runs_elsewhere(one)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1 and "TeachbackError: interrupted" in errors
    assert (place.root / "saved").exists()  # the command waited for the stage
    assert place.state(one, {one.name: one}) == TODO and not runs_elsewhere(one)
    (place.root / "3_train_teacher.sh").write_text(STAGE)
    made, _ = run(place, [one])
    assert made.states == {one.name: DONE} and ran(place) == ["1", "1"]


def test_all_cells_are_stopped_even_if_a_second_interrupt_ends_the_wait(place):
    slow = """trap 'touch "$HOME/told-$SEED"; sleep 2; exit 1' TERM\ntouch "$HOME/started-$SEED"\nsleep 60 & wait\n"""
    (place.root / "3_train_teacher.sh").write_text(STAGE + slow)
    child = running_elsewhere(place, "t.run(place, [t.cell(place, 1), t.cell(place, 2)], jobs=2)")
    wait_for(lambda: all((place.root / f"started-{seed}").exists() for seed in (1, 2)))
    child.send_signal(signal.SIGINT)
    wait_for((place.root / "told-1").exists)
    child.send_signal(signal.SIGINT)  # a second Ctrl-C ends the wait
    _, errors = child.communicate(timeout=60)
    assert "TeachbackError: interrupted" in errors and "KeyboardInterrupt" not in errors
    wait_for((place.root / "told-2").exists)


def test_a_terminated_script_waits_for_its_stage_and_starts_no_other(place):
    stage = place.root / "3_train_teacher.sh"
    stage.write_text(STAGE + 'touch "$HOME/started"\nuntil [[ -e $HOME/go ]]; do sleep 0.02; done\n')
    one = cell(place, 1, scripts=(stage.name, stage.name))
    one.folder.mkdir()
    place.write_script(one, {one.name: one})
    child = subprocess.Popen(["bash", str(one.script)])
    wait_for((place.root / "started").exists)
    child.terminate()
    (place.root / "go").touch()
    assert child.wait(60) == 143 and one.mark("failed").read_text() == "143\n"
    assert ran(place) == ["1"]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_cell_is_remade_if_its_settings_or_data_change(place):
    one = cell(place, 1)
    run(place, [one])
    state = {name: other.state(one, {one.name: one}) for name, other in {
        "same": place,
        "places": replace(place, given=place.given | {"DATA_DIR": "elsewhere", "PYTHON": "python"}),
        "unknown": replace(place, given=place.given | {"TEMPERATURE": "3"}),
        "epochs": replace(place, given=place.given | {"EPOCHS": "5"}),
    }.items()}  # fmt: skip
    assert state == {"same": DONE, "places": DONE, "unknown": DONE, "epochs": CHANGED}
    (place.root / "config.sh").write_text("EPOCHS=2\n")
    assert place.state(one, {one.name: one}) == CHANGED
    (place.root / "config.sh").write_text("EPOCHS=1\n")
    assert place.state(one, {one.name: one}) == DONE
    (place.root / "data/test.tsv").write_text("other rows\n")
    assert place.state(one, {one.name: one}) == CHANGED
    run(place, [one])
    assert ran(place) == ["1", "1"] and place.state(one, {one.name: one}) == DONE


@pytest.mark.parametrize(("domain", "other"), [("all", "teacher-single-books"), ("books", "teacher-single-dvd")])
def test_a_cell_with_damaged_checkpoints_is_remade(domain, other, place):
    told = {"SEED": "1", "OUTPUT_DIR": str(place.root / "row"), "SUITE": "tiny", "DOMAIN": domain}
    one = cell(place, 1, variables=told)
    made = [StageRun(place.root / "row/tiny/seed1" / name, name, {}, {}) for name in ("teacher-single-books", "books/student_first", other)]
    for stage in {run.folder: run for run in made}.values():
        with stage.publishing({}) as folder:
            (folder / "model").write_text("weights")
    run(place, [one])
    assert place.state(one, {one.name: one}) == DONE
    (made[-1].folder / "model").write_text("other weights")
    assert place.state(one, {one.name: one}) == (DAMAGED if domain == "all" else DONE)  # for one domain, the checkpoint belongs to another cell
    (made[1].folder / "model").unlink()
    assert place.state(one, {one.name: one}) == DAMAGED
    run(place, [one])
    assert ran(place) == ["1", "1"]
    for stage in made:
        shutil.rmtree(stage.folder, ignore_errors=True)
    assert place.state(one, {one.name: one}) == DONE  # checkpoints may be removed to save space


def test_students_of_a_changed_teacher_are_remade(place):
    teacher, student = cell(place, 1), cell(place, 2, "teacher.seed1")
    run(place, [teacher, student])
    other = replace(teacher, variables={"SEED": "1", "EPOCHS": "7"})
    made, _ = schedule(place, [other, student])
    assert list(made.states.values()) == [CHANGED, CHANGED]


def test_environment_variables_reach_all_cells_unless_a_cell_sets_them(place):
    given = replace(place, given=place.given | {"EPOCHS": "5", "SEED": "9", "OUTPUT_DIR": "a b"})
    run(given, [cell(place, 1)])
    line = (place.root / "ran").read_text()
    assert line.startswith("1 5 a b ")
    assert cell(place, 1).command == "(export SEED=1 && bash 3_train_teacher.sh)"


@pytest.mark.parametrize(("given", "threads"), [(None, "3"), ("5", "5")], ids=["equal share", "given"])
def test_parallel_cells_have_different_gpus_and_equal_shares_of_the_cores(given, threads, place, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    run(place, [cell(place, seed) for seed in (1, 2)], jobs=2, gpus=("4", "7"))
    lines = sorted((place.root / "ran").read_text().splitlines())
    assert [line.split(" ")[-2:] for line in lines] == [[f"threads={threads}", "gpu=4"], [f"threads={threads}", "gpu=7"]]


def test_two_cells_run_at_once_with_two_jobs(place):
    """Each cell waits for the other, so that with one job neither would end."""
    meet = 'touch "$HOME/here-$SEED"; until [[ -e $HOME/here-$((3 - SEED)) ]]; do sleep 0.02; done\n'
    (place.root / "3_train_teacher.sh").write_text(STAGE + meet)
    made, _ = run(place, [cell(place, 1), cell(place, 2)], jobs=2)
    assert set(made.states.values()) == {DONE}


def test_a_cell_waits_for_one_that_it_can_copy_and_runs_even_if_it_fails(place):
    (place.root / "broken-1").touch()
    made, _ = run(place, [cell(place, 2, after=("teacher.seed1",)), cell(place, 1)], jobs=2)
    assert ran(place) == ["1", "2"] and made.states == {"teacher.seed2": DONE, "teacher.seed1": FAILED}


def test_the_expected_time_is_estimated_from_similar_cells(place):
    done = [cell(place, seed) for seed in (1, 2, 3)]
    done[2] = replace(done[2], kind="student", scripts=("4_student_first.sh",))
    for one, seconds in zip(done, (10, 30, 5)):
        one.folder.mkdir(exist_ok=True)
        one.mark("done").write_text(f"x\t{seconds}\n")
    teacher, student = cell(place, 7), replace(done[2], name="student.seed7")
    assert expected_seconds([teacher], [], 1) is None
    assert expected_seconds([teacher], done, 1) == 20
    assert expected_seconds([teacher, student, student], done, 1) == 30
    assert expected_seconds([teacher, student, student], done, 3) == 10
    assert expected_seconds([teacher], done, 8) == 20  # a cell is not split over jobs
    assert expected_seconds([replace(teacher, kind="other")], done, 1) == 20  # without a cell of its kind, those with the same stages count
    assert expected_seconds([replace(teacher, kind="other", scripts=("7_eval.sh",))], done, 1) == 15


def test_a_cell_that_has_not_started_is_todo(place):
    one = cell(place, 1)
    assert place.state(one, {one.name: one}) == TODO and not runs_elsewhere(one)
