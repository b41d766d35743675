"""The user's own files: headers, splits, heads, and every kind of bad row."""

from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.suites import custom
from teachback.data.suites.definition import ReadSettings

HEADER = b"guid\ttext_a\ttext_b\tlabel\tdomain\n"


def parsed(folder: Path, **files: bytes):
    for name, content in files.items():
        (folder / f"{name}.tsv").write_bytes(content)
    problems = Problems()
    return custom.read(folder, ReadSettings(), problems), problems


def rows_of(label_pairs: str, count: int) -> bytes:
    """TSV lines: ``count`` rows for each "domain:label" of ``label_pairs``."""
    pairs = [pair.split(":") for pair in label_pairs.split()]
    return b"".join(f"text {i}\t{label}\t{domain}\n".encode() for domain, label in pairs for i in range(count))


def test_columns_in_any_order_quotes_and_empty_last_columns_are_kept(tmp_path):
    train = '\ufeffdomain\tlabel\ttext_a\ttext_b\nd\tyes\t"He said ""hi""\t\nd\tno\t\'x\' \\n\t"b"\n'.encode()
    scored = HEADER + b"1\ta\t\tyes\td\n"
    result, problems = parsed(tmp_path, train=train, dev=scored, test=scored.replace(b"1", b"2"))
    assert not problems.found
    assert [(r.text_a, r.text_b) for r in result.rows["train"]] == [('"He said ""hi""', ""), ("'x' \\n", '"b"')]
    assert [row.guid for row in result.rows["train"]] == ["train-00001", "train-00002"]
    assert result.domains["d"].kind == "pair" and result.domains["d"].labels == ("no", "yes")


def test_every_kind_of_bad_row_is_reported_with_its_line(tmp_path):
    good = b"1\ttext\t\tyes\td\n2\ttext\t\tno\td\n"
    bad = [b"3\ttext\tyes\td\n", b"4\t \t\tyes\td\n", b"5\t\xff\t\tyes\td\n", b"6\ta\x07b\t\tyes\td\n", b"1\ttext\t\tyes\td\n",
           b"7\ttext\t\t\td\n", b"8\ttext\t\tyes\tc,d\n"]  # fmt: skip
    reasons = ["4 columns", "empty text", "not UTF-8", "control bytes", "duplicate guid", "empty label", "'c,d'"]
    dev = HEADER + b"9\ttext\t\tmaybe\td\n10\ttext\t\tyes\tother\n"
    _, problems = parsed(tmp_path, train=HEADER + good + b"".join(bad), dev=dev, test=HEADER)
    expected = [f"train.tsv line {number}: " for number in range(4, 11)] + ["dev.tsv line 2: ", "dev.tsv line 3: "]
    assert len(problems.found) == len(expected)
    for place, reason in zip(expected, [*reasons, "unknown label 'maybe'", "unknown domain 'other'"]):
        assert any(place in found and reason in found for found in problems.found), (place, reason)


def test_a_test_row_without_a_label_is_not_a_bad_row(tmp_path):
    result, problems = parsed(tmp_path, train=HEADER + b"1\ta\t\tyes\td\n", test=HEADER + b"2\tb\t\t\td\n", dev=HEADER + b"3\tc\t\tyes\td\n")
    assert not problems.found and result.rows["test"][0].label == ""


def test_one_file_is_divided_by_fractions_of_all_its_rows(tmp_path):
    result, _ = parsed(tmp_path, mine=b"text_a\tlabel\tdomain\n" + rows_of("a:x a:y b:x b:y", 50))
    assert {split: len(part) for split, part in result.rows.items()} == {"train": 160, "dev": 20, "test": 20}
    assert {row.domain for row in result.rows["dev"]} == {"a", "b"}


def test_a_split_column_divides_one_file(tmp_path):
    lines = b"a\tx\td\ttrain\nb\ty\td\tdev\nc\tx\td\ttest\ne\ty\td\ttrain\nf\tx\td\tlater\n"
    result, problems = parsed(tmp_path, mine=b"text_a\tlabel\tdomain\tsplit\n" + lines)
    assert {split: [row.text_a for row in part] for split, part in result.rows.items()} == {
        "train": ["a", "e"],
        "dev": ["b"],
        "test": ["c"],
    }
    assert len(problems.found) == 1 and "unknown split 'later'" in problems.found[0]


def test_domains_that_share_labels_share_a_head(tmp_path):
    result, _ = parsed(tmp_path, train=b"text_a\tlabel\tdomain\n" + rows_of("a:x a:y b:x c:1 c:0", 20))
    assert [(d.name, d.head, d.labels) for d in result.domains.values()] == [
        ("a", "a", ("x", "y")),
        ("b", "a", ("x", "y")),
        ("c", "c", ("0", "1")),
    ]


@pytest.mark.parametrize(
    "header",
    [b"text_a\tdomain\n", b"text_a\tlabel\tdomain\tlable\n", b"text_a\tlabel\tdomain\tlabel\n", b"a,b\n", b"\xff\n"],
)
def test_a_wrong_header_is_refused(tmp_path, header):
    with pytest.raises(TeachbackError, match="line 1.*header"):
        parsed(tmp_path, train=header)


def test_error_of_a_folder_without_files_suggests_source(tmp_path):
    with pytest.raises(TeachbackError, match="or set SOURCE to a file"):
        parsed(tmp_path)
