"""Load test: run the stages' scripts on many synthetic rows, and report time and memory.

    python benchmarks/load.py --json load.json                                       # the full form: hours
    python benchmarks/load.py --rows 20000 --training_rows 2000 --episodes 50        # minutes

Stages 1, 2 and 7 process ``rows`` short sentence pairs in the format of MultiNLI, stages 3 to 5 ``training_rows`` of them
with two-layer models; stage 6 runs ``episodes`` episodes, recording memory along the way. Peak memory is the maximum
resident set of the stage's process, libraries included; "own" is the anonymous part, sampled four times a second. The
teacher's states are a memory-mapped file, whose pages the system reclaims when memory is needed.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GENRES = ("fiction", "government", "slate", "telephone", "travel")
LABELS = {"entailment": "surely", "neutral": "perhaps", "contradiction": "never"}
WORDS = "the a one some old new small large house road river letter night day they we she saw took left made".split()
DEV_SHARE = 0.1  # share of train that stage 2 cuts
MEGABYTE = 1e6
SETTINGS = {
    "SUITE": "mnli", "DOMAIN": "fiction", "ALLOW_PARTIAL": "1", "TEACHER_MODEL": "scratch:tiny", "STUDENT_MODEL": "scratch:tiny",
    "MAX_LENGTH": "32", "BATCH_SIZE": "256", "EVAL_BATCH_SIZE": "256", "EPOCHS": "1", "TRANSFER_SET": "all",
    "METHOD": "metakd", "PRECISION": "auto", "DEVICE": "cpu", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Seconds of a stage, and peak resident bytes, all and anonymous."""

    stage: str
    rows: int
    seconds: float
    peak: int
    own: int


def made_up(count: int, seed: int) -> Iterator[str]:
    """Yield JSON lines of sentence pairs; a word of the second sentence determines the label."""
    generator = random.Random(seed)
    for number in range(count):
        label = generator.choice(list(LABELS))
        first, second = (" ".join(generator.choices(WORDS, k=generator.randint(3, 7))) for _ in range(2))
        values = {
            "gold_label": label, "genre": GENRES[number % len(GENRES)], "pairID": str(number),
            "sentence1": first, "sentence2": f"{second} {LABELS[label]}",
        }  # fmt: skip
        yield json.dumps(values)


def write_archive(folder: Path, rows: int, seed: int) -> None:
    """Write an archive from which stage 2 makes ``rows`` train rows, without a quiz."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "multinli_1.0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for part, count in (("train", math.ceil(rows / (1 - DEV_SHARE))), ("dev_matched", max(50, rows // 100))):
            with archive.open(f"multinli_1.0/multinli_1.0_{part}.jsonl", "w") as file:
                file.writelines(f"{line}\n".encode() for line in made_up(count, seed))


def run_stage(script: str, watch: Callable[[str, int], None] = lambda line, process: None, **variables: str):
    """Run a stage's script; returns (seconds, peak, own). ``watch`` is called with each printed line and the process id."""
    environment = os.environ | SETTINGS | {"PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"} | variables
    start, printed = time.perf_counter(), []
    command = ["bash", str(ROOT / script)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    own = OwnMemory(process.pid)
    own.start()
    for line in process.stdout or ():
        printed.append(line)
        watch(line, process.pid)
    own.join()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{script} failed:\n{''.join(printed[-40:])}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024, own.peak


class OwnMemory(threading.Thread):
    """Samples a process until it ends, for its peak of anonymous resident bytes."""

    def __init__(self, process: int):
        super().__init__(daemon=True)
        self.status, self.peak = Path(f"/proc/{process}/status"), 0

    def run(self) -> None:
        while found := re.search(r"RssAnon:\s+(\d+) kB", self.status.read_text()):  # missing once the process has ended
            self.peak = max(self.peak, int(found[1]) * 1024)
            time.sleep(0.25)


class Memory:
    """Resident bytes by episode, read whenever stage 6 prints a score."""

    def __init__(self):
        self.by_episode: dict[int, int] = {}

    def __call__(self, line: str, process: int) -> None:
        if found := re.match(r"episode (\d+):", line):
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            self.by_episode[int(found[1])] = pages * os.sysconf("SC_PAGE_SIZE")


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[list[Measured], Memory]:
    """Run all stages in order; at the end, the models trained on the smaller data are scored on the larger."""
    places = {
        name: {"DATA_DIR": str(folder / name), "SOURCE": str(folder / f"{name} archive"), "OUTPUT_DIR": str(folder / "outputs")}
        for name in ("many", "few")
    }  # fmt: skip
    write_archive(folder / "many archive", arguments.rows, 1)
    write_archive(folder / "few archive", arguments.training_rows, 2)
    measured, memory = [], Memory()

    def stage(script: str, size: str, rows: int, watch=lambda line, process: None, **variables: str) -> None:
        measured.append(Measured(script, rows, *run_stage(script, watch, **places[size], **variables)))
        print(describe(measured[-1]), flush=True)

    stage("1_get_data.sh", "many", arguments.rows)
    stage("2_process_data.sh", "many", arguments.rows, QUIZ_FRACTION="0")
    stage("1_get_data.sh", "few", arguments.training_rows)
    stage("2_process_data.sh", "few", arguments.training_rows)
    for script in ("3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh"):
        stage(script, "few", arguments.training_rows)
    every = str(max(1, arguments.episodes // 50))
    episodes = {"EPISODES": str(arguments.episodes), "EPISODE_STEPS": "5", "EVAL_EVERY": every, "BATCH_SIZE": "8"}
    stage("6_curriculum.sh", "few", arguments.training_rows, memory, **episodes)
    stage("7_eval.sh", "many", arguments.rows, SPLIT="train")
    return measured, memory


def describe(one: Measured) -> str:
    return f"{one.stage:<22} {one.rows:>9,d} rows {one.seconds:>9.1f} s {one.peak / MEGABYTE:>8.0f} MB at most, {one.own / MEGABYTE:.0f} own"


def growth(by_episode: dict[int, int]) -> str:
    """Memory growth from the middle to the end of the episodes, as text."""
    episodes = sorted(by_episode)
    middle, last = episodes[len(episodes) // 2], episodes[-1]
    more = (by_episode[last] - by_episode[middle]) / MEGABYTE
    return (
        f"{last} episodes: {by_episode[episodes[0]] / MEGABYTE:.0f} MB at the start, {by_episode[middle] / MEGABYTE:.0f} MB after "
        f"{middle}, {by_episode[last] / MEGABYTE:.0f} MB after {last}: {more:+.1f} MB in the second half"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of stages 1, 2 and 7")
    parser.add_argument("--training_rows", type=int, default=100_000, help="rows of stages 3 to 5")
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--folder", help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measured, memory = measure(Path(folder), arguments)
    print(growth(memory.by_episode))
    if arguments.json:
        report = {"stages": [asdict(one) for one in measured], "memory by episode": memory.by_episode}
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
