"""Report sections on training: curves of stages 3 to 5, and stage 6's rewards and chosen domains."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from teachback.core.numerals import decimal
from teachback.core.tsv import read_tsv
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import STAGE_NAMES
from teachback.methods.curriculum_record import WINDOW, chosen_shares, plot_choices, plot_rewards
from teachback.reports.figures import INK, MUTED, OTHERS, Series, legend, picture, ring, series_of, whole_numbers
from teachback.reports.parts import Figure, Section, first_of, listed, percent, shorten
from teachback.reports.run import Run

CURRICULA = 4  # maximum number of curricula with figures
UNITS = {"real": "probability", "binary": "share of rows"}  # by form of the reward
Points = list[tuple[float, float]]  # (epoch, value)


class Curves(NamedTuple):
    """Curves logged by a stage. ``kept``: epoch of the selected checkpoint, if known."""

    loss: Points
    dev_loss: Points
    dev_score: Points
    kept: float | None

    @property
    def course(self) -> Points:
        """Train loss, or dev loss if the train loss was logged at most once."""
        return self.loss if len(self.loss) > 1 else self.dev_loss


def read_curves(record: dict) -> Curves:
    """Read the curves from a stage's record; entries after training belong to the selected checkpoint."""
    history, dev = record.get("history") or [], record.get("dev", {})
    end = next((place for place, entry in enumerate(history) if "train_runtime" in entry), len(history))
    loss, dev_loss, dev_score = (
        [(e["epoch"], e[name]) for e in history[:end] if name in e and np.isfinite(e[name])]
        for name in ("loss", "eval_loss", "eval_score")
    )
    name, selecting = ("score", dev_score) if "score" in dev else ("loss", dev_loss)
    return Curves(loss, dev_loss, dev_score, next((epoch for epoch, value in selecting if value == dev.get(name)), None))


def training(run: Run) -> Section:
    """Section with a figure for each kind of stage and a line for each domain, or for a teacher of several."""
    section = Section("training", "Training curves")
    kinds: dict[str, dict[str, Curves]] = defaultdict(dict)
    notes = []
    for one in run.checkpoints:
        if len((curves := read_curves(one.record)).course) > 1:
            kinds[one.kind][one.target or one.stage] = curves
        if losses := one.record.get("loss_by_epoch"):
            values = ", ".join(f"{value:.3f}" for value in losses)
            notes.append(f"{one.stage}: mean loss on quiz by epoch: {values}.")
    if not kinds:
        advice = "No stage logged more than one loss; train longer, or log more often (--logging_steps 10) in stages 3 to 5."
        return replace(section, missing=advice, notes=notes[:CURRICULA])
    names = list(dict.fromkeys(name for lines in kinds.values() for name in lines))
    names.sort(key=lambda name: name not in run.targets)
    styles, order = series_of(names), ["teacher", *STAGE_NAMES.values()]
    drawn = {kind: {name: kinds[kind][name] for name in styles if name in kinds[kind]} for kind in sorted(kinds, key=order.index)}
    figures = [_curves_figure(kind, lines, styles) for kind, lines in drawn.items() if lines]
    notes = notes[:CURRICULA] + [f"The first {len(styles)} of {len(names)} are shown."] * (len(names) > len(styles))
    intro = "Losses have no unit. A ring marks the selected checkpoint, the best on the split used for selection."
    return replace(section, intro=intro, legend=legend(styles), figures=figures, notes=notes)


def _curves_figure(kind: str, lines: dict[str, Curves], styles: dict[str, Series]) -> Figure:
    """Train loss, dev loss and dev score, stacked; curves without data are left out."""
    rows: dict[str, dict[str, Points]] = {"train loss": {}, "dev loss": {}, "dev score (%)": {}}
    for name, own in lines.items():
        for label, points in zip(rows, (own.loss, own.dev_loss, [(epoch, 100 * value) for epoch, value in own.dev_score])):
            if points:
                rows[label][name] = points
    rows = {label: values for label, values in rows.items() if values}

    def plot(axes):
        for part, (label, values) in zip(np.atleast_1d(axes), rows.items()):
            for name, points in values.items():
                look = styles[name].look | ({"marker": ""} if len(points) > 15 else {})
                part.plot(*zip(*points), markersize=4, **look)
                for epoch, value in points:
                    if epoch == lines[name].kept and label.startswith("dev"):
                        ring(part, epoch, value)
                part.margins(y=0.1)
            part.set_ylabel(label)
        part.set_xlabel("epoch (passes over the train rows)")
        whole_numbers(part.xaxis)

    charts = f"Line charts of {listed(list(rows))} over epochs"
    return picture(kind.capitalize(), plot, charts, _curves_reading(lines), 0.7 + 1.35 * len(rows), len(rows))


def _curves_reading(lines: dict[str, Curves]) -> str:
    """Describe the course of a single line in full, or the range of several."""
    if len(lines) == 1:
        return _one_reading(*next(iter(lines.items())))
    ends = {name: curves.course[-1][1] / (curves.course[0][1] or 1.0) for name, curves in lines.items()}
    least, most = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
    text = f"The last loss is {percent(ends[least], 0)} ({least}) to {percent(ends[most], 0)} ({most}) of the first"
    kept = {name: curves.kept for name, curves in lines.items() if curves.kept is not None}
    if not kept:
        return f"{text}."
    first, last = min(kept, key=kept.__getitem__), max(kept, key=kept.__getitem__)
    if kept[first] == kept[last]:
        return f"{text}; all selected checkpoints are from epoch {kept[first]:.3g}."
    return f"{text}; the selected checkpoints are from epochs {kept[first]:.3g} ({first}) to {kept[last]:.3g} ({last})."


def _one_reading(name: str, curves: Curves) -> str:
    where, values = "train" if curves.course is curves.loss else "dev", curves.course
    text = f"{name}: the {where} loss goes from {values[0][1]:.3g} to {values[-1][1]:.3g} by epoch {values[-1][0]:.3g}"
    if curves.kept is None:
        return f"{text}."
    scores = dict(curves.dev_score)
    at = f", with a dev score of {percent(scores[curves.kept])}" if curves.kept in scores else ""
    last = max([*scores, *(epoch for epoch, _ in curves.dev_loss)])
    return f"{text}; the selected checkpoint is from epoch {curves.kept:.3g} of {last:.3g}{at}."


@dataclass(frozen=True)
class Episodes:
    """Record of a curriculum: rewards by episode, shares of chosen domains [episodes, domains], dev scores."""

    target: str
    rewards: list[float]
    domains: list[str]
    shares: np.ndarray
    scores: dict[int, float]
    best: int
    unit: str  # of the rewards


def read_episodes(checkpoint: Checkpoint) -> Episodes | None:
    """Read the record of a finished curriculum; None if there is none."""
    paths, record = [checkpoint.folder / f"{name}.tsv" for name in ("rewards", "trajectory")], checkpoint.record
    if not all(path.is_file() for path in paths):
        return None
    rewards, steps = map(read_tsv, paths)
    values = [float(row["reward"]) for row in rewards]
    chosen = [{"episode": int(row["episode"]), "domain": row["domain"]} for row in steps]
    domains = list(dict.fromkeys([*record.get("domains", []), *(step["domain"] for step in chosen)]))
    scores = {int(episode): value for episode, value in record.get("scores_by_episode", {}).items()}
    if not (values and chosen):
        return None
    unit = UNITS.get(record["arguments"].get("reward"), "no unit")
    shares = chosen_shares(chosen, domains, len(values))
    return Episodes(checkpoint.target, values, domains, shares, scores, record.get("best_episode", 0), unit)


def curriculum(run: Run) -> Section:
    """Section with rewards, dev scores and chosen domains over episodes."""
    section = Section("curriculum", "Curriculum")
    folders = [checkpoint for checkpoint in run.checkpoints if checkpoint.folder.name == "curriculum"]
    curricula = [episodes for checkpoint in folders[:CURRICULA] if (episodes := read_episodes(checkpoint))]
    if not curricula:
        return replace(section, missing="There is no curriculum yet; run 6_curriculum.sh, which needs a quiz (QUIZ_FRACTION).")
    totals: dict[str, float] = defaultdict(float)
    for one in curricula:
        for name, share in zip(one.domains, one.shares.mean(0)):
            totals[name] += share
    drawn = series_of(sorted(totals, key=lambda name: -totals[name]))  # those chosen most have lines of their own
    styles = series_of([name for name in totals if name in drawn])
    figures = [figure for one in curricula for figure in (_rewards_figure(one), _choices_figure(one, styles))]
    others = len(totals) - len(styles)
    notes = [f"The grey line is the total of the {others} other domains."] if others else []
    keys = legend(styles | ({"other domains": OTHERS} if others else {}))
    intro = (
        "The reward of a step compares the probabilities that student and meta-teacher give to the correct labels of the domain's quiz "
        "rows. The reward of an episode is the sum over its steps."
    )
    return replace(section, intro=intro, legend=keys, figures=figures, notes=notes + first_of(CURRICULA, len(folders), "curricula"))


def _rewards_figure(one: Episodes) -> Figure:
    def plot(axes):
        rewards, *rest = np.atleast_1d(axes)
        plot_rewards(rewards, one.rewards, one.unit, MUTED, INK)
        for scores in rest:
            scores.plot(list(one.scores), [100 * v for v in one.scores.values()], color=INK, marker="o", markersize=3.5)
            ring(scores, one.best, 100 * one.scores.get(one.best, np.nan))
            scores.margins(y=0.1)
            scores.set_ylabel("dev score (%)")
            rewards.set_xlabel("")
        part = rest[-1] if rest else rewards
        part.set_xlabel(f"episode (thick line: mean of {WINDOW})")
        whole_numbers(part.xaxis)

    rows = 2 if one.scores else 1
    title, kind = f"{shorten(one.target, 60)}: reward", "Line charts of reward and dev score over episodes"
    return picture(title, plot, kind, _rewards_reading(one), 0.9 + 1.6 * rows, rows)


def _rewards_reading(one: Episodes) -> str:
    span = max(1, min(WINDOW, len(one.rewards) // 2))
    first, last = float(np.mean(one.rewards[:span])), float(np.mean(one.rewards[-span:]))
    digits = max(1, 1 - math.floor(math.log10(max(abs(first), abs(last), 1e-9))))  # two significant digits
    text = (
        f"{one.target}: the mean reward is {decimal(first, digits)} over the first {span} of {len(one.rewards)} episodes and "
        f"{decimal(last, digits)} over the last {span}"
    )
    if one.best not in one.scores:
        return f"{text}."
    start = one.scores.get(0)
    before = "" if start is None or one.best == 0 else f"; before the first: {percent(start)}"
    when = "before the first episode: no episode improved it" if one.best == 0 else f"after {one.best} episodes"
    return f"{text}; the dev score is best {when} ({percent(one.scores[one.best])}{before})."


def _choices_figure(one: Episodes, styles: dict[str, Series]) -> Figure:
    def plot(axes):
        looks = {name: style.look for name, style in styles.items()}
        plot_choices(axes, one.shares, one.domains, looks, OTHERS.look | {"marker": ""})
        axes.axhline(100 / len(one.domains), color=MUTED, linewidth=0.8)
        whole_numbers(axes.xaxis)

    span, chance = min(WINDOW, len(one.rewards)), percent(1 / len(one.domains), 0)
    late = one.shares[-span:].mean(0)
    most = listed([f"{one.domains[place]} ({percent(late[place], 0)})" for place in np.argsort(-late, kind="stable")[:3]])
    reading = f"{one.target}: the most frequent domains of the last {span} episodes are {most}; the horizontal line is chance, {chance}."
    kind = "Line chart of the share of each chosen domain over episodes"
    return picture(f"{shorten(one.target, 60)}: chosen domains", plot, kind, reading, 3.3)
