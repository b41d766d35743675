"""What a suite has to say about itself so that stages 1 and 2 can fetch and read it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.groups import Groups
from teachback.data.schema import Domain, Row

PACKED = (".zip", ".gz", ".tgz", ".tar")


def choose(names: str, known: Iterable[str]) -> list[str]:
    """Those of the known domains, in their order, that DOMAINS names; all where it is empty."""
    known = list(known)
    wanted = names.replace(",", " ").split() or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise TeachbackError(f"DOMAINS: there is no domain {unknown[0]!r}; there are: {', '.join(known)}")
    return [name for name in known if name in wanted]


def or_restrict(names: list[str]) -> str:
    """How an error says that a part of the suite will do, if there is any."""
    return f', or restrict the suite to what is there with DOMAINS="{" ".join(names)}"' if names else ""


@dataclass(frozen=True)
class Archive:
    """A file to fetch, with the addresses to try in this order; or a plain file, which is not unpacked but copied."""

    name: str
    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()  # which need it, in a suite of several archives
    place: str = ""  # folder of a plain file
    other_names: tuple[str, ...] = ()  # that a plain file has elsewhere
    without: str = ""  # what happens where it cannot be had; empty: that is an error

    @property
    def packed(self) -> bool:
        return self.name.endswith(PACKED)

    @property
    def folder(self) -> str:
        """Where it is unpacked, below the suite's ``content`` folder."""
        return self.place or self.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")


@dataclass(frozen=True)
class ReadSettings:
    """What a reader may need beside the files."""

    seed: int = 42
    dev_fraction: float = 0.1
    test_fraction: float = 0.1
    protocol: str = "honest"
    domains: str = ""  # names of those to read, where a suite can be read in part; empty: all
    group_by: str = "auto"  # custom: which text rows of one split may not share with another's
    group_column: str = ""  # custom: the same of a column's values
    delimiter: str = ""  # custom: of CSV files; empty: found in the header
    columns: dict[str, str] = field(default_factory=dict)  # custom: the user's names of text_a, text_b, label and domain


@dataclass
class Parsed:
    """A suite as read from its raw files: domains in order, rows by split, and counts worth telling.

    ``groups``: which rows a further cut may not part; ``cut``: splits that were cut as the user's settings say.
    """

    domains: dict[str, Domain]
    rows: dict[str, list[Row]]
    notes: dict[str, int] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Count:
    """One number that the raw files are known to have, and the number found."""

    what: str
    expected: int
    found: int
    domain: str = ""  # "" where the suite has but one archive


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
    paper_quiz: float = 0.0  # the share of train that becomes quiz with PROTOCOL=paper, unless another is asked for
    paper_selects_on: str = "dev"  # the split that checkpoints are selected on with PROTOCOL=paper

    @property
    def separate(self) -> bool:
        """Whether its domains come in archives of their own, and each is divided by itself."""
        return any(archive.domains for archive in self.archives)

    @property
    def domain_names(self) -> list[str]:
        """Names of the domains that have archives of their own."""
        return list(dict.fromkeys(name for archive in self.archives for name in archive.domains))

    def archives_of(self, domains: str) -> list[Archive]:
        """Those that the named domains need; all where the names are empty, or the archives are not by domain."""
        if not self.separate:
            return list(self.archives)
        wanted = set(choose(domains, self.domain_names))
        return [archive for archive in self.archives if wanted.intersection(archive.domains)]
