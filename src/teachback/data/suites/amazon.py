"""Multi-Domain Sentiment Dataset (Blitzer, Dredze, Pereira 2007): 1000 positive and 1000 negative reviews per domain."""

import re
from collections.abc import Iterator
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.schema import Domain, Row, clean_text
from teachback.data.splits import authors_split
from teachback.data.suites.definition import Archive, Count, Definition, Parsed, ReadSettings

FOLDERS = {"books": "books", "dvd": "dvd", "electronics": "electronics", "kitchen": "kitchen_&_housewares"}
POLARITIES = ("positive", "negative")  # the order of the authors' rows
REVIEWS = 1000  # per file
LABELS = ("negative", "positive")
ARCHIVE = Archive(
    "domain_sentiment_data.tar.gz",
    (
        "http://atp-modelzoo-sh.oss-cn-shanghai.aliyuncs.com/release/datasets/domain_sentiment_data.tar.gz",
        "https://www.cs.jhu.edu/~mdredze/datasets/sentiment/domain_sentiment_data.tar.gz",
    ),
)


def read(content: Path, settings: ReadSettings, problems: Problems) -> Parsed:
    """Read all reviews in the authors' order and split them by `authors_split`."""
    domains = {name: Domain(name, head="sentiment", labels=LABELS) for name in FOLDERS}
    rows = [
        row
        for domain in FOLDERS
        for polarity in POLARITIES
        for row in _rows(content, domain, polarity, domains, problems)
    ]
    return Parsed(domains, authors_split(rows))


def counts(content: Path, reviews: int = REVIEWS) -> Iterator[Count]:
    """Expected and actual number of reviews of each file."""
    for domain in FOLDERS:
        for polarity in POLARITIES:
            path = review_file(content, domain, polarity)
            found = len(_starts(path.read_bytes())) if path.is_file() else 0
            yield Count(f"{domain} {polarity} reviews", reviews, found)


def review_file(content: Path, domain: str, polarity: str) -> Path:
    return content / ARCHIVE.folder / "sorted_data_acl" / FOLDERS[domain] / f"{polarity}.review"


def guid(domain: str, polarity: str, position: int) -> str:
    """Id of the review at ``position`` (from 0) in its file, for instance books-positive-0001."""
    return f"{domain}-{polarity}-{position + 1:04d}"


def _rows(content: Path, domain: str, polarity: str, domains: dict[str, Domain], problems: Problems) -> Iterator[Row]:
    path = review_file(content, domain, polarity)
    if not path.is_file():
        raise TeachbackError(f"{path} does not exist; run 1_get_data.sh first")
    for position, (line, text) in enumerate(parse_reviews(path.read_bytes())):
        if text is None:
            problems.add(path, line, "review without a closed <review_text>")
            continue
        row = Row(guid(domain, polarity, position), text, "", polarity, domain)
        if problems.accepts(row, domains, path, line):
            yield row


def parse_reviews(data: bytes) -> Iterator[tuple[int, str | None]]:
    """Yield (line number, text) of each review; the text is None if its tags are missing.

    The files are not valid XML (no root, bare ``&``, control bytes), so only the two relevant tags are searched.
    """
    starts = _starts(data)
    for start, end in zip(starts, [*starts[1:], len(data)]):
        match = re.search(rb"<review_text>(.*?)</review_text>", data[start:end], re.DOTALL)
        yield data.count(b"\n", 0, start) + 1, clean_text(_decode(match.group(1))) if match else None


def _starts(data: bytes) -> list[int]:
    return [match.start() for match in re.finditer(rb"^[ \t]*<review>", data, re.MULTILINE)]


def _decode(data: bytes) -> str:
    """Decode as UTF-8, else as Latin-1: no row may be dropped, as the split depends on positions."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


SUITE = Definition("amazon", read, (ARCHIVE,), counts)
