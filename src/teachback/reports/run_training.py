"""Report sections on training: curves of stages 3 to 5, and stage 6's rewards and chosen domains."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from teachback.core.numerals import decimal
from teachback.core.tsv import read_tsv
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import STAGE_NAMES, model_name
from teachback.methods.curriculum_record import WINDOW, chosen_shares, plot_choices, plot_rewards
from teachback.reports.figures import INK, MUTED, OTHERS, Series, legend, picture, series_of, whole_numbers
from teachback.reports.parts import Figure, Section, listed, percent, shorten
from teachback.reports.plots import ring
from teachback.reports.run import Run

CURRICULA = 4  # maximum number of curricula with figures
UNITS = {"real": "probability", "binary": "share of rows"}  # by form of the reward


@dataclass(frozen=True)
class Curves:
    """Curves logged by a stage, as (epoch, value). ``kept``: epoch of the selected checkpoint, if known."""

    loss: list[tuple[float, float]]
    dev_loss: list[tuple[float, float]]
    dev_score: list[tuple[float, float]]
    kept: float | None

    @property
    def course(self) -> list[tuple[float, float]]:
        """Train loss, or dev loss if the train loss was logged at most once."""
        return self.loss if len(self.loss) > 1 else self.dev_loss

    @property
    def long_enough(self) -> bool:
        return len(self.course) > 1


def read_curves(record: dict) -> Curves:
    """Read the curves from a stage's record; entries after training belong to the selected checkpoint."""
    history = record.get("history") or []
    ends = [place for place, entry in enumerate(history) if "train_runtime" in entry]
    during = history[: ends[0]] if ends else history
    curves = {
        name: [(e["epoch"], e[name]) for e in during if name in e] for name in ("loss", "eval_loss", "eval_score")
    }
    for name, values in curves.items():
        curves[name] = [(epoch, value) for epoch, value in values if np.isfinite(value)]
    dev = record.get("dev", {})
    name = "score" if "score" in dev else "loss"
    kept = [epoch for epoch, value in curves[f"eval_{name}"] if value == dev.get(name)]
    return Curves(curves["loss"], curves["eval_loss"], curves["eval_score"], kept[0] if kept else None)


def training(run: Run) -> Section:
    """Section with a figure for each kind of stage and a line for each domain."""
    section = Section("training", "Training curves")
    kinds: dict[str, dict[str, Curves]] = {}
    for checkpoint in run.checkpoints:
        curves = read_curves(checkpoint.record)
        if curves.long_enough:
            kinds.setdefault(model_name(checkpoint.stage), {})[_line_name(checkpoint)] = curves
    once = [text for checkpoint in run.checkpoints if (text := _meta_teacher_line(checkpoint))]
    if not kinds:
        advice = (
            "No stage logged more than one loss: train longer, or log more often (--logging_steps 10) in stages 3 to 5."
        )
        return replace(section, missing=advice, notes=once[:CURRICULA])
    names = list(dict.fromkeys(name for lines in kinds.values() for name in lines if name in run.targets))
    names += [name for lines in kinds.values() for name in lines if name not in names]
    styles = series_of(list(dict.fromkeys(names)))
    order = ["teacher", *STAGE_NAMES.values()]
    figures = [
        _curves_figure(kind, {name: kinds[kind][name] for name in styles if name in kinds[kind]}, styles)
        for kind in sorted(kinds, key=order.index)
    ]
    notes = [*once[:CURRICULA]]
    if len(set(names)) > len(styles):
        notes.append(f"The first {len(styles)} of {len(set(names))} are shown.")
    intro = "Losses have no unit. A ring marks the checkpoint that was kept: the best on the split that selects."
    return replace(section, intro=intro, legend=legend(styles), figures=[f for f in figures if f], notes=notes)


def _line_name(checkpoint: Checkpoint) -> str:
    """Name of a line: the domain, or the folder of a teacher of several domains."""
    return checkpoint.target or checkpoint.stage


def _meta_teacher_line(checkpoint: Checkpoint) -> str:
    losses = checkpoint.record.get("loss_by_epoch") or []
    values = ", ".join(f"{value:.3f}" for value in losses)
    return f"{checkpoint.stage}: mean loss on quiz, pass by pass: {values}." if losses else ""


def _curves_figure(kind: str, lines: dict[str, Curves], styles: dict[str, Series]) -> Figure | None:
    """Train loss, dev loss and dev score, stacked; curves without data are left out."""
    rows = {
        "train loss": {name: curves.loss for name, curves in lines.items() if curves.loss},
        "dev loss": {name: curves.dev_loss for name, curves in lines.items() if curves.dev_loss},
        "dev score (%)": {name: _percents(curves.dev_score) for name, curves in lines.items() if curves.dev_score},
    }
    rows = {label: values for label, values in rows.items() if values}
    if not rows:
        return None

    def plot(axes):
        for part, (label, values) in zip(np.atleast_1d(axes), rows.items()):
            for name, points in values.items():
                _draw_curve(part, points, styles[name], lines[name].kept if label.startswith("dev") else None)
            part.set_ylabel(label)
        part.set_xlabel("epoch (passes over the train rows)")
        whole_numbers(part.xaxis)

    charts = f"Line charts of {listed(list(rows))} over epochs"
    return picture(kind.capitalize(), plot, charts, _curves_reading(lines), 0.7 + 1.35 * len(rows), len(rows))


def _percents(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(epoch, 100 * value) for epoch, value in points]


def _draw_curve(axes, points: list[tuple[float, float]], style: Series, kept: float | None) -> None:
    marker = style.marker if len(points) <= 15 else ""
    axes.plot(*zip(*points), color=style.colour, linestyle=style.dash, marker=marker, markersize=4)
    for epoch, value in points:
        if epoch == kept:
            ring(axes, epoch, value)
    axes.margins(y=0.1)


def _curves_reading(lines: dict[str, Curves]) -> str:
    """Describe the course of a single line in full, or the range of several."""
    if len(lines) == 1:
        return _one_reading(*next(iter(lines.items())))
    ends = {name: curves.course[-1][1] / (curves.course[0][1] or 1.0) for name, curves in lines.items()}
    least, most = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
    text = (
        f"The loss ends at {percent(ends[least], 0)} ({least}) to {percent(ends[most], 0)} ({most}) of where it began"
    )
    kept = {name: curves.kept for name, curves in lines.items() if curves.kept is not None}
    if not kept:
        return f"{text}."
    first, last = min(kept, key=kept.__getitem__), max(kept, key=kept.__getitem__)
    if kept[first] == kept[last]:
        return f"{text}; the checkpoints kept are all of epoch {kept[first]:.3g}."
    return f"{text}; the checkpoints kept are of epochs {kept[first]:.3g} ({first}) to {kept[last]:.3g} ({last})."


def _one_reading(name: str, curves: Curves) -> str:
    where, values = "train" if curves.course is curves.loss else "dev", curves.course
    text = f"{name}: the {where} loss goes from {values[0][1]:.3g} to {values[-1][1]:.3g} by epoch {values[-1][0]:.3g}"
    if curves.kept is None:
        return f"{text}."
    scores = dict(curves.dev_score)
    at = f" with a dev score of {percent(scores[curves.kept])}" if curves.kept in scores else ""
    last = max([*scores, *(epoch for epoch, _ in curves.dev_loss)])
    return f"{text}; the checkpoint kept is that of epoch {curves.kept:.3g} of {last:.3g}{at}."


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
    rewards, steps = checkpoint.folder / "rewards.tsv", checkpoint.folder / "trajectory.tsv"
    if not (rewards.is_file() and steps.is_file()):
        return None
    values = [float(row["reward"]) for row in read_tsv(rewards)]
    chosen = [{"episode": int(row["episode"]), "domain": row["domain"]} for row in read_tsv(steps)]
    domains = list(dict.fromkeys([*checkpoint.record.get("domains", []), *(step["domain"] for step in chosen)]))
    scores = {int(episode): value for episode, value in checkpoint.record.get("scores_by_episode", {}).items()}
    if not (values and chosen):
        return None
    shares = chosen_shares(chosen, domains, len(values))
    best, form = checkpoint.record.get("best_episode", 0), checkpoint.record["arguments"].get("reward")
    return Episodes(checkpoint.target, values, domains, shares, scores, best, UNITS.get(form, "no unit"))


def curriculum(run: Run) -> Section:
    """Section with rewards, dev scores and chosen domains over episodes."""
    section = Section("curriculum", "The curriculum")
    folders = [checkpoint for checkpoint in run.checkpoints if Path(checkpoint.stage).name == "curriculum"]
    curricula = [episodes for checkpoint in folders[:CURRICULA] if (episodes := read_episodes(checkpoint))]
    if not curricula:
        return replace(
            section, missing="There is no curriculum: run 6_curriculum.sh, which needs a quiz (QUIZ_FRACTION)."
        )
    shown = _most_chosen(curricula)
    styles = series_of(shown)
    figures = [figure for one in curricula for figure in (_rewards_figure(one), _choices_figure(one, styles))]
    others = len({name for one in curricula for name in one.domains} - set(shown))
    notes = [f"The grey line is all of the {others} other domains together."] if others else []
    if len(folders) > CURRICULA:
        notes.append(f"The first {CURRICULA} of {len(folders)} curricula are shown.")
    keys = legend(styles | ({"other domains": OTHERS} if others else {}))
    intro = "A step's reward compares how sure student and meta-teacher are of the domain's labels; an episode's is the sum."
    return replace(section, intro=intro, legend=keys, figures=figures, notes=notes)


def _most_chosen(curricula: list[Episodes]) -> list[str]:
    """Domains with individual lines: those chosen most, in the suite's order."""
    totals: dict[str, float] = {}
    for one in curricula:
        for name, share in zip(one.domains, one.shares.mean(0)):
            totals[name] = totals.get(name, 0) + share
    most = sorted(totals, key=lambda name: -totals[name])
    kept = set(series_of(most))
    return [name for name in totals if name in kept]


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
        part.set_xlabel(f"episode; thick: mean of {WINDOW}")
        whole_numbers(part.xaxis)

    rows = 2 if one.scores else 1
    title, kind = f"{shorten(one.target, 60)}: reward", "Line charts of reward and dev score over episodes"
    return picture(title, plot, kind, _rewards_reading(one), 0.9 + 1.6 * rows, rows)


def _rewards_reading(one: Episodes) -> str:
    span = max(1, min(WINDOW, len(one.rewards) // 2))
    first, last = float(np.mean(one.rewards[:span])), float(np.mean(one.rewards[-span:]))
    digits = max(1, 1 - math.floor(math.log10(max(abs(first), abs(last), 1e-9))))  # two significant digits
    text = (
        f"{one.target}: an episode earns {decimal(last, digits)} in the mean of the last {span} of {len(one.rewards)}, "
        f"against {decimal(first, digits)} in the first {span}"
    )
    if one.best not in one.scores:
        return f"{text}."
    start = one.scores.get(0)
    before = "" if start is None or one.best == 0 else f" against {percent(start)} before any"
    when = "before any episode: none of them improved it" if one.best == 0 else f"after {one.best} episodes"
    return f"{text}; the dev score is best {when} ({percent(one.scores[one.best])}{before})."


def _choices_figure(one: Episodes, styles: dict[str, Series]) -> Figure:
    def plot(axes):
        looks = {name: style.look for name, style in styles.items()}
        plot_choices(axes, one.shares, one.domains, looks, OTHERS.look | {"marker": ""})
        axes.axhline(100 / len(one.domains), color=MUTED, linewidth=0.8)
        whole_numbers(axes.xaxis)

    kind = "Line chart of the share of each chosen domain over episodes"
    return picture(f"{shorten(one.target, 60)}: chosen domains", plot, kind, _choices_reading(one), 3.3)


def _choices_reading(one: Episodes) -> str:
    span = min(WINDOW, len(one.rewards))
    late = one.shares[-span:].mean(0)
    order = np.argsort(-late, kind="stable")[:3]
    most = listed([f"{one.domains[place]} ({percent(late[place], 0)})" for place in order])
    chance = percent(1 / len(one.domains), 0)
    return f"{one.target}: in the last {span} episodes the student studied {most} most; the level line is chance, {chance}."
