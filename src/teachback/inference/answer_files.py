"""Files of answers, written as the answers come: TSV, JSON Lines or Parquet, by the name of the file."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from teachback.core.files import replacing
from teachback.core.spreadsheets import quoted
from teachback.data.schema import clean_text
from teachback.data.user_files import require_package

STANDARD = ""  # as a file name: standard input or output
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
Write = Callable[[list[list]], None]


def kind_of(name: str) -> str:
    """Format of the file ``name``: jsonl, parquet or tsv."""
    return KINDS.get(Path(name).suffix.lower(), "tsv")


@contextmanager
def answer_file(name: str, texts: list[str], numbers: list[str], quote: bool = False) -> Iterator[Write]:
    """Yield a function that writes rows of ``texts``, then ``numbers``; a file is replaced when the block ends.

    ``quote``: quote cells of a TSV that a spreadsheet would evaluate.
    """
    kind, columns = kind_of(name), [*texts, *numbers]
    if kind == "parquet":
        require_package("pyarrow", f"{name}: writing Parquet")
    with nullcontext(sys.stdout.buffer) if name == STANDARD else replacing(Path(name)) as file:
        if kind == "parquet":
            with _parquet(file, texts, numbers) as write:
                yield write
            return
        if kind == "tsv":
            file.write(_line(columns))
        shown = quoted if quote else str

        def write(rows: list[list]) -> None:
            for row in rows:
                if kind == "tsv":
                    file.write(_line([shown(f"{cell:.7g}" if isinstance(cell, float) else cell) for cell in row]))
                else:
                    file.write((json.dumps(dict(zip(columns, row)), ensure_ascii=False) + "\n").encode("utf-8"))
            file.flush()

        yield write


def _line(cells: list[str]) -> bytes:
    return ("\t".join(map(clean_text, cells)) + "\n").encode("utf-8")


@contextmanager
def _parquet(file: BinaryIO, texts: list[str], numbers: list[str]) -> Iterator[Write]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema([(name, pyarrow.string()) for name in texts] + [(name, pyarrow.float64()) for name in numbers])
    with ParquetWriter(file, schema) as writer:
        yield lambda rows: writer.write_table(pyarrow.table([*zip(*rows)], schema=schema))
