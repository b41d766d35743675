"""Synthetic corpus of reviews in the raw format of the Amazon suite.

A review has two sentences of opinion among neutral ones. Opinions use words common to all domains, words specific to one
domain, or both; some are negated; a few labels are wrong. ``domain_general.tsv`` beside the archive lists the reviews
without domain-specific words.
"""

import gzip
import io
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from random import Random

from teachback.core.files import write_atomically
from teachback.core.tsv import as_tsv
from teachback.data.suites import amazon
from teachback.data.suites.definition import Archive, Definition

REVIEWS = 320  # per file, of eight
NEGATED = 0.2  # share of opinions expressed by negating the opposite
NOISE = 0.03  # share of wrong labels
UNNAMED = 0.3  # share of sentences that say "it" for their topic, in reviews with topics
KINDS = {"general": 0.5, "peculiar": 0.25, "mixed": 0.25}  # vocabulary of a review's opinions -> share of reviews
ARCHIVE = Archive(amazon.ARCHIVE.name)  # same name, so that the same reader works
SIDE_FILE = "domain_general.tsv"

_TEXTS = tomllib.loads(Path(__file__).with_name("sample.toml").read_text(encoding="utf-8"))
GENERAL: dict[str, str] = _TEXTS["general"]  # opinion words of all domains, by polarity
PECULIAR: dict[str, dict[str, str]] = _TEXTS["peculiar"]  # of one domain
TOPICS: dict[str, str] = _TEXTS["topics"]
OPINIONS, NEGATIONS, FILLERS = (_TEXTS["sentences"][name] for name in ("opinions", "negations", "fillers"))


@dataclass(frozen=True)
class Review:
    """A generated review: its text, the vocabulary of its opinions, and whether its label is wrong."""

    text: str
    kind: str
    noisy: bool


def generate(folder: Path, seed: int) -> None:
    """Write the archive and ``domain_general.tsv`` into ``folder``; deterministic to the byte in ``seed``."""
    random = Random(seed)
    reviews = {
        (domain, polarity): [_review(random, domain, polarity) for _ in range(REVIEWS)]
        for domain in amazon.FOLDERS for polarity in amazon.POLARITIES
    }  # fmt: skip
    write_atomically(folder / SIDE_FILE, _side_file(reviews))
    write_atomically(folder / ARCHIVE.name, _archive(reviews))


def _review(random: Random, domain: str, polarity: str) -> Review:
    noisy = random.random() < NOISE
    said = _opposite(polarity) if noisy else polarity
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    sources = {"general": ["general"] * 2, "peculiar": ["peculiar"] * 2, "mixed": ["general", "peculiar"]}[kind]
    topics = _topics(random, domain) if kind != "general" else repeat("it")
    sentences = [_opinion(random, domain, said, source, topics) for source in sources]
    sentences += [filler.replace("{topic}", next(topics)) for filler in random.sample(FILLERS, random.randint(1, 3))]
    random.shuffle(sentences)
    return Review(" ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences), kind, noisy)


def _topics(random: Random, domain: str) -> Iterator[str]:
    """Yield the topics of a review's sentences: things of its domain, or "it"."""
    things = TOPICS[domain].split()
    while True:
        yield "it" if random.random() < UNNAMED else random.choice(things)


def _opinion(random: Random, domain: str, polarity: str, source: str, topics: Iterator[str]) -> str:
    words = GENERAL if source == "general" else PECULIAR[domain]
    negated = random.random() < NEGATED
    word = random.choice(words[_opposite(polarity) if negated else polarity].split())
    sentence = random.choice(NEGATIONS if negated else OPINIONS)
    return sentence.replace("{topic}", next(topics)).replace("{word}", word)


def _opposite(polarity: str) -> str:
    return "negative" if polarity == "positive" else "positive"


def _side_file(reviews: dict[tuple[str, str], list[Review]]) -> str:
    lines = [
        (amazon.guid(domain, polarity, position), int(review.kind == "general"), review.kind, int(review.noisy))
        for (domain, polarity), written in reviews.items()
        for position, review in enumerate(written)
    ]
    return as_tsv(("guid", "domain_general", "kind", "label_noise"), lines)


def _archive(reviews: dict[tuple[str, str], list[Review]]) -> bytes:
    """Build a tar.gz of pseudo-XML files like the Amazon archive, independent of the time of writing."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=buffer, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for (domain, polarity), written in reviews.items():
            kind = f"<product_type>\n{domain}\n</product_type>\n"
            data = "".join(
                f"<review>\n{kind}<review_text>\n{review.text}\n</review_text>\n</review>\n" for review in written
            ).encode()
            member = tarfile.TarInfo(f"sorted_data_acl/{amazon.FOLDERS[domain]}/{polarity}.review")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


SUITE = Definition("sample", amazon.read, (ARCHIVE,), partial(amazon.counts, reviews=REVIEWS), generate)
