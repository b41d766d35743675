"""results.tsv, and the tables printed from scores.

results.tsv holds a score per row, keyed by the columns before the value. The last columns are the scores of the
majority class and of chance on the same rows, and the 95 % interval. Stages have a fixed order, so that the file does
not depend on the order in which they were scored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path

from teachback.core.tsv import merge_records, read_records
from teachback.inference.baselines import CHANCE, MAJORITY
from teachback.inference.metrics import Score
from teachback.inference.timing import Timing

OPTIMISTIC = "-selected"  # suffix of a split: checkpoints were selected on the scored rows
UNSEEN = "-unseen"  # suffix of a split that has texts from train or quiz: its other rows
META_TEACHER = "meta_teacher"
# Stage folders of a target domain in the order of the tables, and their names in the tables.
STAGE_NAMES = {
    META_TEACHER: "meta-teacher",
    "student_finetune": "undistilled",
    "student_first": "first stage",
    "student_second": "distilled",
    "curriculum": "curriculum",
}


@dataclass(frozen=True)
class Result:
    """A row of results.tsv. ``stage``: the checkpoint's folder, relative to the seed's folder."""

    suite: str
    domain: str
    method: str
    stage: str
    seed: int
    split: str
    metric: str
    value: float
    n: int
    majority: float | None = None
    chance: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def key(self) -> tuple:
        return astuple(self)[:KEYS]

    @property
    def plain_split(self) -> str:
        return self.split.removesuffix(OPTIMISTIC)

    @property
    def baseline(self) -> tuple[str, float] | None:
        """The better of the majority class and chance, with its score; None if neither is known."""
        known = [(MAJORITY, self.majority), (CHANCE, self.chance)]
        scores = [(name, value) for name, value in known if value is not None]
        return max(scores, key=lambda pair: pair[1], default=None)

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def is_above_baseline(self) -> bool:
        """Whether the whole interval lies above the baseline; True if either is unknown."""
        return self.low is None or self.baseline is None or self.low > self.baseline[1]


COLUMNS = tuple(field.name for field in fields(Result))
KEYS = COLUMNS.index("value")
FORM = (Result, "move the file away and run 7_eval.sh again")


def read_results(path: Path) -> list[Result]:
    """Read the rows of a results.tsv; empty if the file is missing."""
    return read_records(path, *FORM)


def merge_results(path: Path, new: Iterable[Result]) -> None:
    """Merge rows into results.tsv under a lock, replacing those with the same key.

    Replacing a score also removes the score on unseen rows that belongs to it.
    """
    new = list(new)
    outdated = {replace(result, split=unseen_split(result.split)).key for result in new}
    merge_records(
        path, *FORM, new, lambda result: result.key, lambda result: (*stage_order(result.stage), result.split),
        lambda result: result.key in outdated,
    )  # fmt: skip


def unseen_split(split: str) -> str:
    """Name in results.tsv for the rows of a split whose texts were not seen in training."""
    plain = split.removesuffix(OPTIMISTIC)
    return plain + UNSEEN + split[len(plain) :]


def stage_order(stage: str) -> tuple:
    """Sort key of stages: teachers first, then each target's checkpoints in the order of the pipeline."""
    target, _, name = stage.rpartition("/")
    return target, list(STAGE_NAMES).index(name) if name in STAGE_NAMES else len(STAGE_NAMES), name


def predictions_file(run: Path, stage: str, split: str) -> Path:
    """Path of a checkpoint's predictions, written by stage 7."""
    return Path(run) / "predictions" / f"{stage.replace('/', '__')}-{split}.tsv"


@dataclass(frozen=True)
class Evaluated:
    """Scores and costs of a checkpoint.

    ``intervals``: of the scores, by domain. ``timings``: milliseconds per example by batch size, on rows of ``timed_on``.
    """

    stage: str
    target: str  # domain of a student or single-domain teacher, "" for other teachers
    teacher: str  # stage of the teacher to compare with, "" for a teacher
    scores: dict[str, Score]  # by evaluated domain; empty if the head is untrained
    parameters: int
    bytes: int
    timings: dict[int, Timing] = field(default_factory=dict)
    timed_on: str = ""  # domains, separated by spaces
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    optimistic: bool = False  # selected on the scored rows
    # Scores on rows not seen in training, for domains that have seen rows; None if no row remains.
    unseen: dict[str, Score | None] = field(default_factory=dict)

    @property
    def scores_on_unseen(self) -> dict[str, Score]:
        """Scores, restricted to unseen rows for domains that have seen rows."""
        return {name: score for name, score in (self.scores | self.unseen).items() if score}


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Format a text table, the first ``texts`` columns left-aligned and the others right-aligned."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    sides = [str.ljust] * texts + [str.rjust] * (len(header) - texts)
    lines = ["  ".join(side(text, width) for side, text, width in zip(sides, row, widths)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * sum(widths, 2 * len(widths) - 2), *lines[1:]])


def model_name(stage: str) -> str:
    """Kind of a checkpoint, as shown in tables."""
    return STAGE_NAMES.get(stage.rpartition("/")[2], "teacher")


def comparison_table(
    evaluated: Sequence[Evaluated], domains: Sequence[str], baselines: Mapping[str, dict[str, Score]] | None = None
) -> str:
    """Table with a line per checkpoint: score on the target ``domains`` and on all, size, speed, ratio to its teacher.

    ``baselines``: scores by domain of each named baseline, shown above the checkpoints.
    """
    floors, single = baselines or {}, len(domains) == 1
    shown = {
        "95 % interval": single and any(one.intervals for one in evaluated),
        "unseen %": any(domain in one.unseen for one in evaluated for domain in domains),
        "average": scores_other_domains(evaluated, domains),
    }
    sizes = sorted({size for one in evaluated for size in one.timings})
    scores = [one.scores[domain] for one in evaluated for domain in domains if domain in one.scores]
    parts = [part.metric for part in scores[0].parts] if scores and single else []  # of the composite metric
    metrics = {score.metric for score in scores}
    metric, teachers = metrics.pop() if len(metrics) == 1 else "score", {one.stage: one for one in evaluated if not one.teacher}

    def line(one: Evaluated) -> dict[str, str]:
        targets, teacher = _targets(one, domains), teachers.get(one.teacher)
        score, reference = mean_of(one.scores, targets), mean_of(teacher.scores, targets) if teacher else None
        of_parts = {part.metric: part.value for part in one.scores[targets[0]].parts} if score is not None else {}
        beaten = reference is not None and reference > max([0.0, *(mean_of(floor, targets) or 0.0 for floor in floors.values())])
        return {
            "model": model_name(one.stage), "checkpoint": one.stage, "target": one.target or (targets[0] if single else "all"),
            f"{metric} %": _marked(one, score), "95 % interval": _interval(one.intervals.get(targets[0])),
            "unseen %": _marked(one, mean_of(one.scores_on_unseen, targets)),
            **{f"{part} %": _marked(one, of_parts.get(part)) for part in parts},
            "average": _marked(one, mean_of(one.scores, list(one.scores))),
            "parameters": f"{one.parameters / 1e6:.2f} M", "MB": f"{one.bytes / 1e6:.1f}",
            **{f"ms, batch {size}": f"{one.timings[size].median:.2f}" if size in one.timings else "-" for size in sizes},
            # A ratio to a teacher that is not better than the baselines is meaningless.
            "of teacher": f"{100 * score / reference:.1f} %" if score is not None and reference and beaten else "-",
        }  # fmt: skip

    target, unknown = domains[0] if single else "", {"checkpoint": "-", "parameters": "-", "MB": "-"}
    lines = [line(Evaluated(name, target, "", own, 0, 0)) | {"model": name} | unknown for name, own in floors.items()]
    lines += map(line, evaluated)
    header = [name for name in lines[0] if shown.get(name, True)]
    return format_table(header, [[cells[name] for name in header] for cells in lines], texts=3)


def scores_other_domains(evaluated: Sequence[Evaluated], domains: Sequence[str]) -> bool:
    """Whether a checkpoint has scores of other domains than its targets, so that the mean over all domains differs."""
    return any(set(one.scores) - set(_targets(one, domains)) for one in evaluated)


def _targets(one: Evaluated, domains: Sequence[str]) -> list[str]:
    return [one.target] if one.target else list(domains)


def metric_names(evaluated: Sequence[Evaluated], domains: Sequence[str]) -> set[str]:
    """Metrics of the scores on ``domains``."""
    return {one.scores[domain].metric for one in evaluated for domain in domains if domain in one.scores}


def _marked(one: Evaluated, value: float | None) -> str:
    return percent(value) + ("*" if one.optimistic and value is not None else "")


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def mean_of(scores: dict[str, Score], domains: Sequence[str]) -> float | None:
    """Unweighted mean over ``domains``; None if a domain has no score."""
    if not domains or any(domain not in scores for domain in domains):
        return None
    return sum(scores[domain].value for domain in domains) / len(domains)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def domains_table(
    evaluated: Sequence[Evaluated], owners: dict[str, str], baselines: Mapping[str, dict[str, Score]] | None = None
) -> str:
    """Table in the layout of the papers: a column per domain, a row per teacher and per kind of student.

    ``owners``: the target whose student predicts each domain, a different one for a domain without train rows.
    """
    shown = {name: {d: s for d, s in scores.items() if d in owners} for name, scores in (baselines or {}).items()}
    rows: dict[str, dict[str, Score]] = {name: scores for name, scores in shown.items() if scores}
    seen = any(domain in one.unseen for one in evaluated for domain in owners)
    for one in evaluated:
        served = [domain for domain, owner in owners.items() if owner == one.target or not one.target]
        scores = {domain: one.scores[domain] for domain in served if domain in one.scores}
        if scores:
            rows.setdefault(_row_name(one), {}).update(scores)
            if seen:
                without = {domain: score for domain, score in one.scores_on_unseen.items() if domain in scores}
                rows.setdefault(f"{_row_name(one)}, unseen", {}).update(without)
    lines = []
    for name, scores in rows.items():
        values = [scores[domain].value if domain in scores else None for domain in owners]
        lines.append([name, *map(percent, [*values, mean_of(scores, list(owners))])])
    if len(metric_names(evaluated, list(owners))) > 1:
        lines.insert(0, ["", *("/".join(metric_names(evaluated, [domain])) or "-" for domain in owners), ""])
    return format_table(["each domain's own", *owners, "average"], lines)


def _row_name(one: Evaluated) -> str:
    """Row label, shared by the students of several domains and by the single-domain teachers."""
    name = STAGE_NAMES.get(one.stage.rpartition("/")[2], one.stage.removesuffix(f"-{one.target}"))
    return name + "*" if one.optimistic else name
