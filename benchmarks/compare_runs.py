"""Compare finished runs on the same test rows: accuracy by domain, mean and deviation over seeds, paired tests with Holm.

Each run is NAME=OUTPUT_DIR/STAGE; STAGE is student_first, student_second, curriculum ... of each domain, or the folder of a
teacher. Stage 7 must have scored it. All runs are compared with the one that --to names: a bootstrap over test rows, in
which a row keeps its answers of all seeds. --split dev reads the scores that chose the checkpoints, and tests nothing.

    PYTHONPATH=src python benchmarks/compare_runs.py --suite amazon --seeds 1 2 3 --to recipe \\
        recipe=outputs_recipe/student_second published=outputs/student_second teacher=outputs/teacher-meta
"""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teachback.core.published import read_stage
from teachback.core.tsv import read_tsv
from teachback.inference.bootstrap import Paired, holm, paired_bootstrap


@dataclass(frozen=True)
class Run:
    """Checkpoints of one name, one for each seed and domain."""

    name: str
    outputs: Path
    stage: str

    @classmethod
    def parse(cls, text: str) -> "Run":
        name, place = text.split("=", 1)
        return cls(name, Path(place).parent, Path(place).name)

    def checkpoint(self, domain: str) -> str:
        return self.stage if self.stage.startswith("teacher-") else f"{domain}/{self.stage}"

    def answers(self, suite: str, seed: int, domain: str) -> dict[str, tuple[str, str]]:
        """Gold and predicted label by guid."""
        name = self.checkpoint(domain).replace("/", "__")
        path = self.outputs / suite / f"seed{seed}" / "predictions" / f"{name}-test.tsv"
        return {row["guid"]: (row["gold"], row["predicted"]) for row in read_tsv(path) if row["domain"] == domain}

    def dev_score(self, suite: str, seed: int, domain: str) -> float:
        dev = read_stage(self.outputs / suite / f"seed{seed}" / self.checkpoint(domain))["dev"]
        return dev[f"{domain}_accuracy"]


def paired(ours: list[dict], theirs: list[dict]) -> Paired:
    """Answers of two runs to the same rows, by seed."""
    rows = list(ours[0])
    if any(list(side) != rows for side in (*ours, *theirs)):
        raise SystemExit("the runs were scored on different rows; run stage 7 of all of them on the same data")
    labels = {label: number for number, label in enumerate(sorted({gold for gold, _ in ours[0].values()}))}
    gold = np.array([labels[ours[0][row][0]] for row in rows])
    sides = (np.array([[labels[side[row][1]] for row in rows] for side in run]) for run in (ours, theirs))
    return Paired("accuracy", gold, *sides)


def accuracy(answers: dict) -> float:
    return 100 * statistics.mean(gold == predicted for gold, predicted in answers.values())


def shown(scores: list[float]) -> str:
    return f"{statistics.mean(scores):.1f}" + (f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else "")


def table(runs: list[Run], scores: dict[str, list[list[float]]], domains: list[str]) -> str:
    """Markdown table of scores [domains, seeds] by run."""
    lines = [f"| | {' | '.join(domains)} | average |", "|---|" + "---:|" * (len(domains) + 1)]
    for run in runs:
        averages = [statistics.mean(seed) for seed in zip(*scores[run.name], strict=True)]
        lines.append(f"| {run.name} | " + " | ".join(map(shown, [*scores[run.name], averages])) + " |")
    return "\n".join(lines)


def tests(runs: list[Run], reference: Run, answers: dict, domains: list[str]) -> str:
    """Lines with the difference of averages to the reference by seed, p and Holm's p."""
    found = []
    for run in (run for run in runs if run != reference):
        parts = [paired(answers[run.name][domain], answers[reference.name][domain]) for domain in domains]
        apart = np.mean([(part.ours == part.gold).mean(1) - (part.theirs == part.gold).mean(1) for part in parts], axis=0)
        found.append((run.name, 100 * apart, paired_bootstrap(parts)))
    adjusted = holm([p for *_, p in found])
    lines = [f"| minus {reference.name} | points | by seed | p | Holm |", "|---|---:|---|---:|---:|"]
    for (name, apart, p), least in zip(found, adjusted, strict=True):
        seeds = ", ".join(f"{value:+.1f}" for value in apart)
        lines.append(f"| {name} | {apart.mean():+.1f} | {seeds} | {p:.3f} | {least:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Run.parse, metavar="NAME=OUTPUT_DIR/STAGE")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--domains", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--to", help="run that the others are compared with; the first by default")
    parser.add_argument("--split", choices=("test", "dev"), default="test")
    args = parser.parse_args()
    if args.split == "dev":
        scores = {
            run.name: [[100 * run.dev_score(args.suite, seed, name) for seed in args.seeds] for name in args.domains]
            for run in args.runs
        }
        print(table(args.runs, scores, args.domains))
        return
    answers = {
        run.name: {name: [run.answers(args.suite, seed, name) for seed in args.seeds] for name in args.domains}
        for run in args.runs
    }
    scores = {name: [list(map(accuracy, seeds)) for seeds in by.values()] for name, by in answers.items()}
    reference = next((run for run in args.runs if run.name == args.to), args.runs[0])
    print(table(args.runs, scores, args.domains) + "\n\n" + tests(args.runs, reference, answers, args.domains))


if __name__ == "__main__":
    main()
