"""The report's first sections: what the students reach against their teachers, the table of results, and score against
size and speed.
"""

from dataclasses import dataclass, replace

from teachback.core.numerals import decimal, signed
from teachback.inference.costs import Cost
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import OPTIMISTIC, Result, model_name, unseen_split
from teachback.reports.parts import Figure, Section, Table, counted, difference, listed, percent, shorten
from teachback.reports.plots import KINDS, TRADEOFF, Point, kinds_legend, millions, tradeoff_figure
from teachback.reports.run import Run, named

SENTENCES = 8  # domains that the headline speaks of one by one
FIGURES = 6  # domains with a figure of their own
TABLE_DOMAINS = 50  # domains in the table of results
LAYOUT_DOMAINS = 12  # domains side by side
COLUMN_LENGTH = 16  # characters of their names
RAW_ROWS = 500


@dataclass(frozen=True)
class Pair:
    """A domain's student and its teacher; whatever the teacher's part is not there is None."""

    target: str
    student: Checkpoint
    teacher: Checkpoint | None
    score: Result
    reference: Result | None
    cost: Cost | None
    reference_cost: Cost | None

    @property
    def size_ratio(self) -> float | None:
        """The student's parameters over its teacher's."""
        if not (self.cost and self.reference_cost and self.reference_cost.parameters):
            return None
        return self.cost.parameters / self.reference_cost.parameters

    @property
    def speed_ratio(self) -> float | None:
        """How many times as fast the student is; None where the two were measured on different machines."""
        if not (self.cost and self.reference_cost and self.cost.milliseconds):
            return None
        same = self.cost.machine == self.reference_cost.machine
        return self.reference_cost.milliseconds / self.cost.milliseconds if same else None


def pairs(run: Run) -> list[Pair]:
    """Every domain's student that has a score, with its teacher; costs at the largest batch that both were timed at."""
    found = []
    for target in run.targets:
        if (student := run.student(target)) and (score := run.score(student, target)):
            teacher = run.teacher(student)
            reference = run.score(teacher, target)
            if reference and reference.metric != score.metric:
                reference = None
            own, other = run.cost(student), run.cost(teacher)
            size = max(set(own) & set(other) or own, default=0)
            found.append(Pair(target, student, teacher, score, reference, own.get(size), other.get(size)))
    return found


def headline(run: Run) -> Section:
    """What the students reach, how much smaller and how much faster they are."""
    found = pairs(run)
    if not found:
        advice = f"No student has a score on the {run.split} split yet: run 5_student_second.sh, then 7_eval.sh."
        return Section("headline", "In short", missing=advice)
    more = len(found) - SENTENCES
    rest = [f"… and {counted(more, 'further domain')}, in the table below."] if more > 0 else []
    notes = [*map(sentence, found[:SENTENCES]), *rest]
    return Section("headline", "In short", intro=_summary(found), notes=notes, lead=True)


def _summary(found: list[Pair]) -> str:
    """One sentence over all domains where there are several."""
    compared = [(pair.score, pair.reference) for pair in found if pair.reference]
    if len(compared) < 2:
        return ""
    own = sum(score.value for score, _ in compared) / len(compared)
    teachers = sum(reference.value for _, reference in compared) / len(compared)
    metrics = {score.metric for score, _ in compared}
    what = f"{metrics.pop()} of" if len(metrics) == 1 else "score, by each domain's own metric, of"
    return (
        f"Over {len(compared)} domains the students reach a mean {what} {percent(own)}, "
        f"{difference(own, teachers)} their teachers' {percent(teachers)}."
    )


def sentence(pair: Pair) -> str:
    """A domain's result in a sentence: "books: the distilled student reaches 86.4 % accuracy, 1.2 points below ..."."""
    text = (
        f"{pair.target}: the {model_name(pair.student.stage)} student reaches {percent(pair.score.value)} {pair.score.metric} "
        f"on {counted(pair.score.n, 'row')}"
    )
    if pair.reference:
        text += f", {difference(pair.score.value, pair.reference.value)} its teacher's {percent(pair.reference.value)}"
    ratios = []
    if pair.size_ratio and pair.cost and pair.reference_cost:
        ratios.append(
            f"{pair.size_ratio:.2f} of its parameters ({millions(pair.cost.parameters)} of {millions(pair.reference_cost.parameters)})"
        )
    if pair.speed_ratio:
        ratios.append(f"{pair.speed_ratio:.1f} times its speed")
    return text + (f", with {' and '.join(ratios)}" if ratios else "") + "."


def results(run: Run) -> Section:
    """Every checkpoint on its domain; the papers' layout where there are several domains; all rows of results.tsv."""
    if not run.results:
        return Section("results", "Results", missing="There is no results.tsv: run 7_eval.sh.")
    domains = run.targets or list(dict.fromkeys(result.domain for result in run.results))
    groups = {domain: _group(run, domain) for domain in domains[:TABLE_DOMAINS]}
    tables = [_layout(run, groups)] if 1 < len(domains) <= LAYOUT_DOMAINS else []
    tables += [_comparison(run, groups), _all_rows(run)]
    return Section("results", "Results", tables=tables, notes=_result_notes(run, domains))


def _group(run: Run, domain: str) -> list[Checkpoint]:
    """What the table shows of a domain; of one without a student, its teachers."""
    own = run.of(domain) or [teacher for teacher in run.teachers.values() if run.score(teacher, domain)]
    return [one for one in own if run.score(one, domain) or run.cost(one)]


def _result_notes(run: Run, domains: list[str]) -> list[str]:
    splits = {result.split for result in run.results}
    notes = []
    if len(domains) > TABLE_DOMAINS:
        notes.append(f"The first {TABLE_DOMAINS} of {len(domains)} domains are shown.")
    if any(split.endswith(OPTIMISTIC) for split in splits):
        notes.append("* optimistic: the checkpoint was selected on the rows that are scored here (PROTOCOL=paper).")
    if machines := sorted({cost.machine for cost in run.costs}):
        notes.append(f"ms: forward pass an example on {listed(machines, length=80)}. MB: the checkpoint's file.")
    compared = {run.split, run.split + OPTIMISTIC}
    compared |= set(map(unseen_split, compared))
    notes += _seen_note(run, domains)
    if others := sorted(splits - compared):
        notes.append(f"results.tsv also holds scores on {listed(others)}, which are not compared here.")
    return notes


def _seen_note(run: Run, domains: list[str]) -> list[str]:
    """How many of the scored rows were seen in training."""
    counts = []
    for domain in domains:
        pairs = [(run.score(one, domain), run.unseen(one, domain)) for one in _group(run, domain)]
        counts += [f"{own.n - new.n:,} of {own.n:,} of {domain}" for own, new in pairs if own and new][:1]
    if not counts:
        return []
    return [
        f"Unseen: without the {run.split} rows that have the very texts of train or quiz rows, which are {listed(counts)}; "
        "where there are none, the score is as it stands. All other numbers are with them."
    ]


def _comparison(run: Run, groups: dict[str, list[Checkpoint]]) -> Table:
    """What one looks for first comes first, for on a phone the rest is a scroll away."""
    sizes = sorted({cost.batch_size for cost in run.costs})
    header = [
        "domain", "model", "score %", "against teacher, points", "parameters", "MB", *(f"ms, batch {n}" for n in sizes), "rows",
        "metric", "checkpoint",
    ]  # fmt: skip
    lines = [(target, one) for target, group in groups.items() for one in group]
    rows = [_line(run, target, one, sizes) for target, one in lines]
    unseen = [run.unseen(one, target) for target, one in lines]
    if any(unseen):
        header.insert(3, "on unseen rows %")
        for row, found in zip(rows, unseen):
            row.insert(3, _score(found))
    words = (0, 1, len(header) - 2, len(header) - 1)
    return Table(f"Every checkpoint on its domain, {run.split} split", header, rows, words)


def _line(run: Run, target: str, one: Checkpoint, sizes: list[int]) -> list[str]:
    own, reference, cost = run.score(one, target), run.score(run.teacher(one), target), run.cost(one)
    any_cost = next(iter(cost.values()), None)
    points = "–"
    if own and reference and own.metric == reference.metric and not one.is_teacher:
        points = signed(100 * (own.value - reference.value))
    return [
        target, model_name(one.stage), _score(own), points,
        millions(any_cost.parameters) if any_cost else "–", f"{any_cost.bytes / 1e6:.1f}" if any_cost else "–",
        *(f"{cost[size].milliseconds:.2f}" if size in cost else "–" for size in sizes),
        f"{own.n:,}" if own else "–", own.metric if own else "–", one.stage,
    ]  # fmt: skip


def _score(result: Result | None) -> str:
    if not result:
        return "–"
    return decimal(100 * result.value, 2) + ("*" if result.split.endswith(OPTIMISTIC) else "")


def _layout(run: Run, groups: dict[str, list[Checkpoint]]) -> Table:
    """The papers' layout: a line a kind of model, a column a domain."""
    scores: dict[str, dict[str, Result]] = {}
    for target, group in groups.items():
        for one in group:
            if found := run.score(one, target):
                kind = "single teachers" if one.is_teacher and one.target else named(one)
                scores.setdefault(kind, {})[target] = found
    order = sorted(scores, key=lambda kind: KINDS.index(kind) if kind in KINDS else -1)
    rows = [[kind, *(_score(scores[kind].get(t)) for t in groups), _mean(scores[kind], groups)] for kind in order]
    metrics = {result.metric for by_target in scores.values() for result in by_target.values()}
    what = f"{metrics.pop()} in %" if len(metrics) == 1 else "each domain's own metric in %"
    caption = f"Each domain's own student, {what}, {run.split} split"
    return Table(caption, ["model", *(shorten(name, COLUMN_LENGTH) for name in groups), "average"], rows)


def _mean(scores: dict[str, Result], groups: dict[str, list]) -> str:
    if set(scores) != set(groups):
        return "–"
    return decimal(100 * sum(result.value for result in scores.values()) / len(scores), 2)


def _all_rows(run: Run) -> Table:
    header = ["domain", "method", "stage", "split", "metric", "value", "n"]
    rows = [[r.domain, r.method, r.stage, r.split, r.metric, decimal(r.value, 4), f"{r.n:,}"] for r in run.results]
    note = f"The first {RAW_ROWS} of {len(rows)} rows." if len(rows) > RAW_ROWS else ""
    return Table("All rows of results.tsv", header, rows[:RAW_ROWS], words=range(5), note=note, folded=True)


def tradeoff(run: Run) -> Section:
    """Score against time and size, a figure a domain."""
    found = [(pair, pair.cost) for pair in pairs(run) if pair.cost]
    if not found:
        return replace(TRADEOFF, missing="No sizes and times are known: run 7_eval.sh, which writes costs.tsv.")
    notes = [f"The first {FIGURES} of {len(found)} domains are shown."] if len(found) > FIGURES else []
    points = [_points(run, pair, cost) for pair, cost in found[:FIGURES]]
    figures = [_tradeoff_figure(pair, cost, own) for (pair, cost), own in zip(found, points)]
    kinds = {point.kind for own in points for point in own.values()}
    return replace(TRADEOFF, legend=kinds_legend(kinds), figures=figures, notes=notes)


def _points(run: Run, pair: Pair, student: Cost) -> dict[str, Point]:
    """What was scored by the same metric and timed at the same batch size as the pair's student, by stage."""
    found = {}
    for one in run.of(pair.target):
        score, cost = run.score(one, pair.target), run.cost(one).get(student.batch_size)
        if score and cost and score.metric == pair.score.metric:
            found[one.stage] = Point(model_name(one.stage), 100 * score.value, cost.parameters, cost.milliseconds)
    return found


def _tradeoff_figure(pair: Pair, student: Cost, points: dict[str, Point]) -> Figure:
    joined = [points[one.stage] for one in (pair.student, pair.teacher) if one and one.stage in points]
    title, reading = shorten(pair.target, 60), _tradeoff_reading(pair, student)
    return tradeoff_figure(title, list(points.values()), joined, pair.score.metric, student.batch_size, reading)


def _tradeoff_reading(pair: Pair, student: Cost) -> str:
    who = f"{pair.target}: the {model_name(pair.student.stage)} student"
    takes = f"{student.milliseconds:.2f} ms an example"
    if not (pair.reference and pair.reference_cost and pair.size_ratio):
        return f"{who} takes {takes} and has {millions(student.parameters)} parameters; there is no teacher to compare it with."
    speed = f"({pair.speed_ratio:.1f} times as fast)" if pair.speed_ratio else "(measured on another machine)"
    return (
        f"{who} is {difference(pair.score.value, pair.reference.value)} its teacher at {pair.size_ratio:.2f} of its size, "
        f"and takes {takes} against {pair.reference_cost.milliseconds:.2f} {speed}."
    )
