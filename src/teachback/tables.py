"""results.tsv, and the tables printed from scores.

results.tsv holds one number a row. A row's key is every column but value and n.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from filelock import FileLock

from teachback.errors import TeachbackError
from teachback.files import write_atomically
from teachback.metrics import Score

OPTIMISTIC = "-selected"  # after a split's name: checkpoints were selected on the very rows that are scored


@dataclass(frozen=True)
class Result:
    """One row of results.tsv. ``stage`` is the checkpoint's folder below the seed's folder."""

    suite: str
    domain: str
    method: str
    stage: str
    seed: int
    split: str
    metric: str
    value: float
    n: int

    @property
    def key(self) -> tuple:
        return astuple(self)[:-2]


COLUMNS = tuple(field.name for field in fields(Result))


def read_results(path: Path) -> list[Result]:
    """The rows of a results.tsv; a missing file has none."""
    path = Path(path)
    if not path.exists():
        return []
    header, *lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if tuple(header.split("\t")) != COLUMNS:
        raise TeachbackError(
            f"{path} line 1: columns are not {' '.join(COLUMNS)}; move the file away and run 7_eval.sh again"
        )
    return [_parse(path, number, line) for number, line in enumerate(lines, start=2)]


def _parse(path: Path, number: int, line: str) -> Result:
    try:
        *texts, value, n = line.split("\t")
        suite, domain, method, stage, seed, split, metric = texts
        return Result(suite, domain, method, stage, int(seed), split, metric, float(value), int(n))
    except ValueError as error:
        raise TeachbackError(f"{path} line {number} is not a result ({error}); mend or remove the line") from error


def merge_results(path: Path, new: Iterable[Result]) -> None:
    """Put rows into results.tsv in place of those with the same key; safe among parallel processes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        rows = {result.key: result for result in [*read_results(path), *new]}
        lines = ["\t".join(COLUMNS), *("\t".join(map(_text, astuple(result))) for result in rows.values())]
        write_atomically(path, "\n".join(lines) + "\n")


def _text(value) -> str:
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Evaluated:
    """What a table says of one checkpoint. ``milliseconds``: batch size -> milliseconds an example."""

    stage: str
    target: str  # the domain a student (or single-domain teacher) is for, "" for the other teachers
    teacher: str  # stage of the teacher it is compared with, "" for a teacher
    scores: dict[str, Score]  # by evaluated domain; empty where the head is untrained
    parameters: int
    bytes: int
    milliseconds: dict[int, float] = field(default_factory=dict)
    optimistic: bool = False  # selected on the rows that are scored


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text columns to the left, all others to the right, two blanks between; the first column is text."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * sum(widths, 2 * len(widths) - 2), *lines[1:]])


def comparison_table(evaluated: Sequence[Evaluated], domains: Sequence[str]) -> str:
    """One line a checkpoint: score on the target ``domains`` and on all, size, speed, ratio to its teacher."""
    sizes = sorted({size for one in evaluated for size in one.milliseconds})
    timing = [f"ms, batch {size}" for size in sizes]
    header = ["checkpoint", "target", _metric_name(evaluated), "average", "parameters", "MB", *timing, "of teacher"]
    teachers = {one.stage: one for one in evaluated if not one.teacher}
    return format_table(header, [_line(one, teachers, sizes, domains) for one in evaluated])


def _metric_name(evaluated: Sequence[Evaluated]) -> str:
    names = {score.metric for one in evaluated for score in one.scores.values()}
    return f"{names.pop()} %" if len(names) == 1 else "score %"


def _line(one: Evaluated, teachers: dict[str, Evaluated], sizes: list[int], domains: Sequence[str]) -> list[str]:
    targets = [one.target] if one.target else list(domains)
    own, reference = mean_score(one, targets), mean_score(teachers.get(one.teacher), targets)
    mark = "*" if one.optimistic else ""
    return [
        one.stage,
        one.target or (targets[0] if len(targets) == 1 else "all"),
        percent(own) + mark,
        percent(mean_score(one, list(one.scores))) + mark,
        f"{one.parameters / 1e6:.2f} M",
        f"{one.bytes / 1e6:.1f}",
        *(f"{one.milliseconds[size]:.2f}" if size in one.milliseconds else "-" for size in sizes),
        f"{100 * own / reference:.1f} %" if own is not None and reference else "-",
    ]


def mean_score(one: Evaluated | None, domains: Sequence[str]) -> float | None:
    """Unweighted mean over ``domains``; None where a domain has no score."""
    if one is None or not domains or any(domain not in one.scores for domain in domains):
        return None
    return sum(one.scores[domain].value for domain in domains) / len(domains)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def domains_table(evaluated: Sequence[Evaluated], domains: Sequence[str]) -> str:
    """The papers' layout: teachers by domain, and each domain's own student under the name of its stage."""
    rows: dict[str, dict[str, Score]] = {}
    for one in evaluated:
        own = [one.target] if one.target else domains
        scores = {domain: one.scores[domain] for domain in own if domain in one.scores}
        if scores:
            rows.setdefault(_row_name(one), {}).update(scores)
    return format_table(
        ["each domain's own", *domains, "average"], [_domains_line(name, s, domains) for name, s in rows.items()]
    )


def _row_name(one: Evaluated) -> str:
    """Students of several domains share a line; so do the single-domain teachers."""
    name = one.stage.removeprefix(f"{one.target}/").removesuffix(f"-{one.target}")
    return name + "*" if one.optimistic else name


def _domains_line(name: str, scores: dict[str, Score], domains: Sequence[str]) -> list[str]:
    values = [scores[domain].value if domain in scores else None for domain in domains]
    average = None if None in values else sum(values) / len(values)
    return [name, *map(percent, values), percent(average)]
