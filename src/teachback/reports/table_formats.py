"""Formats of a paper's table: Markdown, LaTeX (booktabs), TSV and plain text, with text escaped for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from teachback.core.markdown import escape_markdown, padded_table
from teachback.core.numerals import MINUS, decimal, signed
from teachback.core.tsv import as_tsv
from teachback.inference.results import format_table
from teachback.reports.cells import CHANGED
from teachback.reports.paper_settings import other_settings
from teachback.reports.paper_table import BOOTSTRAP, Comparison, Entry, PaperTable
from teachback.reports.parts import counted
from teachback.reports.published import Column
from teachback.reports.recipes import TableRow

NOTHING, MARK = "–", "*"
SMALLEST = 0.001  # smallest p that is written as a number
BEST, PLAIN_BEST = "Best student in bold.", "Best student in > <."


class Bold(str):
    """A cell to emphasise."""


@dataclass(frozen=True)
class Grid:
    """A table before escaping. The first ``texts`` columns are texts; ``groups``: numbers of lines that start a group."""

    header: list[str]
    lines: list[list[str]]
    texts: int = 1
    groups: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Document:
    """Tables and notes, a sentence each. ``name``: first cell of the first header, which the LaTeX format leaves out."""

    grids: list[Grid]
    notes: list[str]
    name: str = ""


def _ours(entry: Entry) -> str:
    """Format mean ± standard deviation over seeds, in %."""
    if entry.mean is None:
        return NOTHING
    spread = "" if entry.std is None else f" ± {entry.std:.1f}"
    return f"{entry.mean:.1f}{spread}{MARK * entry.selected}"


def _published(entry: Entry, selected: bool) -> str:
    """Format the published score and the difference of ours to it."""
    if entry.published is None:
        return NOTHING
    difference = "" if entry.difference is None else f" ({signed(entry.difference)})"
    return f"{entry.published:.1f}{MARK * selected}{difference}"


def row_lines(title: str, entries: Sequence[Entry], best: Sequence[bool], seeds: int, selected: bool) -> list[list[str]]:
    """Lines of a row: our scores with the number of seeds, of all ``seeds``, and the published scores if there are any."""
    counts = sorted({entry.n for entry in entries})
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    cells = [Bold(_ours(entry)) if bold else _ours(entry) for entry, bold in zip(entries, best)]
    lines = [[title, *cells, span if counts == [seeds] else f"{span} of {seeds}"]]
    if any(entry.published is not None for entry in entries):
        lines.append(["   published", *(_published(entry, selected) for entry in entries), ""])
    return lines


def compared(one: Comparison | None) -> str:
    """Format the difference, p, and in brackets Holm's p."""
    if one is None:
        return NOTHING
    p, adjusted = (f"< {SMALLEST}" if p < SMALLEST else f"{p:.3f}" if p < 0.1 else f"{p:.2f}" for p in one.test[:2])
    return f"{signed(one.difference)}, p {'' if one.test.p < SMALLEST else '= '}{p} ({adjusted})"


def document(table: PaperTable) -> Document:
    """Scores, paired tests if there are any, and notes."""
    columns, seeds = [column.name for column in table.columns], len(table.plan.seeds)
    grids = [Grid([table.published.name, *columns, "seeds"], [])]
    for before, row in zip([None, *table.rows], table.rows):
        if before and before.is_student != row.is_student:
            grids[0].groups.add(len(grids[0].lines))
        entries, best = [table.entry(row, column) for column in table.columns], [table.is_best(row, column) for column in table.columns]
        grids[0].lines.extend(row_lines(row.title, entries, best, seeds, table.published.selected_on_reported))
    tests = []
    for row in table.rows:
        found = [table.compare(row, column) for column in table.columns]
        if others := [one.other.title for one in found if one]:
            tests.append([row.title, others[0], *map(compared, found)])
    if tests:
        grids.append(Grid(["difference in points", "compared with", *columns], tests, 2))
    return Document(grids, notes(table))


def notes(table: PaperTable) -> list[str]:
    """Explanations of the numbers, a sentence each."""
    about, wanted = table.published, len(table.plan.seeds)
    over = f"{wanted} seed{'s' if wanted != 1 else ''} ({', '.join(map(str, table.plan.seeds))})"
    lines = [
        f"Test scores in %, accuracy where no metric is named: mean ± standard deviation over {over}; below it the "
        f"published score, with ours minus it in brackets. {BEST}",
        f"Published: {about.paper}; {about.models}. {about.source}",
    ]
    sizes = {who: " or ".join(table.sizes(student)) for who, student in (("teachers", False), ("students", True))}
    if models := [f"{who}: {size}" for who, size in sizes.items() if size]:
        lines.append(f"Ours: SUITE={table.plan.suite}; {'; '.join(models)}.")
    if settings := other_settings(table):
        lines.append(settings)
    floors = {column.name: table.baseline(column) for column in table.columns}
    if known := [f"{name} {value:.1f}" for name, value in floors.items() if value is not None]:
        lines.append(f"Chance or the majority class, whichever scores higher: {', '.join(known)}.")
    if about.selected_on_reported or any(entry.selected for entry in table.entries.values()):
        lines.append(f"{MARK} optimistic: the checkpoint was selected on the reported rows.")
    for column in table.columns:
        seen, count, means = table.without_seen(column)
        if means:
            scores = ", ".join(f"{title} {decimal(mean, 1)}" for title, mean in means.items())
            lines.append(f"{column.name}: {seen} of {count} test rows have the same texts as train or quiz rows; without them: {scores}.")
    for one in [*table.comparisons.values()][:1]:
        lines.append(
            f"p: {BOOTSTRAP}; it covers the choice of test rows, for the given models. In brackets: Holm's p, adjusted for the "
            f"{one.test.tests} tests of the table; use it unless a single comparison was planned beforehand."
        )
    if count := sum(state == CHANGED for state in table.states.values()):
        were = "was" if count == 1 else "were"
        lines.append(f"{counted(count, 'cell')} {were} made with other settings or data; --dry_run --list_cells shows the state of each.")
    return lines


def plain(shown: Document) -> str:
    """Format as plain text, the best between > and < in place of bold."""
    grids = [format_table(grid.header, _styled(grid.lines, str, ">{}<"), grid.texts) for grid in shown.grids]
    return "\n\n".join([*grids, *(note.replace(BEST, PLAIN_BEST) for note in shown.notes)]) + "\n"


def markdown(shown: Document) -> str:
    """Format as Markdown with padded cells, the best in bold."""
    grids = [padded_table(_styled([grid.header, *grid.lines], escape_markdown, "**{}**"), grid.texts) for grid in shown.grids]
    return "\n\n".join([*grids, *map(escape_markdown, shown.notes)]) + "\n"


def _styled(lines: Sequence[Sequence[str]], escape: Callable[[str], str], bold: str) -> list[list[str]]:
    return [[bold.format(escape(cell)) if isinstance(cell, Bold) else escape(cell) for cell in line] for line in lines]


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "→": r"$\rightarrow$", "λ": r"$\lambda$", MINUS: "$-$", NOTHING: "--", MARK: r"$^{*}$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape text for LaTeX; leading spaces become an indent."""
    stripped = text.lstrip(" ")
    return r"\quad " * (stripped != text) + "".join(LATEX.get(character, character) for character in stripped)


def latex(shown: Document) -> str:
    """Format each table as a tabular with booktabs rules; the notes are comments."""
    parts = ["\n".join(f"% {line}" for line in shown.notes)]
    for number, grid in enumerate(shown.grids):
        names = [grid.header[0] if number else shown.name, *grid.header[1:]]
        head, *lines = (" & ".join(cells) + r" \\" for cells in _styled([names, *grid.lines], escape_latex, r"\textbf{{{}}}"))
        body = [text for place, line in enumerate(lines) for text in ([r"\midrule"] if place in grid.groups else []) + [line]]
        columns = "l" * grid.texts + "r" * (len(names) - grid.texts)
        parts.append("\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


TSV_COLUMNS = (
    "table", "row", "title", "column", "metric", "mean", "std", "n", "seeds", "published", "difference", "selected", "best",
    "compared_with", "compared_difference", "p", "p_holm", "test",
)  # fmt: skip


def tsv(table: PaperTable) -> str:
    """Format as TSV with a line per row and column, scores in %; seeds as seed=score."""
    lines = [_tsv_line(table, row, column) for row in table.rows for column in table.columns]
    return as_tsv(TSV_COLUMNS, (map(escape_tsv, line) for line in lines))


def _tsv_line(table: PaperTable, row: TableRow, column: Column) -> list[str]:
    entry, one = table.entry(row, column), table.compare(row, column)
    test = [one.other.name, _number(one.difference), f"{one.test.p:.6g}", f"{one.test.adjusted:.6g}", BOOTSTRAP] if one else [""] * 5
    return [
        table.published.name, row.name, row.title, column.domain, column.metric, _number(entry.mean), _number(entry.std),
        str(entry.n), " ".join(f"{seed}={100 * value:.4f}" for seed, value in entry.scores.items()),
        _number(entry.published, 1), _number(entry.difference), str(int(entry.selected)), str(int(table.is_best(row, column))),
        *test,
    ]  # fmt: skip


def escape_tsv(text: str) -> str:
    """Replace whitespace of a field, such as tabs and line breaks, by single spaces."""
    return " ".join(text.split())


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
