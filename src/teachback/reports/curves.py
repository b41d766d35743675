"""Learning curves for domains with few or no data: scores by share of train rows, as tables and plots."""

from collections.abc import Sequence
from dataclasses import replace

from teachback.reports.figures import Series
from teachback.reports.paper_table import BOOTSTRAP, Entry, PaperTable
from teachback.reports.parts import shorten
from teachback.reports.plan import WHOLE, Setting
from teachback.reports.published import Column, Published
from teachback.reports.recipes import TableRow
from teachback.reports.table_formats import Document, Grid, compared, row_lines, tsv


def published_in(about: Published, setting: Setting) -> Published:
    """Published scores for a setting; none for a share of the rows."""
    target, rows = Column(setting.target), about.rows
    if setting.hold_out:
        rows = {row: {target: score} for row, score in about.held_out.get(setting.target, {}).items()}
    return replace(about, rows=rows if setting.fraction == WHOLE else {})


class Curve:
    """Tables of a target domain, one for each share of its train rows."""

    def __init__(self, tables: Sequence[PaperTable]):
        self.tables = tables
        self.setting = tables[0].plan.setting
        self.columns = [(table, column) for table in tables for column in table.columns]
        self.rows: list[TableRow] = [row for row in tables[0].plan.rows if any(row in table.rows for table in tables)]
        held_out, target = self.setting.hold_out, self.setting.target
        self.title = f"{tables[0].published.name}, {target} " + ("held out of the teacher" if held_out else "with few data")
        self.file_name = f"{'held-out' if held_out else 'few-data'}-{target}"
        # Share of the target's train rows in %, by column.
        self.shares = [100 * float(table.plan.setting.fraction) for table, _ in self.columns]
        # Rows with a score at any share.
        self.scored = [row for row in self.rows if any(entry.n for entry in self.entries(row))]

    def entries(self, row: TableRow) -> list[Entry]:
        return [table.entries.get((row.name, column), Entry()) for table, column in self.columns]

    def document(self) -> Document:
        """Our scores, published ones if any, and the difference to the reference row; with notes."""
        numbers, lines = self.tables[0].plan.seeds, []
        for row in self.rows:
            entries = self.entries(row)
            lines += row_lines(row.title, entries, [False] * len(entries), len(numbers), selected=False)
            tests = [table.compare(row, column) if row in table.rows else None for table, column in self.columns]
            if others := [test.other.title for test in tests if test]:
                lines.append([f"   minus {others[0]}", *map(compared, tests), ""])
        over = "mean ± standard deviation over seeds" if len(numbers) > 1 else "of seed"
        sees = f"Teachers and students are trained on the given share of {self.setting.target}'s train rows and all rows of other domains."
        if self.setting.hold_out:
            sees = f"No teacher is trained on rows of {self.setting.target}; the student is trained on the given share of its train rows."
        note = (
            f"Test scores in %, {over} {', '.join(map(str, numbers))}. {sees} Prototype scores are "
            f"computed from these rows. Differences are in points, with p ({BOOTSTRAP}) and in brackets Holm's p, adjusted for the tests of "
            f"one share. Published: {self.tables[0].published.paper}."
        )
        header = [self.title, *(f"{table.plan.setting.name} of train" for table, _ in self.columns), "seeds"]
        return Document([Grid(header, lines)], [note], self.title)

    def tsv(self) -> str:
        """TSV of all tables, with the share as first column."""
        parts = [(table.plan.setting.fraction, tsv(table).splitlines(keepends=True)) for table in self.tables]
        return f"fraction\t{parts[0][1][0]}" + "".join(f"{fraction}\t{line}" for fraction, (_, *body) in parts for line in body)

    def plot(self, axes, styles: dict[str, Series] | None = None) -> None:
        """Plot score over share, a line per row, with the standard deviation over seeds.

        ``styles``: styles of the plotted rows, by title; None to plot all rows in matplotlib's default styles.
        """
        for row in self.scored if styles is None else self.scored[: len(styles)]:
            points = [(share, e.mean, e.std or 0) for share, e in zip(self.shares, self.entries(row)) if e.n]
            x, y, spread = zip(*points)
            style = {"marker": "o"} if styles is None else styles[row.title].look
            axes.errorbar(x, y, yerr=spread, capsize=3, label=row.title, **style)
        axes.set_xscale("log")
        axes.set_xticks(self.shares, [f"{share:g}" for share in self.shares])
        axes.minorticks_off()
        axes.set(xlabel=f"{shorten(self.setting.target)}'s train rows (%)", ylabel="test score (%)")
