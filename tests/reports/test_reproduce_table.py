"""Tests of the tables' arithmetic on handmade results and predictions, and of their formats."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import BertConfig

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.markdown import escape_markdown
from teachback.core.numerals import decimal, signed
from teachback.data.schema import Domain, Suite, write_suite
from teachback.inference.results import Result, merge_results, predictions_file, read_results
from teachback.reports.cells import CHANGED, DAMAGED, DONE, FAILED, TODO
from teachback.reports.paper_table import PaperTable
from teachback.reports.plan import Plan
from teachback.reports.published import Column, published_table
from teachback.reports.recipes import METAKD, MPDISTIL, RECIPES
from teachback.reports.run_cells import BLOCKED, RUNNING
from teachback.reports.table_formats import document, escape_latex, escape_tsv, latex, markdown, notes, plain, tsv
from teachback.reports.table_scores import scores

LABELS = ("negative", "positive")
AMAZON = ("books", "dvd", "electronics", "kitchen")
META, DISTILLED, TINYBERT = (METAKD[name] for name in ("teacher-meta", "meta-distillation", "meta-tinybert"))


def plan(folder: Path, name="metakd_amazon", rows=(META, DISTILLED, TINYBERT), seeds=(1, 2), domains=AMAZON) -> Plan:
    return Plan(RECIPES[name], "tiny", folder / "table", folder / "data", seeds, domains, domains, tuple(rows))


def write_scores(made: Plan, row, seed: int, values: dict[str, float], split="test", of="", suite="tiny") -> None:
    """Write stage 7's accuracies of a row and seed."""
    where = [(name, "m", row.checkpoint.format(domain=name), seed, split, "accuracy") for name in values]
    merge_results(
        made.run_folder(row, of, seed) / "results.tsv",
        [Result(suite, *place, value, 100) for place, value in zip(where, values.values())],
    )


def write_answers(made: Plan, row, seed: int, answers: dict[str, str], gold: dict[str, str]) -> None:
    """Write stage 7's predictions: for each domain a string with a letter (+, - or ?) per example, as for the gold labels."""
    for domain, letters in answers.items():
        lines = ["guid\tdomain\tgold\tpredicted\tp(negative)"]
        name = {"+": "positive", "-": "negative", "?": ""}
        lines += [
            f"{domain}-{i}\t{domain}\t{name[g]}\t{name[p]}\t0.5" for i, (g, p) in enumerate(zip(gold[domain], letters))
        ]
        path = predictions_file(made.run_folder(row, domain, seed), row.checkpoint.format(domain=domain), "test")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def table(made: Plan, states=None, name="metakd_amazon") -> PaperTable:
    folder = made.data_dir / "tiny"
    write_suite(folder, Suite("tiny", {domain: Domain(domain, "sentiment", LABELS) for domain in made.domains}))
    every = {cell.name: DONE for cell in made.cells(with_data=False)}
    return PaperTable(made, published_table(name), every | (states or {}))


def by_domain(*values):
    return dict(zip(AMAZON, values))


def score_lines(found: PaperTable) -> dict[str, str]:
    """Lines of the Markdown table of scores, by their first cell."""
    block = markdown(document(found)).split("\n\n")[0]
    return {line.split("|")[1].strip(): line for line in block.splitlines()}


@pytest.fixture
def two_seeds(tmp_path) -> Plan:
    """Plan of the meta-teacher and two students with two seeds; TinyBERT-KD has results of the first seed only."""
    made = plan(tmp_path)
    write_scores(made, META, 1, by_domain(0.90, 0.80, 0.90, 0.80))
    write_scores(made, META, 2, by_domain(0.92, 0.84, 0.90, 0.90))
    write_scores(made, DISTILLED, 1, by_domain(0.70, 0.70, 0.70, 0.70))
    write_scores(made, DISTILLED, 2, by_domain(0.80, 0.80, 0.80, 0.80))
    write_scores(made, TINYBERT, 1, by_domain(0.60, 0.74, 0.60, 0.60))
    gold = dict.fromkeys(AMAZON, "++++----")
    for seed, letters in ((1, "++++----"), (2, "++++---+")):
        write_answers(made, DISTILLED, seed, dict.fromkeys(AMAZON, letters), gold)
    write_answers(made, TINYBERT, 1, by_domain("++------", "++++----", "---+----", "++++++++"), gold)
    return made


def test_mean_standard_deviation_and_difference_to_the_published_score(two_seeds):
    books = table(two_seeds).entry(META, Column("books"))
    assert books.scores == {1: 0.90, 2: 0.92} and books.n == 2
    assert books.mean == pytest.approx(91.0) and books.std == pytest.approx(2**0.5)  # of 90 and 92, with n - 1
    assert books.published == 92.5 and books.difference == pytest.approx(-1.5)


def test_the_average_over_domains_is_computed_for_each_seed(two_seeds):
    average = table(two_seeds).entry(META, Column("average"))
    assert average.scores == {1: pytest.approx(0.85), 2: pytest.approx(0.89)}
    assert average.std == pytest.approx(100 * 0.04 / 2**0.5) and average.difference == pytest.approx(87.0 - 89.9)


def test_the_notes_give_the_sizes_of_teachers_and_students(two_seeds):
    assert "Ours:" not in plain(document(table(two_seeds)))
    for row, layers in ((META, 6), (DISTILLED, 3), (TINYBERT, 3)):
        for domain in AMAZON:
            folder = two_seeds.run_folder(row, domain, 1) / row.checkpoint.format(domain=domain)
            BertConfig(num_hidden_layers=layers, hidden_size=48).save_pretrained(folder)
    told = "Ours: SUITE=tiny; teachers: 6 layers, 48 wide; students: 3 layers, 48 wide."
    assert told in plain(document(table(two_seeds))) and f"% {told}" in latex(document(table(two_seeds)))


def test_the_notes_list_differences_from_the_papers_settings(two_seeds):
    assert "Settings other" not in plain(document(table(two_seeds)))
    told = {"max_length": 64, "per_device_train_batch_size": 32, "num_train_epochs": 3.0, "learning_rate": 5e-5, "teacher_model": "bert-base-uncased"}
    for row, arguments in ((META, told), (DISTILLED, {"max_length": 128, "temperature": 1.0, "num_train_epochs": 2})):
        for seed in (1, 2):
            folder = two_seeds.run_folder(row, "books", seed) / row.checkpoint.format(domain="books")
            write_atomically(folder / "stage.json", json.dumps({"arguments": arguments | {"max_length": arguments["max_length"] // seed}}))
    said = "teachers: max_length 64 or 32 (paper: 128), learning_rate 5e-05 (paper: 2e-05); stage 5: num_train_epochs 2 (paper: 3), max_length 64 (paper: 128)."
    (found,) = [line for line in plain(document(table(two_seeds))).splitlines() if line.startswith("Settings other")]
    assert found == f"Settings other than the paper's: {said}"
    assert "learning\\_rate 5e-05" in markdown(document(table(two_seeds)))


def test_the_notes_give_the_better_of_chance_and_majority_class(two_seeds):
    folder = two_seeds.run_folder(META, "books", 1) / "results.tsv"
    assert not any(line.startswith("Chance or") for line in notes(table(two_seeds)))
    known = {"books": (0.55, 0.5), "dvd": (0.4, 0.5)}
    merge_results(
        folder,
        [replace(r, majority=known[r.domain][0], chance=known[r.domain][1]) for r in read_results(folder) if r.domain in known],
    )
    assert "Chance or the majority class, whichever scores higher: books 55.0, dvd 50.0." in notes(table(two_seeds))


@pytest.mark.parametrize("state", [TODO, RUNNING, FAILED, BLOCKED])
def test_results_of_unfinished_cells_do_not_count_in_scores_averages_tests_and_costs(state, two_seeds):
    made = table(two_seeds, {"meta-distillation.books.seed1": state})
    assert made.entry(DISTILLED, Column("books")).scores == {2: 0.80} and made.entry(DISTILLED, Column("dvd")).n == 2
    assert made.entry(DISTILLED, Column("average")).scores == {2: pytest.approx(0.80)}  # of the seeds with all domains
    assert made.compare(DISTILLED, Column("dvd")) and made.compare(DISTILLED, Column("books")) is None  # TinyBERT-KD has seed 1 only
    assert len(made.checkpoints(DISTILLED)) == 7 and len(table(two_seeds).checkpoints(DISTILLED)) == 8


def test_results_of_changed_and_damaged_cells_count_and_the_notes_name_changes(two_seeds):
    made = table(two_seeds, {"teacher-meta.seed1": DAMAGED, "teacher-meta.seed2": CHANGED})
    assert made.entry(META, Column("books")).scores == {1: 0.90, 2: 0.92}
    assert "1 cell was made with other settings" in markdown(document(made))


def test_an_average_over_fewer_domains_has_no_published_counterpart(tmp_path):
    made = plan(tmp_path, domains=("books", "dvd"))
    write_scores(made, META, 1, {"books": 0.5, "dvd": 0.7})
    entry = table(made).entry(META, Column("average"))
    assert entry.mean == pytest.approx(60.0) and entry.published is None and entry.difference is None


def test_only_the_best_student_is_bold(two_seeds):
    made = table(two_seeds)
    assert made.is_best(DISTILLED, Column("books")) and not made.is_best(TINYBERT, Column("books"))
    lines = score_lines(made)
    assert "**75.0 ± 7.1**" in lines["Meta-teacher → Meta-distillation"]
    assert "**" not in lines["Meta-teacher → TinyBERT-KD"] and "**" not in lines["Meta-teacher"]


def test_two_students_with_the_same_score_are_both_best(tmp_path):
    made = plan(tmp_path, seeds=(1,))
    for row in (DISTILLED, TINYBERT):
        write_scores(made, row, 1, by_domain(0.7, 0.7, 0.7, 0.7))
    assert table(made).best[Column("books")] == {"meta-distillation", "meta-tinybert"}


def test_the_bootstrap_uses_the_seeds_that_both_rows_have(two_seeds):
    made = table(two_seeds)
    one = made.compare(DISTILLED, Column("books"))  # seed 1 only, as TinyBERT-KD has no results of seed 2
    assert one.difference == pytest.approx(10.0)
    assert one.test.p == 2 / 2**2  # one model alone is correct on two rows; this is the smallest p of a sign test on two rows
    average = made.compare(DISTILLED, Column("average"))
    # one model alone is correct on 2 rows of books, 0 of dvd, 3 of electronics and 4 of kitchen
    assert average.test.p == 2 / 2**9 and average.difference == pytest.approx(100 * (0.7 - 0.635))
    assert made.compare(META, Column("books")) is None  # the table lacks the row mtl, with which it is compared


def test_all_seeds_of_a_test_row_are_drawn_together(two_seeds):
    gold = dict.fromkeys(AMAZON, "++++----")
    write_scores(two_seeds, TINYBERT, 2, by_domain(0.5, 0.5, 0.5, 0.5))
    write_answers(two_seeds, TINYBERT, 2, dict.fromkeys(AMAZON, "++------"), gold)
    one = table(two_seeds).compare(DISTILLED, Column("books"))
    # Two rows are won with both seeds, and one row is lost with one seed. Pooled, these would be four won and one lost.
    assert one.difference == pytest.approx((10 + 30) / 2)
    assert one.test.p == pytest.approx(0.382, abs=0.02)  # exactly 0.382 over all draws of eight rows


def test_comparisons_in_both_directions_count_as_one_test(two_seeds):
    made = table(two_seeds)
    assert len(made.comparisons) == 10 and {one.test.tests for one in made.comparisons.values()} == {5}  # four domains and an average, both ways
    there, back = (made.compare(row, Column("average")) for row in (DISTILLED, TINYBERT))
    assert there.difference == -back.difference and there.test == back.test and there.test.adjusted == 5 * there.test.p
    assert made.compare(DISTILLED, Column("dvd")).test.adjusted == 1.0


def test_every_format_has_raw_and_holm_adjusted_p(two_seeds):
    made = table(two_seeds)
    for form, text in (("plain", plain(document(made))), ("markdown", markdown(document(made))), ("latex", latex(document(made)))):
        assert "+6.5, p = 0.004 (0.020)" in text, form
        assert "adjusted for the 5 tests of the table" in text and "McNemar" not in text, form
    section = scores(made)
    assert any("+6.5, p = 0.004 (0.020)" in row for row in section.tables[1].rows)
    row = next(row for row in read_tsv(made) if (row["row"], row["column"]) == ("meta-distillation", "average"))
    assert (row["p"], row["p_holm"]) == ("0.00390625", "0.0195312") and "of all seeds" in row["test"]


def test_unlabelled_rows_are_excluded_from_tests(two_seeds):
    gold = dict.fromkeys(AMAZON, "??++----")
    for row, letters in ((DISTILLED, "++++----"), (TINYBERT, "--------")):
        write_answers(two_seeds, row, 1, dict.fromkeys(AMAZON, letters), gold)
    assert table(two_seeds).compare(DISTILLED, Column("books")).test.p == pytest.approx(0.5)  # two labelled rows differ, not four


def test_predictions_on_different_test_rows_are_refused(two_seeds):
    write_answers(two_seeds, TINYBERT, 1, {"books": "++++"}, {"books": "++++"})
    with pytest.raises(TeachbackError, match="different test rows of books"):
        table(two_seeds).compare(DISTILLED, Column("books"))


def glue(tmp_path, domains, suite) -> tuple[Plan, PaperTable]:
    rows = (MPDISTIL["teacher"], MPDISTIL["kd"], MPDISTIL["undistilled"])
    targets = tuple(name for name in domains if name != "MNLI-mm")
    made = Plan(RECIPES["mpdistil_glue"], "tiny", tmp_path / "table", tmp_path / "data", (1,), targets, domains, rows)
    write_suite(tmp_path / "data/tiny", Suite("tiny", suite))
    return made, {cell.name: DONE for cell in made.cells(with_data=False)}


def test_a_metric_missing_from_the_results_is_computed_from_predictions(tmp_path):
    suite = {"MRPC": Domain("MRPC", "MRPC", LABELS, metric="accuracy+macro_f1")}
    made, states = glue(tmp_path, ("MRPC",), suite)
    for row, letters in ((MPDISTIL["kd"], "+++---"), (MPDISTIL["undistilled"], "+-----")):
        write_scores(made, row, 1, {"MRPC": 0.5})
        write_answers(made, row, 1, {"MRPC": letters}, {"MRPC": "++++--"})
    found = PaperTable(made, published_table("mpdistil_glue"), states)
    column = Column("MRPC", "f1")
    assert found.entry(MPDISTIL["kd"], column).mean == pytest.approx(100 * 6 / 7)
    assert found.entry(MPDISTIL["kd"], column).difference == pytest.approx(100 * 6 / 7 - 86.2)
    one = found.compare(MPDISTIL["kd"], column)
    assert one.difference == pytest.approx(100 * (6 / 7 - 2 / 5)) and 0 < one.test.p < 1


def test_a_domain_without_train_rows_uses_another_domains_student(tmp_path):
    suite = {name: Domain(name, "MNLI", LABELS) for name in ("MNLI", "MNLI-mm")}
    made, states = glue(tmp_path, ("MNLI", "MNLI-mm"), suite)
    stage = "MNLI/student_second"
    merge_results(
        made.run_folder(MPDISTIL["kd"], "MNLI", 1) / "results.tsv",
        [
            Result("tiny", name, "m", stage, 1, "test", "accuracy", value, 9)
            for name, value in (("MNLI", 0.6), ("MNLI-mm", 0.7))
        ],
    )
    found = PaperTable(made, published_table("mpdistil_glue"), states)
    assert found.entry(MPDISTIL["kd"], Column("MNLI-mm")).mean == pytest.approx(70.0)
    assert found.columns == [Column("MNLI"), Column("MNLI-mm")]  # the paper has no average over GLUE


def test_rows_selected_on_the_reported_split_are_marked(tmp_path):
    made = plan(tmp_path, seeds=(1,))
    write_scores(made, DISTILLED, 1, by_domain(0.7, 0.7, 0.7, 0.7), split="test-selected")
    write_scores(made, TINYBERT, 1, by_domain(0.6, 0.6, 0.6, 0.6))
    found = table(made)
    assert found.entry(DISTILLED, Column("average")).selected and not found.entry(TINYBERT, Column("average")).selected
    text = markdown(document(found))
    assert "**70.0\\***" in text and " 60.0 " in text and "optimistic" in text
    assert "70.0$^{*}$" in latex(document(found))
    assert {row["row"] for row in read_tsv(found) if row["selected"] == "1"} == {"meta-distillation"}


def test_published_scores_selected_on_the_reported_split_are_marked(tmp_path):
    suite = {"MNLI": Domain("MNLI", "MNLI", LABELS)}
    made, states = glue(tmp_path, ("MNLI",), suite)
    text = markdown(document(PaperTable(made, published_table("mpdistil_glue"), states)))
    assert "80.3\\*" in text and "optimistic" in text


def read_tsv(found: PaperTable) -> list[dict]:
    return list(csv.DictReader(io.StringIO(tsv(found)), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_partial_tables_give_the_number_of_finished_seeds(two_seeds):
    lines = score_lines(table(two_seeds))
    assert lines["Meta-teacher"].rstrip(" |").endswith(" 2")
    assert "1 of 2" in lines["Meta-teacher → TinyBERT-KD"]
    empty = score_lines(table(two_seeds, dict.fromkeys(("teacher-meta.seed1", "teacher-meta.seed2"), "todo")))
    assert " – " in empty["Meta-teacher"] and "0 of 2" in empty["Meta-teacher"]


def test_tsv_contains_every_number(two_seeds):
    rows = {(row["row"], row["column"]): row for row in read_tsv(table(two_seeds))}
    assert len(rows) == 3 * 5
    books = rows["teacher-meta", "books"]
    assert (books["mean"], books["std"], books["n"], books["seeds"]) == (
        "91.0000",
        "1.4142",
        "2",
        "1=90.0000 2=92.0000",
    )
    assert (books["published"], books["difference"], books["best"], books["p"]) == ("92.5", "-1.5000", "0", "")
    ours = rows["meta-distillation", "average"]
    assert (ours["best"], ours["compared_with"], ours["p"]) == ("1", "meta-tinybert", "0.00390625")
    assert rows["meta-tinybert", "books"]["std"] == ""


def test_latex_is_a_booktabs_table(two_seeds):
    text = latex(document(table(two_seeds)))
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{tabular}") == 2
    assert r"Meta-teacher $\rightarrow$ Meta-distillation & \textbf{75.0 $\pm$ 7.1}" in text
    assert r"\quad published & 92.5 ($-$1.5)" in text
    body = text.split(r"\begin{tabular}")[1]
    columns = body[body.index("{") + 1 : body.index("}")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") + 1 for line in lines} == {len(columns)}


def test_markdown_rows_have_as_many_cells_as_its_header(two_seeds):
    blocks = [block for block in markdown(document(table(two_seeds))).split("\n\n") if block.startswith("|")]
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
    assert "   published" not in blocks[0] and "&nbsp;&nbsp;&nbsp;published" in blocks[0]
    assert len(document(table(two_seeds)).grids[1].lines) == 2


def test_text_is_escaped_for_each_format():
    nasty = "a|b*c_d & 5 % <i> $x$ {y} \\z #1 ~ ^"
    assert escape_markdown(nasty) == "a\\|b\\*c\\_d & 5 % \\<i> $x$ {y} \\\\z #1 ~ ^"
    assert escape_latex(nasty) == (
        r"a|b$^{*}$c\_d \& 5 \% \textless{}i\textgreater{} \$x\$ \{y\} \textbackslash{}z \#1 \textasciitilde{} "
        r"\textasciicircum{}"
    )
    assert escape_tsv("a\tb\nc") == "a b c"


def test_plain_text_marks_the_best_student_without_escapes(two_seeds):
    text = plain(document(table(two_seeds)))
    line = next(line for line in text.splitlines() if line.startswith("Meta-teacher → Meta-distillation"))
    assert ">75.0 ± 7.1<" in line and "Best student in > <." in text
    assert "   published" in text and "\\" not in text


def test_a_difference_has_a_sign_unless_it_rounds_to_zero():
    assert [signed(value) for value in (1.26, -1.26, 0.04, -0.04, 0.0)] == ["+1.3", "−1.3", "0.0", "0.0", "0.0"]
    assert [decimal(value, 1) for value in (1.26, -1.26, 0.04, -0.04, 0.0)] == ["1.3", "−1.3", "0.0", "0.0", "0.0"]


def test_the_notes_give_scores_without_test_rows_seen_in_training(two_seeds):
    assert "same texts" not in plain(document(table(two_seeds)))
    for seed, value in ((1, 0.5), (2, 0.7)):
        path = two_seeds.run_folder(DISTILLED, "", seed) / "results.tsv"
        where = ("tiny", "books", "m", DISTILLED.checkpoint.format(domain="books"), seed, "test-unseen", "accuracy")
        merge_results(path, [Result(*where, value, 75)])
    said = plain(document(table(two_seeds)))
    assert f"books: 25 of 100 test rows have the same texts as train or quiz rows; without them: {DISTILLED.title} 60.0." in said
