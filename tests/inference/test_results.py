import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from teachback.core.errors import TeachbackError
from teachback.inference.metrics import Score
from teachback.inference.results import (
    COLUMNS,
    Evaluated,
    Result,
    comparison_table,
    domains_table,
    format_table,
    merge_results,
    read_results,
)
from teachback.inference.timing import Timing

RESULT = Result("tiny", "books", "metakd", "books/student_second", 42, "test", "accuracy", 0.1 + 0.2, 199)


def test_results_are_written_and_read_without_loss(tmp_path):
    merge_results(tmp_path / "results.tsv", [RESULT])
    assert read_results(tmp_path / "results.tsv") == [RESULT]
    header, line = (tmp_path / "results.tsv").read_text().splitlines()
    assert tuple(header.split("\t")) == COLUMNS
    assert line.split("\t") == [*"tiny books metakd books/student_second 42 test accuracy 0.30000000000000004 199".split(), *[""] * 4]


def test_baselines_and_intervals_are_stored_and_files_without_them_are_read(tmp_path):
    path = tmp_path / "results.tsv"
    judged = replace(RESULT, majority=0.5, chance=1 / 3, low=0.2, high=0.4)
    merge_results(path, [judged])
    assert read_results(path) == [judged] and judged.key == RESULT.key
    path.write_text("".join("\t".join(line.split("\t")[:9]) + "\n" for line in path.read_text().splitlines()))
    assert read_results(path) == [RESULT]
    merge_results(path, [replace(judged, domain="dvd")])  # added to a file with rows of the old format
    assert read_results(path) == [RESULT, replace(judged, domain="dvd")]


@pytest.mark.parametrize(("low", "above"), [(0.5, False), (0.51, True), (None, True)])
def test_a_score_is_above_its_baseline_if_its_interval_is_or_is_unknown(low, above):
    judged = replace(RESULT, majority=0.4, chance=0.5, low=low)
    assert judged.baseline == ("chance", 0.5) and judged.is_above_baseline == above


def test_results_with_the_same_key_are_replaced_and_others_are_kept(tmp_path):
    path = tmp_path / "results.tsv"
    others = [
        replace(RESULT, **change)
        for change in ({"domain": "dvd"}, {"metric": "macro_f1"}, {"split": "dev"}, {"seed": 1})
    ]
    merge_results(path, [RESULT, *others])
    merge_results(path, [replace(RESULT, value=0.5, n=10)])
    assert sorted(r.value for r in read_results(path)) == [*[RESULT.value] * 4, 0.5]
    assert {r.key: r for r in read_results(path)} == {r.key: r for r in [replace(RESULT, value=0.5, n=10), *others]}


def test_the_results_file_does_not_depend_on_the_order_of_evaluation(tmp_path):
    stages = ["teacher-meta", "books/meta_teacher", "books/student_second", "books/curriculum", "dvd/student_second"]
    parts = [[replace(RESULT, stage=s, domain=d) for d in ("dvd", "books")] for s in stages]
    for name, order in (("one", parts), ("other", [parts[i] for i in (3, 0, 4, 2, 1, 0)])):
        for part in order:
            merge_results(tmp_path / name, part)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert [r.stage for r in read_results(tmp_path / "one")][::2] == stages


def _add(path, seed):
    for domain in ("books", "dvd", "kitchen"):
        merge_results(path, [replace(RESULT, seed=seed, domain=domain)])


def test_parallel_writers_lose_no_row(tmp_path):
    path = tmp_path / "results.tsv"
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_add, [path] * 8, range(8)))
    assert sorted((r.seed, r.domain) for r in read_results(path)) == [
        (s, d) for s in range(8) for d in ("books", "dvd", "kitchen")
    ]


def test_a_broken_results_file_is_reported_and_left_unchanged(tmp_path):
    path = tmp_path / "results.tsv"
    path.write_text("a\tb\n")
    with pytest.raises(TeachbackError, match="results.tsv line 1"):
        merge_results(path, [RESULT])
    path.write_text("\t".join(COLUMNS) + "\ntoo\tshort\n")
    with pytest.raises(TeachbackError, match="results.tsv line 2"):
        merge_results(path, [RESULT])
    assert path.read_text().endswith("too\tshort\n")


def evaluated(stage, target, teacher, parameters=2_000_000, **accuracies):
    scores = {domain: Score("accuracy", value, 100) for domain, value in accuracies.items()}
    return Evaluated(
        stage, target, teacher, scores, parameters, 8_000_000, {1: Timing.of([2.0]), 32: Timing.of([0.5])}
    )


TEACHER = evaluated("teacher-meta", "", "", parameters=4_000_000, books=0.9, dvd=0.8)
BOOKS = evaluated("books/student_second", "books", "teacher-meta", books=0.81, dvd=0.7)
DVD = evaluated("dvd/student_second", "dvd", "teacher-meta", books=0.6, dvd=0.76)


def cells(table, key=1):
    """Split lines into cells at two or more blanks; returns the lines by their cell number ``key``."""
    lines = [re.split(r" {2,}", line.strip()) for line in table.splitlines() if not line.startswith("--")]
    return {line[min(key, len(line) - 1)]: line for line in lines}


def test_comparison_with_the_teacher_on_one_target():
    table = cells(comparison_table([TEACHER, BOOKS], ["books"]))
    assert table["checkpoint"] == [
        "model", "checkpoint", "target", "accuracy %", "average", "parameters", "MB", "ms, batch 1", "ms, batch 32",
        "of teacher",
    ]  # fmt: skip
    assert table["teacher-meta"] == [
        "teacher",
        "teacher-meta",
        "books",
        *"90.00 85.00".split(),
        "4.00 M",
        *"8.0 2.00 0.50 -".split(),
    ]
    assert table["books/student_second"] == [
        "distilled", "books/student_second", "books", "81.00", "75.50", "2.00 M", "8.0", "2.00", "0.50", "90.0 %",
    ]  # fmt: skip


FLOORS = {
    "majority class": {"books": Score("accuracy", 0.6, 100), "dvd": Score("accuracy", 0.5, 100)},
    "chance": {"books": Score("accuracy", 0.5, 100), "dvd": Score("accuracy", 0.5, 100)},
}


def test_baselines_are_listed_above_the_checkpoints():
    student = replace(BOOKS, intervals={"books": (0.7, 0.9)})
    lines = comparison_table([TEACHER, student], ["books"], FLOORS).splitlines()
    table = [re.split(r" {2,}", line.strip()) for line in lines]
    assert table[0][3:6] == ["accuracy %", "95 % interval", "average"]
    assert table[2] == ["majority class", "-", "books", "60.00", "-", "55.00", *"- - - - -".split()]
    assert table[3][:6] == ["chance", "-", "books", "50.00", "-", "50.00"]
    assert table[5][3:5] == ["81.00", "70.0 to 90.0"] and table[5][-1] == "90.0 %"
    whole = domains_table([TEACHER, student], BOTH, FLOORS).splitlines()
    assert whole[2].split() == ["majority", "class", "60.00", "50.00", "55.00"]


def test_no_ratio_to_a_teacher_that_is_not_above_the_majority_class_is_shown():
    poor = replace(TEACHER, scores={"books": Score("accuracy", 0.6, 100)})
    assert cells(comparison_table([poor, BOOKS], ["books"], FLOORS))["books/student_second"][-1] == "-"
    assert cells(comparison_table([poor, BOOKS], ["books"]))["books/student_second"][-1] == "135.0 %"


def test_each_student_is_compared_on_its_own_domain():
    table = cells(comparison_table([TEACHER, BOOKS, DVD], ["books", "dvd"]))
    assert table["teacher-meta"][2:5] == ["all", "85.00", "85.00"]
    assert table["books/student_second"][-1] == "90.0 %"
    assert table["dvd/student_second"][-1] == "95.0 %"


def test_every_kind_of_checkpoint_has_a_name():
    stages = [
        "teacher-single-CB",
        "CB/meta_teacher",
        "CB/student_finetune",
        "CB/student_first",
        "CB/student_second",
        "CB/curriculum",
    ]
    table = comparison_table([evaluated(stage, "CB", "", CB=0.5) for stage in stages], ["CB"])
    assert [line[0] for line in list(cells(table).values())[1:]] == [
        "teacher", "meta-teacher", "undistilled", "first stage", "distilled", "curriculum",
    ]  # fmt: skip


def test_missing_scores_and_missing_teachers_are_shown_as_dashes():
    first = evaluated("books/student_first", "books", "teacher-meta")
    orphan = replace(BOOKS, teacher="teacher-mix")
    table = cells(comparison_table([TEACHER, replace(first, optimistic=True), orphan], ["books"]))
    assert table["books/student_first"] == [
        "first stage", "books/student_first", "books", "-", "-", "2.00 M", "8.0", "2.00", "0.50", "-",
    ]  # fmt: skip
    assert table["books/student_second"][-1] == "-"


def test_no_ratio_to_a_teacher_without_a_positive_score_is_shown():
    for value in (0.0, -0.1):
        table = cells(
            comparison_table([replace(TEACHER, scores={"books": Score("matthews", value, 9)}), BOOKS], ["books"])
        )
        assert table["books/student_second"][-1] == "-"


def composite(value, *parts):
    """Composite score whose two parts lie 0.05 above and below ``value``."""
    accuracy, other = (Score(name, value + shift, 56) for name, shift in zip(parts, (0.05, -0.05)))
    return Score("+".join(parts), value, 56, (accuracy, other))


INFERENCE = composite(0.7, "accuracy", "macro_f1")
CB_TEACHER = replace(evaluated("teacher-single-CB", "CB", ""), scores={"CB": INFERENCE})
CB = replace(
    evaluated("CB/student_second", "CB", "teacher-single-CB"), scores={"CB": composite(0.63, "accuracy", "macro_f1")}
)


def test_composites_show_their_parts_and_a_single_domain_has_no_average():
    first = evaluated("CB/student_first", "CB", "teacher-single-CB")
    table = cells(comparison_table([CB_TEACHER, first, CB], ["CB"]))
    assert table["checkpoint"][3:7] == ["accuracy+macro_f1 %", "accuracy %", "macro_f1 %", "parameters"]
    assert table["CB/student_second"][3:6] == ["63.00", "68.00", "58.00"] and table["CB/student_second"][-1] == "90.0 %"
    assert table["CB/student_first"][3:6] == ["-", "-", "-"]


def test_metrics_that_differ_by_domain_are_named_by_domain():
    similarity = evaluated("STS-B/student_second", "STS-B", "")
    similarity = replace(similarity, scores={"STS-B": composite(0.85, "pearson", "spearman")})
    rte = evaluated("RTE/student_second", "RTE", "", RTE=0.6)
    domains = ["CB", "RTE", "STS-B"]
    assert cells(comparison_table([CB, rte, similarity], domains))["checkpoint"][3:5] == ["score %", "parameters"]
    metrics, scores = domains_table([CB, rte, similarity], dict(zip(domains, domains))).splitlines()[2:]
    assert metrics.split() == ["accuracy+macro_f1", "accuracy", "pearson+spearman"]
    assert scores.split() == ["distilled", "63.00", "60.00", "85.00", "69.33"]
    assert len(domains_table([rte], {"RTE": "RTE"}).splitlines()) == 3


BOTH = {"books": "books", "dvd": "dvd"}


def test_papers_layout_joins_the_students_of_all_domains():
    single = [evaluated(f"teacher-single-{name}", name, "", **{name: 0.5}) for name in ("books", "dvd")]
    table = cells(domains_table([TEACHER, *single, BOOKS, DVD], BOTH), 0)
    assert table["teacher-meta"] == ["teacher-meta", "90.00", "80.00", "85.00"]
    assert table["teacher-single"] == ["teacher-single", "50.00", "50.00", "50.00"]
    assert table["distilled"] == ["distilled", "81.00", "76.00", "78.50"]


def test_a_domain_without_train_rows_uses_another_domains_student():
    table = cells(domains_table([TEACHER, BOOKS], {"books": "books", "dvd": "books"}), 0)
    assert table["distilled"] == ["distilled", "81.00", "70.00", "75.50"]


def test_papers_layout_has_no_average_if_a_domain_is_missing():
    assert cells(domains_table([TEACHER, BOOKS], BOTH), 0)["distilled"] == ["distilled", "81.00", "-", "-"]


def test_optimistic_scores_are_marked():
    marked = replace(BOOKS, optimistic=True)
    table = cells(comparison_table([TEACHER, marked], ["books"]))
    assert table["books/student_second"][3:5] == ["81.00*", "75.50*"] and table["teacher-meta"][3] == "90.00"
    assert "distilled*" in cells(domains_table([TEACHER, marked], BOTH), 0)


def test_table_columns_are_aligned():
    assert format_table(["name", "n"], [["a", "10"], ["long name", "5"]]).splitlines() == [
        "name        n", "-------------", "a          10", "long name   5",
    ]  # fmt: skip
    assert format_table(["a", "b", "n"], [["x", "yy", "10"]], texts=2).splitlines()[0] == "a  b    n"
