"""MultiNLI: pairs, rows without a gold label, genres, bad lines."""

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from teachback.data.bad_rows import Problems
from teachback.data.suites import mnli
from teachback.data.suites.definition import ReadSettings

ARCHIVE = Path(__file__).parents[3] / "shared/data/mnli" / mnli.ARCHIVE.name


def line(pair: str, genre="fiction", label="neutral", first="A man\tsits.", second='He "sits".') -> bytes:
    values = {"gold_label": label, "genre": genre, "pairID": pair, "sentence1": first, "sentence2": second}
    return json.dumps(values).encode() + b"\n"


def parsed(folder: Path, train: bytes, test: bytes = b""):
    place = folder / mnli.ARCHIVE.folder / "multinli_1.0"
    place.mkdir(parents=True)
    (place / "multinli_1.0_train.jsonl").write_bytes(train)
    (place / "multinli_1.0_dev_matched.jsonl").write_bytes(test)
    problems = Problems()
    return mnli.read(folder, ReadSettings(), problems), problems


def test_pairs_get_their_genre_as_domain_and_label_names(tmp_path):
    result, problems = parsed(tmp_path, line("1n"), line("1n", genre="travel", label="entailment"))
    assert not problems.found and result.domains["travel"].labels == ("entailment", "neutral", "contradiction")
    (train,), (test,) = result.rows["train"], result.rows["test"]
    assert (train.text_a, train.text_b, train.label, train.domain) == (
        "A man sits.",
        'He "sits".',
        "neutral",
        "fiction",
    )
    assert train.guid != test.guid and test.domain == "travel"


def test_rows_without_a_gold_label_and_repeated_pairs_are_dropped_and_counted(tmp_path):
    result, problems = parsed(tmp_path, line("1n") + line("2n", label="-") + line("1n"))
    assert len(result.rows["train"]) == 1 and sorted(result.notes.values()) == [1, 1] and not problems.found


def test_bad_lines_are_reported_with_line_number_and_reason(tmp_path):
    bad = [
        b"\xff\n",
        b"{\n",
        b"[]\n",
        line("3", genre="verse"),
        line("4", label="maybe"),
        line("5", first=" "),
        line("6", second=""),
    ]
    _, problems = parsed(tmp_path, line("1n") + b"".join(bad) + b'{"gold_label": "neutral"}\n')
    reasons = [
        "not UTF-8",
        "not JSON",
        "not a JSON object",
        "domain 'verse'",
        "label 'maybe'",
        "empty text",
        "empty text",
        "missing",
    ]
    assert len(problems.found) == len(reasons)
    for number, (found, reason) in enumerate(zip(problems.found, reasons), start=2):
        assert f"train.jsonl line {number}:" in found and reason in found


def test_a_tenth_of_each_genre_and_label_becomes_dev(tmp_path):
    lines = [line(str(i), genre=("fiction", "slate")[i % 2], label=mnli.LABELS[i % 3]) for i in range(120)]
    rows = parsed(tmp_path, b"".join(lines))[0].rows
    assert set(Counter((row.domain, row.label) for row in rows["dev"]).values()) == {2}
    assert len(rows["train"]) == 108


def test_the_real_subset_has_the_known_row_counts(tmp_path):
    if not ARCHIVE.is_file():
        pytest.skip(f"{ARCHIVE} is not here")
    zipfile.ZipFile(ARCHIVE).extractall(tmp_path / mnli.ARCHIVE.folder)
    problems = Problems()
    rows = mnli.read(tmp_path, ReadSettings(), problems).rows
    assert not problems.found
    assert {split: len(part) for split, part in rows.items()} == {"train": 4716, "dev": 524, "test": 918}
    assert {count.found for count in mnli.counts(tmp_path)} >= {910, 1157, 151}
