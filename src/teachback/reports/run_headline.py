"""Headline section of the report: students compared with chance, their teachers and undistilled students."""

from dataclasses import dataclass

from teachback.core.numerals import decimal
from teachback.data.schema import Row
from teachback.inference.baselines import MAJORITY
from teachback.inference.bootstrap import Paired, Tested, paired_bootstrap, tested
from teachback.inference.measured import Cost
from teachback.inference.metrics import GROUPED, group_of
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import Result
from teachback.reports.parts import Section, counted, difference, listed, millions, percent
from teachback.reports.run import Run

SENTENCES = 8  # maximum number of domains described individually
SIGNIFICANT = 0.05  # significance level of p
Tests = dict[tuple[str, str], Tested]  # (domain, stage that its student is compared with) -> test


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
    def name(self) -> str:
        return f"{self.target}: the {self.student.kind} student"

    @property
    def compared(self) -> list[Checkpoint]:
        """Models that the student is compared with: those above the baseline, if it is too."""
        if not self.score.is_above_baseline:
            return []
        teacher = self.teacher if self.reference and self.reference.is_above_baseline else None
        return [model for model in (teacher, self.plain if self.plain_score else None) if model]

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
            models = student, run.teacher(student), run.undistilled(target) if student.method != "finetune" else None
            own, other, its = map(run.cost, models)
            size = max(set(own) & set(other) or own, default=0)
            _, reference, plain = (s if s and s.metric == score.metric else None for s in (run.score(m, target) for m in models))
            costs = own.get(size), other.get(size)
            result.append(Pair(target, student, models[1], score, reference, *costs, models[2], plain, its.get(size)))
    return result


def headline(run: Run) -> Section:
    """Section on the scores, size and speed of the students."""
    every = pairs(run)
    if not every:
        advice = f"No student has a score on the {run.split} split yet; run 5_student_second.sh, then 7_eval.sh."
        return Section("headline", "Summary", missing=advice)
    shown = every[:SENTENCES]
    tests = tested({(pair.target, other.stage): p for pair in shown for other in pair.compared if (p := paired_p(run, pair, other)) is not None})
    notes = [f"{sentence(pair, tests)}{_worth(pair, tests)}" for pair in shown]
    if (more := len(every) - SENTENCES) > 0:
        notes.append(f"… and {counted(more, 'further domain')} in the table below.")
    return Section("headline", "Summary", intro=_summary(every), notes=notes, lead=True)


def _summary(every: list[Pair]) -> str:
    """Summary over all domains, if there are several."""
    compared = [(pair.score, pair.reference) for pair in every if pair.reference]
    if len(compared) < 2:
        return ""
    poor = [pair.target for pair in every if not pair.score.is_above_baseline]
    if len(poor) == len(every):
        return f"No student of the {len(every)} domains shows signs of learning."
    own, teachers = (sum(score.value for score in side) / len(compared) for side in zip(*compared))
    metrics = {score.metric for score, _ in compared}
    what = f"{metrics.pop()} of" if len(metrics) == 1 else "score, by each domain's own metric, of"
    return (
        f"Over {len(compared)} domains, the students reach a mean {what} {percent(own)}, "
        f"{difference(own, teachers)} their teachers' {percent(teachers)}."
    ) + (f" There are no signs of learning on {len(poor)} of {len(every)}: {listed(poor)}." if poor else "")


def sentence(pair: Pair, tests: Tests | None = None) -> str:
    """Result of a domain as a sentence: "books: the distilled student reaches 86.4 % accuracy, 1.2 points below ..."."""
    score, baseline, teacher = pair.score, pair.score.baseline, pair.reference
    reached = f"{percent(score.value)} {score.metric} on {counted(score.n, 'row')}"
    interval = f"95 % interval {span(score)} %" if score.low is not None else ""
    poor_teacher = teacher and not teacher.is_above_baseline
    if baseline and not score.is_above_baseline:
        text = f"{pair.name} shows no signs of learning: its {reached} ({interval}) is not clearly above "
        text += f"{'the ' if baseline[0] == MAJORITY else ''}{baseline[0]} with {percent(baseline[1])}"
        if teacher and poor_teacher:
            text += f"; neither is its teacher's {percent(teacher.value)}, so there was nothing to distil"
        return f"{text}."
    judged = "; ".join(filter(None, [interval, f"{baseline[0]} {percent(baseline[1])}" if baseline else ""]))
    text = f"{pair.name} reaches {reached}" + (f" ({judged})" if judged else "")
    if teacher and poor_teacher:
        text += f"; its teacher's {percent(teacher.value)} is not clearly above that baseline"
    elif teacher:
        text += f", {difference(score.value, teacher.value)} its teacher's {percent(teacher.value)}{_p(_test(tests or {}, pair, pair.teacher))}"
    ratios = []
    if pair.size_ratio and pair.cost and pair.reference_cost:
        sizes = f"{millions(pair.cost.parameters)} of {millions(pair.reference_cost.parameters)}"
        ratios.append(f"{pair.size_ratio:.2f} of its parameters ({sizes})")
    if pair.speed_ratio:
        ratios.append(f"{pair.speed_ratio:.1f} times its speed")
    return text + (f", with {' and '.join(ratios)}" if ratios else "") + "."


def span(result: Result | None) -> str:
    """Interval of a score in %: "81.2 to 88.9", or a dash if unknown."""
    return " to ".join(decimal(100 * end, 1) for end in result.interval) if result and result.interval else "–"


def _worth(pair: Pair, tests: Tests) -> str:
    """Sentence that compares the student with the undistilled one."""
    if not (pair.plain and pair.plain_score) or not pair.score.is_above_baseline:
        return ""
    gain, test = pair.score.value - pair.plain_score.value, _test(tests, pair, pair.plain)
    size = ""
    if pair.cost and pair.plain_cost and pair.cost.parameters != pair.plain_cost.parameters:
        size = f", which has {millions(pair.plain_cost.parameters)} parameters"
    other = f"the undistilled student's {percent(pair.plain_score.value)}{size}{_p(test)}"
    if gain <= 0:
        return f" Distillation did not help: {difference(pair.score.value, pair.plain_score.value)} {other}."
    verdict = "is not shown to have helped" if test and test.adjusted > SIGNIFICANT else "helped"
    return f" Distillation {verdict}: {decimal(100 * abs(gain), 1)} points above {other}."


def _test(tests: Tests, pair: Pair, other: Checkpoint | None) -> Tested | None:
    return tests.get((pair.target, other.stage)) if other else None


def _p(test: Tested | None) -> str:
    return f" (paired test: {test})" if test else ""


def paired_p(run: Run, pair: Pair, other: Checkpoint) -> float | None:
    """p-value of a paired test of the student against another model; None if predictions of scored rows are missing."""
    domain, metric = run.domain(pair.target), pair.score.metric
    if domain is None or "+" in metric:
        return None
    ours, theirs = (run.predictions(one, {pair.target})[pair.target] for one in (pair.student, other))
    rows = [Row(guid, "", "", said.gold, pair.target) for guid, said in ours.items() if guid in theirs and said.gold]
    if len({group_of(row.guid) for row in rows} if metric in GROUPED else rows) != pair.score.n:
        return None
    own, its = ([[side[row.guid].predicted for row in rows]] for side in (ours, theirs))
    return paired_bootstrap([Paired.of(metric, domain, rows, own, its, metric in GROUPED)])
