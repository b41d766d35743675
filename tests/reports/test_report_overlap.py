"""Tests of the report's section on evaluation pairs that share a text with training pairs."""

from dataclasses import replace

from teachback.data.schema import Domain, Suite
from teachback.reports.run import Run
from teachback.reports.run_data import shared_texts


def run_with(tmp_path, **settings) -> Run:
    domain = Domain("a", "label", ("no", "yes"), kind="pair")
    return Run(tmp_path, tmp_path, "test", Suite("custom", {"a": domain}, settings), [], [], [])


def test_shares_of_pairs_are_listed_for_the_reported_split_and_dev(tmp_path):
    counts = {"test": {"pairs": 225, "text_a": 212, "text_b": 0}, "dev": {"pairs": 200, "text_a": 0, "text_b": 1}}
    (section,) = shared_texts(run_with(tmp_path, shared_texts=counts))
    assert section.tables[0].rows == [["test", "text_a", "212 rows", "94.2 %"], ["dev", "text_b", "1 row", "0.5 %"]]
    (section,) = shared_texts(replace(run_with(tmp_path, shared_texts=counts), split="dev"))
    assert [row[0] for row in section.tables[0].rows] == ["dev"]


def test_no_section_is_shown_without_shared_texts_or_counts(tmp_path):
    counts = {"test": {"pairs": 225, "text_a": 0, "text_b": 0}}
    assert not shared_texts(run_with(tmp_path, shared_texts=counts)) and not shared_texts(run_with(tmp_path))
    assert not shared_texts(replace(run_with(tmp_path), suite=None))
