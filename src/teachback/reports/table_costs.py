"""Report section of a published table with score against size and speed, averaged over each row's runs."""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from teachback.core.numerals import decimal
from teachback.inference.measured import Cost, read_rows
from teachback.inference.results import model_name
from teachback.reports.figures import TRADEOFF, Point, kinds_legend, tradeoff_figure
from teachback.reports.paper_table import PaperTable
from teachback.reports.parts import Figure, Section, Table, millions
from teachback.reports.published import Column
from teachback.reports.recipes import TableRow
from teachback.reports.table_scores import best_of, left_out, mean_text, shown_columns


@dataclass(frozen=True)
class RowCost:
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
    drawn = [_figure(table, column, costs) for column in shown_columns(table)]
    kinds = {model_name(row.checkpoint) for row in table.rows if row.name in costs}
    notes = [
        f"ms: forward pass an example on {machine}, mean over the row's runs. MB: the checkpoint's file. "
        "Times that were taken while other cells ran (JOBS above 1) say little."
    ]
    if len(machines) > 1:
        notes.append(f"Runs on {len(machines) - 1} other machines or number formats are left out of the times.")
    return replace(
        TRADEOFF, legend=kinds_legend(kinds), figures=[figure for figure in drawn if figure],
        tables=[_table(table, costs)], notes=left_out(table) + notes,
    )  # fmt: skip


def _costs_of(table: PaperTable, row: TableRow) -> list[Cost]:
    """Costs of a row's finished checkpoints, for all domains and seeds."""
    runs: dict[Path, set[str]] = defaultdict(set)
    for run, stage in table.checkpoints(row):
        runs[run].add(stage)
    return [cost for run, stages in runs.items() for cost in read_rows(run / "costs.tsv", Cost) if cost.stage in stages]


def _mean(costs: list[Cost]) -> RowCost:
    sizes = sorted({cost.batch_size for cost in costs})
    milliseconds = {size: fmean(cost.milliseconds for cost in costs if cost.batch_size == size) for size in sizes}
    return RowCost(fmean(cost.parameters for cost in costs), fmean(cost.bytes for cost in costs), milliseconds)


def _table(table: PaperTable, costs: dict[str, RowCost]) -> Table:
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


def _figure(table: PaperTable, column: Column, costs: dict[str, RowCost]) -> Figure | None:
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
        f"{title} ({decimal(point.score, 1)} %) takes {point.milliseconds:.2f} ms an example with {millions(point.parameters)} parameters"
        for title, point in best
    ]
    who = "the best student, " if len(best) == 2 else ""
    reading = f"Of {column.title}: {who}{', the best teacher, '.join(described) or 'the best rows were not timed'}."
    joined = [point for _, point in best]
    return tradeoff_figure(f"Rows: {column.title}", list(points.values()), joined, column.metric, size, reading)
