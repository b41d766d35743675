"""TSV files of the pipeline: UTF-8, a header line, no quoting."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, astuple, fields
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.locks import exclusive_access

Record = TypeVar("Record")


def as_tsv(columns: Iterable[str], rows: Iterable[Iterable]) -> str:
    """Text of a table; a field that is None is left empty, and numbers have full precision."""
    return "".join("\t".join("" if value is None else str(value) for value in row) + "\n" for row in (columns, *rows))


def read_lines(path: Path, advice: str = "") -> Iterator[list[str]]:
    """Yield the fields of each line, the header's first. ``advice``: end of the message if a line is malformed."""
    columns = None
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                values = line.removesuffix(b"\n").decode("utf-8").split("\t")
            except UnicodeDecodeError:
                raise TeachbackError(f"{path} line {number}: not UTF-8{advice}") from None
            columns = columns or len(values)
            if len(values) != columns:
                raise TeachbackError(f"{path} line {number}: {len(values)} columns, expected {columns}{advice}")
            yield values


def read_tsv(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a file as dicts by column."""
    lines = read_lines(path)
    columns = next(lines, [])
    return (dict(zip(columns, values)) for values in lines)


def read_records(path: Path, kind: type[Record], advice: str) -> list[Record]:
    """Read a file whose columns are the fields of the dataclass ``kind``, or those without a default; empty if it is missing.

    ``advice``: what to do if the columns differ.

    Raises:
        TeachbackError: the header or a row cannot be parsed.
    """
    names, hints = [field.name for field in fields(kind)], get_type_hints(kind)  # type: ignore[arg-type]
    types, least = [hints[name] for name in names], sum(field.default is MISSING for field in fields(kind))  # type: ignore[arg-type]
    if not Path(path).is_file():
        return []
    header, *lines = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if header.split("\t") not in (names, names[:least]):
        raise TeachbackError(f"{path} line 1: columns are not {' '.join(names)}; {advice}")
    records = []
    for number, values in enumerate((line.split("\t") for line in lines), start=2):
        try:
            if len(values) not in (least, len(names)):
                raise ValueError(f"{len(values)} columns")
            records.append(kind(*map(_parsed, types, values)))
        except ValueError as error:
            name = kind.__name__.lower()
            raise TeachbackError(f"{path} line {number} is not a {name} ({error}); correct or remove the line") from error
    return records


def merge_records(
    path: Path, kind: type[Record], advice: str, new: Iterable[Record], key: Callable[[Record], tuple],
    order: Callable[[Record], tuple], outdated: Callable[[Record], bool] = lambda record: False,
) -> None:  # fmt: skip
    """Add records to a file of `read_records` under a lock, in place of those of the same ``key`` and of ``outdated`` ones.

    Records are sorted by ``order``; the sort is stable.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_access(path):
        kept = [record for record in read_records(path, kind, advice) if not outdated(record)]
        rows = {key(record): record for record in [*kept, *new]}
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        write_atomically(path, as_tsv(names, map(astuple, sorted(rows.values(), key=order))))  # type: ignore[arg-type]


def _parsed(kind, text: str):
    """Value of a field of the type ``kind``, or of ``kind | None``, None if empty."""
    optional = get_args(kind)
    return kind(text) if not optional else optional[0](text) if text else None
