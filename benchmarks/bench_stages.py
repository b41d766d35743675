"""Times the stages against `plain.py` on the same rows, epochs and batch size, alternating, medians of several rounds.

    PYTHONPATH=src python benchmarks/bench_stages.py --teacher_model <folder> --source ../shared/data --json out.json

Amazon's books where ``--source`` has the archive, else the generated suite ``sample``. Each stage is run as a user runs
it, from reading its input to the published folder; the teacher's states are written anew in every round.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import plain
import torch

from teachback.arguments import (
    DataArguments,
    FirstStageArguments,
    MetaTeacherArguments,
    OptimizerArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
    parse,
)
from teachback.models import load_tokenizer
from teachback.processing import ProcessArguments, process
from teachback.stages import distil, train_teachers
from teachback.suites import definition
from teachback.suites.download import get_data
from teachback.suites.schema import TRAIN_COLUMNS, Row, read_rows, read_suite, write_rows


class Bench:
    """The data and folders of one run."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.folder = arguments, arguments.folder
        self.suite = "amazon" if arguments.source else "sample"
        self.rows = self._prepare()
        self.labels = {
            name: i for i, name in enumerate(read_suite(self.folder / "data" / self.suite).domain("books").labels)
        }

    def _prepare(self) -> list[Row]:
        """The suite, its train rows cut to what is asked for."""
        data = self.folder / "data"
        get_data(definition(self.suite), data, self.arguments.source or "")
        process(
            ProcessArguments(suite=self.suite, data_dir=str(data), embedding_model="scratch:tiny", quiz_fraction=0.0)
        )
        path = data / self.suite / "train.tsv"
        rows = [row for row in read_rows(path) if row.domain == "books"][: self.arguments.rows]
        write_rows(path, rows + [row for row in read_rows(path) if row.domain == "dvd"][:2], TRAIN_COLUMNS)
        return rows

    def flags(self, *more: str) -> list[str]:
        a = self.arguments
        return [
            "--suite", self.suite, "--domain", "books", "--data_dir", str(self.folder / "data"), "--output_root", str(self.folder / "outputs"),
            "--num_train_epochs", str(a.epochs), "--per_device_train_batch_size", str(a.batch_size), "--eval_strategy", "no",
            "--save_strategy", "no", "--load_best_model_at_end", "0", "--teacher", "single", *more,
        ]  # fmt: skip

    def stage_3(self) -> None:
        argv = self.flags("--teacher_model", self.arguments.teacher_model)
        train_teachers(*parse(DataArguments, TeacherArguments, OptimizerArguments, argv=argv))

    def stages_4_and_5(self) -> None:
        ours = (DataArguments, StudentArguments, FirstStageArguments, SecondStageArguments, MetaTeacherArguments)
        student = [
            "--student_init",
            "teacher",
            "--student_layers",
            str(self.arguments.student_layers),
            "--tkd_weight",
            "0",
        ]
        for stage in ("first", "second"):
            distil(*parse(*ours, OptimizerArguments, argv=self.flags(*student, "--stage", stage)))

    def plain_3(self) -> None:
        tokenizer = load_tokenizer(self.arguments.teacher_model)
        model = plain.load(self.arguments.teacher_model)
        plain.train_teacher(model, self.rows, self.labels, tokenizer, self.arguments.epochs, self.arguments.batch_size)

    def plain_4_and_5(self) -> None:
        folder = self.folder / "outputs" / self.suite / "seed42" / "teacher-single-books"
        a, tokenizer = self.arguments, load_tokenizer(str(folder))
        student = plain.load(folder, a.student_layers)
        plain.distil(student, plain.load(folder), self.rows, self.labels, tokenizer, a.epochs, a.batch_size)

    def forget(self, *names: str) -> None:
        """Remove what a stage made, so that it is not up to date."""
        root = self.folder / "outputs" / self.suite
        for path in [*root.glob("teacher_states"), *(found for name in names for found in root.glob(f"seed42/{name}"))]:
            shutil.rmtree(path)


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def matrix_rate(size: int = 1536) -> float:
    """The machine's matrix-product rate in bfloat16, in GFLOP/s: best of ten products."""
    a, b = (torch.randn(size, size).to(torch.bfloat16) for _ in range(2))
    return max(2 * size**3 / seconds(lambda: a @ b) for _ in range(10)) / 1e9


def compare(name: str, ours: Callable, other: Callable, before: Callable, rounds: int) -> dict:
    """Both in turn, several times; medians and the ratio."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        before()
        times["ours"].append(seconds(ours))
        times["plain"].append(seconds(other))
    medians = {who: statistics.median(values) for who, values in times.items()}
    return {"stage": name, **medians, "ratio": medians["plain"] / medians["ours"], "all": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher_model", required=True, help="folder of an encoder")
    parser.add_argument("--source", default="", help="folder of the archives; empty: the sample suite")
    parser.add_argument("--folder", type=Path, required=True, help="where to work")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1631)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--student_layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    bench = Bench(arguments := parser.parse_args())
    found = [
        compare("3", bench.stage_3, bench.plain_3, lambda: bench.forget("teacher-*"), arguments.rounds),
        compare("4 and 5", bench.stages_4_and_5, bench.plain_4_and_5, lambda: bench.forget("books"), arguments.rounds),
    ]
    report = {"threads": torch.get_num_threads(), "bfloat16 GFLOP/s": matrix_rate(), "stages": found}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    print(
        f"\n{report['threads']} threads, {report['bfloat16 GFLOP/s']:.0f} GFLOP/s in bfloat16, {len(bench.rows)} rows"
    )
    for one in found:
        print(
            f"stage {one['stage']:8} ours {one['ours']:8.1f} s   plain {one['plain']:8.1f} s   ratio {one['ratio']:.2f}"
        )


if __name__ == "__main__":
    main()
