"""Readers of raw files, JSON lines or tab-separated, that report malformed lines instead of raising."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

HALF_A_PAIR = re.compile("[\ud800-\udfff]")
Line = tuple[int, dict | None, str]  # (line number, values, "") or (line number, None, problem)


class BadLine(ValueError):
    """A malformed line; the message describes the problem."""


def json_lines(path: Path) -> Iterator[Line]:
    """Iterate over the lines of a JSON Lines file of objects."""
    with open(path, "rb") as file:
        yield from numbered(file, _json_object, first=1)


def tsv_lines(path: Path, columns: tuple[str, ...] = ()) -> Iterator[Line]:
    """Iterate over the lines of a TSV file as dicts by column; without ``columns`` the first line is the header."""
    with open(path, "rb") as file:
        first = 1 if columns else 2
        names = columns or tuple(file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n").split("\t"))
        yield from numbered(file, lambda line: fields_of_line(line, names), first)


def numbered(file, parse: Callable[[bytes], dict], first: int) -> Iterator[Line]:
    """Apply ``parse`` to every line; a `BadLine` that it raises becomes the line's problem."""
    for number, line in enumerate(file, start=first):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
        try:
            yield number, parse(line), ""
        except BadLine as error:
            yield number, None, str(error)


def _json_object(line: bytes) -> dict:
    text = _text(line)
    try:
        values = json.loads(text)
        half = "\\u" in text and HALF_A_PAIR.search(json.dumps(values, ensure_ascii=False))
    except (ValueError, RecursionError):
        raise BadLine("not JSON") from None
    if not isinstance(values, dict):
        raise BadLine("not a JSON object")
    if half:
        raise BadLine("half a surrogate pair")  # JSON can write it, UTF-8 cannot
    return values


def fields_of_line(line: bytes, columns: tuple[str, ...] | list[str]) -> dict[str, str]:
    """Split an unquoted line at its tabs into a dict by column."""
    values = _text(line.removesuffix(b"\n").removesuffix(b"\r")).split("\t")
    if values == [""] and len(columns) > 1:
        raise BadLine("empty line")
    if len(values) != len(columns):
        raise BadLine(f"{len(values)} columns, expected {len(columns)}")
    return dict(zip(columns, values))


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise BadLine("not UTF-8") from None
