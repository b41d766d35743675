"""Tests of stage 7's entry point, which writes costs.tsv and, unless disabled, report.html beside results.tsv."""

import runpy
import sys
from pathlib import Path

import pytest
from test_evaluate import LABELS, rows, write_data, write_student, write_teacher

from teachback.inference.measured import Cost, read_rows
from teachback.inference.results import read_results

SCRIPT = Path(__file__).parents[2] / "scripts/evaluate.py"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    write_data(folder / "data", rows())
    write_teacher(folder / "outputs/tiny/seed42/teacher-meta", 1)
    write_student(folder / "outputs/tiny/seed42/books/student_second", 3)
    return folder


def stage_7(home, monkeypatch, *flags):
    places = ["--data_dir", str(home / "data"), "--output_root", str(home / "outputs"), "--suite", "tiny"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *places, "--device", "cpu", "--eval_batch_size", "8", *flags])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return home / "outputs/tiny/seed42"


def test_stage_7_with_report_0_writes_costs_but_no_report(home, monkeypatch):
    run = stage_7(home, monkeypatch, "--report", "0")
    assert not (run / "report.html").exists()
    costs = {(cost.stage, cost.batch_size): cost for cost in read_rows(run / "costs.tsv", Cost)}
    assert set(costs) == {(stage, size) for stage in ("teacher-meta", "books/student_second") for size in (1, 8)}
    size = (run / "books/student_second/model.safetensors").stat().st_size
    assert all(cost.milliseconds > 0 and cost.machine.startswith("the CPU (") for cost in costs.values())
    assert costs["books/student_second", 1].bytes == size and size > 4 * costs["books/student_second", 1].parameters > 0


def test_stage_7_writes_a_report_with_its_scores(home, monkeypatch, capsys):
    run = stage_7(home, monkeypatch)
    assert f"wrote {run / 'report.html'}" in capsys.readouterr().out
    text = (run / "report.html").read_text(encoding="utf-8")
    student = next(
        r for r in read_results(run / "results.tsv") if (r.stage, r.domain) == ("books/student_second", "books")
    )
    assert f"{100 * student.value:.1f} % accuracy on 10 rows (95 % interval {100 * student.low:.1f} to" in text
    assert student.chance == 0.5 and student.low < student.value < student.high
    assert ("shows no signs of learning" in text) == (not student.is_above_baseline)
    assert "times its speed" not in text  # as teacher and student have the same shape
    assert "student and teacher disagree on" in text and all(label in text for label in LABELS)
