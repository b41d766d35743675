"""Benchmark against what users have otherwise: Hugging Face's Trainer, and the published library mpdistil where it is installed.

    PYTHONPATH=src python benchmarks/peers.py --model <folder of an encoder> --source <folder of the archives> --json peers.json

Each side is a whole process, from start-up to the finished model, and the sides take turns; the medians of the rounds are
compared, one seed a round. Rows, epochs, batch size, learning rates, schedule, threads and the encoder are equal; test accuracy
is taken afterwards. docs/performance_log.md explains the rows.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import plain
import torch
from safetensors.torch import save_file

from teachback.data.encoding import encode
from teachback.data.schema import read_rows, read_suite
from teachback.models.loading import load_tokenizer

ROOT = Path(__file__).parents[1]
PEERS = {"stage3": "Trainer", "stages45": "Trainer"}  # of the other rows: mpdistil
TASKS = {"cb": "CB", "rte": "RTE"}
RATES = ("1e-4", "5e-5")  # of stages 4 and 5


@dataclass
class Side:
    """Rounds of one side: wall-clock and processor seconds of its processes, and test accuracies."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def time(self, commands: list[list[str]], environment: dict[str, str]) -> None:
        """Run the processes one after the other; one that fails ends the benchmark."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        for command in commands:
            done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.wall.append(time.perf_counter() - started)
        self.processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@dataclass
class Run:
    """One side of a row in one round: its processes, and where its test accuracy comes from."""

    commands: list[list[str]]
    environment: dict[str, str]
    score: Callable[[], float]


class Ground:
    """Data, made once by stages 1 and 2, and the runs of each row."""

    def __init__(self, given: argparse.Namespace):
        self.given, self.folder = given, Path(given.folder).absolute()
        self.environment = {
            "PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src"), "TEACHER_MODEL": given.model, "DATA_DIR": str(self.folder / "data"),
            "SOURCE": given.source, "QUIZ_FRACTION": "0", "EMBEDDING_MODEL": "scratch:tiny", "CONFIG": "", "PRECISION": given.precision,
        }  # fmt: skip

    def stages(self, *scripts: str, **variables: str) -> list[list[str]]:
        return [["env", *(f"{name}={value}" for name, value in variables.items()), "bash", str(ROOT / script)] for script in scripts]

    def data(self, suite: str, domains: str) -> Path:
        """The processed suite."""
        folder = self.folder / "data" / suite
        if not (folder / "stage.json").is_file():
            scripts = self.stages("1_get_data.sh", "2_process_data.sh", SUITE=suite, DOMAINS=domains)
            Side().time(scripts, self.environment)
        return folder

    # Stages 3 to 5 on one domain of reviews

    def reviews(self) -> tuple[Path, list[str]]:
        folder = self.data("amazon" if self.given.source else "sample", "books")
        return folder, list(read_suite(folder).domain("books").labels)

    def variables(self, out: Path, seed: int, **further: str) -> dict[str, str]:
        suite = "amazon" if self.given.source else "sample"
        shared = {"SUITE": suite, "DOMAINS": "books", "DOMAIN": "books", "TEACHER": "single", "SEED": str(seed), "OUTPUT_DIR": str(out)}
        return shared | {"EPOCHS": str(self.given.epochs), "BATCH_SIZE": str(self.given.batch_size)} | further

    def teacher_of(self, out: Path, seed: int) -> Path:
        return out / self.reviews()[0].name / f"seed{seed}" / "teacher-single-books"

    def trainer(self, model, out: Path, seed: int, *further: str) -> list[list[str]]:
        folder, labels = self.reviews()
        given = self.given
        return [[
            sys.executable, str(ROOT / "benchmarks/trainer_peer.py"), "--model", str(model), "--data", str(folder), "--domain", "books",
            "--labels", *labels, "--out", str(out), "--epochs", str(given.epochs), "--batch_size", str(given.batch_size),
            "--bf16", str(int(given.precision != "fp32")), "--seed", str(seed), *further,
        ]]  # fmt: skip

    def stage3(self, seed: int, out: Path) -> dict[str, Run]:
        self.reviews()
        ours = self.stages("3_train_teacher.sh", **self.variables(out / "ours", seed, TEACHER_LR="5e-5"))
        return {
            "ours": self.scored(ours, self.teacher_of(out / "ours", seed)),
            "Trainer": self.scored(self.trainer(self.given.model, out / "trainer", seed), out / "trainer"),
        }

    def stages45(self, seed: int, out: Path) -> dict[str, Run]:
        """Both sides learn from the same teacher, which is trained before."""
        self.reviews()
        root = self.folder / "teachers"
        Side().time(self.stages("3_train_teacher.sh", **self.variables(root, seed, TEACHER_LR="5e-5")), self.environment)
        variables = self.variables(
            out / "ours", seed, TEACHER_DIR=str(root), STUDENT_INIT="teacher", STUDENT_LAYERS=str(self.given.layers), TKD_WEIGHT="0",
            ATTENTION_TARGET="probs", USE_EXPERTISE_WEIGHTS="0", FIRST_SCHEDULE="linear", FIRST_LR=RATES[0], SECOND_LR=RATES[1],
        )  # fmt: skip
        ours = self.stages("4_student_first.sh", "5_student_second.sh", **variables)
        teacher = self.teacher_of(root, seed)
        layers = ["--student_layers", str(self.given.layers), "--rates", *RATES]
        return {
            "ours": self.scored(ours, out / "ours" / self.reviews()[0].name / f"seed{seed}" / "books" / "student_second"),
            "Trainer": self.scored(self.trainer(teacher, out / "trainer", seed, *layers), out / "trainer"),
        }

    def scored(self, commands: list[list[str]], model: Path) -> Run:
        return Run(commands, self.environment, lambda: self.accuracy(model))

    def accuracy(self, model: Path) -> float:
        """Test accuracy of a finished checkpoint."""
        folder, labels = self.reviews()
        rows = [row for row in read_rows(folder / "test.tsv") if row.domain == "books"]
        numbers = {label: number for number, label in enumerate(labels)}
        return plain.accuracy(plain.load(model), rows, numbers, load_tokenizer(str(model)), 32)

    # The Python API on a task of SuperGLUE

    def task(self, task: str, seed: int, out: Path) -> dict[str, Run]:
        tensors = self.tensors(task)
        settings = {"ours": ("teachback", "{}"), "mpdistil": ("mpdistil", "{}")}
        settings |= {f"ours, {words}": ("teachback", json.dumps({words.split("=")[0]: _number(words.split("=")[1])})) for words in self.given.also}
        shared = [
            sys.executable, str(ROOT / "benchmarks/library_peer.py"), "--task", task, "--model", self.given.model, "--tensors", str(tensors),
            "--layers", str(self.given.layers), "--epochs", str(self.given.epochs), "--seed", str(seed),
        ]  # fmt: skip
        return {
            name: Run(
                [[*shared, "--library", library, "--settings", further, "--out", str(out / name)]], self.environment,
                partial(_written_accuracy, out / name / "score.json"),
            )
            for name, (library, further) in settings.items()
        }  # fmt: skip

    def tensors(self, task: str) -> Path:
        """The rows of a task's splits as a loader gives them, padded to 128."""
        path = self.folder / f"{task}.safetensors"
        if not path.is_file():
            folder, tokenizer = self.data("superglue", "CB RTE"), load_tokenizer(self.given.model)
            tensors: dict[str, torch.Tensor] = {}
            domain = read_suite(folder).domain(task)
            for split in ("train", "dev", "test"):
                rows = [row for row in read_rows(folder / f"{split}.tsv") if row.domain == task]
                tensors |= {f"{split}.{name}": part for name, part in padded(encode(rows, tokenizer, 128), len(rows)).items()}
                tensors[f"{split}.labels"] = torch.tensor([domain.labels.index(row.label) for row in rows])
            save_file(tensors, path)
        return path


def padded(encoded, count: int, width: int = 128) -> dict[str, torch.Tensor]:
    """Token tensors [N, width] of encoded rows."""
    made = {name: torch.zeros(count, width, dtype=torch.long) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for number in range(count):
        for name, values in encoded.inputs.items():
            tokens = torch.as_tensor(values[number].copy())
            made[name][number, : len(tokens)] = tokens
            made["attention_mask"][number, : len(tokens)] = 1
    return made


def _written_accuracy(path: Path) -> float:
    return json.loads(path.read_text())["accuracy"]


def _number(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


def compare(ground: Ground, row: str, seeds: list[int]) -> dict[str, Side]:
    """Run the sides of a row in turn, a seed a round."""
    sides: dict[str, Side] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=ground.folder) as folder:
            runs = ground.task(TASKS[row], seed, Path(folder)) if row in TASKS else getattr(ground, row)(seed, Path(folder))
            for name, run in runs.items():
                side = sides.setdefault(name, Side())
                side.time(run.commands, run.environment)
                side.accuracy.append(run.score())
                print(f"{row}, seed {seed}, {name}: {side.wall[-1]:.1f} s, {side.processor[-1]:.1f} s of processor time, "
                      f"test accuracy {side.accuracy[-1]:.3f}", flush=True)  # fmt: skip
    return sides


def table(row: str, sides: dict[str, Side]) -> str:
    """Medians of a row's sides, as multiples of ours, with test accuracies."""
    ours, lines = sides["ours"], [f"{row:24}{'seconds':>9}{'x ours':>8}{'processor':>11}{'x ours':>8}   test accuracy by seed"]
    for name, side in sides.items():
        wall, processor = statistics.median(side.wall), statistics.median(side.processor)
        scores = f"{100 * statistics.mean(side.accuracy):.1f}: " + " ".join(f"{100 * one:.1f}" for one in side.accuracy)
        lines.append(
            f"{name:24}{wall:9.1f}{wall / statistics.median(ours.wall):8.2f}{processor:11.1f}"
            f"{processor / statistics.median(ours.processor):8.2f}   {scores}"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--parts", nargs="+", choices=[*PEERS, *TASKS], default=[*PEERS, "cb"], help="cb and rte need mpdistil")
    made.add_argument("--model", required=True, help="folder of a BERT encoder")
    made.add_argument("--source", default="", help="folder of the archives; empty: the sample suite, without cb and rte")
    made.add_argument("--folder", help="where to work; default: a folder that is removed at the end")
    made.add_argument("--epochs", type=int, default=2, help="of each stage or phase")
    made.add_argument("--batch_size", type=int, default=32, help="of stages 3 to 5; the loaders of cb and rte have 8")
    made.add_argument("--layers", type=int, default=3, help="of students")
    made.add_argument("--precision", default="auto", help="ours'; fp32 turns the Trainer's bfloat16 off too")
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="a round each")
    made.add_argument("--also", nargs="*", default=[], help="cb and rte: further sides of ours, by a setting, such as schedule=linear")
    made.add_argument("--json", type=Path, help="write everything measured to this file")
    return made


def main(argv: list[str] | None = None) -> dict:
    given = parser().parse_args(argv)
    if missing := [part for part in given.parts if part in TASKS and not find_spec("mpdistil")]:
        raise SystemExit(f"{', '.join(missing)}: mpdistil is not installed; pip install mpdistil, or leave them out with --parts")
    with tempfile.TemporaryDirectory() as temporary:
        given.folder = given.folder or temporary
        ground = Ground(given)
        ground.folder.mkdir(parents=True, exist_ok=True)
        report = {part: compare(ground, part, given.seeds) for part in given.parts}
    print("\n\n".join(table(*pair) for pair in report.items()))
    measured = {"threads": torch.get_num_threads(), "parts": {name: {n: vars(s) for n, s in sides.items()} for name, sides in report.items()}}
    if given.json:
        given.json.write_text(json.dumps(measured | {"arguments": {k: str(v) for k, v in vars(given).items()}}, indent=1))
    return measured


if __name__ == "__main__":
    main()
