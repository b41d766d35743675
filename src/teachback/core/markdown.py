"""Plain text and tables as Markdown."""

from collections.abc import Sequence


def escape_markdown(text: str) -> str:
    r"""Escape text for Markdown, tables included: a bar would end the cell, a star begin emphasis."""
    for character in "\\|*_<`[":
        text = text.replace(character, "\\" + character)
    indent = len(text) - len(text.lstrip(" "))
    return "&nbsp;" * indent + text[indent:]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Markdown table of plain text; the first ``texts`` columns are left-aligned, the others right-aligned."""
    return padded_table([[escape_markdown(" ".join(cell.split())) for cell in row] for row in [header, *rows]], texts)


def padded_table(rows: Sequence[Sequence[str]], texts: int) -> str:
    """Table of Markdown cells, header first, padded so that it is also readable as plain text."""
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    rule = ["-" * width if i < texts else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = [
        [cell.ljust(width) if i < texts else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]])
