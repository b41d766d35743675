"""What a suite has to say about itself so that stages 1 and 2 can fetch and read it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from teachback.suites.problems import Problems
from teachback.suites.schema import Domain, Row


@dataclass(frozen=True)
class Archive:
    """A file to fetch, with the addresses to try in this order."""

    name: str
    urls: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where it is unpacked, below the suite's ``content`` folder."""
        return self.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")


@dataclass(frozen=True)
class ReadSettings:
    """What a reader may need beside the files."""

    seed: int = 42
    dev_fraction: float = 0.1
    test_fraction: float = 0.1


@dataclass
class Parsed:
    """A suite as read from its raw files: domains in order, rows by split, and counts worth telling."""

    domains: dict[str, Domain]
    rows: dict[str, list[Row]]
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Count:
    """One number that the raw files are known to have, and the number found."""

    what: str
    expected: int
    found: int


@dataclass(frozen=True)
class Definition:
    """A suite: how to get its archives, check what they hold, and read them.

    ``read`` and ``counts`` are given the folder that holds the unpacked archives.
    ``generate`` (folder, seed) writes the archives of a suite that is not fetched.
    """

    name: str
    read: Callable[[Path, ReadSettings, Problems], Parsed]
    archives: tuple[Archive, ...] = ()
    counts: Callable[[Path], Iterator[Count]] = lambda content: iter(())
    generate: Callable[[Path, int], None] | None = None
