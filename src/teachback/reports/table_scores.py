"""Sections of a published table's report on its scores: beside the published ones, with paired tests, against size and speed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from textwrap import wrap
from typing import NamedTuple

from markupsafe import Markup

from teachback.core.numerals import decimal
from teachback.inference.measured import Cost, read_rows
from teachback.inference.results import model_name
from teachback.reports.curves import Curve
from teachback.reports.figures import TRADEOFF, Point, kinds_legend, legend, picture, series_of, tradeoff_figure
from teachback.reports.paper_table import PaperTable
from teachback.reports.parts import Figure, Section, Table, counted, millions, shorten
from teachback.reports.published import Column
from teachback.reports.recipes import TableRow
from teachback.reports.table_formats import Bold, Grid, document

FIGURES = 6  # maximum number of figures
NO_BREAK = "\u00a0"
TITLE_WIDTH = 22  # maximum characters per line of a row's title in a figure
ONE_LINE, TWO_LINES = 0.27, 0.38  # height of a figure's row in inches, by lines of its title
OURS = series_of(["ours: mean, and standard deviation between seeds", "published"])


def scores(table: PaperTable) -> Section:
    """Section with the table of scores and the paired tests."""
    shown = document(table)
    names = (("Scores", ["row"]), ("Difference in points, p, and in brackets Holm's p", ["row", "compared with"]))
    tables = [_as_table(caption, first, grid) for (caption, first), grid in zip(names, shown.grids)]
    return Section("table", "Table", intro=_summary(table), tables=tables, notes=shown.notes)


def published_section(table: PaperTable) -> Section:
    """Section with figures of our and the published scores."""
    section = Section("published", "Our scores and the published ones")
    figures = [_figure(table, column) for column in shown_columns(table) if _scored(table, column)]
    if not figures:
        return replace(section, missing="No cell of the table has a score yet.")
    return replace(section, legend=legend(OURS, line=False), figures=figures, notes=left_out(table))


def shown_columns(table: PaperTable) -> list[Column]:
    """Columns with figures: the average, or the first columns if no average exists or no student has one yet."""
    average = [column for column in table.columns if column.is_average]
    students = {column: any(row.is_student for row in _scored(table, column)) for column in table.columns}
    if average and (students[average[0]] or not any(students.values())):
        return average
    return table.domains[:FIGURES]


def left_out(table: PaperTable) -> list[str]:
    """Note on columns without a figure."""
    shown, every = shown_columns(table), table.domains
    several = len(shown) < len(every) and not shown[0].is_average
    return [f"Figures show the first {len(shown)} of {len(every)} columns; the table has all of them."] if several else []


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
    best = [(column, row) for column in shown_columns(table) if (row := best_of(table, column, True))]
    if not best:
        return "No student has a score yet."
    (column, row), *_ = best
    text = f"On {column.title} the best student is {row.title} with {mean_text(table, row, column)} %"
    if teacher := best_of(table, column, False):
        text += f"; the best teacher, {teacher.title}, has {mean_text(table, teacher, column)} %"
    return f"{text}. Means over {counted(table.entry(row, column).n, 'seed')}."


def _as_table(caption: str, first: list[str], grid: Grid) -> Table:
    """Table of a page, with ``first`` as names of the first columns; leading spaces of a cell become non-breaking."""
    lines = [[2 * NO_BREAK * cell.startswith(" ") + cell.strip() for cell in line] for line in grid.lines]
    bold = Markup("<strong>{}</strong>")
    rows = [[bold.format(text) if isinstance(cell, Bold) else text for cell, text in zip(*both)] for both in zip(grid.lines, lines)]
    return Table(caption, [*first, *grid.header[len(first) :]], rows, range(grid.texts))


def _figure(table: PaperTable, column: Column) -> Figure:
    """Dot plot of the rows: our mean with its deviation, and the published score."""
    rows = _scored(table, column)
    entries = [table.entry(row, column) for row in rows]
    titles = ["\n".join(wrap(shorten(row.title, 2 * TITLE_WIDTH), TITLE_WIDTH, break_on_hyphens=False)) for row in rows]
    height = TWO_LINES if any("\n" in title for title in titles) else ONE_LINE
    ours, theirs = (series.look | {"linestyle": "", "markersize": 6} for series in OURS.values())

    def plot(axes):
        places = list(range(len(rows)))
        axes.errorbar([e.mean for e in entries], places, xerr=[e.std or 0 for e in entries], capsize=3, **ours)
        if paper_points := [(e.published, place) for e, place in zip(entries, places) if e.published is not None]:
            axes.plot(*zip(*paper_points), fillstyle="none", **theirs)
        axes.set(xlabel=f"{column.metric} (%)", ylabel="row")
        axes.set_yticks(places, titles)
        axes.invert_yaxis()
        axes.margins(x=0.08)

    apart = {row.title: entry.difference for row, entry in zip(rows, entries) if entry.difference is not None}
    reading = "The paper does not report this score for these rows."
    if apart:
        least, most = min(apart, key=apart.__getitem__), max(apart, key=apart.__getitem__)
        reading = f"{least}: our score minus the published one is {decimal(apart[least], 1)} points."
        if least != most:
            ends = [f"{decimal(apart[title], 1)} points ({title})" for title in (least, most)]
            reading = f"Our score minus the published one ranges from {' to '.join(ends)}."
    kind = "Dot plot of each row's score, ours and the published"
    return picture(f"Scores: {column.title}", plot, kind, reading, 1.0 + height * len(rows))


def curve_section(curve: Curve) -> Section:
    """Section with the scores by share of a domain's train rows, as a plot and a table."""
    shown = curve.document()
    tables = [_as_table("Scores by share of the train rows", ["row"], shown.grids[0])]
    section = Section("table", "Curve", tables=tables, notes=shown.notes)
    if not curve.scored:
        return replace(section, intro="No row has a score yet.")
    styles, reading = series_of([row.title for row in curve.scored]), _curve_reading(curve, curve.scored)
    kind = "Line chart of score over data"
    figure = picture("Score by share of the rows", lambda axes: curve.plot(axes, styles), kind, reading, 3.3)
    return replace(section, legend=legend(styles), figures=[figure])


def _curve_reading(curve: Curve, rows: Sequence[TableRow]) -> str:
    """Sentence on the best row at the smallest share with scores."""
    for place, share in enumerate(curve.shares):
        entries = {row.title: curve.entries(row)[place] for row in rows}
        means = {title: entry.mean for title, entry in entries.items() if entry.mean is not None}
        if means:
            best = max(means, key=means.__getitem__)
            return f"With {share:g} % of the rows {best} is best, with {decimal(means[best], 1)} %."
    return ""


class RowCost(NamedTuple):
    """Mean costs over a row's checkpoints; ``milliseconds``: per example, by batch size."""

    parameters: float
    bytes: float
    milliseconds: dict[int, float]


def tradeoff(table: PaperTable) -> Section:
    """Section with a figure of the average or of the first columns, and a table of every row."""
    measured = {row.name: _costs_of(table, row) for row in table.rows}
    machines = Counter(cost.machine for costs in measured.values() for cost in costs)
    if not machines:
        return replace(TRADEOFF, missing="No sizes and times are known: stage 7 writes costs.tsv in each row's runs.")
    machine = machines.most_common(1)[0][0]
    of_machine = {name: [cost for cost in own if cost.machine == machine] for name, own in measured.items()}
    costs = {name: _mean(own) for name, own in of_machine.items() if own}
    drawn = [_tradeoff_figure(table, column, costs) for column in shown_columns(table)]
    kinds = {model_name(row.checkpoint) for row in table.rows if row.name in costs}
    notes = [
        f"ms: time of a forward pass per example on {machine}, mean over the row's runs. MB: size of the checkpoint's files. "
        "Times measured while other cells ran (JOBS above 1) are unreliable."
    ]
    if len(machines) > 1:
        notes.append(f"Times from {len(machines) - 1} other machines or number formats are left out.")
    return replace(
        TRADEOFF, legend=kinds_legend(kinds), figures=[figure for figure in drawn if figure],
        tables=[_cost_table(table, costs)], notes=left_out(table) + notes,
    )  # fmt: skip


def _costs_of(table: PaperTable, row: TableRow) -> list[Cost]:
    """Costs of a row's finished checkpoints, for all domains and seeds."""
    places = table.checkpoints(row)
    runs = dict.fromkeys(run for run, _ in places)
    return [cost for run in runs for cost in read_rows(run / "costs.tsv", Cost) if (run, cost.stage) in places]


def _mean(costs: list[Cost]) -> RowCost:
    sizes = sorted({cost.batch_size for cost in costs})
    milliseconds = {size: fmean(cost.milliseconds for cost in costs if cost.batch_size == size) for size in sizes}
    return RowCost(fmean(cost.parameters for cost in costs), fmean(cost.bytes for cost in costs), milliseconds)


def _cost_table(table: PaperTable, costs: dict[str, RowCost]) -> Table:
    sizes, columns = sorted({size for cost in costs.values() for size in cost.milliseconds}), shown_columns(table)
    header = ["row", *(f"{column.name} %" for column in columns), "parameters", "MB", *(f"ms, batch {n}" for n in sizes)]
    rows = [
        [
            row.title, *(mean_text(table, row, column) for column in columns), millions(cost.parameters), f"{cost.bytes / 1e6:.1f}",
            *(f"{cost.milliseconds[n]:.2f}" if n in cost.milliseconds else "–" for n in sizes),
        ]
        for row in table.rows if (cost := costs.get(row.name))
    ]  # fmt: skip
    return Table("Score, size and time of each row", header, rows)


def _tradeoff_figure(table: PaperTable, column: Column, costs: dict[str, RowCost]) -> Figure | None:
    """Figure of the rows with a score in the column, at the batch size that most were timed with (the largest on ties).

    Its text compares the best student with the best teacher.
    """
    means = [(row, mean) for row in table.rows if row.name in costs and (mean := table.entry(row, column).mean) is not None]
    sizes = Counter(size for row, _ in means for size in costs[row.name].milliseconds)
    if not sizes:
        return None
    size, points = max(sizes, key=lambda n: (sizes[n], n)), {}
    for row, mean in means:
        if (cost := costs[row.name]) and size in cost.milliseconds:
            points[row.name] = Point(model_name(row.checkpoint), mean, cost.parameters, cost.milliseconds[size])
    found = (best_of(table, column, student) for student in (True, False))
    best = [(row.title, points[row.name]) for row in found if row and row.name in points]
    described = [
        f"{title} ({decimal(point.score, 1)} %) takes {point.milliseconds:.2f} ms per example with {millions(point.parameters)} parameters"
        for title, point in best
    ]
    who = "the best student, " if len(best) == 2 else ""
    reading = f"{column.title[0].upper()}{column.title[1:]}: {who}{', the best teacher, '.join(described) or 'the best rows were not timed'}."
    joined = [point for _, point in best]
    return tradeoff_figure(f"Rows: {column.title}", list(points.values()), joined, column.metric, size, reading)
