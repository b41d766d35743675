"""Consistency tests of the published numbers, which reveal copying errors."""

import pytest

from teachback.core.errors import TeachbackError
from teachback.data.suites import definition
from teachback.reports.published import Column, published_table

AMAZON_TEST_ROWS = {"books": 199, "dvd": 185, "electronics": 213, "kitchen": 203}  # the authors' split
SUPERGLUE_TEST_ROWS = {"BoolQ": 3270, "CB": 56, "COPA": 100, "RTE": 277, "WiC": 638, "WSC": 104}


@pytest.mark.parametrize("name", ["metakd_amazon", "metakd_mnli"])
def test_averages_are_the_means_of_their_rows(name):
    table = published_table(name)
    *domains, average = table.columns
    assert average.is_average and len(table.rows) == 10
    for scores in table.rows.values():
        mean = sum(scores[column] for column in domains) / len(domains)
        assert abs(mean - scores[average]) < 0.0501  # one decimal is printed


def is_a_count(percent: float, rows: int) -> bool:
    """Whether ``percent`` is a share of correct answers among ``rows``, rounded to one decimal or truncated (RTE's 67.8)."""
    nearest = round(percent / 100 * rows)
    return any(-0.0501 < 100 * count / rows - percent < 0.1 for count in (nearest, nearest + 1))


@pytest.mark.parametrize(
    ("name", "sizes"), [("metakd_amazon", AMAZON_TEST_ROWS), ("mpdistil_superglue", SUPERGLUE_TEST_ROWS)]
)
def test_every_accuracy_is_possible_with_the_number_of_test_rows(name, sizes):
    table = published_table(name)
    assert not is_a_count(87.7, 199) and is_a_count(87.9, 199) and not is_a_count(84.0, 56)
    for row, scores in table.rows.items():
        for column, percent in scores.items():
            assert column.is_average or is_a_count(percent, sizes[column.domain]), (row, column)


def test_glue_has_scores_for_each_metric_and_tables_state_the_selection():
    table = published_table("mpdistil_glue")
    assert len(table.columns) == 12 and len(table.rows) == 11
    assert table.score("teacher", Column("MRPC", "f1")) == 88.2
    assert table.score("collaborative-binary", Column("WNLI")) == 63.3
    assert table.score("uniform", Column("WNLI")) is None
    assert table.selected_on_reported and published_table("mpdistil_superglue").selected_on_reported
    assert not published_table("metakd_amazon").selected_on_reported


@pytest.mark.parametrize("name", ["metakd_amazon", "metakd_mnli", "mpdistil_superglue", "mpdistil_glue"])
def test_every_table_names_its_source(name):
    table = published_table(name)
    assert "20" in table.paper and table.source and table.models
    assert definition(name.split("_")[1])


def test_an_unknown_table_is_refused_with_a_list_of_known_ones():
    with pytest.raises(TeachbackError, match="metakd_amzon.*metakd_amazon, metakd_mnli"):
        published_table("metakd_amzon")
