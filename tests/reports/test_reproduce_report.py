"""Tests of report.html of a published table: it has the numbers of the table, and its links lead to the runs."""

import re

import pytest
from test_report import EVIL, Page, write_stage
from test_reproduce_table import DISTILLED, META, TINYBERT, by_domain, glue, plan, table, write_answers, write_scores

from teachback.data.schema import Domain
from teachback.inference.measured import merge_costs
from teachback.inference.results import Evaluated, Result, merge_results
from teachback.inference.timing import Timing
from teachback.reports.cells import DONE, FAILED, TODO
from teachback.reports.paper_table import PaperTable
from teachback.reports.published import published_table
from teachback.reports.recipes import MPDISTIL
from teachback.reports.table_cells import link, progress, settings
from teachback.reports.table_output import write_table_report
from teachback.reports.table_scores import published_section, scores, tradeoff

ROWS = [(META, 0.9, 110), (DISTILLED, 0.8, 14), (TINYBERT, 0.7, 14)]


def measure(made, row, seed, milliseconds, machine="a machine", parameters=14):
    """Write stage 7's costs of a row's checkpoints, and the record of stage 3 or 5."""
    stages = {row.checkpoint.format(domain=domain) for domain in made.targets}
    run = made.run_folder(row, "books", seed)
    timings = {size: Timing.of([factor * milliseconds]) for size, factor in ((1, 2), (8, 1))}
    costs = [Evaluated(s, "", "", {}, parameters * 10**6, 4 * 10**6, timings) for s in stages]
    merge_costs(run / "costs.tsv", costs, machine)
    for stage in stages:
        write_stage(run, stage, {"learning_rate": 2e-5, "temperature": seed, "student_model": EVIL}, seed=seed)


@pytest.fixture
def home(tmp_path):
    """Plan of three rows and one seed, with scores, predictions, costs and records; the run of one row has a report."""
    made = plan(tmp_path, seeds=(1,))
    gold = by_domain(*["++--"] * 4)
    for row, value, parameters in ROWS:
        write_scores(made, row, 1, by_domain(*[value] * 4))
        write_answers(made, row, 1, by_domain(*["++--" if value > 0.75 else "+---"] * 4), gold)
        measure(made, row, 1, parameters / 10, parameters=parameters)
    (made.run_folder(META, "books", 1) / "report.html").write_text("its own")
    return made


def cells_of(made, states=None):
    cells = made.cells(with_data=False)
    for cell in cells:
        cell.folder.mkdir(parents=True, exist_ok=True)
        cell.mark(DONE).write_text("print\t1800\n")
    return cells, {cell.name: DONE for cell in cells} | (states or {})


def report(made, states=None) -> Page:
    cells, states = cells_of(made, states)
    path = write_table_report(table(made, states), cells, states)
    assert path == made.folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_section_of_scores_has_the_numbers_of_the_table(home):
    section = scores(table(home))
    values, tests = section.tables
    by_row = {row[0]: row[1:] for row in values.rows}
    assert by_row[DISTILLED.title] == ["<strong>80.0</strong>"] * 5 + ["1"]
    assert by_row[META.title][-2] == "90.0" and "\u00a0\u00a0published" in by_row
    assert {(row[0], row[1]) for row in tests.rows} == {
        (DISTILLED.title, TINYBERT.title),
        (TINYBERT.title, DISTILLED.title),
    }
    assert tests.rows[0][2] == "−10.0, p = 1.00 (1.00)" and section.anchor == "table"
    assert section.intro == (
        "On the average over domains the best student is Meta-teacher → Meta-distillation with 80.0 %; the best teacher, "
        "Meta-teacher, has 90.0 %. Means over 1 seed."
    )
    (figure,) = published_section(table(home)).figures
    assert figure.reading == (
        "Our score minus the published one ranges from −18.3 points (Meta-teacher → TinyBERT-KD) to 0.1 points (Meta-teacher)."
    )


def test_the_page_is_self_contained_and_links_to_the_runs(home):
    page = report(home)
    ids = [one["id"] for _, one in page.tags if one.get("id")]
    sections = [one["id"] for one in page.of("section")]
    assert sections == ["table", "progress", "published", "tradeoff", "runs", "settings"] and len(ids) == len(set(ids))
    assert page.of("a")[-1]["href"] == "teacher-meta/tiny/seed1/report.html"
    assert (home.folder / page.of("a")[-1]["href"]).read_text() == "its own"
    assert not page.of("script") and not page.of("link") and not page.of("img") and not page.of("iframe")
    for figure, label in ((f, f["aria-label"]) for f in page.of("svg") if "aria-label" in f):
        assert re.search(r"\d", label), figure


def test_names_from_files_are_escaped(home):
    assert not any(EVIL in str(value) for _, one in report(home).tags for value in one.values())
    text = (home.folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text


def test_the_tradeoff_lists_score_size_and_time_of_each_row(home):
    section = tradeoff(table(home))
    assert section.tables[0].header == ["row", "average %", "parameters", "MB", "ms, batch 1", "ms, batch 8"]
    assert section.tables[0].rows[0] == [META.title, "90.0", "110.00 M", "4.0", "22.00", "11.00"]
    assert section.figures[0].reading == (
        "The average over domains: the best student, Meta-teacher → Meta-distillation (80.0 %) takes 1.40 ms per example "
        "with 14.00 M parameters, the best teacher, Meta-teacher (90.0 %) takes 11.00 ms per example with 110.00 M parameters."
    )
    svg = section.figures[0].svg
    assert "time per example (ms, batch 8)" in svg and "accuracy (%)" in svg


def test_times_of_other_machines_and_unfinished_cells_are_left_out(home):
    measure(home, META, 1, 99.0, machine="another")
    section = tradeoff(table(home))
    assert [row[0] for row in section.tables[0].rows] == [row.title for row in (TINYBERT, DISTILLED)]
    assert section.notes[1].startswith("Times from 1 other machines")
    every = {cell.name: TODO for cell in home.cells(with_data=False)}
    assert "stage 7 writes costs.tsv" in tradeoff(table(home, every)).missing


def test_progress_counts_cells_and_links_the_logs_of_failed_ones(home):
    failed = "meta-distillation.dvd.seed1"
    cells, states = cells_of(home, {failed: FAILED, "meta-tinybert.dvd.seed1": TODO})
    section = progress(home, cells, states)
    assert section.intro == "7 of 9 cells are done; they took 3.50 hours."
    assert section.tables[0].header == ["row", "done", "todo", "failed", "all", "hours"]
    assert [DISTILLED.title, "3", "0", "1", "4", "1.50"] in section.tables[0].rows
    assert section.notes == [
        f'Failed: {failed}, see its <a href="meta-distillation/cells/{failed}.log">log</a>.'
    ]  # fmt: skip
    page = report(home, {failed: FAILED})
    assert {"href": f"meta-distillation/cells/{failed}.log"} in page.of("a")
    odd = link(home.folder, home.folder / 'a "b" <c>#.html', "<d>")
    assert odd == '<a href="a%20%22b%22%20%3Cc%3E%23.html">&lt;d&gt;</a>'


def test_settings_name_the_rows_that_have_a_value(home):
    write_stage(home.run_folder(META, "books", 1), META.checkpoint, {"learning_rate": 9e-5})
    versions, told = settings([table(home)]).tables
    assert ["torch", "2.13.0", "all"] in versions.rows and told.folded
    values = {(row[0], row[1]): row[2] for row in told.rows}
    assert values["learning_rate", "9e-05"] == "Meta-teacher" and "seed" not in {name for name, _ in values}
    assert values["temperature", "1"] == "Meta-teacher → TinyBERT… and Meta-teacher → Meta-dis…"


def test_scores_of_single_domains_are_shown_until_an_average_is_complete(home):
    states = {f"{row.name}.{domain}.seed1": TODO for row in (DISTILLED, TINYBERT) for domain in ("dvd", "kitchen")}
    found = table(home, states)
    assert scores(found).intro.startswith("On books the best student is Meta-teacher → Meta-distillation with 80.0 %")
    assert [figure.title for figure in published_section(found).figures] == [
        f"Scores: {domain}" for domain in ("books", "dvd", "electronics", "kitchen")
    ]


def test_the_report_of_a_table_without_scores_states_that(tmp_path):
    made = plan(tmp_path, seeds=(1,))
    cells = made.cells(with_data=False)
    states = {cell.name: TODO for cell in cells}
    page = Page(write_table_report(table(made, states), cells, states).read_text(encoding="utf-8"))
    assert "No student has a score yet." in page.text and "0 of 9 cells are done" in page.text
    assert "No checkpoint of the table is finished yet." in page.text


def test_figures_show_the_first_columns_if_there_is_no_average(tmp_path):
    """GLUE's table has more columns than the report shows figures, and the paper gives no average over them."""
    names = ("MRPC", "QQP", "RTE", "SST-2", "WNLI", "QNLI")
    suite = {name: Domain(name, name, ("a", "b"), metric="accuracy+f1") for name in names}
    made, states = glue(tmp_path, names, suite)
    row = MPDISTIL["kd"]
    for name in names:
        scores = [Result("tiny", name, "m", f"{name}/student_second", 1, "test", m, 0.5, 9) for m in ("accuracy", "f1")]
        merge_results(made.run_folder(row, name, 1) / "results.tsv", scores)
    section = published_section(PaperTable(made, published_table("mpdistil_glue"), states))
    assert [figure.title for figure in section.figures][:3] == ["Scores: MRPC", "Scores: MRPC f1", "Scores: QNLI"]
    assert len(section.figures) == 6 and section.notes == [
        "Figures show the first 6 of 8 columns; the table has all of them."
    ]
