"""Quoting of cells that a spreadsheet would evaluate as formulas."""

import pytest

from teachback.core.spreadsheets import formulas, is_formula, quoted, quoted_table


@pytest.mark.parametrize("cell", ["=1+2", '=HYPERLINK("http://x")', "+cmd", "-x", "@SUM(A1)", "-", "+"])
def test_cells_that_would_be_evaluated_are_quoted(cell):
    assert is_formula(cell) and quoted(cell) == f"'{cell}" and not is_formula(quoted(cell))


@pytest.mark.parametrize("cell", ["", "good", "-0.5", "+3", "-1e-7", "a=b", "'=1"])
def test_other_cells_are_unchanged(cell):
    assert not is_formula(cell) and quoted(cell) == cell


def test_quoting_a_table_changes_only_its_formula_cells():
    table = "guid\tpredicted\n=1\t-0.5\ng2\t@x\n"
    assert formulas(table) == 2 and quoted_table(table) == "guid\tpredicted\n'=1\t-0.5\ng2\t'@x\n"
