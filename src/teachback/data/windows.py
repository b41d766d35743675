"""Further windows of texts that are longer than a model reads, as rows without labels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from teachback.core.errors import TeachbackError
from teachback.data.encoding import padding_settings_kept
from teachback.data.schema import Domain, Row

CHUNK = 1_000  # rows tokenised at a time
OVERLAP = 1 / 4  # minimum share of a window that the next one repeats, if the maximum number of windows permits
SEARCHED = 30  # characters in which a blank is looked for; without one a window begins or ends within a word


@dataclass(frozen=True)
class Cut:
    """Token offsets of the text that truncation cuts, and the number of its tokens that are read."""

    column: str  # of the row: text_a or text_b
    offsets: list[tuple[int, int]]  # characters of each token
    room: int


def further_windows(rows: list[Row], domains: dict[str, Domain], tokenizer, max_length: int, most: int) -> list[Row]:
    """Up to ``most`` further windows of each text that ``max_length`` truncates; the row itself is the first window.

    The last window ends where the text ends, and the others are evenly spaced, overlapping by a quarter unless ``most``
    is too small for that. Windows consist of whole words and have no label and a weight of 1. In a pair the window moves
    over the truncated text, and the other text is kept whole. There are no further windows of a pair in which both texts
    are truncated, nor of a text that is too long by less than a quarter of a window.

    Raises:
        TeachbackError: a domain's rows are questions with choices, or have marked spans that a window may lose.
    """
    if not most:
        return []
    for domain in (domains[name] for name in {row.domain: None for row in rows}):
        if domain.kind == "choices" or domain.marks:
            what = "are questions with choices" if domain.kind == "choices" else "have marked spans"
            raise TeachbackError(
                f"TRANSFER_WINDOWS={most}: the rows of {domain.name} {what} and cannot be cut into windows; set TRANSFER_WINDOWS=0"
            )
    # A token has at least one byte, so rows with few bytes need not be tokenised.
    long = [row for row in rows if len(row.text_a.encode()) + len(row.text_b.encode()) > max_length]
    windows: list[Row] = []
    for start in range(0, len(long), CHUNK):
        part = long[start : start + CHUNK]
        for row, cut in zip(part, _cuts(part, domains, tokenizer, max_length)):
            windows += _windows(row, cut, most, tokenizer.truncation_side == "left") if cut else []
    return windows


def _cuts(rows: list[Row], domains: dict[str, Domain], tokenizer, max_length: int) -> Iterator[Cut | None]:
    """The truncated text of each row; None if no text or both are truncated."""
    with padding_settings_kept(tokenizer):
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
    """Further windows of a row; ``left``: truncation keeps the end of a text, so that they precede it."""
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
        blank = text.find(" ", begin, begin + SEARCHED)
        begin = max(begin, blank)
    if end < len(text) and not text[end].isspace():
        blank = text.rfind(" ", max(begin, end - SEARCHED), end)
        end = blank if blank > 0 else end
    return text[begin:end].strip()
