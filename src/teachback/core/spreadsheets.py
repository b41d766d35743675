"""Protection against formula injection: text cells that a spreadsheet would evaluate."""

SIGNS = ("=", "+", "-", "@")
QUOTE = "'"  # marks the rest of a cell as text


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet would evaluate a cell: it begins with one of `SIGNS` and is not a number."""
    if not cell.startswith(SIGNS):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def quoted(cell: str) -> str:
    """Quote the cell if a spreadsheet would evaluate it."""
    return QUOTE + cell if is_formula(cell) else cell


def formulas(table: str) -> int:
    """Number of cells of a tab-separated table that a spreadsheet would evaluate."""
    return sum(is_formula(cell) for line in table.splitlines() for cell in line.split("\t"))


def quoted_table(table: str) -> str:
    """Apply `quoted` to every cell of a tab-separated table."""
    return "\n".join("\t".join(map(quoted, line.split("\t"))) for line in table.split("\n"))
