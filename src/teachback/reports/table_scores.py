"""First sections of a published table's report: our scores, the published ones, and paired tests."""

from collections.abc import Sequence
from dataclasses import replace
from textwrap import wrap

from markupsafe import Markup

from teachback.core.numerals import decimal
from teachback.reports.curves import Curve
from teachback.reports.figures import legend, picture, series_of
from teachback.reports.paper_table import Entry, PaperTable
from teachback.reports.parts import Figure, Section, Table, counted, shorten
from teachback.reports.published import Column
from teachback.reports.recipes import TableRow
from teachback.reports.table_formats import Line, comparison_lines, comparisons, header, notes, score_lines

FIGURES = 6  # maximum number of figures
NO_BREAK = "\u00a0"
AVERAGE_OF = "the average over domains"
TITLE_WIDTH = 22  # maximum characters per line of a row's title in a figure
ONE_LINE, TWO_LINES = 0.27, 0.38  # height of a figure's row in inches, by lines of its title


def scores(table: PaperTable) -> Section:
    """Section with the table of scores and the paired tests."""
    found = comparisons(table)
    tables = [_as_table("Scores", [*header(table, "row"), "seeds"], score_lines(table))]
    if found:
        lines = comparison_lines(table, found)
        tables.append(_as_table("Difference in points, p, and in brackets p by Holm", header(table, "row", "to"), lines, words=(0, 1)))
    return Section("table", "The table", intro=_summary(table), tables=tables, notes=notes(table, found))


def beside_published(table: PaperTable) -> Section:
    """Section with figures of our and the published scores."""
    section = Section("published", "Ours and the published")
    figures = [_figure(table, column) for column in shown_columns(table) if _scored(table, column)]
    if not figures:
        return replace(section, missing="No cell of the table has a score yet.")
    return replace(section, legend=_legend(), figures=figures, notes=left_out(table))


def shown_columns(table: PaperTable) -> list[Column]:
    """Columns with figures: the average, or the first columns if no average exists or no student has one yet."""
    average = [column for column in table.columns if column.is_average]
    students = {column: any(row.is_student for row in _scored(table, column)) for column in table.columns}
    if average and (students[average[0]] or not any(students.values())):
        return average
    return [column for column in table.columns if not column.is_average][:FIGURES]


def left_out(table: PaperTable) -> list[str]:
    """Note on columns without a figure."""
    shown, every = shown_columns(table), [column for column in table.columns if not column.is_average]
    several = len(shown) < len(every) and not shown[0].is_average
    return [f"The first {len(shown)} of {len(every)} columns are drawn; the table has them all."] if several else []


def named(column: Column) -> str:
    return AVERAGE_OF if column.is_average else column.name


def best_of(table: PaperTable, column: Column, student: bool) -> TableRow | None:
    """Student, or teacher, with the highest mean."""
    rows = [row for row in _scored(table, column) if row.is_student == student]
    return max(rows, key=lambda row: table.entry(row, column).mean or 0.0, default=None)


def mean_text(table: PaperTable, row: TableRow, column: Column) -> str:
    """Mean of a row in %, a dash if it has none."""
    mean = table.entry(row, column).mean
    return "–" if mean is None else decimal(mean, 1)


def _scored(table: PaperTable, column: Column) -> list[TableRow]:
    return [row for row in table.rows if table.entry(row, column).n]


def _summary(table: PaperTable) -> str:
    """Sentence on the best student."""
    columns = shown_columns(table)
    column = next((column for column in columns if best_of(table, column, True)), columns[0])
    best, teacher = best_of(table, column, True), best_of(table, column, False)
    if best is None:
        return "No student has a score yet."
    text = f"On {named(column)} the best student is {best.title} with {mean_text(table, best, column)} %"
    if teacher:
        text += f"; the best teacher, {teacher.title}, has {mean_text(table, teacher, column)} %"
    return f"{text}. Means over {counted(table.entry(best, column).n, 'seed')}."


def _as_table(caption: str, names: Sequence[str], lines: Sequence[Line], words: Sequence[int] = (0,)) -> Table:
    return Table(caption, names, [[_cell(cell.text, cell.bold) for cell in line.cells] for line in lines], words)


def _cell(text: str, bold: bool) -> str:
    """Text of a cell, bold for the best; leading spaces become non-breaking."""
    indented = 2 * NO_BREAK * text.startswith(" ") + text.strip()
    return Markup("<strong>{}</strong>").format(indented) if bold else indented


def _legend() -> list[tuple[Markup, str]]:
    return legend(dict(zip(("ours: mean, and standard deviation between seeds", "published"), _looks())), line=False)


def _looks() -> list:
    return list(series_of(["ours", "published"]).values())


def _figure(table: PaperTable, column: Column) -> Figure:
    """Dot plot of the rows: our mean with its deviation, and the published score."""
    rows = _scored(table, column)
    entries = [table.entry(row, column) for row in rows]
    titles = ["\n".join(wrap(shorten(row.title, 2 * TITLE_WIDTH), TITLE_WIDTH, break_on_hyphens=False)) for row in rows]
    height = TWO_LINES if any("\n" in title for title in titles) else ONE_LINE
    ours, theirs = _looks()

    def plot(axes):
        places = list(range(len(rows)))
        axes.errorbar([e.mean for e in entries], places, xerr=[e.std or 0 for e in entries], color=ours.colour,
                      marker=ours.marker, linestyle="", markersize=6, capsize=3)  # fmt: skip
        paper_points = [(e.published, place) for e, place in zip(entries, places) if e.published is not None]
        if paper_points:
            axes.plot(
                *zip(*paper_points), color=theirs.colour, marker=theirs.marker, linestyle="", markersize=6, fillstyle="none"
            )
        axes.set(xlabel=f"{column.metric} (%)", ylabel="row")
        axes.set_yticks(places, titles)
        axes.invert_yaxis()
        axes.margins(x=0.08)

    reading = _reading(entries, rows)
    kind = "Dot plot of each row's score, ours and the published"
    return picture(f"Scores: {named(column)}", plot, kind, reading, 1.0 + height * len(rows))


def _reading(entries: list[Entry], rows: list[TableRow]) -> str:
    """Sentence on the differences between our and the published scores."""
    apart = {row.title: entry.difference for row, entry in zip(rows, entries) if entry.difference is not None}
    if not apart:
        return "The paper has no such score of these rows."
    least, most = min(apart, key=apart.__getitem__), max(apart, key=apart.__getitem__)
    if least == most:
        return f"{least}: ours minus the published is {decimal(apart[least], 1)} points."
    return (
        f"Ours minus the published runs from {decimal(apart[least], 1)} points ({least}) to "
        f"{decimal(apart[most], 1)} points ({most})."
    )


def curve_section(curve: Curve) -> Section:
    """Section with the scores by share of a domain's train rows, as a plot and a table."""
    rows = curve.scored
    tables = [_as_table("Scores by share of the train rows", ["row", *curve.header()[1:]], curve.lines())]
    section = Section("table", "The curve", tables=tables, notes=[curve.notes()])
    if not rows:
        return replace(section, intro="No row has a score yet.")
    styles, reading = series_of([row.title for row in rows]), _curve_reading(curve, rows)
    figure = picture(
        "Score by share of the rows", lambda axes: curve.plot(axes, styles), "Line chart of score over data", reading, 3.3
    )
    return replace(section, legend=legend(styles), figures=[figure])


def _curve_reading(curve: Curve, rows: list[TableRow]) -> str:
    """Sentence on the best row at the smallest share with scores."""
    for place, share in enumerate(curve.shares):
        entries = {row.title: curve.entries(row)[place] for row in rows}
        means = {title: entry.mean for title, entry in entries.items() if entry.mean is not None}
        if means:
            best = max(means, key=means.__getitem__)
            return f"With {share:g} % of the rows {best} is best, with {decimal(means[best], 1)} %."
    return ""
