"""search.html: the page of a hyperparameter search."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from teachback.core.files import write_atomically
from teachback.core.numerals import decimal
from teachback.reports.figures import ACCENT, MUTED, picture, whole_numbers
from teachback.reports.parts import Figure, Section, Table, counted, shorten
from teachback.reports.recipes import SCRIPTS
from teachback.reports.run_page import render
from teachback.reports.search_space import Range, SearchPlan

FIGURES = 8  # maximum number of variables with a figure
ROWS = 500  # maximum number of trials in the table


def write_page(folder: Path, study, plan: SearchPlan, suite: str) -> Path:
    """Write search.html into the study's folder; returns its path."""
    trials = sorted((trial for trial in study.get_trials(deepcopy=False) if "values" in trial.user_attrs), key=lambda trial: trial.number)
    scored = [trial for trial in trials if trial.state.name == "COMPLETE"]
    about = f"Teachback report: a search over {', '.join(one.name for one in plan.ranges)}, by the score on dev of {SCRIPTS[plan.stages[-1]]}."
    path = folder / "search.html"
    sections = [_best(scored, trials, plan), _course(scored, trials), _by_variable(scored, plan.ranges), _all(trials, plan)]
    write_atomically(path, render(f"{suite}: {counted(len(scored), 'trial')}", about, sections))
    return path


def _best(scored: list, trials: list, plan: SearchPlan) -> Section:
    if not scored:
        return Section("best", "Best settings", missing="No trial has a score yet; continue with the same command.", lead=True)
    best = max(scored, key=lambda trial: (trial.value, -trial.number))
    rows = [[one.name, best.user_attrs["values"][one.name] or "(empty)", one.text] for one in plan.ranges]
    counts = [(sum(trial.state.name == state for trial in trials), word) for state, word in (("PRUNED", "pruned"), ("FAIL", "failed"))]
    said = [f"{number} {word}" for number, word in counts if number]
    intro = f"Trial {best.number} reaches {decimal(100 * best.value, 2)} % on dev, the best of {counted(len(scored), 'trial')}" + (f"; {', '.join(said)}." if said else ".")
    note = (
        "To use these settings, run the stages with CONFIG set to best.sh beside this page. The best of many scores on the same dev rows "
        "is optimistic. The search does not use test rows; stage 7 scores them."
    )
    return Section("best", "Best settings", intro=intro, tables=[Table("The best trial", ["variable", "value", "searched"], rows, (0, 1, 2))], notes=[note])


def _course(scored: list, trials: list) -> Section:
    if not scored:
        return Section("course", "Scores by trial", missing="No trial has a score yet.")
    numbers, values = [trial.number for trial in scored], [100 * trial.value for trial in scored]
    pruned = [(trial.number, 100 * max(trial.intermediate_values.values())) for trial in trials
              if trial.state.name == "PRUNED" and trial.intermediate_values]  # fmt: skip

    def plot(axes):
        axes.step(numbers, list(accumulate(values, max)), where="post", color=MUTED, linewidth=1.2)
        axes.plot(numbers, values, "o", color=ACCENT)
        if pruned:
            axes.plot(*zip(*pruned), "x", color=MUTED)
        axes.set(xlabel="trial", ylabel="score on dev (%)")
        whole_numbers(axes.xaxis)

    first = next(number for number, value in zip(numbers, values) if value == max(values))
    reading = f"Scores range from {decimal(min(values), 2)} to {decimal(max(values), 2)} %; trial {first} has the best. The line is the best so far"
    reading += "; crosses are the best scores of trials that were ended early." if pruned else "."
    return Section("course", "Scores by trial", figures=[picture("Score on dev", plot, "Scatter plot of scores by trial", reading)])


def _by_variable(scored: list, ranges: Sequence[Range]) -> Section:
    if len(scored) < 2:
        return Section("variables", "Scores by variable", missing="This needs two trials with scores.")
    notes = [f"The first {FIGURES} of {len(ranges)} variables are shown."] if len(ranges) > FIGURES else []
    intro = "Each trial's score by the value of one variable; the other variables differ between trials too."
    return Section("variables", "Scores by variable", intro=intro, figures=[_figure(scored, one) for one in ranges[:FIGURES]], notes=notes)


def _figure(scored: list, one: Range) -> Figure:
    texts, scores = [trial.user_attrs["values"][one.name] for trial in scored], [100 * trial.value for trial in scored]
    places = [one.choices.index(text) for text in texts] if one.choices else list(map(float, texts))

    def plot(axes):
        axes.plot(places, scores, "o", color=ACCENT)
        axes.set(xlabel=one.name, ylabel="score on dev (%)")
        if one.choices:
            axes.set_xticks(range(len(one.choices)), [shorten(choice, 16) or "(empty)" for choice in one.choices])
            axes.set_xlim(-0.5, len(one.choices) - 0.5)
        elif one.log:
            axes.set_xscale("log")

    best = max(range(len(scores)), key=lambda i: scores[i])
    return picture(one.name, plot, "Scatter plot of scores by value", f"{one.name}: the best trial has {texts[best] or '(empty)'}.")


def _all(trials: list, plan: SearchPlan) -> Section:
    names = [one.name for one in plan.ranges]
    rows = [
        [str(trial.number), *(trial.user_attrs["values"][name] or "(empty)" for name in names),
         decimal(100 * trial.value, 2) if trial.state.name == "COMPLETE" else "–", trial.user_attrs.get("failure", trial.state.name.lower())]
        for trial in trials[:ROWS]
    ]  # fmt: skip
    note = f"The first {ROWS} of {len(trials)} trials." if len(trials) > ROWS else ""
    words = (0, *range(1, len(names) + 1), len(names) + 2)
    return Section("trials", "All trials", tables=[Table("Values, scores and final states", ["trial", *names, "dev %", "state"], rows, words, note=note)])
