"""Benchmark of the stages against `plain.py`: alternating rounds on the same rows, epochs and batch size, medians.

    PYTHONPATH=src python benchmarks/bench_stages.py --teacher_model <folder> --source <folder of the archives> --json out.json

Uses Amazon's books and SuperGLUE's CB if ``--source`` has the archives, else the generated suite ``sample``. Each stage
runs as for a user, from reading its input to the published folder, without cached teacher states. docs/performance_log.md
explains the columns.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accuracy import compare_accuracy
from arithmetic import Counts, counting, matrix_rate
from parts import Part, Quizzes, Reviews

from teachback.core.devices import resolve_device

STAGES: dict[str, type[Reviews | Quizzes]] = {"3": Reviews, "45": Reviews, "45small": Reviews, "6": Quizzes, "6level": Quizzes}


@dataclass
class Side:
    """Rounds of one side: wall-clock seconds, processor seconds, and the work of its encoders."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def seconds(self) -> float:
        return statistics.median(self.wall)

    def time(self, work: Callable[[], object], encoder) -> None:
        with counting(encoder) as self.counts:
            wall, processor = time.perf_counter(), time.process_time()
            work()
            self.wall.append(time.perf_counter() - wall)
            self.processor.append(time.process_time() - processor)

    def as_dict(self) -> dict:
        return {
            "seconds": self.seconds, "all": self.wall, "processor": self.processor, "counts": self.counts.as_dict(),
            "learning_tokens_a_second": self.counts.learning.tokens / self.seconds,
        }  # fmt: skip


@dataclass
class Comparison:
    """Both sides of one part; ``rate``: the machine's matrix-product rate in operations per second."""

    part: Part
    ours: Side
    plain: Side
    rate: float = 0.0

    @property
    def ratio(self) -> float:
        return self.plain.seconds / self.ours.seconds

    @property
    def processor_ratio(self) -> float:
        """Ratio of processor times, which are less sensitive to other load on the machine."""
        return statistics.median(self.plain.processor) / statistics.median(self.ours.processor)

    @property
    def floor(self) -> float:
        """Lower bound of our seconds: the arithmetic of trained models on real tokens, at ``rate``."""
        return self.ours.counts.learning.flops / self.rate

    @property
    def share(self) -> float:
        """Share of ``rate`` that ours reaches, counting real tokens only."""
        return self.ours.counts.flops / self.ours.seconds / self.rate

    @property
    def plain_share(self) -> float:
        """Share of ``rate`` that plain reaches, counting padding as work."""
        return self.plain.counts.flops_with_padding / self.plain.seconds / self.rate

    def as_dict(self) -> dict:
        return {
            "part": self.part.name, "title": self.part.title, "ratio": self.ratio, "processor_ratio": self.processor_ratio,
            "floor_seconds": self.floor, "share_of_rate": self.share, "plain_share_of_rate": self.plain_share,
            "ours": self.ours.as_dict(), "plain": self.plain.as_dict(),
        }  # fmt: skip


def compare(part: Part, encoder, rounds: int) -> Comparison:
    """Run both sides alternately for ``rounds`` rounds."""
    part.prepare()
    ours, plain = Side(), Side()
    for _ in range(rounds):
        part.forget()
        ours.time(part.ours, encoder)
        plain.time(part.plain, encoder)
    return Comparison(part, ours, plain)


def chosen_parts(arguments: argparse.Namespace) -> list[tuple[Part, str]]:
    """Selected parts, each with a folder of an encoder of its class; prepares their data only."""
    grounds = {kind: kind(arguments) for kind in dict.fromkeys(STAGES[name] for name in arguments.stages)}
    parts = {part.name: (part, ground.teacher_model) for ground in grounds.values() for part in ground.parts()}
    return [parts[name] for name in arguments.stages]


def time_stages(arguments: argparse.Namespace) -> dict:
    """Run all comparisons, measuring the machine's rate in between; returns the report for --json."""
    device, rates, comparisons = resolve_device("auto"), [], []
    for part, encoder in chosen_parts(arguments):
        rates.append(matrix_rate(device))
        comparisons.append(compare(part, encoder, arguments.rounds))
    rates.append(matrix_rate(device))
    for comparison in comparisons:
        comparison.rate = max(rates)
    report = {
        "threads": torch.get_num_threads(), "device": str(device), "bfloat16_flops": max(rates),
        "float32_flops": matrix_rate(device, torch.float32),
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "parts": [comparison.as_dict() for comparison in comparisons],
    }  # fmt: skip
    print(machine(report))
    print(table(comparisons))
    return report


def machine(report: dict) -> str:
    rates = " and ".join(f"{report[f'{name}_flops'] / 1e9:.0f} GFLOP/s in {name}" for name in ("bfloat16", "float32"))
    return f"\n{report['threads']} threads on {report['device']}; matrix products: {rates}"


def table(comparisons: list[Comparison]) -> str:
    widths = {"ours s": 9, "plain s": 9, "ratio": 7, "(cpu)": 7, "tokens/s": 10, "padding": 9, "of rate": 9, "plain": 7}
    lines = [f"{'':42}" + "".join(f"{name:>{width}}" for name, width in (widths | {"floor s": 9}).items())]
    for comparison in comparisons:
        learning = comparison.ours.counts.learning
        lines.append(
            f"{comparison.part.title:42}{comparison.ours.seconds:9.1f}{comparison.plain.seconds:9.1f}{comparison.ratio:7.2f}{comparison.processor_ratio:7.2f}"
            f"{learning.tokens / comparison.ours.seconds:10.0f}{learning.padding:9.1%}{comparison.share:9.1%}{comparison.plain_share:7.1%}"
            f"{comparison.floor:9.1f}"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), help="parts to time")
    made.add_argument("--teacher_model", default="scratch:mini", help="folder of a BERT encoder, or scratch:mini|tiny")
    made.add_argument("--source", default="", help="folder of the archives; empty: the sample suite")
    made.add_argument("--folder", type=Path, help="where to work; default: a folder that is removed at the end")
    made.add_argument("--epochs", type=int, default=5, help="of each of the stages 3 to 5")
    made.add_argument("--episodes", type=int, default=50, help="of stage 6")
    made.add_argument("--rows", type=int, default=1631, help="train rows of a domain, at most")
    made.add_argument("--batch_size", type=int, default=32, help="rows a step of the stages 3 to 5")
    made.add_argument("--student_layers", type=int, default=3)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--accuracy", action="store_true", help="instead: test accuracy of the students")
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of --accuracy")
    made.add_argument("--json", type=Path, help="write everything measured to this file")
    return made


def main(argv: list[str] | None = None) -> dict:
    arguments = parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        arguments.folder = arguments.folder or Path(temporary)
        report = compare_accuracy(Reviews(arguments)) if arguments.accuracy else time_stages(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
