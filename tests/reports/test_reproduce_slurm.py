"""Tests of cells as Slurm jobs, with fake Slurm commands that run jobs in the background and record their arguments."""

import os
from dataclasses import replace

import pytest
from test_reproduce_cells import cell, place, ran, wait_for  # noqa: F401  (a fixture)

from teachback.core.errors import TeachbackError
from teachback.reports.cells import DONE, FAILED
from teachback.reports.reproduce import ReproduceArguments, make_launcher
from teachback.reports.run_cells import LocalLauncher, Schedule, runs_elsewhere
from teachback.reports.slurm import Queue, SlurmLauncher, queued_job

# The number of a job is its process id, and the job is in the queue while the process runs.
COMMANDS = {
    "sbatch": """
echo "$*" >> "$HOME/submitted"
if [[ -e $HOME/refuse && $* == *"$(< "$HOME/refuse")"* ]]; then echo "sbatch: error: invalid partition" >&2; exit 1; fi
for argument in "$@"; do case $argument in --output=*) log=${argument#--output=} ;; esac; done
log=${log//%%/@} log=${log//%j/$$} log=${log//@/%}
if [[ -e $HOME/lose ]]; then echo 4999999; exit; fi
setsid bash "${@: -1}" > "$log" 2>&1 < /dev/null &
echo "$!" >> "$HOME/jobs"
echo "$!;cluster"
""",
    "squeue": """
if [[ -e $HOME/silent ]]; then rm "$HOME/silent"; echo "squeue: error: Socket timed out" >&2; exit 1; fi
echo "$*" >> "$HOME/asked"
if [[ -e $HOME/jobs ]]; then for number in $(< "$HOME/jobs"); do if kill -0 "$number" 2>/dev/null; then echo "$number"; fi; done; fi
""",
    "sacct": """
if [[ -e $HOME/no-accounts ]]; then echo "Slurm accounting storage is disabled" >&2; exit 1; fi
echo 'OUT_OF_MEMORY  0:125'
""",
    "scontrol": "echo 'JobId=7 JobName=a JobState=NODE_FAIL Reason=None Requeue=1 ExitCode=0:9 NodeList=n1'",
}


@pytest.fixture
def slurm(place, monkeypatch):  # noqa: F811
    """Put the fake commands on PATH, and return the workplace of the project."""
    folder = place.root / "bin"
    folder.mkdir()
    for name, body in COMMANDS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return place


def schedule(slurm, cells, options="--partition=gpu --comment='a b'", jobs=2, retries=0, by_role=None):
    said: list[str] = []
    launcher = SlurmLauncher(options, by_role)
    launcher.pause, launcher.queue = 0.02, Queue(0)
    return Schedule(cells, slurm, launcher, jobs, retries, said.append), said


def run(slurm, cells, **options):
    made, said = schedule(slurm, cells, **options)
    made.run()
    return made, said


def submitted(slurm) -> list[str]:
    return (slurm.root / "submitted").read_text().splitlines()


def test_cells_are_submitted_in_order_and_skipped_when_done(slurm):
    cells = [cell(slurm, 2, "teacher.seed1"), cell(slurm, 1)]
    made, _ = run(slurm, cells)
    assert set(made.states.values()) == {DONE} and ran(slurm) == ["1", "2"]
    first = submitted(slurm)[0]
    assert first.startswith("--parsable --job-name=teacher.seed1 --output=") and first.endswith("teacher.seed1.sh")
    assert "--partition=gpu --comment=a b" in first
    run(slurm, cells)
    assert len(submitted(slurm)) == 2 and not cells[0].mark("job").exists()


def test_a_percent_sign_in_a_folder_name_is_escaped_for_sbatch(slurm):
    one = cell(slurm, 1, folder=slurm.root / "50%jobs")
    made, _ = run(slurm, [one])
    assert made.states == {one.name: DONE} and one.log.is_file()


def test_options_of_a_role_are_added_to_the_common_ones(slurm):
    student = replace(cell(slurm, 2, "teacher.seed1"), scripts=("4_student_first.sh",))
    (slurm.root / "4_student_first.sh").write_text("true\n")
    run(slurm, [cell(slurm, 1), student], options="--time=1:00:00", by_role={"teacher": "--time=8:00:00 --mem=32G", "student": ""})
    teacher, student = submitted(slurm)
    assert "--time=1:00:00 --time=8:00:00 --mem=32G " in teacher and "--time=1:00:00 /" in student
    arguments = ReproduceArguments(launcher="slurm", slurm_options="-p gpu", slurm_options_curriculum="--mem=9G")
    launcher = make_launcher(arguments)
    assert launcher.options == ["-p", "gpu"] and launcher.options_by_role["curriculum"] == ["--mem=9G"]


def test_a_stopped_job_is_submitted_again(slurm):
    one = cell(slurm, 1)
    stage = slurm.root / "3_train_teacher.sh"
    stage.write_text(stage.read_text() + 'if [[ $(wc -l < "$HOME/ran") -eq 1 ]]; then exit 143; fi\n')
    made, said = run(slurm, [one], retries=1)
    assert made.states == {one.name: DONE} and len(submitted(slurm)) == 2 and ran(slurm) == ["1", "1"]
    assert any("retries left: 0" in line for line in said)


def test_a_failed_job_is_reported_with_its_log(slurm):
    (slurm.root / "broken-1").touch()
    made, said = run(slurm, [cell(slurm, 1), cell(slurm, 2)])
    assert made.states == {"teacher.seed1": FAILED, "teacher.seed2": DONE}
    with pytest.raises(TeachbackError, match="1 of 2 cells failed"):
        made.report_failures()
    assert "stage 3 broke" in "\n".join(said)


def test_a_vanished_job_has_failed_and_its_log_has_slurms_reason(slurm):
    (slurm.root / "lose").touch()
    made, _said = run(slurm, [cell(slurm, 1)])
    assert made.states == {"teacher.seed1": FAILED}
    assert "job 4999999 left the queue without finishing: OUT_OF_MEMORY 0:125" in cell(slurm, 1).log.read_text()
    assert cell(slurm, 1).mark("failed").read_text() == "no exit status\n"
    (slurm.root / "no-accounts").touch()
    run(slurm, [cell(slurm, 1)])
    assert "without finishing: JobState=NODE_FAIL Reason=None ExitCode=0:9" in cell(slurm, 1).log.read_text()
    (slurm.root / "lose").unlink()
    made, _ = run(slurm, [cell(slurm, 1)])
    assert made.states == {"teacher.seed1": DONE}


def test_a_refused_submission_fails_its_cell_alone_with_the_reason_in_the_log(slurm):
    (slurm.root / "refuse").write_text("--job-name=teacher.seed1 ")
    made, _said = run(slurm, [cell(slurm, 1), cell(slurm, 2), cell(slurm, 3, "teacher.seed2")])
    assert made.states == {"teacher.seed1": FAILED, "teacher.seed2": DONE, "teacher.seed3": DONE} and ran(slurm) == ["2", "3"]
    assert "invalid partition" in cell(slurm, 1).log.read_text()


def test_a_job_counts_as_queued_if_the_queue_does_not_answer(slurm):
    (slurm.root / "silent").touch()
    queue = Queue(0)
    assert queue.holds("4999999") and not queue.holds("4999999")  # the second query is answered


def test_one_query_of_the_queue_serves_all_jobs(slurm):
    queue = Queue(1000)
    assert not queue.holds("1") and not queue.holds("2")
    assert (slurm.root / "asked").read_text().splitlines() == [f"--noheader --user={os.getuid()} --format=%A"]


def test_a_job_requeued_by_slurm_has_not_failed(slurm):
    one = cell(slurm, 1)
    hold(slurm)
    made, _ = schedule(slurm, [one])
    made._step()
    one.mark("failed").write_text("143\n")  # as the script of a preempted job leaves it; the job is still in the queue
    assert made._step() and made.states[one.name] == "running"
    (slurm.root / "go").touch()
    wait_for(lambda: not made._step())
    assert made.states[one.name] == DONE


def hold(slurm):
    """Make stages wait for the file `go`."""
    stage = slurm.root / "3_train_teacher.sh"
    stage.write_text(stage.read_text() + "until [[ -e $HOME/go ]]; do sleep 0.02; done\n")


def test_jobs_of_an_interrupted_command_are_not_submitted_again(slurm):
    one = cell(slurm, 1)
    hold(slurm)
    first, _ = schedule(slurm, [one])
    assert first._step() and first.running  # the command ends here, and its job continues
    first.running[one.name].lock.release()
    wait_for(lambda: ran(slurm) == ["1"])
    assert runs_elsewhere(one)
    with pytest.raises(TeachbackError, match="continue with LAUNCHER=slurm, or run scancel [0-9]+$"):
        Schedule([one], slurm, LocalLauncher(1, []), 1).run()
    again, _ = schedule(slurm, [one])
    again._step()
    assert len(submitted(slurm)) == 1 and again.states[one.name] == "running"
    (slurm.root / "go").touch()
    wait_for(lambda: not again._step())
    assert again.states[one.name] == DONE and ran(slurm) == ["1"]


def test_a_queued_job_with_other_settings_fails_the_cell(slurm):
    one = cell(slurm, 1)
    hold(slurm)
    first, _ = schedule(slurm, [one])
    first._step()
    first.running[one.name].lock.release()
    (slurm.root / "config.sh").write_text("EPOCHS=9\n")
    made, _ = run(slurm, [one])
    assert made.states == {one.name: FAILED} and "with other settings; run scancel" in one.log.read_text()
    (slurm.root / "go").touch()
    wait_for(lambda: queued_job(one) is None)


def test_a_missing_slurm_is_reported(place, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TeachbackError, match="needs sbatch, which is not installed here; use LAUNCHER=local"):
        run(place, [cell(place, 1)])
    assert not cell(place, 1).folder.exists()
