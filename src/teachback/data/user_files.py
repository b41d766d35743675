"""Reading user data as tables of text: CSV, TSV, JSON Lines, Parquet, and Hugging Face ``datasets``.

Rows are read lazily, each with its number in the file and, if malformed, the problem. Parquet needs the optional package
pyarrow, data sets the package datasets.
"""

import csv
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from teachback.core.errors import TeachbackError
from teachback.data.raw_lines import Line, fields_of_line, json_lines, numbered, tsv_lines

HUB = "hub:"
SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".parquet")
WITH_COLUMNS = (".csv", ".jsonl", ".ndjson", ".parquet")  # files that are never lines of text
DELIMITERS = (",", ";", "\t", "|")
LONGEST_FIELD = 1 << 24  # characters of a quoted field; an unclosed quote would swallow the rest of the file
ROWS_AT_ONCE = 4096  # rows read at a time from a Parquet file or data set
NO_LABEL = -1  # class number of hidden labels in Hugging Face data sets
Names = dict[str, list[str]]  # column -> class names by number


@dataclass(frozen=True)
class Table:
    """Columns of a file in order, and its rows; ``unit`` is what row numbers count, such as "line"."""

    path: Path
    columns: list[str]
    rows: Iterator[Line]
    unit: str = "line"
    strict: bool = False  # unknown columns are an error, not ignored


def open_table(path: Path, delimiter: str = "", only: Collection[str] = ()) -> Table:
    """Open a file according to its suffix.

    Args:
        delimiter: that of a CSV file, "" to infer it from the header.
        only: columns of JSON Lines and Parquet to read if not empty; the others may hold anything.

    Raises:
        TeachbackError: no header, a header that is not UTF-8, an unsupported file type, or a missing package.
    """
    kind = path.suffix.lower()
    if kind == ".csv" or (delimiter and kind in (".tsv", ".txt")):
        return _csv_table(path, delimiter)
    if kind in (".jsonl", ".ndjson"):
        return _json_table(path, only)
    if kind == ".parquet":
        return _parquet_table(path, only)
    if kind in (".json", ".xlsx", ".xls", ".arrow", ".feather", ".gz", ".zip"):
        raise TeachbackError(f"{path}: {kind} files are not supported; save it as one of {', '.join(SUFFIXES)}")
    return _tsv_table(path)  # a single file of any other name


def _header_line(path: Path, line: bytes) -> str:
    if not line.strip():
        raise TeachbackError(f"{path} line 1: there is no header; the first line must name the columns")
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise TeachbackError(f"{path} line 1: the header is not UTF-8; save the file as UTF-8") from None


def _tsv_table(path: Path) -> Table:
    """Table of tab-separated fields without quoting."""
    with open(path, "rb") as file:
        columns = tsv_stream(file, path).columns
    return Table(path, columns, tsv_lines(path), strict=True)


def tsv_stream(file: BinaryIO, path: Path) -> Table:
    """Table of tab-separated fields without quoting that are read from an open file, such as standard input."""
    columns = _header_line(path, file.readline()).split("\t")
    return Table(path, columns, numbered(file, lambda line: fields_of_line(line, columns), first=2), strict=True)


def _csv_table(path: Path, delimiter: str) -> Table:
    """Table of a CSV file; fields in double quotes may contain delimiters and line breaks."""
    with open(path, "rb") as file:
        first = _header_line(path, file.readline())
    sign = delimiter or max(DELIMITERS, key=lambda sign: len(_split(first, sign)))
    columns = _split(first, sign)
    return Table(path, columns, _csv_rows(path, columns, sign))


def _split(line: str, delimiter: str) -> list[str]:
    with suppress(csv.Error, StopIteration):
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    return [line]


def _csv_rows(path: Path, columns: list[str], delimiter: str) -> Iterator[Line]:
    csv.field_size_limit(LONGEST_FIELD)
    with open(path, "rb") as raw, TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        next(reader)
        while True:
            start = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield start, None, _csv_reason(str(error))
                continue
            yield start, *_csv_row(values, columns)


def _csv_row(values: list[str], columns: list[str]) -> tuple[dict | None, str]:
    if not values or values == [""]:
        return None, "empty line"
    if len(values) != len(columns):
        return None, f"{len(values)} columns, expected {len(columns)}"
    if any("\udc80" <= letter <= "\udcff" for value in values if not value.isascii() for letter in value):
        return None, "not UTF-8"
    return dict(zip(columns, values)), ""


def _csv_reason(error: str) -> str:
    if "unexpected end" in error or "field larger" in error:
        return "a quote is opened but never closed"
    if "expected after" in error:
        return "a quote is closed within a field; write a quote inside a quoted field twice"
    return error


def _json_table(path: Path, only: Collection[str]) -> Table:
    """Table of a JSON Lines file; the columns are those of its first objects together, as an object may omit empty fields."""
    objects = (values for _, values, _ in json_lines(path) if values)
    columns = list(dict.fromkeys(name for values in islice(objects, ROWS_AT_ONCE) for name in values))
    if not columns:
        raise TeachbackError(f'{path}: no line is a JSON object, such as {{"text_a": "...", "label": "..."}}')
    return Table(path, columns, _as_text(json_lines(path), {}, only))


def _as_text(lines: Iterable[Line], names: Names, only: Collection[str] = ()) -> Iterator[Line]:
    """Convert the values of rows, or of the columns ``only``, to text: classes to their names, null and NaN to ""."""
    for number, values, reason in lines:
        if values is None:
            yield number, None, reason
            continue
        texts = {column: _text(value, names.get(column)) for column, value in values.items() if not only or column in only}
        wrong = [column for column, text in texts.items() if text is None]
        if wrong:
            kind = type(values[wrong[0]]).__name__
            yield number, None, f"column {wrong[0]!r} contains a {kind}, not a text or number"
        else:
            yield number, texts, ""


def _text(value, classes: list[str] | None) -> str | None:
    """Convert a value to text; None if its type is not supported."""
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas and NumPy write NaN where there is nothing
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if classes is not None and isinstance(value, int):
        return classes[value] if 0 <= value < len(classes) else "" if value == NO_LABEL else None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas stores integers as floats in a column with gaps
    return str(value) if isinstance(value, str | int | float) else None


def require_package(name: str, what: str) -> None:
    """Raise TeachbackError with an install hint if an optional package is missing."""
    if find_spec(name) is None:
        raise TeachbackError(f"{what} needs the package {name}; install it with: pip install -r requirements-data.txt")


def _parquet_table(path: Path, only: Collection[str]) -> Table:
    require_package("pyarrow", f"{path}: reading Parquet")
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            schema = file.schema_arrow
    except (pyarrow.ArrowException, OSError) as error:
        raise TeachbackError(
            f"{path} is not a complete Parquet file ({str(error).splitlines()[0]}); save it again"
        ) from error
    names = _class_names(schema.metadata or {})
    chosen = [name for name in schema.names if not only or name in only]

    def rows() -> Iterator[dict]:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=chosen):
                yield from batch.to_pylist()

    return Table(path, schema.names, _as_text(_good(rows()), names), "row")


def _good(rows: Iterable[dict]) -> Iterator[Line]:
    """Number rows of a format in which no row can be malformed."""
    return ((number, values, "") for number, values in enumerate(rows, start=1))


def _class_names(metadata: dict[bytes, bytes]) -> Names:
    """Class names from the metadata that ``datasets`` writes into a Parquet file."""
    with suppress(KeyError, ValueError, TypeError, AttributeError):
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: list(f["names"]) for name, f in features.items() if f.get("_type") == "ClassLabel"}
    return {}


def is_data_set(source: Path) -> bool:
    """Whether a folder was written by ``save_to_disk`` of a data set, with one split or several."""
    return any((source / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))


def is_hub(source: Path | str) -> bool:
    """Whether a source names a data set of the hub."""
    return str(source).startswith(HUB)


def load_data_set(source: Path | str):
    """Load a saved or hub data set, or a dict of its splits."""
    return _hub_data_set(str(source).removeprefix(HUB)) if is_hub(source) else _saved_data_set(Path(source))


def _saved_data_set(source: Path):
    require_package("datasets", f"{source}: reading a saved data set")
    from datasets import load_from_disk

    try:
        return load_from_disk(str(source))
    except Exception as error:  # the library raises errors of many types
        raise TeachbackError(f"{source}: this data set cannot be read ({_first_line(error)}); save it again") from error


def _hub_data_set(name: str):
    """Load a hub data set, named ``owner/name`` or ``owner/name:configuration``."""
    require_package("datasets", f"SOURCE={HUB}{name}: reading a data set of the hub")
    from datasets import load_dataset

    place, _, configuration = name.partition(":")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", place):
        raise TeachbackError(
            f"SOURCE={HUB}{name}: name a data set as in {HUB}ag_news, {HUB}owner/name or {HUB}owner/name:configuration"
        )
    try:
        return load_dataset(place, configuration or None)
    except Exception as error:
        call = ", ".join(f'"{part}"' for part in (place, configuration) if part)
        raise TeachbackError(
            f"SOURCE={HUB}{name}: the data set cannot be loaded ({_first_line(error)}). Without network, fetch it on another machine with "
            f"python -c 'from datasets import load_dataset; load_dataset({call}).save_to_disk(\"data_set\")', copy the folder data_set, "
            "and set SOURCE to it"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def data_set_table(part, place: str, split: str, only: Collection[str]) -> Table:
    """Table of a split of a data set; ``split`` is "" if it has none. ``only``: see `open_table`."""
    names = {name: list(feature.names) for name, feature in part.features.items() if hasattr(feature, "names")}
    path = Path(place) / split if split else Path(place)
    rows = (dict(zip(batch, values)) for batch in part.iter(ROWS_AT_ONCE) for values in zip(*batch.values()))
    return Table(path, part.column_names, _as_text(_good(rows), names, only), "row")
