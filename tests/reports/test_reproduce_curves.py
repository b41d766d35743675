"""Tests of the settings with few or no training data of the target domain: their cells, tables and figure."""

import csv
import io
from dataclasses import replace

import pytest
from test_report import Page
from test_reproduce import arguments
from test_reproduce_table import write_answers, write_scores

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Suite, write_suite
from teachback.reports.cells import DONE
from teachback.reports.curves import Curve, published_in
from teachback.reports.paper_table import PaperTable
from teachback.reports.published import Column, published_table
from teachback.reports.recipes import METAKD
from teachback.reports.reproduce import make_plans
from teachback.reports.table_output import show_results, write_curve

GENRES = ("fiction", "government", "slate", "telephone", "travel")


def plans(folder, **changes):
    return make_plans(arguments(folder, "metakd_mnli", **changes))


def cells(folder, **changes) -> dict:
    return {cell.name: cell for plan in plans(folder, **changes) for cell in plan.cells(with_data=False)}


def variables_of(cell, *names) -> list:
    return [cell.variables.get(name) for name in names]


def test_a_train_fraction_applies_to_teachers_and_students(tmp_path):
    found = cells(tmp_path, train_fraction="0.1")
    assert set(found) == {
        "teacher-single.fiction.fiction-0.1.seed1", "teacher-meta.fiction-0.1.seed1", "undistilled.fiction.fiction-0.1.seed1",
        "single-tinybert.fiction.fiction-0.1.seed1", "meta-distillation.fiction.fiction-0.1.seed1",
        "teacher-uniform.fiction-0.1.seed1", "recommended.fiction.fiction-0.1.seed1",
    }  # fmt: skip
    for cell in found.values():
        assert variables_of(cell, "DOMAIN", "TRAIN_FRACTION", "HOLD_OUT") == ["fiction", "0.1", None]
        assert "/metakd_mnli/fiction-0.1/" in cell.variables["OUTPUT_DIR"]
    student = found["meta-distillation.fiction.fiction-0.1.seed1"]
    assert student.needs == ("teacher-meta.fiction-0.1.seed1",)
    assert student.variables["TEACHER_DIR"].endswith("metakd_mnli/fiction-0.1/teacher-meta")


def test_a_train_fraction_of_1_uses_the_cells_of_the_table(tmp_path):
    whole, table = cells(tmp_path, train_fraction="1.0", targets="slate"), cells(tmp_path, rows=" ".join(METAKD))
    assert set(whole) < set(table)
    assert all(replace(table[name], after=()) == cell for name, cell in whole.items())  # only the table has an order of domains


def test_all_train_fractions_share_the_teacher_of_a_held_out_domain(tmp_path):
    found = cells(tmp_path, hold_out="fiction", train_fraction="0.1 1")
    teacher = found["teacher-meta.without-fiction.seed1"]
    assert variables_of(teacher, "HOLD_OUT", "TRAIN_FRACTION", "DOMAIN") == ["fiction", None, "all"]
    students = [f"meta-distillation.fiction.without-fiction{share}.seed1" for share in ("", ".fiction-0.1")]
    for name, share in zip(students, (None, "0.1")):
        assert found[name].needs == (teacher.name,)
        assert variables_of(found[name], "HOLD_OUT", "TRAIN_FRACTION") == ["fiction", share]
        assert found[name].variables["TEACHER_DIR"] == teacher.variables["OUTPUT_DIR"]
    assert len({found[name].variables["OUTPUT_DIR"] for name in students}) == 2
    assert [name for name in found if name.startswith("teacher")] == ["teacher-single.government.seed1", teacher.name]


def test_the_teacher_of_another_domain_is_the_cell_of_the_table(tmp_path):
    found = cells(tmp_path, hold_out="fiction", train_fraction="0.1")
    cell = found["other-tinybert.fiction.fiction-0.1.seed1"]
    assert cell.needs == ("teacher-single.government.seed1",)
    assert variables_of(cell, "TEACHER_DOMAIN", "TRAIN_FRACTION", "HOLD_OUT") == ["government", "0.1", None]
    assert found["teacher-single.government.seed1"] == cells(tmp_path)["teacher-single.government.seed1"]
    other = cells(tmp_path, hold_out="fiction", teacher_domain="travel")["other-tinybert.fiction.seed1"]
    assert other.variables["TEACHER_DOMAIN"] == "travel" and other.needs == ("teacher-single.travel.seed1",)
    with pytest.raises(TeachbackError, match="TEACHER_DOMAIN=fiction: choose another domain than fiction"):
        cells(tmp_path, hold_out="fiction", teacher_domain="fiction")


def test_the_undistilled_student_is_the_same_in_both_settings(tmp_path):
    few, held_out = (cells(tmp_path, train_fraction="0.1", **more) for more in ({}, {"hold_out": "fiction"}))
    name = "undistilled.fiction.fiction-0.1.seed1"
    assert few[name] == held_out[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"train_fraction": "0.1 lots"}, "expected numbers"), ({"train_fraction": "0 1"}, "above 0"), ({"train_fraction": "2"}, "at most 1"),
     ({"hold_out": "cars"}, "HOLD_OUT=cars"), ({"train_fraction": "0.1", "rows": "multi-mtn"}, "not a row of this setting")],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_explained(tmp_path, change, message):
    with pytest.raises(TeachbackError, match=message):
        plans(tmp_path, **change)
    with pytest.raises(TeachbackError, match="Meta-KD's tables do"):
        make_plans(arguments(tmp_path, "mpdistil_superglue", hold_out="CB"))


@pytest.fixture
def measured(tmp_path):
    """Plans with fiction held out and 100 % and 10 % of its train rows, with scores of two rows of the table."""
    made = plans(tmp_path, hold_out="fiction", train_fraction="1 0.1")
    write_suite(
        tmp_path / "data/mnli", Suite("mnli", {name: Domain(name, "nli", ("negative", "positive")) for name in GENRES})
    )
    for plan, ours, theirs in zip(made, (0.5, 0.75), (0.25, 0.75)):
        for name, value, letters in (("meta-distillation", ours, "++--"), ("other-tinybert", theirs, "----")):
            row = plan.recipe.row(name)
            write_scores(plan, row, 1, {"fiction": value}, of="fiction", suite="mnli")
            write_answers(plan, row, 1, {"fiction": letters}, {"fiction": "+++-"})
    return made


def states(made) -> dict[str, str]:
    return {cell.name: DONE for plan in made for cell in plan.cells(with_data=False)}


def curve_of(made) -> Curve:
    about = published_table("metakd_mnli")
    return Curve([PaperTable(plan, published_in(about, plan.setting), states(made)) for plan in made])


def test_a_curve_has_a_column_per_train_fraction_and_the_published_scores(measured):
    (grid,) = curve_of(measured).document().grids
    assert grid.header == [
        "metakd_mnli, fiction held out of the teacher",
        "10 % of train",
        "100 % of train",
        "seeds",
    ]
    lines = grid.lines
    at = next(i for i, line in enumerate(lines) if line[0] == "Meta-teacher → Meta-distillation")
    assert lines[at] == ["Meta-teacher → Meta-distillation", "50.0", "75.0", "1"]
    assert lines[at + 1] == ["   published", "–", "78.2 (−3.2)", ""]
    assert lines[at + 2] == ["   minus another domain's single → TinyBERT-KD", "+25.0, p = 0.50 (0.50)", "0.0, p = 0.50 (0.50)", ""]
    assert all(line[1:3] == ["–", "–"] for line in lines if line[0] in ("Meta-teacher", "Student, undistilled"))


def test_a_curve_is_written_as_tables_a_figure_and_a_report(measured, tmp_path, capsys):
    made = {cell.name: cell for plan in measured for cell in plan.cells(with_data=False)}
    show_results(measured, published_table("metakd_mnli"), made, states(measured))
    folder = tmp_path / "outputs/reproduce/metakd_mnli"
    assert {path.name for path in folder.glob("held-out-*")} == {
        f"held-out-fiction.{end}" for end in ("md", "tsv", "tex", "png", "html")
    }
    assert (folder / "held-out-fiction.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO((folder / "held-out-fiction.tsv").read_text()), delimiter="\t"))
    ours = [(row["fraction"], row["mean"]) for row in rows if row["row"] == "meta-distillation"]
    assert ours == [("0.1", "50.0000"), ("1", "75.0000")]
    assert "held-out-fiction.md" in capsys.readouterr().out
    page = Page((folder / "held-out-fiction.html").read_text(encoding="utf-8"))
    assert "With 10 % of the rows Meta-teacher → Meta-distillation is best, with 50.0 %." in page.text
    assert [a["href"] for a in page.of("a")] == ["#table", "#progress", "#runs", "#settings"]


def test_a_curve_without_any_score_is_drawn_empty(tmp_path):
    made = plans(tmp_path, train_fraction="0.5")
    write_curve(curve_of(made), tmp_path / "empty")
    assert (tmp_path / "empty/few-data-fiction.png").is_file()


def test_only_the_settings_of_the_paper_have_published_numbers(tmp_path):
    about = published_table("metakd_mnli")
    for settings, expected in (
        ({"train_fraction": "1"}, 80.5), ({"train_fraction": "0.5"}, None),
        ({"hold_out": "fiction"}, 78.2), ({"hold_out": "slate"}, None), ({"hold_out": "fiction", "train_fraction": "0.5"}, None),
    ):  # fmt: skip
        (plan,) = plans(tmp_path, **settings)
        assert published_in(about, plan.setting).score("meta-distillation", Column(plan.setting.target)) == expected
