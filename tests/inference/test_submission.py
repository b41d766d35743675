"""Tests of the leaderboards' file formats (https://super.gluebenchmark.com/faq, https://gluebenchmark.com/faq)."""

import json

import pytest

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row
from teachback.inference.submission import file_name, indices, official_rows, submission

BOOLEAN = ("false", "true")
INFERENCE = ("entailment", "contradiction", "neutral")
ENTAILMENT = ("entailment", "not_entailment")
SUPERGLUE = {
    "BoolQ": BOOLEAN, "CB": INFERENCE, "COPA": ("choice1", "choice2"), "MultiRC": ("0", "1"), "RTE": ENTAILMENT,
    "WiC": BOOLEAN, "WSC": BOOLEAN,
}  # fmt: skip
GLUE = {
    "CoLA": ("unacceptable", "acceptable"), "SST-2": ("negative", "positive"), "MRPC": ("not_equivalent", "equivalent"),
    "STS-B": (), "QQP": ("not_duplicate", "duplicate"), "MNLI": ("entailment", "neutral", "contradiction"),
    "MNLI-mm": ("entailment", "neutral", "contradiction"), "QNLI": ENTAILMENT, "RTE": ENTAILMENT,
    "WNLI": ("not_entailment", "entailment"),
}  # fmt: skip
# Labels that the leaderboards accept, by format and domain, and the sizes of their hidden test sets (MultiRC: answers).
NUMBERS = (0, 1)
LABELS = {
    "superglue": {
        "BoolQ": ("false", "true"), "CB": INFERENCE, "COPA": NUMBERS, "MultiRC": NUMBERS, "RTE": ENTAILMENT,
        "WiC": ("false", "true"), "WSC": ("False", "True"),
    },
    "glue": {
        "CoLA": NUMBERS, "SST-2": NUMBERS, "MRPC": NUMBERS, "STS-B": (), "QQP": NUMBERS, "MNLI": INFERENCE, "MNLI-mm": INFERENCE,
        "QNLI": ENTAILMENT, "RTE": ENTAILMENT, "WNLI": NUMBERS,
    },
}  # fmt: skip
OFFICIAL_ROWS = {
    "superglue": {"BoolQ": 3245, "CB": 250, "COPA": 500, "MultiRC": 9693, "RTE": 3000, "WiC": 1400, "WSC": 146},
    "glue": {
        "CoLA": 1063, "SST-2": 1821, "MRPC": 1725, "STS-B": 1379, "QQP": 390965, "MNLI": 9796, "MNLI-mm": 9847,
        "QNLI": 5463, "RTE": 3000, "WNLI": 146,
    },
}  # fmt: skip


def domain(form, name):
    labels = {"superglue": SUPERGLUE, "glue": GLUE}[form][name]
    return Domain(name, name, labels, task="classification" if labels else "regression", submission=form)


def hidden(name, *ends):
    return [Row(f"{name}-test-{end}", "a", "b", "", name) for end in ends]


def written(form, name, *predictions):
    return submission(domain(form, name), hidden(name, *range(len(predictions))), predictions)


def test_files_have_the_official_names():
    assert [file_name(domain("superglue", name)) for name in SUPERGLUE] == [
        "BoolQ.jsonl", "CB.jsonl", "COPA.jsonl", "MultiRC.jsonl", "RTE.jsonl", "WiC.jsonl", "WSC.jsonl",
    ]  # fmt: skip
    assert [file_name(domain("glue", name)) for name in GLUE] == [
        "CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "QNLI.tsv", "RTE.tsv",
        "WNLI.tsv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "predictions", "labels"),
    [
        ("BoolQ", ["true", "false"], ["true", "false"]),
        ("WiC", ["true", "false"], ["true", "false"]),
        ("WSC", ["true", "false"], ["True", "False"]),
        ("CB", ["contradiction", "neutral"], ["contradiction", "neutral"]),
        ("RTE", ["not_entailment", "entailment"], ["not_entailment", "entailment"]),
        ("COPA", ["choice2", "choice1"], [1, 0]),
    ],
)
def test_superglue_files_have_an_object_per_line_with_index_and_official_label(name, predictions, labels):
    text = written("superglue", name, *predictions)
    assert [json.loads(line) for line in text.splitlines()] == [
        {"idx": index, "label": label} for index, label in enumerate(labels)
    ]
    assert text.endswith("}\n")


def test_multirc_files_have_a_paragraph_per_line_with_nested_answers():
    rows = hidden("MultiRC", "1-2-5", "0-0-0", "0-0-1", "0-1-2", "1-2-4", "0-1-3")
    text = submission(domain("superglue", "MultiRC"), rows, list("110010"))
    assert [json.loads(line) for line in text.splitlines()] == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
                    {"idx": 1, "answers": [{"idx": 2, "label": 0}, {"idx": 3, "label": 0}]},
                ]
            },
        },
        {"idx": 1, "passage": {"questions": [{"idx": 2, "answers": [{"idx": 4, "label": 1}, {"idx": 5, "label": 1}]}]}},
    ]


@pytest.mark.parametrize("name", [name for name in GLUE if name != "STS-B"])
def test_glue_files_are_tables_of_index_and_prediction(name):
    labels = GLUE[name]
    names = name in ("MNLI", "MNLI-mm", "QNLI", "RTE")
    header, *lines = written("glue", name, *reversed(labels)).splitlines()
    assert header == "index\tprediction"
    assert lines == [f"{i}\t{labels[-1 - i] if names else len(labels) - 1 - i}" for i in range(len(labels))]


def test_stsb_predictions_are_clipped_to_0_to_5():
    assert written("glue", "STS-B", "-0.25", "2.34567", "5.01") == "index\tprediction\n0\t0.000\n1\t2.346\n2\t5.000\n"
    assert "-" not in written("glue", "STS-B", "-0.0")
    with pytest.raises(TeachbackError, match="STS-B-test-0: the prediction nan is not a number from 0"):
        written("glue", "STS-B", "nan")


def test_rows_are_sorted_by_their_official_index():
    text = submission(domain("glue", "MNLI-mm"), hidden("MNLI-mm", 10, 9, 2), ["neutral", "entailment", "neutral"])
    assert text.splitlines()[1:] == ["2\tneutral", "9\tentailment", "10\tneutral"]


def answers_of(item: dict) -> list[dict]:
    """Answers in a line of MultiRC; checks that indices ascend in every paragraph and question."""
    assert set(item) == {"idx", "passage"} and set(item["passage"]) == {"questions"}
    questions = item["passage"]["questions"]
    answers = [answer for question in questions for answer in question["answers"]]
    for group in (questions, *(question["answers"] for question in questions)):
        assert [one["idx"] for one in group] == sorted({one["idx"] for one in group}) and group
    return answers


def predictions_of(form: str, name: str, text: str) -> list:
    """Predictions in a file; checks the leaderboard's rules: indices ascend, and no field is missing or added."""
    assert text.endswith("\n")
    header, *lines = text.splitlines() if form == "glue" else ["", *text.splitlines()]
    if form == "glue":
        assert header == "index\tprediction"
        indices, predictions = zip(*(line.split("\t") for line in lines))
        assert [int(index) for index in indices] == sorted({int(index) for index in indices})
        return list(predictions)
    items = [json.loads(line) for line in lines]
    assert [item["idx"] for item in items] == sorted({item["idx"] for item in items})
    items = [one for item in items for one in (answers_of(item) if name == "MultiRC" else [item])]
    assert all(set(item) == {"idx", "label"} and type(item["idx"]) is int for item in items)
    return [item["label"] for item in items]


def test_files_of_every_domain_follow_the_leaderboards_rules():
    for form, domains in (("superglue", SUPERGLUE), ("glue", GLUE)):
        assert {name: official_rows(domain(form, name)) for name in domains} == OFFICIAL_ROWS[form]
        for name, labels in domains.items():
            ends = ("0-0-0", "0-0-1", "1-1-2") if name == "MultiRC" else (0, 1, 2)
            predictions = (labels * 3)[:3] or ["1.5", "2", "0"]
            found = predictions_of(form, name, submission(domain(form, name), hidden(name, *ends), predictions))
            allowed = [str(one) for one in LABELS[form][name]] if form == "glue" else LABELS[form][name]
            assert len(found) == 3
            for one in found:
                assert (one in allowed and type(one) is type(allowed[0])) if labels else 0 <= float(one) <= 5


def test_duplicate_indices_are_refused():
    with pytest.raises(TeachbackError, match="CB: two rows have the index 3"):
        submission(domain("superglue", "CB"), hidden("CB", 3, 3), ["neutral", "neutral"])


def test_guids_without_their_official_index_are_refused():
    assert indices(hidden("MultiRC", "4-10-20")[0], 3) == (4, 10, 20)
    with pytest.raises(TeachbackError, match="'CB-test-x' of CB does not end with 1 official indices"):
        submission(domain("superglue", "CB"), hidden("CB", "x"), ["neutral"])
    with pytest.raises(TeachbackError, match="3 official indices"):
        indices(hidden("MultiRC", "4")[0], 3)


def test_unknown_domains_and_labels_are_refused():
    with pytest.raises(TeachbackError, match="'toys' in the format 'superglue'; known are superglue: BoolQ"):
        submission(Domain("toys", "toys", ("a", "b"), submission="superglue"), hidden("toys", 0), ["a"])
    with pytest.raises(TeachbackError, match="'maybe' is not one of"):
        written("superglue", "CB", "maybe")
    of_user = Domain("CB", "CB", ("entailment", "maybe"), submission="superglue")  # labels that the leaderboard does not have
    with pytest.raises(TeachbackError, match="'maybe' is not one of"):
        submission(of_user, hidden("CB", 0), ["maybe"])
