"""Further windows of texts that are longer than a model reads, as rows without labels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from teachback.core.errors import TeachbackError
from teachback.data.encoding import left_as_it_was
from teachback.data.schema import Domain, Row

CHUNK = 1_000  # rows tokenised at a time
OVERLAP = 1 / 4  # least share of a window that the next one has too, if as many as that takes are allowed
LONGEST_WORD = 30  # characters; without a blank within so many a window begins or ends within a word


@dataclass(frozen=True)
class Cut:
    """Token offsets of the text that truncation cuts, and how many of its tokens are read."""

    column: str  # of the row: text_a or text_b
    offsets: list[tuple[int, int]]  # characters of each token
    room: int


def further_windows(rows: list[Row], domains: dict[str, Domain], tokenizer, max_length: int, most: int) -> list[Row]:
    """Up to ``most`` windows of each text that ``max_length`` cuts, beside the one that the row itself is.

    The last window ends where the text does, and the others lie evenly between, overlapping by a quarter unless ``most``
    is too small for that. They are of whole words, have no label and a weight of 1. Of a pair the text that truncation
    cuts moves and the other stays whole; a pair of which both would be cut has no further windows, and neither has a
    text that is longer by less than a quarter of a window.

    Raises:
        TeachbackError: a domain's rows are questions with choices, or mark spans that a window may lose.
    """
    if not most:
        return []
    for domain in (domains[name] for name in {row.domain: None for row in rows}):
        if domain.kind == "choices" or domain.marks:
            what = "are questions with choices" if domain.kind == "choices" else "mark spans of their texts"
            raise TeachbackError(
                f"TRANSFER_WINDOWS={most}: the rows of {domain.name} {what}, which have no windows; set TRANSFER_WINDOWS=0"
            )
    # A token has at least one byte, so that most rows need no tokens to be judged.
    long = [row for row in rows if len(row.text_a.encode()) + len(row.text_b.encode()) > max_length]
    windows: list[Row] = []
    for start in range(0, len(long), CHUNK):
        part = long[start : start + CHUNK]
        for row, cut in zip(part, _cuts(part, domains, tokenizer, max_length)):
            windows += _windows(row, cut, most, tokenizer.truncation_side == "left") if cut else []
    return windows


def _cuts(rows: list[Row], domains: dict[str, Domain], tokenizer, max_length: int) -> Iterator[Cut | None]:
    """How truncation cuts each row, None if at no text or at both."""
    with left_as_it_was(tokenizer):
        first, second = (
            tokenizer([getattr(row, name) for row in rows], add_special_tokens=False, return_offsets_mapping=True,
                      verbose=False)["offset_mapping"]
            for name in ("text_a", "text_b")
        )  # fmt: skip
    for row, a, b in zip(rows, first, second):
        whole = max_length - tokenizer.num_special_tokens_to_add(pair=bool(row.text_b))
        first_alone = domains[row.domain].truncate == "text_a"
        moves_first = first_alone or len(a) >= len(b)
        moving, other = (a, b) if moves_first else (b, a)
        room = whole - len(other)
        cuts_one = len(moving) > room >= (1 if first_alone else max(1, len(other)))
        yield Cut("text_a" if moves_first else "text_b", moving, room) if cuts_one else None


def _windows(row: Row, cut: Cut, most: int, left: bool) -> Iterator[Row]:
    """Windows of a row; ``left``: truncation keeps the end of a text, so that they lie before it."""
    text, rest = getattr(row, cut.column), len(cut.offsets) - cut.room
    shared = int(OVERLAP * cut.room)
    if rest < shared:
        return
    count = min(most, -(-rest // (cut.room - shared)))
    for number in range(1, count + 1):
        first = round((number - left) * rest / count)
        begin, end = cut.offsets[first][0], cut.offsets[first + cut.room - 1][1]
        if window := _whole_words(text, begin, end):
            yield replace(row, guid=f"{row.guid}-window-{number}", label="", weight=1.0, **{cut.column: window})


def _whole_words(text: str, begin: int, end: int) -> str:
    """Characters ``begin`` to ``end`` without parts of words at both ends."""
    if begin and not text[begin - 1].isspace():
        blank = text.find(" ", begin, begin + LONGEST_WORD)
        begin = max(begin, blank)
    if end < len(text) and not text[end].isspace():
        blank = text.rfind(" ", max(begin, end - LONGEST_WORD), end)
        end = blank if blank > 0 else end
    return text[begin:end].strip()
