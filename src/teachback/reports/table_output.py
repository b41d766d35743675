"""Output of a table or a curve: on the screen, in every format, and as a page with links to the reports of its runs."""

from collections.abc import Sequence
from pathlib import Path

from teachback.core.files import write_atomically
from teachback.core.pictures import save_png
from teachback.reports.cells import Cell
from teachback.reports.curves import Curve, published_in
from teachback.reports.paper_table import PaperTable
from teachback.reports.parts import Section
from teachback.reports.plan import Plan
from teachback.reports.published import Published
from teachback.reports.run_page import render
from teachback.reports.table_cells import progress, runs, settings
from teachback.reports.table_formats import Document, document, latex, markdown, plain, tsv
from teachback.reports.table_scores import curve_section, published_section, scores, tradeoff

ABOUT = "Teachback report: our reproduction of a published table beside the published numbers. {}."


def show_results(plans: list[Plan], about: Published, cells: dict[str, Cell], states: dict[str, str]) -> None:
    """Print and write the table, or for HOLD_OUT and TRAIN_FRACTION a curve per target domain, with reports."""
    if not plans[0].setting.target:
        table = PaperTable(plans[0], about, states)
        show_table(table, table.plan.folder)
        print(f"wrote {write_table_report(table, list(cells.values()), states)}")
        return
    for target in dict.fromkeys(plan.setting.target for plan in plans):
        chosen = [plan for plan in plans if plan.setting.target == target]
        curve = Curve([PaperTable(plan, published_in(about, plan.setting), states) for plan in chosen])
        write_curve(curve, plans[0].folder)
        names = {cell.name for plan in chosen for cell in plan.cells(with_data=False)}
        print(f"wrote {write_curve_report(curve, [cell for name, cell in cells.items() if name in names], states)}")


def show_table(table: PaperTable, folder: Path) -> None:
    """Print the table and write it in every format."""
    _write_formats(document(table), tsv(table), folder / "table")
    print(f"wrote {folder}/table.md, table.tsv and table.tex")


def write_curve(curve: Curve, folder: Path) -> None:
    """Print the curve and write it in every format and as a picture."""
    _write_formats(curve.document(), curve.tsv(), folder / curve.file_name)
    save_png(curve.plot, folder / f"{curve.file_name}.png", curve.title, (7, 4.5))
    print(f"wrote {folder}/{curve.file_name}.md, .tsv, .tex and .png")


def _write_formats(shown: Document, table: str, place: Path) -> None:
    for ending, text in (("md", markdown(shown)), ("tsv", table), ("tex", latex(shown))):
        write_atomically(place.with_name(f"{place.name}.{ending}"), text)
    print(f"\n{plain(shown)}")


def write_table_report(table: PaperTable, cells: Sequence[Cell], states: dict[str, str]) -> Path:
    """Write report.html into the table's folder; returns its path. ``states``: by cell name."""
    first = [scores(table), progress(table.plan, cells, states), published_section(table), tradeoff(table)]
    return _write_page(table.plan.folder / "report.html", table.published.name, [table], first)


def write_curve_report(curve: Curve, cells: Sequence[Cell], states: dict[str, str]) -> Path:
    """Write the report of a curve, named after it; returns its path."""
    plan = curve.tables[0].plan
    first = [curve_section(curve), progress(plan, cells, states)]
    return _write_page(plan.folder / f"{curve.file_name}.html", curve.title, curve.tables, first)


def _write_page(path: Path, title: str, tables: Sequence[PaperTable], first: list[Section]) -> Path:
    write_atomically(path, render(title, ABOUT.format(tables[0].published.paper), [*first, runs(tables), settings(tables)]))
    return path
