"""Headline section of the report: students compared with chance, their teachers and undistilled students."""

from dataclasses import dataclass

import numpy as np

from teachback.core.numerals import decimal
from teachback.inference.baselines import MAJORITY
from teachback.inference.costs import Cost
from teachback.inference.metrics import GROUPED, as_numbers, group_of
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import Result, model_name
from teachback.reports.parts import Section, counted, difference, listed, percent
from teachback.reports.plots import millions
from teachback.reports.run import Run
from teachback.reports.significance import Paired, paired_bootstrap

SENTENCES = 8  # maximum number of domains described individually
SIGNIFICANT = 0.05  # significance level of p


@dataclass(frozen=True)
class Pair:
    """Student of a domain with its teacher, scores and costs; None for whatever is missing."""

    target: str
    student: Checkpoint
    teacher: Checkpoint | None
    score: Result
    reference: Result | None
    cost: Cost | None
    reference_cost: Cost | None
    plain: Checkpoint | None = None  # the undistilled student, if it is not ``student``
    plain_score: Result | None = None
    plain_cost: Cost | None = None

    @property
    def size_ratio(self) -> float | None:
        """Ratio of the student's to the teacher's number of parameters."""
        if not (self.cost and self.reference_cost and self.reference_cost.parameters):
            return None
        return self.cost.parameters / self.reference_cost.parameters

    @property
    def speed_ratio(self) -> float | None:
        """Speed-up of the student over its teacher; None if unknown or if the times overlap."""
        return self.cost.times_as_fast(self.reference_cost) if self.cost and self.reference_cost else None


def pairs(run: Run) -> list[Pair]:
    """Pairs of all domains whose student has a score; costs are those of the largest common batch size."""
    result = []
    for target in run.targets:
        if (student := run.student(target)) and (score := run.score(student, target)):
            teacher = run.teacher(student)
            plain = run.undistilled(target) if student.method != "finetune" else None
            own, other, its = run.cost(student), run.cost(teacher), run.cost(plain)
            size = max(set(own) & set(other) or own, default=0)
            result.append(
                Pair(
                    target, student, teacher, score, _alike(run.score(teacher, target), score), own.get(size), other.get(size),
                    plain, _alike(run.score(plain, target), score), its.get(size),
                )
            )  # fmt: skip
    return result


def _alike(result: Result | None, score: Result) -> Result | None:
    """``result`` if it has the same metric as ``score``, else None."""
    return result if result and result.metric == score.metric else None


def headline(run: Run) -> Section:
    """Section on the scores, size and speed of the students."""
    every = pairs(run)
    if not every:
        advice = f"No student has a score on the {run.split} split yet: run 5_student_second.sh, then 7_eval.sh."
        return Section("headline", "In short", missing=advice)
    more = len(every) - SENTENCES
    rest = [f"… and {counted(more, 'further domain')}, in the table below."] if more > 0 else []
    notes = [*(f"{sentence(pair, paired_p(run, pair, pair.teacher))}{_worth(run, pair)}" for pair in every[:SENTENCES]), *rest]
    return Section("headline", "In short", intro=_summary(every), notes=notes, lead=True)


def _summary(every: list[Pair]) -> str:
    """Summary over all domains, if there are several."""
    compared = [(pair.score, pair.reference) for pair in every if pair.reference]
    if len(compared) < 2:
        return ""
    own = sum(score.value for score, _ in compared) / len(compared)
    teachers = sum(reference.value for _, reference in compared) / len(compared)
    metrics = {score.metric for score, _ in compared}
    what = f"{metrics.pop()} of" if len(metrics) == 1 else "score, by each domain's own metric, of"
    text = (
        f"Over {len(compared)} domains the students reach a mean {what} {percent(own)}, "
        f"{difference(own, teachers)} their teachers' {percent(teachers)}."
    )
    poor = [pair.target for pair in every if not pair.score.is_above_baseline]
    if len(poor) == len(every):
        return f"Nothing learnt shows on any of {len(every)} domains."
    return text + (f" Nothing learnt shows on {len(poor)} of {len(every)}: {listed(poor)}." if poor else "")


def sentence(pair: Pair, p: float | None = None) -> str:
    """Result of a domain as a sentence: "books: the distilled student reaches 86.4 % accuracy, 1.2 points below ...".

    ``p``: p-value of a paired test against its teacher, if known.
    """
    who, score, baseline = f"{pair.target}: the {model_name(pair.student.stage)} student", pair.score, pair.score.baseline
    reached = f"{percent(score.value)} {score.metric} on {counted(score.n, 'row')}"
    interval = f"95 % interval {span(score)} %" if score.low is not None else ""
    if baseline and not score.is_above_baseline:
        text = f"{who} shows nothing learnt: its {reached} ({interval}) is not clearly above "
        text += f"{'the ' if baseline[0] == MAJORITY else ''}{baseline[0]} with {percent(baseline[1])}"
        return f"{text}{_poor_teacher(pair)}."
    judged = "; ".join(filter(None, [interval, f"{baseline[0]} {percent(baseline[1])}" if baseline else ""]))
    text = f"{who} reaches {reached}" + (f" ({judged})" if judged else "")
    if pair.reference and pair.reference.is_above_baseline:
        text += f", {difference(score.value, pair.reference.value)} its teacher's {percent(pair.reference.value)}{_p(p)}"
    else:
        text += _poor_teacher(pair)
    ratios = []
    if pair.size_ratio and pair.cost and pair.reference_cost:
        ratios.append(
            f"{pair.size_ratio:.2f} of its parameters ({millions(pair.cost.parameters)} of {millions(pair.reference_cost.parameters)})"
        )
    if pair.speed_ratio:
        ratios.append(f"{pair.speed_ratio:.1f} times its speed")
    return text + (f", with {' and '.join(ratios)}" if ratios else "") + "."


def span(result: Result | None) -> str:
    """Interval of a score in %: "81.2 to 88.9", or a dash if unknown."""
    if result is None or result.low is None or result.high is None:
        return "–"
    return f"{decimal(100 * result.low, 1)} to {decimal(100 * result.high, 1)}"


def _poor_teacher(pair: Pair) -> str:
    """Remark on a teacher whose score is not above the baseline."""
    if pair.reference is None or pair.reference.is_above_baseline:
        return ""
    return f"; neither is its teacher's {percent(pair.reference.value)}, from which a student learns nothing" if (
        not pair.score.is_above_baseline
    ) else f"; its teacher's {percent(pair.reference.value)} is not clearly above that baseline"


def _worth(run: Run, pair: Pair) -> str:
    """Sentence that compares the student with the undistilled one."""
    if not (pair.plain and pair.plain_score) or not pair.score.is_above_baseline:
        return ""
    gain, p = pair.score.value - pair.plain_score.value, paired_p(run, pair, pair.plain)
    size = ""
    if pair.cost and pair.plain_cost and pair.cost.parameters != pair.plain_cost.parameters:
        size = f", which has {millions(pair.plain_cost.parameters)} parameters"
    other = f"the undistilled student's {percent(pair.plain_score.value)}{size}{_p(p)}"
    points = f"{decimal(100 * abs(gain), 1)} points"
    if gain <= 0:
        return f" Distillation was not worth it: {difference(pair.score.value, pair.plain_score.value)} {other}."
    if p is not None and p > SIGNIFICANT:
        return f" Distillation is not shown to be worth it: {points} above {other}."
    return f" Distillation was worth it: {points} above {other}."


def _p(p: float | None) -> str:
    return "" if p is None else f" (paired test: p = {p:.2g})"


def paired_p(run: Run, pair: Pair, other: Checkpoint | None) -> float | None:
    """p-value of a paired test of the student against another model; None if predictions of scored rows are missing."""
    domain, metric = run.domain(pair.target), pair.score.metric
    if other is None or domain is None or "+" in metric:
        return None
    ours, theirs = (run.predictions(one, {pair.target})[pair.target] for one in (pair.student, other))
    guids = [guid for guid, prediction in ours.items() if guid in theirs and prediction.gold]
    rows, groups = [(ours[guid], theirs[guid]) for guid in guids], np.array([group_of(guid) for guid in guids])
    if (len(set(groups)) if metric in GROUPED else len(rows)) != pair.score.n:
        return None
    gold = as_numbers(domain, [prediction.gold for prediction, _ in rows])
    own, its = (as_numbers(domain, [both[i].predicted for both in rows])[None] for i in (0, 1))
    return paired_bootstrap([Paired(metric, gold, own, its, groups if metric in GROUPED else None)])
