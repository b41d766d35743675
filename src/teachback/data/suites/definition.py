"""Definition of a suite: how stages 1 and 2 fetch, check and read it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.groups import Groups
from teachback.data.schema import Domain, Row

PACKED = (".zip", ".gz", ".tgz", ".tar")


def choose(names: str, known: Iterable[str]) -> list[str]:
    """Select the known domains named by DOMAINS, in their original order; all if it is empty."""
    known = list(known)
    wanted = names.replace(",", " ").split() or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise TeachbackError(f"DOMAINS: there is no domain {unknown[0]!r}; available: {', '.join(known)}")
    return [name for name in known if name in wanted]


def advice_to_restrict(names: list[str]) -> str:
    """Advice for messages to restrict DOMAINS to the available domains; "" if there are none."""
    return f', or restrict the suite to the domains that are there with DOMAINS="{" ".join(names)}"' if names else ""


@dataclass(frozen=True)
class Archive:
    """A file to fetch from the first working URL: an archive to unpack, or a plain file to copy."""

    name: str
    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()  # domains that need it, in a suite of several archives
    place: str = ""  # target folder of a plain file
    other_names: tuple[str, ...] = ()  # alternative names of a plain file
    without: str = ""  # consequence if it is unavailable, for a warning; empty: an error

    @property
    def packed(self) -> bool:
        return self.name.endswith(PACKED)

    @property
    def folder(self) -> str:
        """Target folder below the suite's ``content``."""
        return self.place or self.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")


@dataclass(frozen=True)
class ReadSettings:
    """Settings of readers."""

    seed: int = 42
    dev_fraction: float = 0.1
    test_fraction: float = 0.1
    protocol: str = "honest"
    domains: str = ""  # names of the domains to read, if a suite can be read in part; empty: all
    group_by: str = "auto"  # custom: text that keeps rows which share it in one split
    group_column: str = ""  # custom: column with the same effect
    delimiter: str = ""  # custom: of CSV files; empty: inferred from the header
    columns: dict[str, str] = field(default_factory=dict)  # custom: user's column names of text_a, text_b, label and domain


@dataclass
class Parsed:
    """A suite read from its raw files: domains in order, rows by split, and notes with counts.

    ``groups``: guid -> group of rows to keep in one split; ``cut``: splits that were cut from train.
    """

    domains: dict[str, Domain]
    rows: dict[str, list[Row]]
    notes: dict[str, int] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Count:
    """Expected and actual number of something in the raw files."""

    what: str
    expected: int
    found: int
    domain: str = ""  # "" if the suite has a single archive


@dataclass(frozen=True)
class Definition:
    """A suite: how to get its archives, check their content, and read them.

    ``read`` and ``counts`` take the folder of the unpacked archives.
    ``generate`` (folder, seed) writes the archives of a synthetic suite.
    """

    name: str
    read: Callable[[Path, ReadSettings, Problems], Parsed]
    archives: tuple[Archive, ...] = ()
    counts: Callable[[Path], Iterator[Count]] = lambda content: iter(())
    generate: Callable[[Path, int], None] | None = None
    paper_quiz: float = 0.0  # default share of train used as quiz with PROTOCOL=paper
    paper_selects_on: str = "dev"  # split for checkpoint selection with PROTOCOL=paper

    @property
    def separate(self) -> bool:
        """Whether each domain has its own archive and is split by itself."""
        return any(archive.domains for archive in self.archives)

    @property
    def domain_names(self) -> list[str]:
        """Names of the domains with their own archives."""
        return list(dict.fromkeys(name for archive in self.archives for name in archive.domains))

    def archives_of(self, domains: str) -> list[Archive]:
        """Archives needed by the named domains; all if no names are given or archives are not by domain."""
        if not self.separate:
            return list(self.archives)
        wanted = set(choose(domains, self.domain_names))
        return [archive for archive in self.archives if wanted.intersection(archive.domains)]
