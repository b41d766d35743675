"""SuperGLUE: fields in the texts, characters of marked spans, bad lines, and domains that are left out."""

import json
import re
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.schema import CHOICE_SEPARATOR, Domain, Row, join_choices, split_choices
from teachback.data.splits import cut
from teachback.data.suites import superglue
from teachback.data.suites.definition import ReadSettings
from teachback.data.suites.span_marks import find_words, mark

SHARED = Path(__file__).parents[3] / "shared/data/superglue"
PAIR = {"premise": "It rained.\tAll day.", "hypothesis": 'The "street" is wet.', "label": "neutral"}
COPA = {"premise": "She fell.", "choice1": "It was icy.", "choice2": "It was warm.", "question": "cause", "label": 1}
WIC = {
    "word": "bank", "sentence1": "The bank was steep.", "sentence2": "*Ask* your bank!", "label": True,
    "start1": 4, "end1": 8, "start2": 11, "end2": 15,
}  # fmt: skip
WSC = {
    "text": "Emma's mother  #1 died, so she was\nraised by her aunt.", "label": False,
    "target": {"span1_text": "Emma", "span1_index": 0, "span2_text": "her.", "span2_index": 8},
}  # fmt: skip
BOOLQ = {"question": "is it wet", "passage": "Rain -- Rain is wet.", "label": True}
MULTIRC = {
    "passage": {
        "text": "He sold it.\nShe left.",
        "questions": [
            {"question": "Who left?", "idx": 4,
             "answers": [{"text": "She", "idx": 9, "label": 1}, {"text": "", "idx": 10, "label": 0}]},
            {"question": "Who sold?", "idx": 5, "answers": [{"text": "He", "idx": 11, "label": 1}]},
        ],
    }
}  # fmt: skip
EXAMPLES = {"BoolQ": BOOLQ, "CB": PAIR, "COPA": COPA, "MultiRC": MULTIRC, "WiC": WIC, "WSC": WSC}


def write(folder: Path, task: str, **parts: list) -> None:
    """Write a task's official files; bytes are written unchanged, dicts as JSON, in which idx defaults to the line's number."""
    place = folder / task / task
    place.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        lines = [
            value if isinstance(value, bytes) else json.dumps({"idx": number} | value).encode()
            for number, value in enumerate(parts.get(part, []))
        ]
        (place / f"{part}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def parsed(folder: Path, domains: str, **settings):
    problems = Problems()
    return superglue.SUITE.read(folder, ReadSettings(domains=domains, **settings), problems), problems


def only_row(folder: Path, task: str):
    write(folder, task, val=[EXAMPLES[task]], train=[EXAMPLES[task]])
    result, problems = parsed(folder, task)
    assert not problems.found
    return result.rows["test"][0], result.domains[task]


def test_cb_has_pairs_of_premise_and_hypothesis(tmp_path):
    row, domain = only_row(tmp_path, "CB")
    assert (row.text_a, row.text_b, row.label) == ("It rained. All day.", 'The "street" is wet.', "neutral")
    assert row.guid == "CB-val-0" and domain.kind == "pair" and domain.metric == "accuracy+macro_f1"


def test_boolq_has_passage_and_question_and_truncates_the_passage(tmp_path):
    row, domain = only_row(tmp_path, "BoolQ")
    assert (row.text_a, row.text_b, row.label) == ("Rain -- Rain is wet.", "is it wet", "true")
    assert domain.truncate == "text_a" and domain.labels == ("false", "true")


def test_copa_has_premise_with_question_and_both_choices(tmp_path):
    row, domain = only_row(tmp_path, "COPA")
    assert row.text_a == "She fell. What was the cause of this?" and row.label == "choice2"
    assert split_choices(row.text_b) == ["It was icy.", "It was warm."]
    assert domain.kind == "choices" and len(domain.labels) == 2
    write(tmp_path, "COPA", train=[COPA | {"question": "effect"}])
    assert parsed(tmp_path, "COPA")[0].rows["train"][0].text_a == "She fell. What happened as a result?"


def test_wic_has_both_sentences_with_the_word_marked_at_its_offsets(tmp_path):
    row, domain = only_row(tmp_path, "WiC")
    assert (row.text_a, row.text_b) == ("The * bank * was steep.", "-Ask- your * bank * !")
    assert row.label == "true" and domain.kind == "pair" and domain.marks == ("*",)


def test_wsc_has_a_text_with_both_spans_marked_by_different_signs(tmp_path):
    row, domain = only_row(tmp_path, "WSC")
    assert row.text_a == "* Emma * 's mother -1 died, so she was raised by # her # aunt." and row.text_b == ""
    assert row.label == "false" and domain.kind == "single" and domain.marks == ("*", "#")


def test_multirc_has_a_row_per_answer_of_paragraph_and_question_with_answer(tmp_path):
    write(tmp_path, "MultiRC", train=[MULTIRC], val=[MULTIRC])
    result, problems = parsed(tmp_path, "MultiRC")
    rows = {row.guid: row for row in result.rows["test"]}
    assert not problems.found and list(rows) == ["MultiRC-val-0-4-9", "MultiRC-val-0-4-10", "MultiRC-val-0-5-11"]
    assert rows["MultiRC-val-0-4-9"].text_a == "He sold it. She left."
    assert [row.text_b for row in rows.values()] == ["Who left? She", "Who left?", "Who sold? He"]
    assert [row.label for row in rows.values()] == ["1", "0", "1"]


def test_a_cut_keeps_the_answers_of_a_multirc_paragraph_together(tmp_path):
    write(tmp_path, "MultiRC", train=[MULTIRC] * 40, val=[MULTIRC])
    rows = parsed(tmp_path, "MultiRC")[0].rows
    paragraphs = [{row.guid.split("-")[2] for row in rows[split]} for split in ("train", "dev")]
    assert [len(found) for found in paragraphs] == [36, 4] and not paragraphs[0] & paragraphs[1]
    assert len(rows["dev"]) == 12


def test_a_cut_keeps_rows_together_that_differ_only_in_their_marks():
    """A model trained on one of them would answer the others wrongly, as their labels mostly differ."""
    wsc = Domain("WSC", "WSC", ("false", "true"), kind="single", marks=("*", "#"))
    rows = []
    for number in range(30):
        for marked, label in (
            (f"* Mark * told Pete {number} of # his # book", "true"),
            (f"Mark told * Pete * {number} of # his # book", "false"),
        ):
            rows.append(Row(f"WSC-{number}-{label}", marked, "", label, "WSC"))
    stays, taken = cut(rows, 0.2, 1, {"WSC": wsc})
    texts = [{re.sub(r"[*#\s]", "", row.text_a) for row in part} for part in (stays, taken)]
    assert not texts[0] & texts[1] and len(taken) == 12 and len(stays) == 48
    assert Counter(row.label for row in taken) == {"true": 6, "false": 6}


def test_nested_and_adjacent_spans_are_marked():
    assert mark("their mothers", [(0, 13, "*"), (0, 5, "#")]) == "* # their # mothers *"
    assert mark("a dog's", [(2, 7, "*"), (5, 7, "#")]) == "a * dog # 's # *"
    assert mark("ab", [(0, 1, "*"), (1, 2, "#")]) == "* a * # b #"


@pytest.mark.parametrize(
    ("text", "words", "index", "found"),
    [
        ("He said it; it hurt.", "it", 3, (12, 14)),  # the nearer of two occurrences
        ("You might use it , but", "it", 2, (14, 16)),  # the index is off by one
        ("The Dog's tail", "the dog", 0, (0, 7)),
        ('"Its bite" is bad', "its bite.", 0, (1, 9)),
        ("Lev Kamenev, his editor, and Grigory Zinoviev left", "Kamenev and Zinoviev", 0, (4, 45)),
    ],
)
def test_words_are_found_by_index_ignoring_case_and_punctuation(text, words, index, found):
    assert find_words(text, words, index) == found


def test_train_is_divided_by_label_val_becomes_test_and_test_becomes_hidden(tmp_path):
    lines = [PAIR | {"label": ("neutral", "entailment")[i % 2]} for i in range(40)]
    hidden = {"premise": "a", "hypothesis": "b"}
    write(tmp_path, "CB", train=lines, val=lines[:3], test=[hidden, PAIR])
    rows = parsed(tmp_path, "CB")[0].rows
    assert {split: len(part) for split, part in rows.items()} == {"train": 36, "dev": 4, "test": 3, "hidden": 2}
    assert Counter(row.label for row in rows["dev"]) == {"neutral": 2, "entailment": 2}
    assert [(row.guid, row.label) for row in rows["hidden"]] == [("CB-test-0", ""), ("CB-test-1", "")]
    paper = parsed(tmp_path, "CB", protocol="paper")[0].rows
    assert len(paper["train"]) == 40 and not paper.get("dev")


def test_the_split_of_a_domain_does_not_depend_on_other_domains(tmp_path):
    lines = [PAIR | {"label": "neutral"}] * 40
    write(tmp_path, "CB", train=lines, val=lines)
    write(tmp_path, "COPA", train=[COPA] * 30, val=[COPA])
    both, alone = (parsed(tmp_path, domains)[0].rows["dev"] for domains in ("CB COPA", "COPA"))
    assert [row for row in both if row.domain == "COPA"] == alone and len(alone) == 3


BAD = [
    ("CB", b"{", "not JSON"),
    ("CB", b"[]", "not a JSON object"),
    ("CB", b"\xff", "not UTF-8"),
    ("CB", PAIR | {"label": "maybe"}, "unknown label 'maybe'"),
    ("CB", {"premise": "a", "hypothesis": "b"}, "empty label"),
    ("CB", {"premise": "a", "label": "neutral"}, "hypothesis is missing"),
    ("CB", PAIR | {"premise": " "}, "empty premise"),
    ("CB", PAIR | {"idx": 0}, "duplicate guid 'CB-train-0'"),
    ("CB", PAIR | {"idx": "1"}, "idx is missing"),
    ("COPA", COPA | {"question": "why"}, "unknown question 'why'"),
    ("COPA", COPA | {"label": 2}, "unknown label '2'"),
    ("COPA", COPA | {"choice2": f"a{CHOICE_SEPARATOR}b"}, "'|||'"),
    ("BoolQ", BOOLQ | {"label": 1}, "unknown label '1'"),
    ("WiC", WIC | {"end1": 400}, "offsets 4 to 400 do not fit"),
    ("WiC", WIC | {"start2": None}, "offsets None to 15 do not fit"),
    ("WSC", WSC | {"target": WSC["target"] | {"span2_index": 2}}, "'her.' is not at word 2"),
    ("WSC", WSC | {"target": WSC["target"] | {"span1_text": "Ann"}}, "'Ann' is not at word 0"),
    ("WSC", WSC | {"target": WSC["target"] | {"span1_index": 99}}, "no word number 99"),
    ("WSC", WSC | {"target": "Emma"}, "target is missing"),
    ("MultiRC", {"passage": {"text": "a", "questions": [{"question": "b", "idx": 0, "answers": [3]}]}}, "text is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "bad", "reason"), BAD)
def test_a_bad_line_is_reported_with_file_line_and_reason(tmp_path, task, bad, reason):
    write(tmp_path, task, train=[EXAMPLES[task], bad])
    _, problems = parsed(tmp_path, task)
    (found,) = problems.found
    assert f"{task}/train.jsonl line 2:" in found and reason in found


def test_missing_domains_are_left_out_only_if_domains_is_set(tmp_path, capsys):
    for task in ("CB", "COPA"):
        write(tmp_path, task, train=[EXAMPLES[task]], val=[EXAMPLES[task]])
    with pytest.raises(TeachbackError, match='BoolQ, MultiRC, RTE, WiC, WSC; run 1_get_data.sh.*DOMAINS="CB COPA"'):
        parsed(tmp_path, "")
    with pytest.raises(TeachbackError, match="no domain 'BC'"):
        parsed(tmp_path, "BC")
    assert list(parsed(tmp_path, "COPA,CB")[0].domains) == ["CB", "COPA"]
    assert "left out because they are not in DOMAINS: BoolQ, MultiRC" in capsys.readouterr().out


def test_error_of_a_missing_train_file_names_stage_1(tmp_path):
    (tmp_path / "CB").mkdir()
    with pytest.raises(TeachbackError, match="train.jsonl does not exist; run 1_get_data.sh"):
        parsed(tmp_path, "CB")


def test_domains_have_their_heads_metrics_submission_format_and_archives():
    domains = {name: task.domain for name, task in superglue.TASKS.items()}
    assert all(domain.head == name and domain.submission == "superglue" for name, domain in domains.items())
    assert domains["MultiRC"].metric == "f1+exact_match" and domains["MultiRC"].labels == ("0", "1")
    assert {task.archive.urls[0].rsplit("/", 1)[1] for task in superglue.TASKS.values()} == {
        f"{name}.zip" for name in domains
    }


def test_joined_choices_can_be_split_again_and_ambiguous_ones_are_refused():
    assert split_choices(join_choices(["a", "b | c"])) == ["a", "b | c"]
    for bad in ("", "a ||| b", "a |||"):
        with pytest.raises(ValueError, match="choice"):
            join_choices(["x", bad])


def test_a_domain_is_trainable_unless_it_is_known_to_have_no_train_rows():
    domain = Domain("a", "a", ("x",))
    assert domain.trainable and Domain("a", "a", ("x",), rows={"train": 3}).trainable
    assert not Domain("a", "a", ("x",), rows={"train": 0, "test": 3}).trainable


@pytest.mark.parametrize("task", ["BoolQ", "CB", "COPA", "RTE", "WSC"])
def test_the_real_files_have_the_known_row_counts(tmp_path, task):
    unpack(tmp_path, task)
    result, problems = parsed(tmp_path, task)
    assert not problems.found and not result.notes
    differences = {
        count.what: count.found for count in superglue.SUITE.counts(tmp_path) if count.expected != count.found
    }
    assert differences == ({"train rows of BoolQ": 2000, "test rows of BoolQ": 0} if task == "BoolQ" else {})
    known = superglue.TASKS[task].known
    assert len(result.rows["test"]) == known[1] and len(result.rows["hidden"]) == (0 if task == "BoolQ" else known[2])


def test_marked_spans_of_all_real_wsc_rows_are_the_official_ones(tmp_path):
    unpack(tmp_path, "WSC")
    rows = {row.guid: row for part in parsed(tmp_path, "WSC")[0].rows.values() for row in part}
    scattered = 0
    for part in ("train", "val", "test"):
        for line in (tmp_path / f"WSC/WSC/{part}.jsonl").read_text().splitlines():
            values = json.loads(line)
            text = rows[f"WSC-{part}-{values['idx']}"].text_a
            assert letters(text) == letters(values["text"])
            for n, sign in ((1, "*"), (2, "#")):
                (span,) = re.findall(rf"(?:^| )\{sign} (.+) \{sign}(?: |$)", text)
                official = values["target"][f"span{n}_text"]
                if letters(span) != letters(official):
                    scattered += 1
                    assert {letters(word) for word in official.split()} <= {letters(word) for word in span.split()} | {
                        letters(word).removesuffix("s") for word in span.split()
                    }
    assert len(rows) == 554 + 104 + 146 and scattered == 3  # plural antecedents that do not occur literally in the text


def unpack(folder: Path, task: str) -> None:
    archive = SHARED / f"{task}.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not here")
    zipfile.ZipFile(archive).extractall(folder / task)


def letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text.lower())
