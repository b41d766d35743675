"""Report sections with the table of results, and with score against size and speed."""

from dataclasses import replace

from markupsafe import Markup

from teachback.core.numerals import decimal, signed
from teachback.inference.baselines import CHANCE, MAJORITY
from teachback.inference.measured import Cost
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import OPTIMISTIC, Result, unseen_split
from teachback.reports.figures import KINDS, TRADEOFF, Point, kinds_legend, tradeoff_figure
from teachback.reports.parts import Figure, Section, Table, difference, first_of, listed, millions, shorten
from teachback.reports.run import Run
from teachback.reports.run_headline import Pair, pairs, span

FIGURES = 6  # maximum number of figures
TABLE_DOMAINS = 50  # maximum number of domains in the table of results
LAYOUT_DOMAINS = 12  # maximum number of domains as columns
COLUMN_LENGTH = 16  # maximum characters of their names
RAW_ROWS = 500
NOTHING = "–"


def results(run: Run) -> Section:
    """Section with every checkpoint's results, for several domains the papers' layout, and all rows of results.tsv."""
    if not run.results:
        return Section("results", "Results", missing="There is no results.tsv yet; run 7_eval.sh.")
    domains = run.targets or list(dict.fromkeys(result.domain for result in run.results))
    groups = {domain: _group(run, domain) for domain in domains[:TABLE_DOMAINS]}
    tables = [_layout(run, groups)] if 1 < len(domains) <= LAYOUT_DOMAINS else []
    tables += [*([_comparison(run, groups)] if any(groups.values()) else []), _all_rows(run)]
    return Section("results", "Results", tables=tables, notes=_result_notes(run, domains))


def _group(run: Run, domain: str) -> list[Checkpoint]:
    """Checkpoints to show for a domain; its teachers if it has no student."""
    checkpoints = run.of(domain) or [teacher for teacher in run.teachers.values() if run.score(teacher, domain)]
    return [one for one in checkpoints if run.score(one, domain) or run.cost(one)]


def _result_notes(run: Run, domains: list[str]) -> list[str]:
    splits, notes = {result.split for result in run.results if result not in run.outdated}, first_of(TABLE_DOMAINS, len(domains))
    if any(split.endswith(OPTIMISTIC) for split in splits):
        notes.append("* optimistic: the checkpoint was selected on the rows that are scored here (PROTOCOL=paper).")
    if machines := sorted({cost.machine for cost in run.costs}):
        notes.append(
            f"ms: median time of a forward pass per example on {listed(machines, length=80)}, and below it the range of the middle "
            "half of the passes; models of the same shape share a measurement. MB: size of the checkpoint's files."
        )
    if any(result.low is not None for result in run.results):
        notes.append("95 % interval: likely range of the score on other rows of the same kind. Chance: predicts every label equally often.")
    seen = []
    for domain in domains:
        scores = [(run.score(one, domain), run.unseen(one, domain)) for one in _group(run, domain)]
        seen += [f"{own.n - new.n:,} of {own.n:,} in {domain}" for own, new in scores if own and new][:1]
    if seen:
        notes.append(
            f"Unseen rows: without the {run.split} rows whose texts are also in train or quiz ({listed(seen)}); "
            "a dash if there are none. All other numbers include them."
        )
    if run.outdated:
        notes.append("results.tsv also contains scores of checkpoints that were replaced under another METHOD or PROTOCOL; they are not compared here.")
    compared = {run.split, run.split + OPTIMISTIC}
    if others := sorted(splits - compared - set(map(unseen_split, compared))):
        notes.append(f"results.tsv also contains scores on {listed(others)}, which are not compared here.")
    return notes


def _comparison(run: Run, groups: dict[str, list[Checkpoint]]) -> Table:
    """Table of every checkpoint; the most important columns come first, as a phone shows only these without scrolling."""
    known, sizes = [(one, target) for target, group in groups.items() for one in group], sorted({cost.batch_size for cost in run.costs})
    empty = {
        "95 % interval, %": not any(own.low is not None for place in known if (own := run.score(*place))),
        "on unseen rows %": not any(run.unseen(*place) for place in known),
        "against undistilled, points": not any(run.undistilled(target) for target in groups),
    }
    header, rows = [name for name in _line(run, *known[0], sizes) if not empty.get(name)], []
    for target, group in groups.items():
        rows += [[target, name, value, *[NOTHING] * (len(header) - 3)] for name, value in _baselines(run, target, group).items()]
        lines = (_line(run, one, target, sizes) for one in group)
        rows += [[line[name] for name in header] for line in lines]
    words = (0, 1, len(header) - 2, len(header) - 1)
    return Table(f"Every checkpoint on its domain, {run.split} split", header, rows, words)


def _baselines(run: Run, target: str, group: list[Checkpoint]) -> dict[str, str]:
    """Known scores of the majority class and of chance, by the metric of the domain's checkpoints."""
    scored = next((score for one in group if (score := run.score(one, target)) and score.baseline), None)
    values = {MAJORITY: scored.majority, CHANCE: scored.chance} if scored else {}
    return {name: decimal(100 * value, 2) for name, value in values.items() if value is not None}


def _line(run: Run, one: Checkpoint, target: str, sizes: list[int]) -> dict[str, str]:
    """Cells of a checkpoint by column."""
    own, cost = run.score(one, target), run.cost(one)
    any_cost, student = next(iter(cost.values()), None), None if one.is_teacher else own
    distilled = None if one.method == "finetune" or one.is_meta_teacher else student
    return {
        "domain": target, "model": one.kind, "score %": _score(own), "95 % interval, %": span(own),
        "on unseen rows %": _score(run.unseen(one, target)),
        "against teacher, points": _points(student, run.score(run.teacher(one), target)),
        "against undistilled, points": _points(distilled, run.score(run.undistilled(target), target)),
        "parameters": millions(any_cost.parameters) if any_cost else NOTHING,
        "MB": f"{any_cost.bytes / 1e6:.1f}" if any_cost else NOTHING,
        **{f"ms, batch {size}": _time(cost.get(size)) for size in sizes},
        "rows": f"{own.n:,}" if own else NOTHING, "metric": own.metric if own else NOTHING,
        "checkpoint": Markup("/<wbr>").join(one.stage.split("/")),
    }  # fmt: skip


def _points(own: Result | None, other: Result | None) -> str:
    """Difference of two scores in points, if they have the same metric."""
    return signed(100 * (own.value - other.value)) if own and other and own.metric == other.metric else NOTHING


def _time(cost: Cost | None) -> str:
    """Milliseconds, with their spread below."""
    if cost is None or cost.fast is None or cost.slow is None:
        return f"{cost.milliseconds:.2f}" if cost else NOTHING
    return Markup("{:.2f}<br><small>{:.2f}–{:.2f}</small>").format(cost.milliseconds, cost.fast, cost.slow)


def _score(result: Result | None) -> str:
    return decimal(100 * result.value, 2) + "*" * result.split.endswith(OPTIMISTIC) if result else NOTHING


def _layout(run: Run, groups: dict[str, list[Checkpoint]]) -> Table:
    """Table in the layout of the papers: a line per kind of model, a column per domain."""
    scores: dict[str, dict[str, Result]] = {}
    for target, group in groups.items():
        for one in group:
            if found := run.score(one, target):
                kind = "single teachers" if one.is_teacher and one.target else one.name
                scores.setdefault(kind, {})[target] = found
    floors = {target: _baselines(run, target, group) for target, group in groups.items()}
    names = [name for name in (MAJORITY, CHANCE) if any(name in floor for floor in floors.values())]
    rows = [[name, *(floors[target].get(name, NOTHING) for target in groups), NOTHING] for name in names]
    for kind in sorted(scores, key=lambda kind: KINDS.index(kind) if kind in KINDS else -1):
        values = [result.value for result in scores[kind].values()]
        mean = decimal(100 * sum(values) / len(values), 2) if len(values) == len(groups) else NOTHING
        rows.append([kind, *(_score(scores[kind].get(target)) for target in groups), mean])
    metrics = {result.metric for by_target in scores.values() for result in by_target.values()}
    what = f"{metrics.pop()} in %" if len(metrics) == 1 else "each domain's own metric in %"
    caption = f"Each domain's own student, {what}, {run.split} split"
    return Table(caption, ["model", *(shorten(name, COLUMN_LENGTH) for name in groups), "average"], rows)


def _all_rows(run: Run) -> Table:
    header = ["domain", "method", "stage", "split", "metric", "value", "n", "majority", "chance", "low", "high"]
    rows = [
        [r.domain, r.method, r.stage, r.split, r.metric, decimal(r.value, 4), f"{r.n:,}",
         *(NOTHING if value is None else decimal(value, 4) for value in (r.majority, r.chance, r.low, r.high))]
        for r in run.results[:RAW_ROWS]
    ]  # fmt: skip
    note = f"The first {RAW_ROWS} of {len(run.results)} rows." if len(run.results) > RAW_ROWS else ""
    return Table("All rows of results.tsv", header, rows, words=range(5), note=note, folded=True)


def tradeoff(run: Run) -> Section:
    """Section with score against time and size, a figure per domain."""
    found = [(pair, pair.cost) for pair in pairs(run) if pair.cost]
    if not found:
        return replace(TRADEOFF, missing="No sizes and times are known yet; run 7_eval.sh, which writes costs.tsv.")
    points = [_measured(run, pair, cost) for pair, cost in found[:FIGURES]]
    figures = [_tradeoff_figure(pair, cost, own) for (pair, cost), own in zip(found, points)]
    kinds = {point.kind for own in points for point in own.values()}
    return replace(TRADEOFF, legend=kinds_legend(kinds), figures=figures, notes=first_of(FIGURES, len(found)))


def _measured(run: Run, pair: Pair, student: Cost) -> dict[str, Point]:
    """Checkpoints with the same metric and batch size as the pair's student, by stage."""
    found = {}
    for one in run.of(pair.target):
        score, cost = run.score(one, pair.target), run.cost(one).get(student.batch_size)
        if score and cost and score.metric == pair.score.metric:
            ends = (100 * score.interval[0], 100 * score.interval[1]) if score.interval else None
            spread = None if cost.fast is None else cost.spread
            found[one.stage] = Point(one.kind, 100 * score.value, cost.parameters, cost.milliseconds, ends, spread)
    return found


def _tradeoff_figure(pair: Pair, student: Cost, points: dict[str, Point]) -> Figure:
    joined = [points[one.stage] for one in (pair.student, pair.teacher) if one and one.stage in points]
    floor = (pair.score.baseline[0], 100 * pair.score.baseline[1]) if pair.score.baseline else None
    title, reading = shorten(pair.target, 60), _tradeoff_reading(pair, student)
    return tradeoff_figure(title, list(points.values()), joined, pair.score.metric, student.batch_size, reading, floor)


def _tradeoff_reading(pair: Pair, student: Cost) -> str:
    takes, size = f"{student.milliseconds:.2f} ms per example", f"{millions(student.parameters)} parameters"
    if not pair.score.is_above_baseline:
        return f"{pair.name} takes {takes} and has {size}, but shows no signs of learning."
    if not (pair.reference and pair.reference_cost and pair.size_ratio):
        return f"{pair.name} takes {takes} and has {size}; there is no teacher to compare it with."
    speed = "(measured on another machine or other rows)"
    if student.is_comparable(pair.reference_cost):
        speed = f"({pair.speed_ratio:.1f} times as fast)" if pair.speed_ratio else "(the spreads overlap: neither is clearly faster)"
    return (
        f"{pair.name} is {difference(pair.score.value, pair.reference.value)} its teacher at {pair.size_ratio:.2f} of its size, "
        f"and takes {takes} against {pair.reference_cost.milliseconds:.2f} {speed}."
    )
