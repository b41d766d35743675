"""A small part of benchmarks/faults.py: stages that are killed and rerun must lose nothing."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import faults
from breaking import run_broken
from faults import SMALL, Case, Stage, Trials, Workshop, content, differences

TINY = {
    "SUITE": "custom", "SOURCE": "mine.tsv", "DOMAIN": "a", "DOMAINS": "", "MAX_LENGTH": "8", "EPISODES": "3",
    "BATCH_SIZE": "8", "EVAL_EVERY": "1", "REPORT": "0",
}  # fmt: skip


def write_rows(path: Path) -> None:
    words = [("yes", "good"), ("no", "bad")]
    lines = [f"{word} {i} {domain}\t{label}\t{domain}" for domain in "ab" for label, word in words for i in range(12)]
    path.write_text("text_a\tlabel\tdomain\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, Case]:
    """Stages 2 to 7 after one run without a fault; stage 1 has nothing to fetch here."""
    workshop = Workshop(tmp_path_factory.mktemp("faults"), SMALL | TINY, save_steps=2)
    write_rows(workshop.home / "mine.tsv")
    scripts = sorted(path.name for path in faults.ROOT.glob("[2-7]_*.sh"))
    stages = [Stage(script[0], script, {}) for script in scripts]
    return {case.stage.name: case for case in faults.prepare(workshop, stages, by_script=False)}


@pytest.mark.parametrize(("stage", "kind"), [("2", "twice"), ("3", "term"), ("4", "fails"), ("5", "point"), ("6", "int"), ("7", "point")])
def test_a_stage_that_is_broken_off_and_rerun_gives_the_same_result(cases, stage, kind, monkeypatch):
    monkeypatch.chdir(cases[stage].workshop.home)
    trials = Trials(seed=1)
    trials.once(cases[stage], kind)
    assert not trials.lost and trials.tried == {(stage, kind): 1}


def test_a_dry_run_lists_what_would_be_created_and_changes_nothing(cases, monkeypatch):
    workshop = cases["2"].workshop
    monkeypatch.chdir(workshop.home)

    def dry_run(case: Case) -> str:
        before = content(workshop.home)
        ended = run_broken([*case.argv, "--dry_run"], workshop.log)
        assert ended.status == 0 and content(workshop.home) == before
        return ended.printed

    said = {}
    for name, case in cases.items():
        workshop.restore(case.before)
        said[name] = dry_run(case)
    assert "data/custom would be created because it does not exist yet" in said["2"]
    assert "seed42/teacher-meta would be created because it does not exist yet" in said["3"]
    assert "a/meta_teacher would be created" in said["6"] and "a/curriculum would be created" in said["6"]
    assert "a/curriculum would be scored on test, as it has no scores yet" in said["7"]
    assert all("is up to date" in dry_run(cases[name]) for name in "2356")  # the outputs of all stages before 7 exist now


def test_missing_left_over_and_changed_files_are_detected(tmp_path):
    (tmp_path / "same").write_text("1")
    (tmp_path / "changed").write_text("1")
    (tmp_path / "gone").write_text("1")
    (tmp_path / "stage.json").write_text('{"wall_time_seconds": 1, "dev": {"score": 0.5, "runtime": 3}}')
    before = content(tmp_path)
    (tmp_path / "stage.json").write_text('{"wall_time_seconds": 2, "dev": {"score": 0.5, "runtime": 4}}')
    assert not differences(before, content(tmp_path))
    (tmp_path / "changed").write_text("2")
    (tmp_path / "gone").rename(tmp_path / "left")
    assert differences(before, content(tmp_path)) == ["gone is gone", "left is left over", "changed differs"]


def test_files_are_compared_except_for_their_measured_times(tmp_path):
    def written(costs: str, report: str) -> dict[str, str]:
        (tmp_path / "costs.tsv").write_text(costs)
        (tmp_path / "report.html").write_text(report)
        return content(tmp_path)

    header = "stage\tparameters\tbytes\tbatch_size\tmilliseconds\tmachine\n"
    before = written(header + "books/a\t10\t40\t1\t0.5\tthe CPU\n", "<html>1</html>\n")
    assert not differences(before, written(header + "books/a\t10\t40\t1\t0.7\tthe CPU\n", "<html>2</html>\n"))
    damaged = differences(before, written(header + "books/a\t10\t40\t1\t0.7\n", "<html>2"))
    assert damaged == ["costs.tsv differs", "report.html differs"]
    assert differences(before, written(header, "")) == damaged
