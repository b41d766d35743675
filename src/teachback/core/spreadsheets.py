"""Cells that a spreadsheet would take for a formula and compute, whatever file they come from, though they are text."""

SIGNS = ("=", "+", "-", "@")
QUOTE = "'"  # before a cell it says that the rest is text


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet computes a cell: it begins with a sign of `SIGNS` and is no number."""
    if not cell.startswith(SIGNS):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def quoted(cell: str) -> str:
    """The cell as text for a spreadsheet."""
    return QUOTE + cell if is_formula(cell) else cell


def formulas(table: str) -> int:
    """How many cells of a tab-separated table a spreadsheet would compute."""
    return sum(is_formula(cell) for line in table.splitlines() for cell in line.split("\t"))


def quoted_table(table: str) -> str:
    """A tab-separated table whose every cell a spreadsheet takes for what it is."""
    return "\n".join("\t".join(map(quoted, line.split("\t"))) for line in table.split("\n"))
