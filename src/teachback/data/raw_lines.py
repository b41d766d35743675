"""Lines of raw files: JSON objects or tab-separated fields, each with its number, or with what is wrong with it."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

HALF_A_PAIR = re.compile("[\ud800-\udfff]")
Line = tuple[int, dict | None, str]  # (line number, values, "") or (line number, None, what is wrong)


class BadLine(ValueError):
    """What is wrong with a line."""


def json_lines(path: Path) -> Iterator[Line]:
    """Every line of a file of JSON objects."""
    with open(path, "rb") as file:
        yield from numbered(file, _json_object, first=1)


def tsv_lines(path: Path, columns: tuple[str, ...] = ()) -> Iterator[Line]:
    """Every line of a file of tab-separated fields, by column; the first line names these where they are not given."""
    with open(path, "rb") as file:
        first = 1 if columns else 2
        names = columns or tuple(file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n").split("\t"))
        yield from numbered(file, lambda line: fields_of_line(line, names), first)


def numbered(file, parse: Callable[[bytes], dict], first: int) -> Iterator[Line]:
    """Every line of a file as ``parse`` gives it, with its number, or with the `BadLine` that it raises."""
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
    """The fields of a line without quoting, by column."""
    found = _text(line.removesuffix(b"\n").removesuffix(b"\r")).split("\t")
    if found == [""] and len(columns) > 1:
        raise BadLine("empty line")
    if len(found) != len(columns):
        raise BadLine(f"{len(found)} columns, expected {len(columns)}")
    return dict(zip(columns, found))


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise BadLine("not UTF-8") from None
