"""Tests of a run's report.html: its statements are computed from the run's files, whose contents are escaped."""

import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from teachback.core.errors import TeachbackError
from teachback.core.readable import readable
from teachback.data.names import folder_name
from teachback.data.schema import TRAIN_COLUMNS, Domain, Row, Suite, write_rows, write_suite
from teachback.inference.measured import Calibration, Cost, merge_costs, merge_rows, read_rows
from teachback.inference.metrics import Score
from teachback.inference.results import COLUMNS, Evaluated
from teachback.inference.timing import Timing
from teachback.reports import run_data as report_data
from teachback.reports.parts import Section, Table, cut, listed
from teachback.reports.run import read_run
from teachback.reports.run_classes import calibration, classes
from teachback.reports.run_data import data_sections, embedding_map, read_train
from teachback.reports.run_disagreements import disagreements, most_confident, read_pairs
from teachback.reports.run_headline import pairs, sentence
from teachback.reports.run_page import render, sections, write_report
from teachback.reports.run_results import results, tradeoff
from teachback.reports.run_settings import settings
from teachback.reports.run_training import curriculum, read_curves, read_episodes, training

LABELS = ("negative", "positive")
COST_COLUMNS = [field.name for field in fields(Cost)]
EVIL = "$x^{$<script>alert(1)<script>\"'&"  # markup, and an incomplete matplotlib formula
HISTORY = [
    {"loss": 0.9, "epoch": 0.5},
    {"eval_loss": 0.8, "eval_score": 0.6, "epoch": 1.0},
    {"loss": 0.5, "epoch": 1.5},
    {"eval_loss": 0.7, "eval_score": 0.75, "epoch": 2.0},
    {"loss": 0.3, "epoch": 2.5},
    {"eval_loss": 0.9, "eval_score": 0.7, "epoch": 3.0},
    {"train_runtime": 9.0, "train_loss": 0.5, "epoch": 3.0},
    {"eval_loss": 0.7, "eval_score": 0.75, "epoch": 3.0},
]


class Page(HTMLParser):
    """Parser that collects the tags with their attributes, and the text, of an HTML page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder, **options) -> Page:
    path = write_report(folder / "outputs/tiny/seed42", folder / "data/tiny", **options)
    return Page(path.read_text(encoding="utf-8"))


def write_stage(run, stage, arguments=None, **record):
    folder = run / stage
    folder.mkdir(parents=True, exist_ok=True)
    always = {"head_trained": True, "selected_on": "dev", "seed": 42, "wall_time_seconds": 12.5, "dev": {"score": 0.75}}
    versions = {"python": "3.11.7", "torch": "2.13.0"}
    content = {
        **always,
        "inputs": {},
        "versions": versions,
        "history": HISTORY,
        "arguments": {"protocol": "honest", **(arguments or {})},
    }
    (folder / "stage.json").write_text(json.dumps({**content, **record}))


def write_lines(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")


def write_results(run, rows):
    """Write results.tsv from rows (domain, stage, metric, value, n), optionally with majority, chance, low and high."""
    methods = {"student_second": "metakd", "student_finetune": "finetune"}
    lines = [
        ("tiny", domain, methods.get(name := stage.rpartition("/")[2], name), stage, 42, "test", metric, value, n, *(judged or [""] * 4))
        for domain, stage, metric, value, n, *judged in rows
    ]
    write_lines(run / "results.tsv", COLUMNS, lines)


def write_predictions(run, stage, rows, labels=LABELS):
    """Write predictions from rows (guid, domain, gold, predicted, probability of the predicted label)."""
    lines = [
        (guid, domain, gold, said, *(p if label == said else (1 - p) / (len(labels) - 1) for label in labels))
        for guid, domain, gold, said, p in rows
    ]
    header = ("guid", "domain", "gold", "predicted", *(f"p({label})" for label in labels))
    write_lines(run / "predictions" / f"{stage.replace('/', '__')}-test.tsv", header, lines)


def write_data(folder, domains, texts=None, rows=12, task="classification"):
    """Write the processed suite: ``rows`` train rows per domain, and test rows from ``texts`` (guid -> text)."""
    data = folder / "data/tiny"
    labels = dict.fromkeys(domains, LABELS if task == "classification" else ())
    metric = "accuracy" if task == "classification" else "pearson+spearman"
    suite = Suite(
        "tiny",
        {n: Domain(n, "head", labels[n], metric, task=task, rows={"train": rows}) for n in domains},
        {"alpha": 0.5},
    )
    train = [
        Row(f"{name}-{i}", "a text", "", (labels[name] or ("1.0", "2.0"))[i % 2], name, 0.5 + 0.01 * i + 0.1 * place)
        for place, name in enumerate(domains)
        for i in range(rows)
    ]
    write_rows(data / "train.tsv", train, TRAIN_COLUMNS)
    write_rows(data / "test.tsv", [Row(guid, text, "", "", domains[0]) for guid, text in (texts or {}).items()])
    write_suite(data, suite)
    np.save(data / "embeddings.npy", np.random.default_rng(1).normal(size=(len(train), 6)).astype(np.float32))
    return data


def write_curriculum(run, domain, domains):
    folder = f"{folder_name(domain)}/curriculum"
    scores = {"0": 0.5, "2": 0.75, "4": 0.6}
    told = {"method": "curriculum", "best_episode": 2, "scores_by_episode": scores, "domains": domains, "history": []}
    write_stage(run, folder, {"teacher": "meta", "reward": "real"}, **told)
    rewards = [(e, 2, r, 0.1, 0.1, 0.1) for e, r in enumerate([0.0, 0.1, 0.2, 0.3])]
    write_lines(
        run / folder / "rewards.tsv", ("episode", "steps", "reward", "student_loss", "policy_loss", "entropy"), rewards
    )
    steps = [(e, s, domains[0] if e < 2 or s == 0 else domains[-1], 0.1, 0.5) for e in range(4) for s in range(2)]
    write_lines(run / folder / "trajectory.tsv", ("episode", "step", "domain", "reward", "probability"), steps)


def write_run(folder, names=("books", "dvd")):
    """Write a finished run: teacher-meta, a distilled student for each domain, and a curriculum for the first domain."""
    run = folder / "outputs/tiny/seed42"
    write_data(folder, names, {f"{names[0]}-{i}": f"text number {i} of it" for i in range(4)})
    write_stage(run, "teacher-meta", {"teacher": "meta"})
    results, costs = [], []
    for name in names:
        write_stage(run, f"{folder_name(name)}/student_second", {"teacher": "meta"}, method="metakd")
        results += [
            (name, "teacher-meta", "accuracy", 0.9, 200),
            (name, f"{folder_name(name)}/student_second", "accuracy", 0.875, 200),
        ]
        costs.append((f"{folder_name(name)}/student_second", 2_000_000, 8_000_000, 64, 1.0, "the CPU"))
    write_curriculum(run, names[0], list(names))
    results.append((names[0], f"{folder_name(names[0])}/curriculum", "accuracy", 0.885, 200))
    for stage, size, milliseconds in (("teacher-meta", 8_000_000, 4.0), (f"{folder_name(names[0])}/curriculum", 2_000_000, 1.0)):
        costs.append((stage, size, 4 * size, 64, milliseconds, "the CPU"))
    write_results(run, results)
    write_lines(run / "costs.tsv", COST_COLUMNS, costs)
    teacher = [(f"{names[0]}-{i}", names[0], "positive", said, p) for i, (said, p) in enumerate(TEACHER_SAYS)]
    student = [(f"{names[0]}-{i}", names[0], "positive", said, p) for i, (said, p) in enumerate(STUDENT_SAYS)]
    write_predictions(run, "teacher-meta", teacher)
    write_predictions(run, f"{folder_name(names[0])}/curriculum", student)
    return run


# All labels are positive. The models disagree on rows 0, 1 and 3; the lower of both probabilities is 0.85, 0.88 and 0.55,
# of which the last is below the limit for shown cases.
TEACHER_SAYS = [("positive", 0.99), ("negative", 0.88), ("positive", 0.9), ("negative", 0.97)]
STUDENT_SAYS = [("negative", 0.85), ("positive", 0.9), ("positive", 0.7), ("positive", 0.55)]


@pytest.fixture
def home(tmp_path):
    write_run(tmp_path)
    return tmp_path


def judged(run, **scores):
    """Overwrite the results with (value, majority, low, high) of teacher, plain and student on books; chance is 0.5."""
    stages = {"teacher": "teacher-meta", "plain": "books/student_finetune", "student": "books/curriculum"}
    write_results(
        run,
        [("books", stages[name], "accuracy", v, 200, majority, 0.5, low, high) for name, (v, majority, low, high) in scores.items()],
    )


def run_of(home):
    return read_run(home / "outputs/tiny/seed42", home / "data/tiny")


def test_the_report_begins_with_scores_sizes_and_speeds_of_the_students(home):
    text = page_of(home).text
    first = "books: the curriculum student reaches 88.5 % accuracy on 200 rows, 1.5 points below its teacher's 90.0 %, "
    assert first + "with 0.25 of its parameters (2.00 M of 8.00 M) and 4.0 times its speed." in text
    assert (
        "Over 2 domains, the students reach a mean accuracy of 88.0 %, 2.0 points below their teachers' 90.0 %." in text
    )
    assert text.index("Over 2 domains") < text.index("Every checkpoint on its domain")


def test_times_of_different_machines_are_not_compared(home):
    run = home / "outputs/tiny/seed42"
    text = (run / "costs.tsv").read_text()
    (run / "costs.tsv").write_text(text.replace("4.0\tthe CPU", "4.0\ta GPU"))
    pair = pairs(run_of(home))[0]
    assert pair.speed_ratio is None and pair.size_ratio == 0.25 and "speed" not in sentence(pair)


def test_a_student_that_is_not_clearly_above_the_baseline_shows_no_learning(home):
    """The teacher is compared with the baseline too: neither model gets credit for a score at chance level."""
    run = home / "outputs/tiny/seed42"
    judged(run, teacher=(0.48, 0.55, 0.41, 0.55), student=(0.56, 0.55, 0.49, 0.63))
    (pair,) = pairs(run_of(home))
    assert sentence(pair) == (
        "books: the curriculum student shows no signs of learning: its 56.0 % accuracy on 200 rows (95 % interval 49.0 to 63.0 %) is "
        "not clearly above the majority class with 55.0 %; neither is its teacher's 48.0 %, so there was nothing to distil."
    )
    text = page_of(home).text
    assert "points above its teacher" not in text and "times its speed" not in text and "times as fast" not in text
    judged(run, teacher=(0.48, 0.4, 0.41, 0.55), student=(0.6, 0.4, 0.53, 0.67))
    assert sentence(pairs(run_of(home))[0]).startswith(
        "books: the curriculum student reaches 60.0 % accuracy on 200 rows (95 % interval 53.0 to 67.0 %; chance 50.0 %); its "
        "teacher's 48.0 % is not clearly above that baseline, with 0.25 of its parameters"
    )


def test_baselines_and_intervals_are_in_the_table_and_the_figure(home):
    run = home / "outputs/tiny/seed42"
    judged(run, teacher=(0.9, 0.55, 0.85, 0.93), student=(0.875, 0.55, 0.82, 0.915))
    (table, raw) = results(run_of(home)).tables[-2:]
    assert table.header[2:5] == ["score %", "95 % interval, %", "against teacher, points"]
    rows = {row[1]: row[2:5] for row in table.rows if row[0] == "books"}
    assert rows["majority class"] == ["55.00", "–", "–"] and rows["chance"] == ["50.00", "–", "–"]
    assert rows["curriculum"] == ["87.50", "82.0 to 91.5", "−2.5"]
    assert raw.rows[0][-4:] == ["0.5500", "0.5000", "0.8500", "0.9300"]
    assert ">majority class</text>" in tradeoff(run_of(home)).figures[0].svg


def with_undistilled(run, wrong, right):
    """Add an undistilled student, and predictions on 200 rows: ``wrong`` errors of it alone and ``right`` of the student alone."""
    write_stage(run, "books/student_finetune", method="finetune")
    for stage, first, last in (("books/student_finetune", 0, wrong), ("books/curriculum", wrong, wrong + right)):
        rows = [
            (f"g{i}", "books", "positive", "negative" if first <= i < last else "positive", 0.9) for i in range(200)
        ]
        write_predictions(run, stage, rows)


@pytest.mark.parametrize(
    ("wrong", "right", "value", "points", "expected"),
    [
        (20, 2, 0.8, "+7.5", "Distillation helped: 7.5 points above the undistilled student's 80.0 % (paired test: p = 0.0004)."),
        (5, 2, 0.86, "+1.5", "Distillation is not shown to have helped: 1.5 points above the undistilled student's 86.0 % (paired test: p = 0.33)."),
        (2, 5, 0.9, "−2.5", "Distillation did not help: 2.5 points below the undistilled student's 90.0 % (paired test: p = 0.35)."),
    ],
)  # fmt: skip
def test_the_student_is_compared_with_the_undistilled_one(home, wrong, right, value, points, expected):
    run = home / "outputs/tiny/seed42"
    with_undistilled(run, wrong, right)
    judged(run, teacher=(0.9, 0.5, 0.85, 0.93), plain=(value, 0.5, value - 0.05, value + 0.05), student=(0.875, 0.5, 0.8, 0.9))
    assert expected in page_of(home).text
    table = results(run_of(home)).tables[-2]
    assert table.header[5] == "against undistilled, points"
    column = {row[1]: row[5] for row in table.rows if row[0] == "books"}
    assert column.pop("curriculum") == points
    assert column["teacher"] == "–" and set(column.values()) == {"–"}  # only distilled students with a score are compared


def test_the_verdict_on_distillation_uses_p_adjusted_for_several_tests(home):
    run = home / "outputs/tiny/seed42"
    with_undistilled(run, 9, 2)
    alone = r"helped: 3\.5 points above the undistilled student's 84\.0 % \(paired test: p = 0\.0[1-4]\d*\)"
    both = r"is not shown to have helped: .* \(paired test: p = 0\.0[1-4]\d*; Holm's p over 2 tests: 0\.0[5-9]\d*\)"
    for rows, expected in ((1, alone), (200, both)):
        write_predictions(run, "teacher-meta", [(f"g{i}", "books", "positive", "positive", 0.9) for i in range(rows)])
        judged(run, teacher=(0.9, 0.5, 0.85, 0.93), plain=(0.84, 0.5, 0.8, 0.9), student=(0.875, 0.5, 0.8, 0.9))
        assert re.search(expected, page_of(home).text)


def test_no_paired_test_is_made_if_the_predictions_are_of_other_rows(home):
    run = home / "outputs/tiny/seed42"
    with_undistilled(run, 20, 2)
    write_results(run, [("books", "books/student_finetune", "accuracy", 0.8, 150), ("books", "books/curriculum", "accuracy", 0.9, 150)])
    assert "Distillation helped: 10.0 points above the undistilled student's 80.0 %." in page_of(home).text


def test_no_speed_ratio_is_given_if_the_spreads_overlap(home):
    run = home / "outputs/tiny/seed42"
    for fast, slow, told in ((3.0, 5.0, True), (0.9, 5.0, False)):
        costs = [("teacher-meta", 8, 32, 64, 4.0, "the CPU", fast, slow, "books"), ("books/curriculum", 2, 8, 64, 1.0, "the CPU", 0.8, 1.1, "books")]
        write_lines(run / "costs.tsv", COST_COLUMNS, costs)
        assert ("4.0 times its speed" in sentence(pairs(run_of(home))[0])) == told
        assert ("the spreads overlap" in tradeoff(run_of(home)).figures[0].reading) != told
    table = results(run_of(home)).tables[-2]
    assert next(row for row in table.rows if row[1] == "curriculum")[6] == "1.00<br><small>0.80–1.10</small>"


def test_confusion_and_scores_of_each_class_match_the_predictions(home):
    run = home / "outputs/tiny/seed42"
    told = {"teacher-meta": "ppnnnn", "books/student_finetune": "nnnnnn", "books/curriculum": "pppnnp"}
    names = {"p": "positive", "n": "negative"}
    write_stage(run, "books/student_finetune", method="finetune")
    for stage, said in told.items():
        write_predictions(run, stage, [(f"g{i}", "books", names["pppnnn"[i]], names[c], 0.9) for i, c in enumerate(said)])
    section = classes(run_of(home))
    assert section.figures[0].reading == (
        "books: 5 of 6 predictions are right; F1 ranges from 80.0 % (negative) to 85.7 % (positive); the most frequent error (1) is "
        "positive for negative."
    )
    (table,) = section.tables
    assert table.header == ["class", "rows", "precision %", "recall %", "F1 %, teacher-meta", "F1 %, undistilled", "F1 %, curriculum"]
    assert table.rows == [
        ["negative", "3", "100.0", "66.7", "85.7", "66.7", "80.0"],
        ["positive", "3", "75.0", "100.0", "80.0", "0.0", "85.7"],
        ["macro F1", "6", "–", "–", "82.9", "33.3", "82.9"],
    ]


def test_the_reliability_diagram_shows_the_student_before_and_after_calibration(home):
    run, stage = home / "outputs/tiny/seed42", "books/curriculum"
    assert "calibration.tsv has no rows for the test split; run 7_eval.sh" in calibration(run_of(home)).missing
    merge_rows(run / "calibration.tsv", Calibration, [
        Calibration(stage, "books", "test", 4, 0.25, 0.6, 2.0, 0.125, 0.5), Calibration("teacher-meta", "books", "test", 4, 0.5, 0.75),
    ])  # fmt: skip
    section = calibration(run_of(home))
    (figure,), (table,) = section.figures, section.tables
    assert figure.reading == "books: mean probability 75.0 %, accuracy 75.0 %; ECE 25.0 %, calibrated (temperature 2) 12.5 %."
    assert table.rows == [
        ["books", "teacher-meta", "4", "50.0 %", "0.750", "–", "–", "–"], ["books", stage, "4", "25.0 %", "0.600", "2", "12.5 %", "0.500"],
    ]  # fmt: skip
    (run / "predictions/books__curriculum-test.tsv").unlink()
    assert not calibration(run_of(home)).figures  # the errors are still known, but not the probabilities


def test_the_table_lists_every_checkpoint_with_its_difference_to_the_teacher(home):
    layout, table, _ = results(run_of(home)).tables
    rows = {(row[0], row[1]): row for row in table.rows}
    assert list(rows) == [
        ("books", "teacher"), ("books", "distilled"), ("books", "curriculum"), ("dvd", "teacher"), ("dvd", "distilled"),
    ]  # fmt: skip
    assert rows["books", "curriculum"][2:] == [
        "88.50",
        "−1.5",
        "2.00 M",
        "8.0",
        "1.00",
        "200",
        "accuracy",
        "books/<wbr>curriculum",
    ]
    assert rows["dvd", "teacher"][2:4] == ["90.00", "–"]
    assert layout.rows == [
        ["teacher-meta", "90.00", "90.00", "90.00"], ["distilled", "87.50", "87.50", "87.50"], ["curriculum", "88.50", "–", "–"],
    ]  # fmt: skip


def test_the_table_has_the_score_without_rows_seen_in_training(home):
    assert "on unseen rows %" not in results(run_of(home)).tables[1].header
    lines = (home / "outputs/tiny/seed42/results.tsv").read_text().splitlines()
    line = next(line for line in lines if "\tbooks/curriculum\t" in line).split("\t")
    with open(home / "outputs/tiny/seed42/results.tsv", "a") as file:
        file.write("\t".join([*line[:5], "test-unseen", line[6], "0.5", "197"]) + "\n")
    section = results(run_of(home))
    rows = {(row[0], row[1]): row[2:4] for row in section.tables[1].rows}
    assert section.tables[1].header[2:4] == ["score %", "on unseen rows %"]
    assert rows["books", "curriculum"] == ["88.50", "50.00"] and rows["dvd", "teacher"] == ["90.00", "–"]
    assert any("(3 of 200 in books)" in note for note in section.notes)
    assert not any("also contains scores" in note for note in section.notes)


def test_an_undistilled_student_has_the_teacher_of_the_distilled_one(home):
    run = home / "outputs/tiny/seed42"
    write_stage(run, "dvd/student_finetune", method="finetune")
    write_stage(run, "dvd/student_second", {"teacher": "single"}, method="metakd")
    write_stage(run, "teacher-single-dvd", {"teacher": "single"})
    found = run_of(home)
    assert [one.stage for one in found.of("dvd")] == [
        "teacher-single-dvd",
        "dvd/student_finetune",
        "dvd/student_second",
    ]


def test_a_teacher_of_another_run_is_included_in_the_comparison(tmp_path):
    run, other = write_run(tmp_path), tmp_path / "teachers/tiny/seed42"
    expected = disagreements(read_run(run, tmp_path / "data/tiny"))
    predictions = Path("predictions/teacher-meta-test.tsv")
    for moved in (Path("teacher-meta"), predictions):
        (other / moved).parent.mkdir(parents=True, exist_ok=True)
        (run / moved).rename(other / moved)
    lines = (run / "results.tsv").read_text().splitlines(keepends=True)
    (other / "results.tsv").write_text("".join(lines))
    (run / "results.tsv").write_text("".join(line for line in lines if "teacher-meta" not in line))
    alone = read_run(run, tmp_path / "data/tiny")
    both = read_run(run, tmp_path / "data/tiny", teachers=other)
    assert disagreements(alone).missing and not alone.teachers
    assert disagreements(both).figures[0].reading == expected.figures[0].reading
    assert disagreements(both).cases == expected.cases
    assert "1.5 points below its teacher's 90.0 %" in sentence(pairs(both)[0])


def test_disagreements_with_the_teacher_match_the_predictions(home):
    section = disagreements(run_of(home))
    assert section.figures[0].reading == (
        "books: student and teacher disagree on 3 of 4 rows (75.0 %); only the student is right on 2, only the teacher on 1 (exact "
        "McNemar test: p = 1); most often (2) the student predicts positive and the teacher negative."
    )
    assert [guid for _, guid in most_confident(read_pairs(run_of(home)))] == ["books-1", "books-0"]
    assert [case.heading for case in section.cases] == ["books · books-1", "books · books-0"]
    first = section.cases[0]
    assert first.answers[:2] == [
        ("student (curriculum)", "positive (90.0 %)"),
        ("teacher (teacher-meta)", "negative (88.0 %)"),
    ]
    assert first.verdict == "the student is right" and section.cases[1].verdict == "the teacher is right"
    assert [shown for shown, _ in first.texts] == ["text number 1 of it"]
    assert section.cases_title == "The 2 clearest disagreements"
    order = [part.anchor for part in sections(run_of(home))]
    assert order.index("disagreements") > order.index("training")
    assert len([one for one in page_of(home).of("details") if "open" not in one]) == 4  # one with all cases, and three tables


def test_disagreements_with_low_probabilities_are_only_counted(home):
    for path in (home / "outputs/tiny/seed42/predictions").iterdir():
        path.write_text(path.read_text().replace("0.88", "0.5").replace("0.85", "0.5"))
    section = disagreements(run_of(home))
    assert not section.cases
    assert section.notes == ["None of the 3 disagreements has a probability of at least 80 % from both models."]


def test_curves_end_with_training_and_name_the_selected_epoch(home):
    curves = read_curves({"history": HISTORY, "dev": {"score": 0.75}})
    assert curves.dev_score == [(1.0, 0.6), (2.0, 0.75), (3.0, 0.7)]  # without the evaluation after training
    assert curves.loss == [(0.5, 0.9), (1.5, 0.5), (2.5, 0.3)] and curves.kept == 2.0
    reading = training(run_of(home)).figures[0].reading
    assert reading == (
        "teacher-meta: the train loss goes from 0.9 to 0.3 by epoch 2.5; the selected checkpoint is from epoch 2 of 3, with "
        "a dev score of 75.0 %."
    )
    slower = [entry | {"loss": 0.45} if entry.get("loss") == 0.3 else entry for entry in HISTORY]
    write_stage(home / "outputs/tiny/seed42", "dvd/student_second", method="metakd", history=slower, dev={"score": 0.7})
    assert training(run_of(home)).figures[1].reading == (
        "The last loss is 33 % (books) to 50 % (dvd) of the first; the selected checkpoints are from epochs 2 (books) to 3 (dvd)."
    )
    write_stage(home / "outputs/tiny/seed42", "dvd/student_second", method="metakd", history=slower, dev={"score": 0.75})
    assert training(run_of(home)).figures[1].reading.endswith("the first; all selected checkpoints are from epoch 2.")


def test_rewards_and_choices_of_a_curriculum_are_reported(home):
    section = curriculum(run_of(home))
    checkpoint = next(one for one in run_of(home).checkpoints if one.stage == "books/curriculum")
    np.testing.assert_allclose(read_episodes(checkpoint).shares, [[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]])
    assert section.figures[0].reading == (
        "books: the mean reward is 0.05 over the first 2 of 4 episodes and 0.25 over the last 2; the dev score is best "
        "after 2 episodes (75.0 %; before the first: 50.0 %)."
    )
    assert "the last 4 episodes are books (75 %) and dvd (25 %); the horizontal line is chance, 50 %" in section.figures[1].reading
    assert "reward (probability)" in section.figures[0].svg


def test_prototype_scores_are_summarised_by_their_medians(home):
    reading = data_sections(run_of(home))[0].figures[0].reading
    assert reading == "Medians range from 0.5550 (books) to 0.6550 (dvd); no score is below 0."


def test_the_map_reads_a_bounded_sample_of_the_embeddings(home, monkeypatch):
    data = write_data(home, ("books", "dvd"), rows=400)
    opened = []
    monkeypatch.setattr(report_data, "MAPPED_ROWS", 50)
    monkeypatch.setattr(
        report_data.np, "load", lambda *a, **k: opened.append(np.lib.format.open_memmap(a[0], "r")) or opened[-1]
    )
    section = embedding_map(run_of(home), read_train(data / "train.tsv", ["books", "dvd"]))
    assert isinstance(opened[0], np.memmap) and section.notes == ["50 rows, sampled at random from 800."]
    drawn = len(re.findall(r"fill-opacity: 0\.35", section.figures[0].svg))
    assert 50 <= drawn <= 52  # including up to two definitions of markers


def test_markup_in_the_data_is_escaped(tmp_path):
    """Domains, labels, texts, guids and settings that contain HTML or a matplotlib formula are shown verbatim."""
    labels = (f"no {EVIL}", f"yes {EVIL}")
    run = write_run(tmp_path, (EVIL, "dvd"))
    write_stage(run, "teacher-meta", {"teacher": "meta", EVIL: EVIL}, versions={EVIL: EVIL})
    rows = [(f"g{i}{EVIL}", EVIL, labels[0], labels[i % 2], 0.9) for i in range(3)]
    write_predictions(run, "teacher-meta", rows, labels)
    write_predictions(run, f"{folder_name(EVIL)}/curriculum", [(g, d, gold, labels[0], p) for g, d, gold, _, p in rows], labels)
    write_rows(
        tmp_path / "data/tiny/test.tsv", [Row(row[0], f"</p>{EVIL}</script>" * 40, "", "", EVIL) for row in rows]
    )
    extra = Section("extra", EVIL, tables=[Table(EVIL, [EVIL], [[EVIL]])], notes=[EVIL])
    html = render(EVIL, EVIL, [extra, *sections(read_run(run, tmp_path / "data/tiny"))])
    page = Page(html)
    assert not page.of("script") and not page.of("img") and not page.of("iframe")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for shown in (f"{EVIL}: the curriculum student", f"g1{EVIL}", f"</p>{EVIL}</script>", f"no {EVIL}"):
        assert shown in page.text
    assert "<script" not in html.lower() and html.count("</script") == 0


def test_the_page_is_self_contained_and_its_links_are_valid(home):
    page = page_of(home)
    html = (home / "outputs/tiny/seed42/report.html").read_text()
    assert not re.search(r"https?://|@import|\bsrc=", html)
    assert {address[:2] for address in re.findall(r"url\(([^)]*)\)", html)} <= {"#f"}
    assert not page.of("link") and "default-src 'none'" in page.of("meta")[1]["content"]
    targets = {a["href"] for a in page.of("a")}
    assert targets == {f"#{section['id']}" for section in page.of("section")}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {use["href"][1:] for use in page.of("use")} <= set(ids)


def test_every_figure_has_alternative_text_axis_labels_and_a_reading(home):
    figures = [figure for section in sections(run_of(home)) for figure in section.figures]
    assert len(figures) == 11
    for figure in figures:
        assert 'role="img"' in figure.svg and figure.reading in figure.svg.unescape()
        assert figure.reading.endswith(".") and re.search(r"\d", figure.reading)
        words = re.findall(r"<text [^>]*>([^<]*)</text>", figure.svg)
        assert len([word for word in words if re.search(r"[a-z]{4}", word)]) >= 2, figure.title


def test_secrets_and_home_folders_are_hidden(home, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "averysecrettoken")
    given = {
        "hub_token": "first-secret", "student_model": "/home/me/models/minilm/model", "run_name": "job averysecrettoken end",
        "source": "https://me:hunter2@example.org/a.zip", "deep": {"wandb_api_key": "second-secret"}, "tokenizers": "kept",
        "max_steps": -1, "other": "hf_ABCDEFGHIJKLMNOPQRSTU",
    }  # fmt: skip
    write_stage(home / "outputs/tiny/seed42", "teacher-meta", {"teacher": "meta", **given})
    text = page_of(home).text
    for secret in ("averysecrettoken", "first-secret", "second-secret", "hunter2", "hf_ABC", "/home/me", str(home)):
        assert secret not in text
    assert "…/minilm/model" in text and "kept" in text and "deep.wandb_api_key" in text
    assert readable("C:\\Users\\me\\models\\mini") == "…/models/mini" and readable("and/or, 1/2") == "and/or, 1/2"


def test_settings_with_the_same_value_in_all_stages_share_a_row(home):
    table = next(t for t in settings(run_of(home)).tables if t.caption.startswith("Settings"))
    rows = {(name, value): stages for name, value, stages in table.rows}
    assert rows["protocol", "honest"] == "teacher-meta, books/student_second, books/curriculum and dvd/student_second"
    assert rows["alpha", "0.5"] == "stage 2 (data)"
    versions = next(t for t in settings(run_of(home)).tables if t.caption == "Versions")
    assert versions.rows[1] == ["torch", "2.13.0", "all"]


def test_the_report_of_an_incomplete_run_names_the_stages_to_run(tmp_path):
    run = tmp_path / "outputs/tiny/seed42"
    with pytest.raises(TeachbackError, match="has no finished stage"):
        page_of(tmp_path)
    write_stage(run, "teacher-meta", {"teacher": "meta"}, history=[], dev={})
    page = page_of(tmp_path)
    assert not page.of("figure")
    for stage in ("2_process_data.sh", "5_student_second.sh", "6_curriculum.sh", "7_eval.sh"):
        assert stage in page.text
    write_results(run, [("books", "teacher-meta", "accuracy", 0.9, 200)])
    assert "90.00" in page_of(tmp_path).text  # a teacher is listed without students too


def test_a_student_whose_teacher_is_missing_is_shown_without_comparison(home):
    run = home / "outputs/tiny/seed42"
    (run / "teacher-meta/stage.json").unlink()
    text = page_of(home).text
    assert "reaches 88.5 % accuracy on 200 rows." in text and "there is no teacher to compare it with" in text
    assert "run 7_eval.sh, with TEACHER_DIR if the teacher belongs to another run" in text


def test_regression_predictions_are_compared_by_their_differences(tmp_path):
    run = tmp_path / "outputs/tiny/seed42"
    write_data(tmp_path, ("sts",), {"s0": "first", "s1": "second", "s2": "third"}, task="regression")
    write_stage(run, "teacher-meta", {"teacher": "meta"})
    write_stage(run, "sts/student_second", {"teacher": "meta"}, method="metakd")
    metric = "pearson+spearman"
    write_results(run, [("sts", "teacher-meta", metric, 0.8, 3), ("sts", "sts/student_second", metric, -0.1, 3)])
    header = ("guid", "domain", "gold", "predicted")
    write_lines(
        run / "predictions/teacher-meta-test.tsv",
        header,
        [("s0", "sts", 1.0, 1.0), ("s1", "sts", 2.0, 2.0), ("s2", "sts", "", 3.0)],
    )
    write_lines(
        run / "predictions/sts__student_second-test.tsv",
        header,
        [("s0", "sts", 1.0, 1.5), ("s1", "sts", 2.0, 0.0), ("s2", "sts", "", 3.1)],
    )
    section = disagreements(run_of(tmp_path))
    assert (
        "over 3 rows the student's predictions differ from its teacher's by 0.87 on average, below them by 0.47 overall"
        in section.figures[0].reading
    )
    assert [(case.heading, case.verdict) for case in section.cases] == [("sts · s1", "the teacher is closer")]  # 2.4 standard deviations apart
    assert "−10.0 % pearson+spearman" in page_of(tmp_path).text


def test_unlabelled_rows_are_compared_but_no_model_is_called_right(home):
    run = home / "outputs/tiny/seed42"
    for path in (run / "predictions").iterdir():
        path.write_text(path.read_text().replace("\tbooks\tpositive\t", "\tbooks\t\t"))
    section = disagreements(run_of(home))
    assert "right" not in section.figures[0].reading and "3 of 4 rows" in section.figures[0].reading
    assert {case.verdict for case in section.cases} == {"the label is unknown"}


def test_results_of_unknown_stages_and_other_splits_or_metrics_are_only_listed(home):
    run = home / "outputs/tiny/seed42"
    with open(run / "results.tsv", "a") as file:
        file.write("tiny\tmoon\tx\tmoon/other_stage\t42\ttest\tluck\t0.123\t7\n")
        file.write("tiny\tbooks\tcurriculum\tbooks/curriculum\t42\tdev\taccuracy\t0.99\t7\n")
        file.write("tiny\tbooks\tcurriculum\tbooks/curriculum\t42\ttest\tmacro_f1\t0.11\t7\n")
    page = page_of(home)
    assert "moon/other_stage" in page.text and "also contains scores on dev" in page.text
    assert "reaches 88.5 % accuracy" in page.text


@pytest.mark.parametrize("method, split", [("mpdistil", "test"), ("curriculum", "test-selected")])
def test_scores_of_replaced_checkpoints_are_listed_but_not_compared(home, method, split):
    path, before = home / "outputs/tiny/seed42/results.tsv", sentence(pairs(run_of(home))[0])
    header, *lines = path.read_text().splitlines()
    old = f"tiny\tbooks\t{method}\tbooks/curriculum\t42\t{split}\taccuracy\t0.111\t200"
    path.write_text("\n".join([header, old, *lines]) + "\n")
    assert sentence(pairs(run_of(home))[0]) == before
    section = results(run_of(home))
    assert "0.1110" in [row[5] for row in section.tables[-1].rows]
    assert [note for note in section.notes if "were replaced under another METHOD or PROTOCOL; they are not compared" in note]
    assert not [note for note in section.notes if "optimistic" in note]


def test_long_texts_are_truncated(home):
    assert cut("short") == ("short", "")
    shown, whole = cut("word " * 1000)
    assert len(shown) == 400 and shown.endswith("…") and len(whole) == 2000
    write_rows(home / "data/tiny/test.tsv", [Row("books-1", "endless " * 9000, "", "", "books")])
    page = page_of(home)
    titles = [p["title"] for p in page.of("p") if "title" in p]
    assert len(titles) == 1 and len(titles[0]) == 2000 and page.text.count("endless") < 60
    assert listed([f"d{i}" for i in range(9)], 4) == "d0, d1, d2 and 6 more"


def test_the_report_of_a_thousand_domains_is_summarised(tmp_path):
    names = [f"d{i:04}" for i in range(1000)]
    run = write_run(tmp_path, names)
    page = page_of(tmp_path)
    assert (run / "report.html").stat().st_size < 2_000_000
    assert "… and 992 further domains in the table below." in page.text
    for note in (
        "The first 50 of 1000 domains are shown.",
        "The first 6 of 1000 domains are shown.",
        "10 highest of 1000 domains",
    ):
        assert note in page.text
    assert "Over 1000 domains" in page.text and len(page.of("figure")) < 20


def test_costs_of_a_stage_are_replaced_and_others_kept(tmp_path):
    path = tmp_path / "costs.tsv"
    score = {"books": Score("accuracy", 0.5, 10)}
    one = Evaluated("a", "", "", score, 10, 40, {1: Timing.of([2.0]), 64: Timing.of([0.5])}, "books")
    other = Evaluated("b", "", "", score, 5, 20, {1: Timing.of([1.0, 2.0, 3.0, 4.0, 5.0])}, "books")
    merge_costs(path, [one, other], "the CPU")
    merge_costs(path, [replace(one, timings={8: Timing.of([0.75])}, timed_on="")], "a GPU")
    assert read_rows(path, Cost) == [
        Cost("a", 10, 40, 8, 0.75, "a GPU", 0.75, 0.75), Cost("b", 5, 20, 1, 3.0, "the CPU", 2.0, 4.0, "books"),
    ]  # fmt: skip
    old = path.with_name("old.tsv")
    write_lines(old, COST_COLUMNS[:6], [("b", 5, 20, 1, 3.0, "the CPU")])
    assert read_rows(old, Cost) == [Cost("b", 5, 20, 1, 3.0, "the CPU")]
    path.write_text(path.read_text() + "c\t1\n")
    with pytest.raises(TeachbackError, match="costs.tsv line 4 is not a cost"):
        read_rows(path, Cost)
