"""Report section on disagreements of students and teachers: counts of label pairs, and the most confident cases."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from teachback.core.numerals import decimal
from teachback.core.tsv import read_tsv
from teachback.data.schema import CHOICE_SEPARATOR
from teachback.inference.bootstrap import Tested, tested
from teachback.inference.predictor import Checkpoint
from teachback.reports.figures import MUTED, SERIES, count_grid, picture
from teachback.reports.parts import Case, Figure, Section, counted, cut, percent, shorten
from teachback.reports.run import Prediction, Run

CASES = 20
DOMAINS = 50  # maximum number of domains to read predictions of
FIGURES = 6  # maximum number of figures
POINTS = 1000  # maximum number of points in a scatter plot
SURE = 0.8  # minimum probability of both predicted labels in a shown case
RIGHT = {(True, True): "both are right", (True, False): "the student is right", (False, True): "the teacher is right"}


@dataclass(frozen=True)
class PredictionPair:
    """Predictions of a domain's student and its teacher for the same rows."""

    target: str
    student: Checkpoint
    teacher: Checkpoint
    rows: dict[str, tuple[Prediction, Prediction]]  # guid -> (student's, teacher's)
    regression: bool

    @property
    def title(self) -> str:
        """Title of a figure."""
        return f"{shorten(self.target, 40)}: {self.student.kind} student and {self.teacher.name}"

    @property
    def apart(self) -> dict[str, tuple[Prediction, Prediction]]:
        """Rows with different predicted labels."""
        return {guid: pair for guid, pair in self.rows.items() if pair[0].predicted != pair[1].predicted}

    @property
    def alone(self) -> tuple[int, int]:
        """Numbers of rows on which only the student, and only the teacher, is right."""
        known = [(s.predicted == s.gold, t.predicted == t.gold) for s, t in self.apart.values() if s.gold]
        return known.count((True, False)), known.count((False, True))

    @property
    def numbers(self) -> np.ndarray:
        """Numbers predicted by the teacher and the student: [N, 2]."""
        return np.array([[float(teacher.predicted), float(student.predicted)] for student, teacher in self.rows.values()])


def disagreements(run: Run) -> Section:
    """Section with label pairs of the first domains, and the most confident disagreements of all domains."""
    section = Section("disagreements", "Where the student disagrees with its teacher")
    predictions = read_pairs(run)
    if not predictions:
        advice = (
            f"No student and its teacher both have predictions on the {run.split} split; run 7_eval.sh, with TEACHER_DIR if the "
            "teacher belongs to another run."
        )
        return replace(section, missing=advice)
    from scipy.stats import binomtest

    shown = predictions[:FIGURES]
    tests = tested({pair.target: binomtest(pair.alone[0], sum(pair.alone)).pvalue for pair in shown if not pair.regression and any(pair.alone)})
    figures = [_scatter(pair) if pair.regression else _confusion(run, pair, tests.get(pair.target)) for pair in shown]
    notes = []
    if len(predictions) > FIGURES or len(run.targets) > DOMAINS:
        listed = min(DOMAINS, len(predictions))
        notes.append(f"The figures show the first {FIGURES} of {len(run.targets)} domains, and the list below the first {listed}.")
    ranked = most_confident(predictions)
    apart = sum(len(pair.apart) for pair in predictions if not pair.regression)
    if not ranked and apart:
        notes.append(f"None of the {apart:,} disagreements has a probability of at least {percent(SURE, 0)} from both models.")
    elif not ranked and not all(pair.regression for pair in predictions):
        notes.append("Students and teachers predict the same label for every row.")
    texts = _texts(run, {(pair.target, guid) for pair, guid in ranked})
    if ranked and not texts:
        notes.append(f"The processed {run.split}.tsv does not contain these rows; run 2_process_data.sh, then 7_eval.sh.")
    cases = [_case(pair, guid, texts.get((pair.target, guid), [])) for pair, guid in ranked]
    clearest = "disagreement" if len(cases) == apart else "clearest disagreement"
    title = f"The {counted(len(cases), clearest)}" if len(cases) > 1 else f"The {clearest}"
    return replace(section, figures=figures, notes=notes, cases=cases, cases_title=title)


def read_pairs(run: Run) -> list[PredictionPair]:
    """Read the predictions of each domain's student and its teacher, each file once.

    A student without a score, as all labels are hidden, is the last one with predictions.
    """
    students, domains = {}, dict[str, set[str]]()
    for target in run.targets[:DOMAINS]:
        unscored = (c for c in reversed(run.of(target)) if not c.is_teacher and run.predictions_file(c).is_file())
        student = run.student(target) or next(unscored, None)
        if student and (teacher := run.teacher(student)):
            students[target] = student, teacher
            domains.setdefault(teacher.stage, set()).add(target)
    by_teacher = {stage: run.predictions(run.teachers[stage], served) for stage, served in domains.items()}
    result = []
    for target, (student, teacher) in students.items():
        of_teacher, domain = by_teacher[teacher.stage][target], run.domain(target)
        of_student = run.predictions(student, {target})[target]
        rows = {guid: (prediction, of_teacher[guid]) for guid, prediction in of_student.items() if guid in of_teacher}
        numbers = all(prediction.probability is None for pair in rows.values() for prediction in pair)
        if rows:
            result.append(PredictionPair(target, student, teacher, rows, domain.task == "regression" if domain else numbers))
    return result


def _confusion(run: Run, pair: PredictionPair, test: Tested | None) -> Figure:
    """Grid of counts of the teacher's and the student's labels."""
    pairs = Counter((teacher.predicted, student.predicted) for student, teacher in pair.rows.values())
    domain, apart = run.domain(pair.target), pair.apart
    text = f"{pair.target}: student and teacher disagree on {len(apart):,} of {counted(len(pair.rows), 'row')} ({percent(len(apart) / len(pair.rows))})"
    if test:
        text += "; only the student is right on {}, only the teacher on {}".format(*pair.alone) + f" (exact McNemar test: {test})"
    if apart:
        (says, instead), count = Counter((t.predicted, s.predicted) for s, t in apart.values()).most_common(1)[0]
        text += f"; most often ({count:,}) the student predicts {shorten(instead)} and the teacher {shorten(says)}"
    axes = "teacher's prediction (rows)", "student's prediction (rows)"
    return count_grid(pair.title, domain.labels if domain else (), pairs, *axes, f"{text}.")


def _scatter(pair: PredictionPair) -> Figure:
    """Scatter plot of the student's and the teacher's predicted numbers."""
    values = pair.numbers
    shown = values[:: max(1, -(-len(values) // POINTS))]

    def plot(axes):
        ends = [values.min(), values.max()]
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--")
        axes.plot(*shown.T, marker="o", linestyle="", markersize=2.5, color=SERIES[0].colour, alpha=0.5, markeredgewidth=0)
        axes.set(xlabel="teacher's prediction (unit of the labels)", ylabel="student's prediction (same unit)")

    gaps = values[:, 1] - values[:, 0]
    spread = float(np.corrcoef(values.T)[0, 1]) if len(values) > 1 and values.std(0).min() > 0 else 0.0
    reading = (
        f"{pair.target}: over {counted(len(values), 'row')} the student's predictions differ from its teacher's by {np.abs(gaps).mean():.2g} "
        f"on average, {'above' if gaps.mean() > 0 else 'below'} them by {abs(gaps.mean()):.2g} overall; their correlation is {decimal(spread, 2)}."
    )
    return picture(pair.title, plot, "Scatter plot; both are equal on the dashed line", reading, 3.6)


def most_confident(predictions: list[PredictionPair]) -> list[tuple[PredictionPair, str]]:
    """Select the cases to show, as (predictions, guid): labels by the lower of both probabilities, then numbers.

    Numbers are ranked by their difference over the standard deviation of the teacher's predictions, if above 1.
    """
    labels, numbers = [], []
    for pair in predictions:
        if pair.regression:
            teacher, student = pair.numbers.T
            gaps = abs(student - teacher) / (np.std(teacher) or 1.0)
            numbers += [(gap, pair, guid) for guid, gap in zip(pair.rows, gaps) if gap > 1]
        else:
            sure = [(min(s.probability or 0, t.probability or 0), pair, guid) for guid, (s, t) in pair.apart.items()]
            labels += [case for case in sure if case[0] >= SURE]
    ranked = sorted(labels, key=lambda case: -case[0]) + sorted(numbers, key=lambda case: -case[0])
    return [(pair, guid) for _, pair, guid in ranked[:CASES]]


def _texts(run: Run, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Texts of the rows ``wanted``, by (domain, guid)."""
    path = run.data / f"{run.split}.tsv"
    texts = {}
    for row in read_tsv(path) if wanted and path.is_file() else ():
        if (key := (row["domain"], row["guid"])) in wanted:
            texts[key] = [cut(part) for part in [row["text_a"], *row["text_b"].split(CHOICE_SEPARATOR)] if part]
    return texts


def _case(pair: PredictionPair, guid: str, texts: list[tuple[str, str]]) -> Case:
    student, teacher = pair.rows[guid]
    answers = [
        (f"student ({pair.student.kind})", _answer(student)),
        (f"teacher ({pair.teacher.stage})", _answer(teacher)),
    ]
    if student.gold:
        answers.append(("label", student.gold))
    return Case(f"{pair.target} · {guid}", answers, _verdict(pair, student, teacher), texts)


def _answer(prediction: Prediction) -> str:
    if prediction.probability is None:
        return f"{float(prediction.predicted):.2f}"
    return f"{prediction.predicted} ({percent(prediction.probability)})"


def _verdict(pair: PredictionPair, student: Prediction, teacher: Prediction) -> str:
    if not student.gold:
        return "the label is unknown"
    if pair.regression:
        off = [abs(float(said.predicted) - float(student.gold)) for said in (student, teacher)]
        return "the student is closer" if off[0] < off[1] else "the teacher is closer"
    return RIGHT.get((student.predicted == student.gold, teacher.predicted == teacher.gold), "neither is right")
