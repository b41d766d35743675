"""Formats of a paper's table: Markdown, LaTeX (booktabs) and TSV, with text escaped for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from teachback.core.markdown import escape_markdown, padded_table
from teachback.core.numerals import MINUS, decimal, signed
from teachback.inference.results import format_table
from teachback.reports.paper_settings import other_settings
from teachback.reports.paper_table import BOOTSTRAP, Entry, PaperTable
from teachback.reports.published import Column
from teachback.reports.recipes import TableRow
from teachback.reports.table_tests import Comparison

NOTHING, MARK = "–", "*"
SMALLEST = 0.001  # smallest p that is written as a number


@dataclass(frozen=True)
class Text:
    """A table cell before escaping."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table; ``group``: whether it starts a new group of rows."""

    cells: tuple[Text, ...]
    group: bool = False


def ours(entry: Entry) -> str:
    """Format mean ± standard deviation over seeds, in %."""
    if entry.mean is None:
        return NOTHING
    spread = "" if entry.std is None else f" ± {entry.std:.1f}"
    return f"{entry.mean:.1f}{spread}" + (MARK if entry.selected else "")


def published(entry: Entry, selected: bool) -> str:
    """Format the published score and the difference of ours to it."""
    if entry.published is None:
        return NOTHING
    difference = "" if entry.difference is None else f" ({signed(entry.difference)})"
    return f"{entry.published:.1f}{MARK if selected else ''}{difference}"


def seeds(entries: Sequence[Entry], wanted: int) -> str:
    """Format the number of seeds of a row, and the requested number if some are missing."""
    counts = sorted({entry.n for entry in entries})
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return span if counts == [wanted] else f"{span} of {wanted}"


def score_lines(table: PaperTable) -> list[Line]:
    """Lines of each row: our scores, and the published ones if there are any."""
    lines, before = [], None
    for row in table.rows:
        entries = [table.entry(row, column) for column in table.columns]
        bold = [row.is_student and table.is_best(row, column) for column in table.columns]
        cells = [Text(ours(entry), best) for entry, best in zip(entries, bold)]
        group = before is not None and before != row.is_student
        lines.append(Line((Text(row.title), *cells, Text(seeds(entries, len(table.plan.seeds)))), group))
        if any(entry.published is not None for entry in entries):
            paper_cells = [Text(published(entry, table.published.selected_on_reported)) for entry in entries]
            lines.append(Line((Text("   published"), *paper_cells, Text(""))))
        before = row.is_student
    return lines


def comparisons(table: PaperTable) -> list[tuple[TableRow, dict[Column, Comparison]]]:
    """Rows with paired tests, and their comparisons by column."""
    compared_rows = [
        (row, {column: one for column in table.columns if (one := table.compare(row, column))}) for row in table.rows
    ]
    return [(row, by) for row, by in compared_rows if by]


def comparison_lines(table: PaperTable, compared_rows: Sequence[tuple[TableRow, dict[Column, Comparison]]]) -> list[Line]:
    return [
        Line((Text(row.title), Text(next(iter(by.values())).other.title),
              *(Text(compared(by.get(column))) for column in table.columns)))
        for row, by in compared_rows
    ]  # fmt: skip


def compared(one: Comparison | None) -> str:
    """Format the difference, p, and in brackets Holm's p."""
    if one is None:
        return NOTHING
    relation = "p " if one.p < SMALLEST else "p = "
    return f"{signed(one.difference)}, {relation}{p_value(one.p)} ({p_value(one.adjusted)})"


def p_value(p: float) -> str:
    return f"< {SMALLEST}" if p < SMALLEST else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def notes(table: PaperTable, compared_rows, best: str = "bold") -> list[str]:
    """Explanations of the numbers, a sentence each."""
    about, wanted = table.published, len(table.plan.seeds)
    over = f"{wanted} seed{'s' if wanted != 1 else ''} ({', '.join(map(str, table.plan.seeds))})"
    scores = (
        f"Test scores in %, accuracy where no metric is named: mean ± standard deviation over {over}; below it the "
        f"published score, and in brackets ours minus it. Best student in {best}."
    )
    lines = [scores, f"Published: {about.paper}; {about.models}. {about.source}"]
    if ours := our_models(table):
        lines.append(ours)
    if settings := other_settings(table):
        lines.append(settings)
    floors = {column.name: table.baseline(column) for column in table.columns}
    if known := [f"{name} {value:.1f}" for name, value in floors.items() if value is not None]:
        lines.append(f"Chance or the majority class, whichever scores higher: {', '.join(known)}.")
    if about.selected_on_reported or any(entry.selected for entry in table.entries.values()):
        lines.append(f"{MARK} optimistic: the checkpoint was selected on the very rows that are reported.")
    lines += seen_notes(table)
    if compared_rows:
        lines.append(
            f"p: {BOOTSTRAP}; it is about other test rows, with the models as they are. In brackets p by Holm, "
            f"adjusted for the {table.tests} tests of the table: the one to go by where no single comparison was meant beforehand."
        )
    if count := table.made_with_other_settings():
        lines.append(f"{count} cells were made with other settings or data than now; --dry_run --list_cells lists them as changed.")
    return lines


def seen_notes(table: PaperTable) -> list[str]:
    """Note for each column with test rows seen in training: their number, and every row's score without them."""
    lines = []
    for column in table.columns:
        seen, count, means = table.without_seen(column)
        if means:
            scores = ", ".join(f"{title} {decimal(mean, 1)}" for title, mean in means.items())
            lines.append(
                f"{column.name}: {seen} of {count} test rows have the very texts of train or quiz rows; without them: {scores}."
            )
    return lines


def our_models(table: PaperTable) -> str:
    """Sentence on the suite and the sizes of our models; "" without any checkpoint."""
    teachers, students = (" or ".join(table.sizes(student)) for student in (False, True))
    described = [f"{who}: {sizes}" for who, sizes in (("teachers", teachers), ("students", students)) if sizes]
    return f"Ours: SUITE={table.plan.suite}; {'; '.join(described)}." if described else ""


def header(table: PaperTable, *first: str) -> list[str]:
    return [*first, *(column.name for column in table.columns)]


def markdown(table: PaperTable) -> str:
    return _page(table, markdown_table, escape_markdown)


def plain(table: PaperTable) -> str:
    """Format the table as plain text."""
    return _page(table, plain_table, str, "> <")


def _page(table: PaperTable, form: Callable[..., str], escape: Callable[[str], str], best: str = "bold") -> str:
    """Format scores, paired tests and notes."""
    compared_rows = comparisons(table)
    parts = [form([*header(table, table.published.name), "seeds"], score_lines(table), 1)]
    if compared_rows:
        parts.append(form(header(table, "difference in points", "to"), comparison_lines(table, compared_rows), 2))
    return "\n\n".join([*parts, *map(escape, notes(table, compared_rows, best))]) + "\n"


def plain_table(names: Sequence[str], lines: Sequence[Line], texts: int) -> str:
    """Format a plain-text table, the best between > and < in place of bold."""
    return format_table(names, [[_styled(cell, str, ">{}<") for cell in line.cells] for line in lines], texts)


def markdown_table(names: Sequence[str], lines: Sequence[Line], texts: int) -> str:
    """Format a Markdown table with padded cells, the best in bold."""
    rows = [[_styled(cell, escape_markdown, "**{}**") for cell in line.cells] for line in lines]
    return padded_table([[escape_markdown(name) for name in names], *rows], texts)


def _styled(cell: Text, escape: Callable[[str], str], bold: str) -> str:
    text = escape(cell.text)
    return bold.format(text) if cell.bold else text


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "→": r"$\rightarrow$", "λ": r"$\lambda$", MINUS: "$-$", NOTHING: "--", MARK: r"$^{*}$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape text for LaTeX; leading spaces become an indent."""
    indent = len(text) - len(text.lstrip(" "))
    return (r"\quad " if indent else "") + "".join(LATEX.get(character, character) for character in text[indent:])


def latex(table: PaperTable) -> str:
    """Format scores and paired tests as two tabulars with booktabs rules; the notes are comments."""
    compared_rows = comparisons(table)
    parts = ["\n".join(f"% {line}" for line in notes(table, compared_rows))]
    parts.append(tabular([*header(table, ""), "seeds"], score_lines(table), 1))
    if compared_rows:
        parts.append(tabular(header(table, "difference in points", "to"), comparison_lines(table, compared_rows), 2))
    return "\n\n".join(parts) + "\n"


def tabular(names: Sequence[str], lines: Sequence[Line], texts: int) -> str:
    body = []
    for line in lines:
        if line.group:
            body.append(r"\midrule")
        body.append(" & ".join(_styled(cell, escape_latex, r"\textbf{{{}}}") for cell in line.cells) + r" \\")
    columns = "l" * texts + "r" * (len(names) - texts)
    top = " & ".join(map(escape_latex, names)) + r" \\"
    inside = [r"\toprule", top, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *inside, r"\end{tabular}"])


TSV_COLUMNS = (
    "table", "row", "title", "column", "metric", "mean", "std", "n", "seeds", "published", "difference", "selected", "best",
    "compared_with", "compared_difference", "p", "p_holm", "test",
)  # fmt: skip


def tsv(table: PaperTable) -> str:
    """Format as TSV with a line per row and column, scores in %; seeds as seed=score."""
    lines = [TSV_COLUMNS]
    for row in table.rows:
        for column in table.columns:
            entry, one = table.entry(row, column), table.compare(row, column)
            test = (
                ("",) * 5
                if one is None
                else (one.other.name, _number(one.difference), f"{one.p:.6g}", f"{one.adjusted:.6g}", BOOTSTRAP)
            )
            scores = " ".join(f"{seed}={100 * value:.4f}" for seed, value in entry.scores.items())
            lines.append((
                table.published.name, row.name, row.title, column.domain, column.metric, _number(entry.mean),
                _number(entry.std), str(entry.n), scores, "" if entry.published is None else f"{entry.published:.1f}",
                _number(entry.difference), str(int(entry.selected)), str(int(row.is_student and table.is_best(row, column))),
                *test,
            ))  # fmt: skip
    return "".join("\t".join(map(escape_tsv, line)) + "\n" for line in lines)


def escape_tsv(text: str) -> str:
    """Replace whitespace of a field, such as tabs and line breaks, by single spaces."""
    return " ".join(text.split())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
