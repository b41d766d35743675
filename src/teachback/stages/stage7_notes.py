"""Printing of stage 7's tables, and the notes below them: how the numbers were computed, and on which rows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch

from teachback.core.devices import resolve_device
from teachback.data.names import folder_name
from teachback.inference.predictor import TIMED_ROWS, evaluation_precision
from teachback.inference.results import (
    META_TEACHER,
    Evaluated,
    comparison_table,
    domains_table,
    metric_names,
    percent,
    scores_other_domains,
    unseen_split,
)
from teachback.inference.timing import ROUNDS

SHOWN = 4  # students

if TYPE_CHECKING:
    from teachback.stages.stage7_arguments import EvaluationArguments
    from teachback.stages.stage7_evaluate import Evaluation


def print_tables(evaluation: Evaluation, evaluated: list[Evaluated]) -> None:
    """Print the comparison of checkpoints and its notes; for several domains also the layout of the papers."""
    arguments, owners = evaluation.arguments, evaluation.owners()
    print(f"\n{evaluation.data.suite.name}, seed {arguments.seed}, {arguments.split} split\n")
    print(comparison_table(evaluated, evaluation.targets, evaluation.baselines))
    if len(owners) > 1:
        print(f"\n{domains_table(evaluated, owners, evaluation.baselines)}")
    print("\n" + "\n".join(notes(evaluation, evaluated)))
    students = {one.target for one in evaluated if "/" in one.stage and not one.stage.endswith(META_TEACHER)}
    for target in evaluation.targets:
        if target not in students:
            print(f"{target} has no student yet; run DOMAIN={target} bash 4_student_first.sh, then 5_student_second.sh")


def notes(evaluation: Evaluation, evaluated: list[Evaluated]) -> list[str]:
    """Explanations of the numbers in the table."""
    timing = (
        f"ms: time of a forward pass per example on {measured_on(evaluation.arguments)}; {TIMED_ROWS} "
        f"rows of all lengths, or one batch if that is more; median of at least {ROUNDS} passes, each after a warm-up. "
        "Models of the same shape share a measurement."
    )
    average = f"average: mean over {', '.join(evaluation.domains)}, or those that the checkpoint serves."
    mark = "* optimistic: with PROTOCOL=paper the checkpoint was selected on the rows that are scored here."
    spread = "95 % interval: Wilson's for shares of correct predictions, else a bootstrap over rows; majority class: the most frequent label of the train rows."
    return [
        *chance_level_notes(evaluation, evaluated),
        *([spread] if any(one.intervals for one in evaluated) else []),
        *([mark] if any(one.optimistic for one in evaluated) else []),
        *metric_notes(evaluation, evaluated),
        *calibration_notes(evaluation),
        *seen_notes(evaluation),
        *([average] if scores_other_domains(evaluated, evaluation.targets) else []),
        timing,
        f"Numbers are in {evaluation.run / 'results.tsv'}, predictions in {evaluation.run / 'predictions'}.",
    ]


def chance_level_notes(evaluation: Evaluation, evaluated: list[Evaluated]) -> list[str]:
    """Notes on checkpoints whose interval on a target is not above the majority class and chance."""
    remarks = []
    for one in evaluated:
        for domain in [one.target] if one.target else evaluation.targets:
            floors = {name: scores[domain] for name, scores in evaluation.baselines.items() if domain in scores}
            name = max(floors, key=lambda name: floors[name].value, default="")
            if domain in one.intervals and name and one.intervals[domain][0] <= floors[name].value:
                value, low, floor = one.scores[domain].value, one.intervals[domain][0], floors[name].value
                remarks.append(
                    f"{one.stage} shows no signs of learning: {percent(value)} % on {domain} (interval from {percent(low)} %) is "
                    f"not clearly above {name} with {percent(floor)} %."
                )
    return remarks


def seen_notes(evaluation: Evaluation) -> list[str]:
    """Note on the number of scored rows whose texts were seen in training, by domain."""
    scored = Counter(row.domain for row in evaluation.rows if row.label)
    seen = Counter(row.domain for row in evaluation.seen)
    if not seen:
        return []
    counts = ", ".join(f"{seen[name]:,} of {scored[name]:,} in {name}" for name in evaluation.domains if seen[name])
    return [
        f"unseen: without the {evaluation.arguments.split} rows whose texts are also in train or quiz ({counts}); "
        f"in results.tsv this is the split {unseen_split(evaluation.arguments.split)}."
    ]


def calibration_notes(evaluation: Evaluation) -> list[str]:
    """Note on the expected calibration error of the targets' students, for at most `SHOWN` of them."""
    known = [one for one in evaluation.calibrations if one.stage.rpartition("/")[0] and one.temperature and one.domain in evaluation.targets]
    errors = [
        f"{one.stage} {percent(one.ece)} -> {percent(one.ece_calibrated)} (temperature {one.temperature:.3g})"
        for one in known if folder_name(one.domain) == one.stage.rpartition("/")[0]
    ]  # fmt: skip
    more = f" and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
    return [f"expected calibration error in %, without and with a temperature fitted on dev: {', '.join(errors[:SHOWN])}{more}"] if errors else []


def measured_on(arguments: EvaluationArguments) -> str:
    """Device and precision of the timings."""
    device = resolve_device(arguments.device)
    where = (
        f"the CPU ({torch.get_num_threads()} threads)" if device.type == "cpu" else torch.cuda.get_device_name(device)
    )
    return f"{where} in {evaluation_precision(arguments.precision, device)}"


def metric_notes(evaluation: Evaluation, evaluated: list[Evaluated]) -> list[str]:
    """Note on the metric of each domain, if they differ or one is a composite."""
    domains: dict[str, list[str]] = {}
    for domain in evaluation.domains:
        for metric in metric_names(evaluated, [domain]):
            domains.setdefault(metric, []).append(domain)
    if len(domains) < 2 and not any("+" in metric for metric in domains):
        return []
    listed = "; ".join(f"{metric} on {', '.join(names)}" for metric, names in domains.items())
    return [f"score: {listed}; a + stands for the mean of both."]
