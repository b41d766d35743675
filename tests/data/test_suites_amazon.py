"""Amazon reviews: the parser, and the authors' split on the real archive."""

import hashlib
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from teachback.data.bad_rows import Problems
from teachback.data.schema import Domain, Row
from teachback.data.splits import authors_split, cut
from teachback.data.suites import amazon
from teachback.data.suites.definition import ReadSettings

ARCHIVE = Path(__file__).parents[3] / "shared/data/amazon" / amazon.ARCHIVE.name
SPLIT = {  # row counts of the authors' split
    "train": {"books": 1631, "dvd": 1621, "electronics": 1615, "kitchen": 1613},
    "dev": {"books": 170, "dvd": 194, "electronics": 172, "kitchen": 184},
    "test": {"books": 199, "dvd": 185, "electronics": 213, "kitchen": 203},
}
TEST_POLARITY = {"books": (105, 94), "dvd": (100, 85), "electronics": (102, 111), "kitchen": (93, 110)}


def review(text: bytes) -> bytes:
    return b"<review>\n<title>\nA & B <bold>\n</title>\n<review_text>\n" + text + b"\n</review_text>\n</review>\n"


def texts(data: bytes) -> list[str | None]:
    return [text for _, text in amazon.parse_reviews(data)]


def test_reviews_with_blank_and_indented_lines_are_parsed_whole():
    assert texts(review(b"First line\n\n\tIndented here\n\n\nLast") + review(b"Next")) == [
        "First line Indented here Last",
        "Next",
    ]


def test_quotes_and_entities_are_kept_unchanged():
    assert texts(review(b'"Great", he said: ""what"" a \'read\' &quot;')) == [
        '"Great", he said: ""what"" a \'read\' &quot;'
    ]


def test_reviews_with_control_bytes_or_latin_1_are_kept():
    assert texts(review(b"a\x1ab\x00 caf\xe9") + review("café".encode())) == ["a b café", "café"]


def test_an_unclosed_review_is_reported_with_its_line():
    data = review(b"whole") + b"<review>\n<review_text>\ncut off"
    assert list(amazon.parse_reviews(data)) == [(1, "whole"), (9, None)]


def test_authors_split_of_forty_rows_equals_that_of_pandas_and_scikit_learn():
    """The expected rows come from pandas 3.1.1, ``sample(frac=1, random_state=11111)``, and scikit-learn 1.9.1's first folds."""
    rows = [Row(str(i), "x", "", "np"[i % 2], "d") for i in range(40)]
    split = authors_split(rows)
    assert {name: " ".join(row.guid for row in part) for name, part in split.items()} == {
        "train": "17 31 20 7 15 22 23 16 6 9 12 8 26 14 38 30 19 39 21 32 18 35 1 13 4 10 3 37 33 5 28 36",
        "dev": "24 0 27 11",
        "test": "2 34 25 29",
    }


def test_a_cut_is_stratified_and_keeps_the_order():
    rows = [Row(str(i), "x", "", "np"[i % 2], "ab"[i // 100]) for i in range(200)]
    domains = {name: Domain(name, "h", ("n", "p")) for name in "ab"}
    stays, taken = cut(rows, 0.1, 1, domains)
    assert Counter((row.domain, row.label) for row in taken) == dict.fromkeys(
        [("a", "n"), ("a", "p"), ("b", "n"), ("b", "p")], 5
    )
    assert sorted(stays + taken, key=lambda row: int(row.guid)) == rows
    assert [int(row.guid) for row in taken] == sorted(int(row.guid) for row in taken)
    assert cut(rows, 0.1, 1, domains) == (stays, taken) and cut(rows, 0.1, 2, domains)[1] != taken
    assert cut(rows, 0, 1, domains) == (rows, [])


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not ARCHIVE.is_file():
        pytest.skip(f"{ARCHIVE} is not here")
    content = tmp_path_factory.mktemp("amazon")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(content / amazon.ARCHIVE.folder, filter="data")
    problems = Problems()
    rows = amazon.read(content, ReadSettings(), problems).rows
    assert not problems.found
    return content, rows


def test_the_real_archive_has_a_thousand_reviews_per_file(real):
    content, rows = real
    assert [count.found for count in amazon.counts(content)] == [1000] * 8
    assert len({row.text_a for part in rows.values() for row in part}) == 7852


def test_the_real_split_has_the_authors_row_counts(real):
    _, rows = real
    assert {split: dict(Counter(row.domain for row in part)) for split, part in rows.items()} == SPLIT
    polarity = Counter((row.domain, row.label) for row in rows["test"])
    assert {d: (polarity[d, "negative"], polarity[d, "positive"]) for d in TEST_POLARITY} == TEST_POLARITY


def test_the_real_split_has_the_rows_selected_by_pandas_and_scikit_learn(real):
    _, rows = real
    guids = {split: "\n".join(row.guid for row in part) for split, part in rows.items()}
    assert {split: hashlib.sha256(text.encode()).hexdigest() for split, text in guids.items()} == MEMBERS


MEMBERS = {  # SHA-256 of the guids, one per line, from pandas' sample and sklearn's folds over the rows in the raw order
    "train": "e52890266c98d21960a7c9c541b7348d9e5992691505641b892ae12d61e537b9",
    "dev": "a4357f0803304b5b3afe77d3618fce4d284bc33ed810df9a0b173a87e43b75c2",
    "test": "abac5b61226ea7b6452149db0c8339d1c20774eaf6bdf4870c4d7ca1004a6a9a",
}
