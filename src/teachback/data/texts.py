"""Validation of texts given in Python: a single string is not treated as a list of characters."""

from collections.abc import Iterable, Mapping, Sequence

from teachback.core.errors import TeachbackError
from teachback.data.schema import Row

Texts = str | Sequence[str | tuple[str, str]]


def text_list(texts: Texts, name: str) -> list:
    """Texts or pairs as a list; a single text becomes a list of length 1."""
    if isinstance(texts, str):
        return [texts]
    tabular = hasattr(texts, "columns")  # iterating over a table gives the names of its columns
    if isinstance(texts, (bytes, Mapping)) or tabular or not isinstance(texts, Iterable):
        raise TeachbackError(
            f"{name} is of type {type(texts).__name__}; pass a text, or a list of texts or of pairs of texts"
        )
    return list(texts)


def text_rows(texts: Texts, name: str, domain: str) -> list[Row]:
    """Unlabelled rows with their index as guid; raises TeachbackError for anything but a text or pair of texts."""
    return [_row(number, text, name, domain) for number, text in enumerate(text_list(texts, name))]


def _row(number: int, text, name: str, domain: str) -> Row:
    pair = tuple(text) if isinstance(text, (tuple, list)) else (text, "")
    if len(pair) != 2 or not all(isinstance(part, str) for part in pair) or not pair[0].strip():
        raise TeachbackError(f"{name}[{number}] is {text!r}; expected a non-empty text, or a pair of texts")
    return Row(str(number), *pair, "", domain)


def require_list(values, name: str, what: str) -> None:
    """Refuse a string where a list of names or table cells is expected."""
    if isinstance(values, (str, bytes)):
        raise TeachbackError(f"{name}={values!r} is one text, not a list of {what}; pass a list, as in [{values!r}]")
