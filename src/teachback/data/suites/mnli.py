"""MultiNLI (Williams, Nangia, Bowman 2018): sentence pairs; a domain is one of the five training genres."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.raw_lines import json_lines
from teachback.data.schema import Domain, Row, clean_text
from teachback.data.splits import cut
from teachback.data.suites.definition import Archive, Count, Definition, Parsed, ReadSettings

LABELS = ("entailment", "neutral", "contradiction")
NO_LABEL = "-"  # the annotators did not agree
DEV_FRACTION = 0.1  # of each genre's train rows
TRAIN_ROWS = {"fiction": 77348, "government": 77350, "slate": 77306, "telephone": 83348, "travel": 77350}
TEST_ROWS = {"fiction": 1973, "government": 1945, "slate": 1955, "telephone": 1966, "travel": 1976}
ARCHIVE = Archive("multinli_1.0.zip", ("https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip",))


def read(content: Path, settings: ReadSettings, problems: Problems) -> Parsed:
    """Read train and dev from the train file, and test from dev-matched, which has the same genres."""
    domains = {name: Domain(name, head="nli", labels=LABELS, kind="pair") for name in TRAIN_ROWS}
    notes: Counter[str] = Counter()
    train = list(_rows(_file(content, "train"), "train", domains, problems, notes))
    test = list(_rows(_file(content, "dev_matched"), "matched", domains, problems, notes))
    train, dev = cut(train, DEV_FRACTION, settings.seed, domains)
    return Parsed(domains, {"train": train, "dev": dev, "test": test}, dict(notes))


def counts(content: Path) -> Iterator[Count]:
    """Expected and actual number of labelled rows of each genre in both files."""
    for part, expected in (("train", TRAIN_ROWS), ("dev_matched", TEST_ROWS)):
        path = _file(content, part)
        found = _labelled(path) if path.is_file() else Counter()
        for genre, number in expected.items():
            yield Count(f"{part} rows of {genre}", number, found[genre])


def _file(content: Path, part: str) -> Path:
    return content / ARCHIVE.folder / "multinli_1.0" / f"multinli_1.0_{part}.jsonl"


def _labelled(path: Path) -> Counter:
    found: Counter[str] = Counter()
    for _, values, _ in json_lines(path):
        if values is not None and values.get("gold_label") != NO_LABEL:
            found[str(values.get("genre"))] += 1
    return found


def _rows(path: Path, part: str, domains: dict[str, Domain], problems: Problems, notes: Counter) -> Iterator[Row]:
    if not path.is_file():
        raise TeachbackError(f"{path} does not exist; run 1_get_data.sh first")
    for number, values, reason in json_lines(path):
        if values is None:
            problems.add(path, number, reason)
        elif values.get("gold_label") == NO_LABEL:
            notes[f"{part} rows dropped, as they have no gold label"] += 1
        elif row := _row(values, part, path, number, problems):
            if row.guid in problems.guids:
                notes[f"{part} rows dropped, as an earlier row has the same pairID"] += 1
            elif problems.accepts(row, domains, path, number):
                yield row


def _row(values: dict, part: str, path: Path, number: int, problems: Problems) -> Row | None:
    fields = [values.get(name) for name in ("genre", "pairID", "sentence1", "sentence2", "gold_label")]
    texts = [field for field in fields if isinstance(field, str)]
    if len(texts) < len(fields):
        problems.add(path, number, "genre, pairID, sentence1, sentence2 or gold_label is missing or not a text")
        return None
    genre, pair, first, second, label = texts
    if not clean_text(second):
        problems.add(path, number, "empty text")
        return None
    return Row(f"{genre}-{part}-{clean_text(pair)}", clean_text(first), clean_text(second), label, genre)


SUITE = Definition("mnli", read, (ARCHIVE,), counts)
