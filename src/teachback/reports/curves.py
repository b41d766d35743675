"""Learning curves for domains with few or no data: scores by share of train rows, as tables and plots."""

from collections.abc import Sequence
from pathlib import Path

from teachback.core.files import write_atomically
from teachback.core.markdown import escape_markdown
from teachback.core.pictures import save_png
from teachback.reports.figures import Series
from teachback.reports.paper_table import BOOTSTRAP, Entry, PaperTable
from teachback.reports.parts import shorten
from teachback.reports.plan import WHOLE, Setting
from teachback.reports.published import Published
from teachback.reports.recipes import TableRow
from teachback.reports.table_formats import (
    Line,
    Text,
    compared,
    markdown_table,
    ours,
    plain_table,
    published,
    seeds,
    tabular,
    tsv,
)


def published_in(about: Published, setting: Setting) -> Published:
    """Published scores for a setting."""
    if setting.fraction != WHOLE:
        return about.nothing()
    return about.without(setting.target) if setting.hold_out else about


class Curve:
    """Tables of a target domain, one for each share of its train rows."""

    def __init__(self, tables: Sequence[PaperTable]):
        self.tables = tables
        self.setting = tables[0].plan.setting
        self.columns = [(table, column) for table in tables for column in table.columns]
        self.rows: list[TableRow] = [row for row in tables[0].plan.rows if any(row in table.rows for table in tables)]

    @property
    def title(self) -> str:
        name, target = self.tables[0].published.name, self.setting.target
        return f"{name}, {target} " + ("held out of the teacher" if self.setting.hold_out else "with few data")

    @property
    def file_name(self) -> str:
        return f"{'held-out' if self.setting.hold_out else 'few-data'}-{self.setting.target}"

    @property
    def shares(self) -> list[float]:
        """Share of the target's train rows in %, by column."""
        return [100 * float(table.plan.setting.fraction) for table, _ in self.columns]

    def entries(self, row: TableRow) -> list[Entry]:
        return [table.entries.get((row.name, column), Entry()) for table, column in self.columns]

    def header(self) -> list[str]:
        return [self.title, *(f"{table.plan.setting.name} of train" for table, _ in self.columns), "seeds"]

    def lines(self) -> list[Line]:
        """Table lines: our scores, published ones if any, and the difference to the reference row."""
        lines = []
        for row in self.rows:
            entries, wanted = self.entries(row), len(self.tables[0].plan.seeds)
            lines.append(
                Line((Text(row.title), *(Text(ours(entry)) for entry in entries), Text(seeds(entries, wanted))))
            )
            if any(entry.published is not None for entry in entries):
                paper_cells = [Text(published(entry, False)) for entry in entries]
                lines.append(Line((Text("   published"), *paper_cells, Text(""))))
            tests = [table.compare(row, column) if row in table.rows else None for table, column in self.columns]
            if first := next(filter(None, tests), None):
                cells = [Text(compared(test)) for test in tests]
                lines.append(Line((Text(f"   to {first.other.title}"), *cells, Text(""))))
        return lines

    def notes(self) -> str:
        target, numbers = self.setting.target, self.tables[0].plan.seeds
        over = "mean ± standard deviation over seeds" if len(numbers) > 1 else "of seed"
        sees = f"Teachers and students see the share of {target}'s train rows, and all rows of other domains."
        if self.setting.hold_out:
            sees = f"No teacher has seen a row of {target}; the student sees the share of its train rows."
        return (
            f"Test scores in %, {over} {', '.join(map(str, numbers))}. {sees} Prototype scores are "
            f"of what is seen. Differences are in points, with p ({BOOTSTRAP}) and in brackets p by Holm, adjusted for the tests of "
            f"one share. Published: {self.tables[0].published.paper}."
        )

    def markdown(self) -> str:
        return f"{markdown_table(self.header(), self.lines(), 1)}\n\n{escape_markdown(self.notes())}\n"

    def plain(self) -> str:
        return f"{plain_table(self.header(), self.lines(), 1)}\n\n{self.notes()}\n"

    def latex(self) -> str:
        return f"% {self.notes()}\n\n{tabular(self.header(), self.lines(), 1)}\n"

    def tsv(self) -> str:
        """TSV of all tables, with the share as first column."""
        parts = [(table.plan.setting.fraction, tsv(table).splitlines()) for table in self.tables]
        lines = [f"fraction\t{parts[0][1][0]}"]
        lines += [f"{fraction}\t{line}" for fraction, (_, *body) in parts for line in body]
        return "\n".join(lines) + "\n"

    @property
    def scored(self) -> list[TableRow]:
        """Rows with a score at any share."""
        return [row for row in self.rows if any(entry.n for entry in self.entries(row))]

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

    def save(self, path: Path) -> None:
        """Write the plot as PNG."""
        save_png(self.plot, path, self.title, (7, 4.5))


def write_curve(curve: Curve, folder: Path) -> None:
    """Write the curve as Markdown, TSV, LaTeX and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in (("md", curve.markdown()), ("tsv", curve.tsv()), ("tex", curve.latex())):
        write_atomically(folder / f"{curve.file_name}.{ending}", text)
    curve.save(folder / f"{curve.file_name}.png")
