"""Common parts of SuperGLUE and GLUE: official splits, ours, and missing raw files.

The official dev set is our ``test``, our ``dev`` is cut from train, and the official unlabelled test is ``hidden``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.schema import HIDDEN, Domain, Row
from teachback.data.splits import cut_each
from teachback.data.suites.definition import Archive, Count, Parsed, ReadSettings, advice_to_restrict, choose

SPLIT_OF = {"train": "train", "val": "test", "test": HIDDEN}  # official split -> ours
DEV_FRACTION = 0.1  # of each domain's train rows
TEST_FRACTION = 0.1  # the same, if the official dev set is missing


@dataclass(frozen=True)
class Task:
    """A domain, its archive, and the published numbers of rows in train, val and test."""

    domain: Domain
    archive: Archive
    known: tuple[int, int, int]

    @property
    def name(self) -> str:
        return self.domain.name


Tasks = Mapping[str, Task]
Reader = Callable[..., Iterator[Row]]  # (task, official split, content, domains, problems)


def read(tasks: Tasks, rows_of: Reader, content: Path, settings: ReadSettings, problems: Problems) -> Parsed:
    """Read the selected domains. With PROTOCOL=paper no dev is cut, as checkpoints are selected on test."""
    chosen = _present(tasks, content, settings.domains)
    domains = {task.name: task.domain for task in chosen}
    rows = {
        split: [row for task in chosen for row in rows_of(task, part, content, domains, problems)]
        for part, split in SPLIT_OF.items()
    }
    notes = _cut_missing_test(rows, domains, settings.seed)
    if settings.protocol != "paper":
        rows["train"], rows["dev"] = cut_each(rows["train"], DEV_FRACTION, settings.seed, domains)
    return Parsed(domains, rows, notes)


def counts(tasks: Iterable[Task], rows_of: Reader, content: Path) -> Iterator[Count]:
    """Expected and actual number of valid rows of each available domain, by official split."""
    for task in tasks:
        if (content / task.archive.folder).is_dir():
            for part, known in zip(SPLIT_OF, task.known):
                found = sum(1 for _ in rows_of(task, part, content, {task.name: task.domain}, Problems()))
                yield Count(f"{part} rows of {task.name}", known, found, task.name)


def _present(tasks: Tasks, content: Path, names: str) -> list[Task]:
    """Tasks selected by DOMAINS; raises TeachbackError if raw files of a selected task are missing."""
    wanted = choose(names, tasks)
    absent = [name for name, task in tasks.items() if not (content / task.archive.folder).is_dir()]
    missing = [name for name in wanted if name in absent]
    if missing:
        here = [name for name in tasks if name not in absent]
        raise TeachbackError(
            f"{content} has no raw files of {', '.join(missing)}; run 1_get_data.sh for them{advice_to_restrict(here)}"
        )
    if absent:
        print(f"left out because they are not in DOMAINS: {', '.join(absent)}")
    return [tasks[name] for name in wanted]


def _cut_missing_test(rows: dict[str, list[Row]], domains: dict[str, Domain], seed: int) -> dict[str, int]:
    """Cut ``test`` from train for domains without the official dev set; returns notes with row counts."""
    reported = {row.domain for row in rows["test"]}
    notes = {}
    for name in [name for name in domains if name not in reported]:
        domain_rows = [row for row in rows["train"] if row.domain == name]
        stays, taken = cut_each(domain_rows, TEST_FRACTION, seed, {name: domains[name]})
        rows["train"] = [row for row in rows["train"] if row.domain != name] + stays
        rows["test"] += taken
        notes[f"train rows of {name} are its test, as the official dev set is missing"] = len(taken)
    return notes


def official_file(path: Path, part: str) -> bool:
    """Whether the file of an official split exists; raises TeachbackError unless the missing split is test."""
    if not path.is_file() and part != "test":
        raise TeachbackError(f"{path} does not exist; run 1_get_data.sh first")
    return path.is_file()
