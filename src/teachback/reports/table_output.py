"""Output of a table or a curve: on the screen, in every format, and with its report."""

from pathlib import Path

from teachback.core.files import write_atomically
from teachback.reports.cells import Cell
from teachback.reports.curves import Curve, published_in, write_curve
from teachback.reports.paper_table import PaperTable
from teachback.reports.plan import Plan
from teachback.reports.published import Published
from teachback.reports.table_formats import latex, markdown, plain, tsv
from teachback.reports.table_page import write_curve_report, write_table_report


def show_results(plans: list[Plan], about: Published, cells: dict[str, Cell], states: dict[str, str]) -> None:
    """Print and write the table, or for HOLD_OUT and TRAIN_FRACTION a curve per target domain, with reports."""
    folder = plans[0].folder
    if not plans[0].setting.target:
        table = PaperTable(plans[0], about, states)
        show_table(table, folder)
        print(f"wrote {write_table_report(table, list(cells.values()), states)}")
        return
    for target in dict.fromkeys(plan.setting.target for plan in plans):
        chosen = [plan for plan in plans if plan.setting.target == target]
        curve = Curve([PaperTable(plan, published_in(about, plan.setting), states) for plan in chosen])
        write_curve(curve, folder)
        print(f"\n{curve.plain()}\nwrote {folder}/{curve.file_name}.md, .tsv, .tex and .png")
        names = {cell.name for plan in chosen for cell in plan.cells(with_data=False)}
        print(f"wrote {write_curve_report(curve, [cell for name, cell in cells.items() if name in names], states)}")


def show_table(table: PaperTable, folder: Path) -> None:
    """Print the table and write it in every format."""
    for name, text in (("table.md", markdown(table)), ("table.tsv", tsv(table)), ("table.tex", latex(table))):
        write_atomically(folder / name, text)
    print(f"\n{plain(table)}\nwrote {folder}/table.md, table.tsv and table.tex")
