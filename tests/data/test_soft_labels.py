"""Files of soft labels: formats, keys, rows without an answer, and errors with row and column."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny import BOOKS, GENRE, SCORE

from teachback.core.errors import TeachbackError
from teachback.data.schema import Row
from teachback.data.soft_labels import read_soft_labels

ROWS = [Row(f"g{i}", text, "", "negative", "books") for i, text in enumerate(["a good plot", "bad", "  so  so ", "bad"])]
ANSWERS = [("g0", 0.25, 0.75), ("g1", 0.9995, 0.0), ("x9", 0.5, 0.5), ("g3", 1, 0)]
NAN = np.nan


def lines(*rows, columns=("guid", "negative", "positive"), sign="\t") -> str:
    return "".join(sign.join(map(str, row)) + "\n" for row in (columns, *rows))


def read(tmp_path, text, name="soft.tsv", rows=ROWS, domain=BOOKS):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_soft_labels(str(tmp_path / name), rows, domain)


def assert_answers(found, elsewhere=1):
    np.testing.assert_equal(found.values, [[0.25, 0.75], [0.9995, 0], [NAN, NAN], [1, 0]])
    assert found.known.tolist() == [True, True, False, True] and found.elsewhere == elsewhere


def test_every_format_is_matched_by_guid_ignoring_other_columns_and_rows(tmp_path):
    assert_answers(read(tmp_path, lines(*ANSWERS)))
    named = [dict(zip(("guid", "p(positive)", "p(negative)", "label"), (guid, p, n, "?"))) for guid, n, p in ANSWERS]
    assert_answers(read(tmp_path, "".join(json.dumps(row) + "\n" for row in named), "soft.jsonl"))
    assert_answers(read(tmp_path, lines(*ANSWERS, sign=","), "soft.csv"))
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({name: [row[name] for row in named] for name in named[0]}), tmp_path / "soft.parquet")
    assert_answers(read_soft_labels(str(tmp_path / "soft.parquet"), ROWS, BOOKS))


@pytest.mark.parametrize("column", ["text", "text_a"])
def test_rows_are_matched_by_text_and_equal_texts_share_an_answer(tmp_path, column):
    rows = [("a good\u00a0plot", 0.25, 0.75), ("bad", 0.6, 0.4), ("else", 0.5, 0.5)]
    found = read(tmp_path, lines(*rows, columns=(column, "negative", "positive")))
    np.testing.assert_equal(found.values, [[0.25, 0.75], [0.6, 0.4], [NAN, NAN], [0.6, 0.4]])


def test_pairs_are_matched_by_both_texts_or_by_guid(tmp_path):
    pair, rows = replace(BOOKS, kind="pair"), [replace(row, text_b=f"b{i}") for i, row in enumerate(ROWS)]
    columns = ("text_a", "text_b", "negative", "positive")
    found = read(tmp_path, lines(("bad", "b1", 1, 0), ("bad", "b3", 0, 1), columns=columns), rows=rows, domain=pair)
    assert found.values[1].tolist() == [1, 0] and found.values[3].tolist() == [0, 1]
    assert_answers(read(tmp_path, lines(*ANSWERS), rows=rows, domain=pair))
    with pytest.raises(TeachbackError, match="a column guid, or text_a and text_b, is needed"):
        read(tmp_path, lines(("bad", 1, 0), columns=("text_a", "negative", "positive")), rows=rows, domain=pair)


def test_the_answer_to_a_regression_row_is_a_number(tmp_path):
    found = read(tmp_path, lines(("g0", -3.5), ("g1", 2), columns=("guid", "value")), domain=SCORE)
    np.testing.assert_equal(found.values, [[-3.5], [2], [NAN], [NAN]])
    with pytest.raises(TeachbackError, match="soft.tsv line 2: column 'value': 'high' is not a number"):
        read(tmp_path, lines(("g0", "high"), columns=("guid", "value")), domain=SCORE)


def test_a_label_may_be_named_value(tmp_path):
    domain = replace(BOOKS, labels=("value", "price"))
    with pytest.raises(TeachbackError, match="line 2: column 'value': '1.5' is not a probability from 0 to 1"):
        read(tmp_path, lines(("g0", 1.5, -0.5), columns=("guid", "value", "price")), domain=domain)


def test_empty_cells_are_no_answer_and_equal_answers_may_be_repeated(tmp_path):
    found = read(tmp_path, lines(("g0", "", ""), ("g1", 0.5, 0.5), ("g1", 0.5004, 0.4996)))
    assert found.known.tolist() == [False, True, False, False] and found.values[1].tolist() == [0.5004, 0.4996]


def test_invalid_answers_are_listed_by_row_and_column(tmp_path):
    rows = [("g0", 0.5, 0.48), ("g1", -0.1, 1.1), ("g2", 0.5, ""), ("g3", "nan", 0), ("x1", 7, 8)]
    with pytest.raises(TeachbackError) as error:
        read(tmp_path, lines(*rows) + "g0\t1\n" + lines(("g0", 0.2, 0.8), ("g0", 0.3, 0.7)).split("\n", 1)[1])
    said = str(error.value)
    for what in (
        "6 bad rows", "soft.tsv line 2: the columns 'negative', 'positive' sum to 0.98, not to 1 (within 0.001)",
        "line 3: column 'negative': '-0.1' is not a probability from 0 to 1",
        "line 4: column 'positive' is empty, but others of the row are not", "line 5: column 'negative': 'nan' is not a probability",
        "line 7: 2 columns, expected 3", "line 9: a different answer to the same row is in line 8", "learns them from their labels alone",
    ):  # fmt: skip
        assert what in said
    assert "line 6" not in said  # line 6 matches no row, so that its values are not checked


@pytest.mark.parametrize(
    ("text", "domain", "message"),
    [
        (lines(*ANSWERS), GENRE, r"no column for fact, fiction, verse; .* 'p\(fact\)'; available: guid, negative, positive"),
        (lines(("?", 1, 0), columns=("id", "negative", "positive")), BOOKS, "a column guid, or text or text_a, is needed .* the file has: id, neg"),
        (lines(*ANSWERS, sign=","), BOOKS, r"available: guid,negative,positive \(one column with ',' in its name; is it CSV\? Then call it .csv\)"),
        (lines(("x1", 1, 0)), BOOKS, "has no answer to any of the 4 rows for books; rows are matched by guid, such as g0, g1"),
        ("", BOOKS, "there is no header"),
    ],
)  # fmt: skip
def test_unusable_files_of_soft_labels_are_refused(tmp_path, text, domain, message):
    with pytest.raises(TeachbackError, match=message):
        read(tmp_path, text, domain=domain)
    with pytest.raises(TeachbackError, match="SOFT_LABELS=/no/such: there is no such file"):
        read_soft_labels("/no/such", ROWS, BOOKS)
