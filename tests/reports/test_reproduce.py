"""Tests of scripts/reproduce.sh end to end on the generated suite, and of the cells planned for a table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

from teachback.core.errors import TeachbackError
from teachback.core.side_by_side import visible_gpus
from teachback.data.download import get_data
from teachback.data.schema import Domain, Suite, write_suite
from teachback.data.suites import definition
from teachback.inference.results import read_results
from teachback.reports.plan import DATA
from teachback.reports.published import published_table
from teachback.reports.recipes import RECIPES, SCRIPTS
from teachback.reports.reproduce import ReproduceArguments, make_plan, reproduce
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import process

FAST = {
    "TEACHER_MODEL": "scratch:tiny", "MAX_LENGTH": "16", "EPOCHS": "0.1", "PRECISION": "fp32", "DEVICE": "cpu",
    "OMP_NUM_THREADS": "1", "TRANSFER_SET": "domain",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Folder with the data of the generated suite."""
    home = tmp_path_factory.mktemp("home")
    get_data(definition("sample"), home / "data", "", False, 42, "")
    process(ProcessArguments(suite="sample", data_dir=str(home / "data"), embedding_model="scratch:tiny", quiz_fraction=0.0, max_length=16, device="cpu"))  # fmt: skip
    return home


def command(home: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess:
    settings = {"CONFIG": "configs/sample.sh", "PYTHON": sys.executable, "DATA_DIR": "data", "OUTPUT_DIR": "outputs"}
    return subprocess.run(
        ["bash", str(ROOT / "scripts/reproduce.sh"), *flags], cwd=home, env={**os.environ, **settings, **FAST, **variables},
        capture_output=True, text=True,
    )  # fmt: skip


def test_two_cells_are_run_and_tabulated_by_the_command_line(home, capsys):
    """Run a teacher and its student, list their cells and tabulate their scores; a second call runs no cell."""
    done = command(home, "metakd_amazon", ROWS="mix-tinybert", SEEDS="3", DOMAIN="books", DOMAINS="books dvd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 cells done" in done.stdout and "\nmix → TinyBERT-KD  " in done.stdout
    folder = home / "outputs/reproduce/metakd_amazon"
    assert {path.name for path in folder.glob("table.*")} == {"table.md", "table.tsv", "table.tex"}
    scores = read_results(folder / "mix-tinybert/sample/seed3/results.tsv")
    (score,) = [r for r in scores if (r.domain, r.metric) == ("books", "accuracy")]
    line = next(
        line for line in (folder / "table.md").read_text().splitlines() if line.startswith("| mix → TinyBERT-KD")
    )
    assert score.stage == "books/student_second" and f"**{100 * score.value:.1f}**" in line
    assert "88.4" in (folder / "table.md").read_text()  # the published score is shown too
    links = re.findall('href="([^"#]+)"', (folder / "report.html").read_text(encoding="utf-8"))
    assert links == [f"{row}/sample/seed3/report.html" for row in ("teacher-mix", "mix-tinybert")]
    assert all((folder / link).is_file() for link in links)

    before = (folder / "table.tsv").read_text()
    (folder / "table.tsv").unlink()
    places = {"data_dir": str(home / "data"), "output_root": str(home / "outputs"), "suite": "sample"}
    part = {
        "rows": "mix-tinybert",
        "seeds": "3",
        "targets": "books",
        "domains": "books dvd",
        "config": "configs/sample.sh",
    }
    os.environ.update(given := {name: value for name, value in FAST.items() if name != "OMP_NUM_THREADS"})
    try:
        reproduce(ReproduceArguments("metakd_amazon", dry_run=True, list_cells=True, **places, **part))
        listed = capsys.readouterr().out.splitlines()
        reproduce(ReproduceArguments("metakd_amazon", dry_run=True, **places, **part))
        counted = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[:5]]
        reproduce(ReproduceArguments("metakd_amazon", **places, **part))
    finally:
        for name in given:
            del os.environ[name]
    assert counted[0] == ["metakd_amazon", "cells", "done", "todo", "hours", "hours left"]
    assert [row[:4] for row in counted[2:]] == [["teacher-mix", "1", "1", "–"], ["mix-tinybert", "1", "1", "–"], ["all", "2", "2", "–"]]
    assert float(counted[4][4]) < 1 and counted[4][5] == "0.00"
    states = [line.split()[:2] for line in listed]
    assert states == [["done", "teacher-mix.seed3"], ["done", "mix-tinybert.books.seed3"]]
    assert "bash 4_student_first.sh" in listed[1] and "TEACHER_DIR=" in listed[1]
    assert capsys.readouterr().out.count("cells done") == 1 and (folder / "table.tsv").read_text() == before


def test_the_name_of_a_table_is_required():
    done = command(ROOT, "--dry_run")
    assert done.returncode == 1 and "metakd_amazon" in done.stderr


def test_listing_cells_does_not_import_pytorch(tmp_path):
    """Importing it takes most of the start-up time."""
    code = (
        "import sys; sys.argv = ['x', '--data_dir', 'data', '--output_root', sys.argv[1], '--dry_run']; sys.path.insert(0, 'src'); "
        "from teachback.core.parsing import parse_options; from teachback.reports.reproduce import ReproduceArguments, reproduce; "
        "reproduce(*parse_options(ReproduceArguments)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "False" and any(line.startswith("Hours are unknown until the first cell is done") for line in lines), done.stderr
    assert re.search(r"^\| all +\| +266 \|", done.stdout, re.MULTILINE) and len(lines) < 30


def finished(folder: Path, stage: str, seconds: float) -> None:
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({"stage": stage, "wall_time_seconds": seconds}))


def test_hours_are_estimated_from_other_runs_before_the_first_cell_is_done(tmp_path, capsys):
    run = tmp_path / "outputs/amazon/seed42"
    finished(run / "teacher-mix", "teacher-mix", 3600)
    finished(run / "books/student_first", "student_first", 1800)
    finished(tmp_path / "outputs/mnli/seed42/teacher-mix", "teacher-mix", 90_000)  # another suite

    def hours() -> dict[str, str]:
        reproduce(arguments(tmp_path, rows="mix-tinybert", dry_run=True))
        printed = capsys.readouterr().out
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
        assert "from 2 finished folders of other runs" in printed or "from 3 finished folders of other runs" in printed
        return {row[0]: row[-1] for row in cells}

    found = hours()
    assert found["teacher-mix"] == "1.00" and found["mix-tinybert"] == found["all"] == "–"  # stage 5 has not run yet
    finished(run / "books/student_second", "student_second", 900)
    found = hours()
    assert found["teacher-mix"] == "1.00" and found["mix-tinybert"] == "3.00" and found["all"] == "4.00"  # for four domains


def arguments(folder: Path, name="metakd_amazon", **changes) -> ReproduceArguments:
    suite = name.split("_")[1]
    places = {"data_dir": str(folder / "data"), "output_root": str(folder / "outputs")}
    return ReproduceArguments(**{"name": name, "suite": suite, "seeds": "1", **places, **changes})


def cells(folder: Path, name="metakd_amazon", with_data=False, **changes) -> dict:
    return {cell.name: cell for cell in make_plan(arguments(folder, name, **changes)).cells(with_data)}


def test_every_published_row_has_a_recipe_and_recipes_refer_to_known_rows():
    for name, recipe in RECIPES.items():
        assert set(published_table(name).rows) <= set(recipe.rows)
        for row in recipe.rows.values():
            assert {row.teacher, row.student, row.cells_of, row.compared_with} <= {"", *recipe.rows}
            assert row.cells_of or row.scripts[-1] == SCRIPTS["7"]


def test_cells_of_metakd_are_complete_and_follow_the_cells_they_need(tmp_path):
    found = cells(tmp_path, seeds="1 2")
    teachers = [name for name in found if name.startswith("teacher")]
    assert len(teachers) == 2 * (4 + 5) and len(found) == len(teachers) + 2 * 11 * 4
    order = list(found)
    for cell in found.values():
        assert all(order.index(need) < order.index(cell.name) for need in cell.needs)


def test_a_teacher_is_trained_once_for_all_its_students(tmp_path):
    found = cells(tmp_path)
    students = ["meta-tinybert", "meta-distillation", "no-lambda", "no-tkd"]
    for name in students:
        for domain in ("books", "kitchen"):
            cell = found[f"{name}.{domain}.seed1"]
            assert cell.needs == ("teacher-meta.seed1",)
            assert cell.variables["TEACHER_DIR"].endswith("metakd_amazon/teacher-meta")
    assert len({found[f"{name}.books.seed1"].variables["OUTPUT_DIR"] for name in students}) == len(students)


def test_averaged_teachers_are_the_single_teachers_of_every_domain(tmp_path):
    found = cells(tmp_path, rows="multi-mtn", targets="books")
    cell = found["multi-mtn.books.seed1"]
    singles = {f"teacher-single.{name}.seed1" for name in ("books", "dvd", "electronics", "kitchen")}
    assert set(cell.needs) == singles | {"single-tinybert.books.seed1"} and set(found) == {*cell.needs, cell.name}
    assert cell.scripts == (SCRIPTS["5"], SCRIPTS["7"]) and cell.variables["TEACHER"] == "multi"
    assert cell.variables["STUDENT_DIR"].endswith("single-tinybert")


def test_the_recommended_row_runs_on_request_with_the_settings_of_its_config(tmp_path):
    assert not {"recommended", "teacher-uniform"} & {cell.kind for cell in cells(tmp_path).values()}
    found = cells(tmp_path, rows="recommended meta-distillation", targets="books dvd")
    given = dict(re.findall(r"^(\w+)=(\S+)", (ROOT / "configs/recommended.sh").read_text(), re.M))
    cell, teacher = found["recommended.dvd.seed1"], found["teacher-uniform.seed1"]
    named = [name for name in given if name in cell.variables and name not in ("SUITE", "QUIZ_FRACTION")]
    assert len(named) == 7 and {name: cell.variables[name] for name in named} == {name: given[name] for name in named}
    assert teacher.variables["DOMAIN_LABELS"] == given["DOMAIN_LABELS"] and teacher.name in cell.needs
    assert cell.after == ("recommended.books.seed1",)  # copies the first stage of that cell, which trains on the texts of every domain
    assert found["meta-distillation.dvd.seed1"].after == ()


def test_rows_differ_in_the_variables_of_their_ablations(tmp_path):
    found = cells(tmp_path)

    def value(row, name):
        return found[f"{row}.books.seed1"].variables.get(name)

    assert (
        value("meta-distillation", "USE_EXPERTISE_WEIGHTS") == "1" and value("meta-distillation", "TKD_WEIGHT") is None
    )
    assert value("meta-tinybert", "USE_EXPERTISE_WEIGHTS") == "0" and value("meta-tinybert", "TKD_WEIGHT") == "0"
    assert value("no-lambda", "USE_EXPERTISE_WEIGHTS") == "0" and value("no-lambda", "TKD_WEIGHT") is None
    assert value("no-prototypes", "USE_SAMPLE_WEIGHTS") == "0" and value("no-tkd", "TKD_WEIGHT") == "0"
    assert found["teacher-no-domain-loss.seed1"].variables["USE_DOMAIN_LOSS"] == "0"
    assert value("undistilled", "METHOD") == "finetune" and value("undistilled", "EPOCHS") == "13"
    assert found["undistilled.books.seed1"].needs == ()
    short = cells(tmp_path, rows="undistilled", targets="books", stage_epochs="0.5 0.25")
    assert short["undistilled.books.seed1"].variables["EPOCHS"] == "0.75"


def test_undistilled_students_are_pretrained_if_others_are_cut_from_teachers(tmp_path):
    cut = {"student_init": "teacher", "teacher_model": "mine", "undistilled_lr": "1e-4"}
    (cell,) = cells(tmp_path, rows="undistilled", targets="books", **cut).values()
    assert cell.needs == () and cell.variables["LR"] == "1e-4"
    assert (cell.variables["STUDENT_INIT"], cell.variables["STUDENT_MODEL"]) == ("pretrained", "mine")


def test_cells_wait_for_a_first_stage_that_they_can_copy(tmp_path):
    found = cells(tmp_path, rows="meta-distillation", transfer_set="all")
    assert found["meta-distillation.dvd.seed1"].after == ("meta-distillation.books.seed1",)
    assert found["meta-distillation.books.seed1"].after == ()
    single = cells(tmp_path, rows="single-tinybert", transfer_set="all")
    assert single["single-tinybert.dvd.seed1"].after == ()  # each domain has a teacher of its own
    assert cells(tmp_path, rows="meta-distillation")["meta-distillation.dvd.seed1"].after == ()


def test_mpdistil_variants_continue_one_student_and_share_the_meta_teacher(tmp_path):
    found = cells(tmp_path, "mpdistil_superglue", targets="CB")
    for name in ("collaborative-binary", "collaborative-real", "uniform", "target-only"):
        cell = found[f"{name}.CB.seed1"]
        assert cell.needs == ("teacher.CB.seed1", "collaborative-no-curriculum.CB.seed1")
        assert cell.scripts == (SCRIPTS["6"], SCRIPTS["7"])
        assert cell.variables["STUDENT_DIR"].endswith("collaborative-no-curriculum")
    for loss in ("collaborative", "competitive"):
        cell = found[f"{loss}-no-curriculum.CB.seed1"]
        assert cell.scripts == (SCRIPTS["5"], SCRIPTS["7"]) and cell.variables["META_LOSS"] == loss
        assert "kd.CB.seed1" in cell.needs and cell.variables["STUDENT_DIR"].endswith("kd")
    assert found["kd.CB.seed1"].scripts == (SCRIPTS["4"], SCRIPTS["5"], SCRIPTS["7"])
    assert found["uniform.CB.seed1"].variables["POLICY"] == "uniform"
    assert found["kd.CB.seed1"].variables["META_TEACHER_EVERY_EPOCH"] == "0"
    assert not any(name.startswith("meta-teacher") for name in found)  # made by the rows with the real reward
    alone = cells(tmp_path, "mpdistil_superglue", targets="CB", rows="meta-teacher-competitive")
    assert "competitive-real.CB.seed1" in alone and "uniform.CB.seed1" not in alone


def test_mnli_mismatched_has_no_student_of_its_own(tmp_path):
    found = cells(tmp_path, "mpdistil_glue", rows="kd")
    assert "kd.MNLI.seed1" in found and "kd.MNLI-mm.seed1" not in found
    assert "MNLI-mm" in found["kd.MNLI.seed1"].variables["DOMAINS"].split()
    with pytest.raises(TeachbackError, match="MNLI-mm has no rows to train on; add MNLI"):
        cells(tmp_path, "mpdistil_glue", domains="MNLI-mm RTE")


def test_the_first_cell_makes_missing_data(tmp_path):
    found = cells(tmp_path, with_data=True, rows="teacher-mix")
    assert list(found) == [DATA, "teacher-mix.seed1"] and found["teacher-mix.seed1"].needs == (DATA,)
    assert found[DATA].scripts == (SCRIPTS["1"], SCRIPTS["2"]) and found[DATA].variables["QUIZ_FRACTION"] == "0"


def test_the_papers_protocol_has_a_folder_of_its_own(tmp_path):
    found = cells(tmp_path, "mpdistil_superglue", protocol="paper", rows="kd", targets="CB")
    assert all(cell.variables["PROTOCOL"] == "paper" for cell in found.values())
    assert all("mpdistil_superglue-paper/" in cell.variables["OUTPUT_DIR"] for cell in found.values())


def write_processed_suite(folder: Path, suite: str, domains, **settings) -> None:
    write_suite(
        folder / "data" / suite, Suite(suite, {name: Domain(name, name, ("a", "b")) for name in domains}, settings)
    )


def test_data_of_another_protocol_or_without_a_quiz_is_refused(tmp_path):
    superglue = ("BoolQ", "CB", "COPA", "RTE", "WiC", "WSC")
    write_processed_suite(tmp_path, "superglue", superglue, protocol="honest", quiz_fraction=0.1)
    cells(tmp_path, "mpdistil_superglue")
    with pytest.raises(
        TeachbackError, match="made with PROTOCOL=honest.*PROTOCOL=paper QUIZ_FRACTION=0.1 bash 2_process"
    ):
        cells(tmp_path, "mpdistil_superglue", protocol="paper")
    write_processed_suite(tmp_path, "superglue", superglue, protocol="honest", quiz_fraction=0)
    with pytest.raises(TeachbackError, match="need a quiz; run PROTOCOL=honest QUIZ_FRACTION=0.1"):
        cells(tmp_path, "mpdistil_superglue")


def test_data_with_a_quiz_is_reported_if_the_paper_uses_none(tmp_path, capsys):
    write_processed_suite(tmp_path, "amazon", ("books", "dvd", "electronics", "kitchen"), protocol="honest", quiz_fraction=0.1)
    cells(tmp_path)
    assert "note:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rows": "meta-destillation"}, "no such row.*meta-distillation"), ({"seeds": "1 two"}, "SEEDS='1 two'"),
     ({"seeds": ""}, "whole numbers"), ({"targets": "toys"}, "DOMAIN=toys.*books, dvd"), ({"jobs": 0}, "JOBS=0"),
     ({"name": "metakd_amazon", "launcher": "cloud"}, "LAUNCHER=cloud")],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_bad_arguments_are_explained(tmp_path, change, message):
    with pytest.raises(TeachbackError, match=message):
        cells(tmp_path, **change)


def test_all_visible_gpus_are_used_unless_a_device_is_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_gpus("auto") == visible_gpus("cuda") == ["2", "5"]
    assert visible_gpus("cpu") == visible_gpus("cuda:1") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert visible_gpus("auto") == ["0", "1", "2"]


def test_the_documentation_names_every_row():
    text = (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")
    for recipe in RECIPES.values():
        assert all(f"`{name}`" in text for name in recipe.rows)
