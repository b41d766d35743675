"""Rows that share a text or a value of a column stay in one split; texts that splits still share are counted."""

from collections import defaultdict
from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.groups import read_groups
from teachback.data.overlap import shared_sides
from teachback.data.schema import Row, read_rows, read_suite
from teachback.data.splits import units_of
from teachback.data.suites import custom
from teachback.data.suites.definition import ReadSettings
from teachback.data.warnings import cautions
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import process

LABELS = ("yes", "no", "maybe")
SPLITS = ("train", "quiz", "dev", "test")


def pairs(premises: int = 40, domains: str = "ab", extra: str = "") -> str:
    """TSV of pairs: each premise has one hypothesis per label; in the last column, each author has two premises."""
    lines = [
        f"premise {number} of {domain}\thypothesis {number}{domain} {label}\t{label}\t{domain}\t{domain}{number // 2}"
        for domain in domains for number in range(premises) for label in LABELS
    ]  # fmt: skip
    return "text_a\ttext_b\tlabel\tdomain\tauthor\n" + "\n".join(lines) + "\n" + extra


def without_author(text: str) -> str:
    return "".join(line.rpartition("\t")[0] + "\n" for line in text.splitlines())


def parsed(folder: Path, text: str, **settings):
    (folder / "mine.tsv").write_text(text)
    problems = Problems()
    found = custom.read(folder / "mine.tsv", ReadSettings(**settings), problems)
    assert not problems.found
    return found


def splits_of(rows: dict[str, list[Row]], key) -> dict[str, set[str]]:
    """Splits in which each value of ``key`` occurs: value -> names of splits."""
    found = defaultdict(set)
    for split, part in rows.items():
        for row in part:
            found[key(row)].add(split)
    return found


def test_pairs_of_a_premise_share_a_split_of_the_right_size_by_default(tmp_path):
    result = parsed(tmp_path, without_author(pairs()))
    assert result.notes == {"rows share their text_a with others, and are kept with them in one split": 240}
    assert all(len(splits) == 1 for splits in splits_of(result.rows, lambda row: row.text_a).values())
    sizes = {split: len(part) for split, part in result.rows.items()}
    assert sizes == {"train": 192, "dev": 24, "test": 24}
    assert {label: sum(row.label == label for row in result.rows["test"]) for label in LABELS} == dict.fromkeys(
        LABELS, 8
    )
    assert not any(counts[side] for counts in shared_sides(result.rows).values() for side in ("text_a", "text_b"))


def test_without_groups_a_warning_counts_the_premises_shared_with_train(tmp_path):
    result = parsed(tmp_path, without_author(pairs()), group_by="none")
    counts = shared_sides(result.rows)["test"]
    train = {row.text_a for row in result.rows["train"]}
    assert counts == {"pairs": 24, "text_a": sum(row.text_a in train for row in result.rows["test"]), "text_b": 0}
    assert counts["text_a"] > 20
    (warning,) = [text for text in cautions(result, ()) if " test rows share their text_a" in text]
    assert warning.startswith(f"{counts['text_a']} of 24 test rows") and "GROUP_BY=text_a keeps" in warning


def test_group_by_text_b_keeps_rows_with_equal_text_b_in_one_split(tmp_path):
    swapped = "\n".join("\t".join([b, a, *rest]) for a, b, *rest in (line.split("\t") for line in pairs().splitlines()))
    text = without_author(swapped).replace("text_b\ttext_a", "text_a\ttext_b")
    assert shared_sides(parsed(tmp_path, text).rows)["test"]["text_b"] > 20  # the default groups by text_a
    assert shared_sides(parsed(tmp_path, text, group_by="text_b").rows)["test"]["text_b"] == 0


def test_group_column_keeps_rows_together_in_splits_and_curriculum_units(tmp_path):
    (tmp_path / "mine.tsv").write_text(pairs())
    process(ProcessArguments(
        suite="custom", data_dir=str(tmp_path), source=str(tmp_path / "mine.tsv"), embedding_model="scratch:tiny",
        device="cpu", precision="fp32", group_column="author", quiz_fraction=0.2,
    ))  # fmt: skip
    folder = tmp_path / "custom"
    rows = {split: read_rows(folder / f"{split}.tsv") for split in SPLITS}
    assert all(rows.values())

    def author(row: Row) -> str:
        _, number, _, domain = row.text_a.split()
        return f"{domain}{int(number) // 2}"

    assert all(len(splits) == 1 for splits in splits_of(rows, author).values())
    quiz = [row for row in rows["quiz"] if row.domain == "a"]
    units = units_of(quiz, read_suite(folder).domains, read_groups(folder))
    assert len(set(units)) == len({author(row) for row in quiz}) < len(quiz)


def test_texts_of_too_many_rows_are_grouped_only_if_group_by_is_set(tmp_path):
    text = "text_a\ttext_b\tlabel\tdomain\n" + "".join(
        f"question {i % 8}\tanswer {i}\t{'yes' if i % 3 else 'no'}\ta\n" for i in range(120)
    )
    rows = parsed(tmp_path, text).rows
    assert len(rows["test"]) == len(rows["dev"]) == 12 and shared_sides(rows)["test"]["text_a"] == 12
    rows = parsed(tmp_path, text, group_by="text_a", test_fraction=0.25, dev_fraction=0.25).rows
    assert 15 <= len(rows["test"]) <= 30 and 15 <= len(rows["dev"]) <= 30  # one or two groups of 15 rows each
    assert all(len(splits) == 1 for splits in splits_of(rows, lambda row: row.text_a).values())


def test_single_texts_are_grouped_only_if_group_by_is_set(tmp_path):
    text = "text_a\tlabel\tdomain\n" + "".join(f"text {i % 30}\t{'yes' if i % 2 else 'no'}\ta\n" for i in range(60))
    assert not parsed(tmp_path, text).groups
    assert all(
        len(s) == 1 for s in splits_of(parsed(tmp_path, text, group_by="text_a").rows, lambda r: r.text_a).values()
    )


def test_a_label_of_one_row_in_a_group_of_other_labels_stays_in_train(tmp_path):
    text = without_author(pairs(domains="a", extra="premise 5 of a\ta rare one\tperhaps\ta\tx\n"))
    for seed in range(20):
        assert "perhaps" in {row.label for row in parsed(tmp_path, text, seed=seed).rows["train"]}


@pytest.mark.parametrize("each, sizes", [(4, (192, 24, 24)), (5, (240, 30, 30))])
def test_many_labels_of_few_rows_each_still_give_dev_and_test_rows(each, sizes, tmp_path):
    lines = [f"text {i}\tlabel {i % 60}" for i in range(60 * each)]
    rows = parsed(tmp_path, "text_a\tlabel\n" + "\n".join(lines) + "\n").rows
    assert tuple(len(rows[split]) for split in ("train", "dev", "test")) == sizes
    assert len({row.label for row in rows["train"]}) == 60


@pytest.mark.parametrize(
    "options, message",
    [
        ({"group_column": "writer"}, r"mine.tsv line 1: there is no column GROUP_COLUMN='writer'"),
        ({"group_column": "label"}, "GROUP_COLUMN=label is the column of a text"),
        ({"group_by": "premise"}, "GROUP_BY=premise is unknown; use one of: auto, text_a, text_b, none"),
        ({"group_by": "text_a", "group_column": "author"}, "GROUP_COLUMN=author replaces GROUP_BY"),
        ({"group_by": "none", "suite": "sample", "source": ""}, "GROUP_BY is only for SUITE=custom"),
    ],
)
def test_invalid_group_settings_are_refused(options, message, tmp_path):
    (tmp_path / "mine.tsv").write_text(without_author(pairs(4)))
    settings = {
        "suite": "custom",
        "data_dir": str(tmp_path),
        "source": str(tmp_path / "mine.tsv"),
        "embedding_model": "scratch:tiny",
    }
    with pytest.raises(TeachbackError, match=message):
        process(ProcessArguments(**settings | options))
