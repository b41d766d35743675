"""report.html of a published table, in its folder, with links to the reports of its runs."""

from collections.abc import Sequence
from pathlib import Path

from teachback.core.files import write_atomically
from teachback.reports.cells import Cell
from teachback.reports.curves import Curve
from teachback.reports.paper_table import PaperTable
from teachback.reports.parts import Section
from teachback.reports.run_page import render
from teachback.reports.table_cells import progress, runs, settings
from teachback.reports.table_costs import tradeoff
from teachback.reports.table_scores import beside_published, curve_section, scores

ABOUT = "Teachback: a published table made anew, ours beside the published numbers. {}."


def write_table_report(table: PaperTable, cells: Sequence[Cell], states: dict[str, str]) -> Path:
    """Write report.html into the table's folder; returns its path. ``states``: by cell name."""
    parts = [
        scores(table), _progress([table], cells, states), beside_published(table), tradeoff(table), runs([table]),
        settings([table]),
    ]  # fmt: skip
    return _write(table.plan.folder / "report.html", table.published.name, table, parts)


def write_curve_report(curve: Curve, cells: Sequence[Cell], states: dict[str, str]) -> Path:
    """Write the report of a curve, named after it; returns its path."""
    tables = list(curve.tables)
    parts = [curve_section(curve), _progress(tables, cells, states), runs(tables), settings(tables)]
    return _write(tables[0].plan.folder / f"{curve.file_name}.html", curve.title, tables[0], parts)


def _progress(tables: list[PaperTable], cells: Sequence[Cell], states: dict[str, str]) -> Section:
    titles = {row.name: row.title for row in tables[0].plan.recipe.rows.values()}
    return progress(tables[0].plan.folder, cells, states, titles)


def _write(path: Path, title: str, table: PaperTable, parts: list[Section]) -> Path:
    write_atomically(path, render(title, ABOUT.format(table.published.paper), parts))
    return path
