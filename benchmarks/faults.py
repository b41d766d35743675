"""Fault injection test: break every stage many times, run the same command again, and report what was lost.

    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/faults.py --times 50 --json faults.json

All seven stages run once by their bash scripts, with two-layer models; the folders before and after each are kept.
A trial restores the folders from before a stage, breaks the stage in one way, and runs it again without a fault. The
result must be bitwise identical to that of the uninterrupted run: model weights, predictions, results, data, caches, and
stage.json except times and memory. Kinds of faults:

kill, term, int     SIGKILL, SIGTERM or Ctrl-C at a random moment
point               SIGKILL right before a random file change: while publishing, writing caches ...
full                a file system too small for the stage's output (a tmpfs; needs root)
fails               every write fails from a random file change on, as on a full disk (needs no root)
read-only           a read-only file system (needs root)
removed             an input file, or the unfinished work, is removed during the run
twice               a second start during the run, which must end at once and name the first

Stage 1 is tried in three ways: on the generated suite, fetching an archive from a server, and copying it from a folder.
A trial counts as lost if the second run fails or its result differs, if the message is a traceback, or if an expected
error (of the disk, of a lock) has no message. Trials alternate between stages, with kinds in random order, and the report
is written after every trial, so that it covers all stages whenever --minutes are over.
Needs no network; it starts its own server.
"""

import argparse
import errno
import hashlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from breaking import Ended, after, counting_changes, failing_from, killed_before, run_broken

import teachback.data.download
import teachback.data.model_download  # noqa: F401
from teachback.core.integrity import REMEMBERED

# Imported by the entry points; importing here saves the time in forked processes.
from teachback.data.suites import amazon, sample
from teachback.inference.measured import MEASURED

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
INTERRUPTIONS = (*SIGNALS, "point")
DISK = ("full", "fails", "read-only", "removed", "twice")
# Two-layer models with every kind of state: a meta-teacher each epoch, cached layers, a trained policy.
SMALL = {
    "SUITE": "sample", "DOMAIN": "books", "DOMAINS": "books dvd", "TEACHER_MODEL": "scratch:tiny",
    "STUDENT_MODEL": "scratch:tiny", "MAX_LENGTH": "16", "TEACHER_EPOCHS": "2", "TEACHER_LR": "1e-3",
    "FIRST_EPOCHS": "2", "FIRST_LR": "1e-3", "SECOND_EPOCHS": "2", "SECOND_LR": "1e-3", "METHOD": "mpdistil",
    "EPISODES": "6", "EVAL_EVERY": "2", "EPISODE_STEPS": "3", "PRECISION": "fp32", "DEVICE": "cpu", "NPROC": "1",
    "TEACHER_CACHE_GB": "1",  # the default depends on the disk's free space
}  # fmt: skip
TRAINING = {"3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh"}
VOLATILE = {"wall_time_seconds", "peak_memory_bytes", "history", "training_arguments", "versions", "checksum"}
BYTES_A_SECOND = 3_000_000  # rate of the server, slow enough for signals during a download
DAMAGE = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Stage:
    """A stage: name in the table, script, and variables besides the common ones."""

    name: str
    script: str
    variables: dict[str, str]


def all_stages(archive: Path, address: str) -> list[Stage]:
    """The seven stages, and two variants of stage 1 that fetch an archive."""
    variables = {"SUITE": "amazon", "ALLOW_PARTIAL": "1"}
    return [
        Stage("1 download", "1_get_data.sh", variables | {"SOURCE": address}),
        Stage("1 copy", "1_get_data.sh", variables | {"SOURCE": str(archive.parent), "DATA_DIR": "copied"}),
        *(Stage(script[0], script, {}) for script in sorted(path.name for path in ROOT.glob("[1-7]_*.sh"))),
    ]


class Workshop:
    """Folder in which stages run, with copies of its content before and after each."""

    def __init__(self, folder: Path, variables: dict[str, str], save_steps: int):
        self.folder, self.home, self.save_steps = folder, folder / "home", save_steps
        self.variables = {"DATA_DIR": "data", "OUTPUT_DIR": "outputs", **variables}
        self.log = folder / "log"
        self.home.mkdir()

    def command(self, stage: Stage) -> list[str]:
        """Entry point and flags that the stage's bash script would run."""
        recorder, record = self.folder / "recorder", self.folder / "argv"
        recorder.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > {record}\n")
        recorder.chmod(0o755)
        self._bash(stage, str(recorder))
        return record.read_text().split("\0")[:-1]

    def run_for_real(self, stage: Stage) -> None:
        """Run the bash script itself, as a user does."""
        self._bash(stage, sys.executable)

    def _bash(self, stage: Stage, python: str) -> None:
        extra = {"PYTHON": python, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        saving = {"SAVE_STEPS": str(self.save_steps)} if stage.script in TRAINING else {}
        environment = os.environ | self.variables | saving | extra | stage.variables
        done = subprocess.run(
            ["bash", str(ROOT / stage.script)],
            check=False,
            cwd=self.home,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(
                f"{stage.name} fails without a fault, with status {done.returncode}:\n{done.stdout}{done.stderr}"
            )

    def keep(self, name: str) -> Path:
        """Copy the folder's current content."""
        place = self.folder / name
        shutil.copytree(self.home, place, symlinks=True)
        return place

    def restore(self, kept: Path) -> None:
        for path in self.home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(kept, self.home, dirs_exist_ok=True)


def content(home: Path) -> dict[str, str]:
    """Digest of each output file, without parts that depend on time or the machine's load."""
    return {str(path.relative_to(home)): _digest(path) for path in sorted(home.rglob("*")) if _counts(path)}


def _counts(path: Path) -> bool:
    passing = path.name.endswith(".lock") or path.name.startswith(REMEMBERED)  # presence depends on timing
    return path.is_file() and not passing and "logs" not in path.parts


def _digest(path: Path) -> str:
    if path.name == "report.html":  # contains measured times, so only its presence and completeness are compared
        return "whole" if path.read_text(encoding="utf-8").rstrip().endswith("</html>") else "half"
    if path.name == "costs.tsv":
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        compared = [place for place, name in enumerate(rows[0]) if name not in MEASURED]
        return repr([(len(row), [row[place] for place in compared if place < len(row)]) for row in rows])
    if path.name == "stage.json":
        record = {name: value for name, value in json.loads(path.read_text()).items() if name not in VOLATILE}
        record["dev"] = {k: v for k, v in record.get("dev", {}).items() if "runtime" not in k and "second" not in k}
        return json.dumps(record, sort_keys=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(expected: dict[str, str], actual: dict[str, str]) -> list[str]:
    """Files that are missing, changed or unexpected."""
    words = [
        ("is gone", expected.keys() - actual.keys()),
        ("is left over", actual.keys() - expected.keys()),
        ("differs", {name for name in expected.keys() & actual.keys() if expected[name] != actual[name]}),
    ]
    return [f"{name} {what}" for what, names in words for name in sorted(names)]


@dataclass
class Case:
    """A stage with the content before and after it, its duration and its number of file changes."""

    workshop: Workshop
    stage: Stage
    argv: list[str]
    before: Path
    expected: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    changes: int = 0
    written: int = 0  # bytes written by the stage

    def run(self, *how: Callable) -> Ended:
        os.chdir(self.workshop.home)
        return run_broken(self.argv, self.workshop.log, *how)

    def count_changes(self) -> None:
        """Run the stage from its initial content, and record its time and number of file changes."""
        self.workshop.restore(self.before)
        count = self.workshop.folder / "count"
        count.write_text("0")
        ended = self.run(counting_changes(self.workshop.home, count))
        if ended.status:
            raise SystemExit(f"{self.stage.name} fails in a forked process:\n{ended.printed}")
        self.seconds, self.changes = ended.seconds, int(count.read_text())

    def measure(self) -> None:
        """Run `count_changes` once, and check that the result equals that of the script."""
        if not self.changes:
            self.count_changes()
            if wrong := differences(self.expected, content(self.workshop.home)):
                raise SystemExit(f"{self.stage.name} in a forked process is not as by its script: {wrong}")

    def inputs(self) -> list[Path]:
        """Files of earlier stages that this one may read."""
        kept = [path for path in self.before.rglob("*") if path.suffix in (".tsv", ".safetensors", ".json", ".gz")]
        return [self.workshop.home / path.relative_to(self.before) for path in sorted(kept)]


class Trials:
    """Breaks stages and records losses."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.tried: Counter = Counter()
        self.ended: Counter = Counter()
        self.lost: list[dict] = []

    def once(self, case: Case, kind: str) -> None:
        """Inject one fault, run the command again, and compare the result."""
        case.measure()
        case.workshop.restore(case.before)
        where, ended, complaint = getattr(self, f"_{kind.replace('-', '_')}")(case)
        self.tried[case.stage.name, kind] += 1
        self.ended[kind, ended.status] += 1
        if not ended.status:  # the load varies, and random moments must lie within a run
            case.seconds = min(case.seconds, ended.seconds)
        again = case.run()
        wrong = [complaint] if complaint else []
        if again.status:
            wrong.append(f"the second run ends with {again.status}: {again.printed[-600:]}")
        wrong += differences(case.expected, content(case.workshop.home))
        if wrong:
            self.lost.append(
                {"stage": case.stage.name, "kind": kind, "where": where, "status": ended.status, "wrong": wrong}
            )
            print(
                f"LOST: stage {case.stage.name}, {kind} {where}: {'; '.join(wrong)[:2000]}\n{ended.printed[-800:]}",
                flush=True,
            )

    def _signal(self, case: Case, kind: str) -> tuple[str, Ended, str]:
        moment = self.random.uniform(0, 0.95) * case.seconds
        ended = case.run(lambda: None, after(moment, SIGNALS[kind]))
        complaint = DAMAGE if DAMAGE in ended.printed else ""
        return f"after {moment:.3f} of {case.seconds:.3f} s", ended, complaint

    def _kill(self, case: Case):
        return self._signal(case, "kill")

    def _term(self, case: Case):
        return self._signal(case, "term")

    def _int(self, case: Case):
        return self._signal(case, "int")

    def _point(self, case: Case) -> tuple[str, Ended, str]:
        change = self.random.randint(1, case.changes)
        return f"before change {change} of {case.changes}", case.run(killed_before(change, case.workshop.home)), ""

    def _fails(self, case: Case) -> tuple[str, Ended, str]:
        change = self.random.randint(1, case.changes)
        ended = case.run(failing_from(change, case.workshop.home, errno.ENOSPC))
        return f"from change {change} of {case.changes}", ended, _unclear(ended, "the disk is full")

    def _full(self, case: Case) -> tuple[str, Ended, str]:
        room = int(self.random.uniform(0, 1) * case.written)
        with mounted(case.workshop.home, case.before, room):
            ended = case.run()
            harmed = damaged(case)
            saved = case.workshop.keep("unmounted")
        case.workshop.restore(saved)
        shutil.rmtree(saved)
        return f"with room for {room} of {case.written} bytes", ended, _unclear(ended, "the disk is full") or harmed

    def _read_only(self, case: Case) -> tuple[str, Ended, str]:
        with mounted(case.workshop.home, case.before, 10_000_000, "remount,ro"):
            ended = case.run()
        return "", ended, _unclear(ended, "is not writable") or ("" if ended.status else "it did not notice")

    def _removed(self, case: Case) -> tuple[str, Ended, str]:
        moment, inputs = self.random.uniform(0, 0.95) * case.seconds, case.inputs()
        path = self.random.choice([*inputs, *[None] * len(inputs)]) if inputs else None

        def remove(process: int) -> None:
            after(moment, 0)(process)  # signal 0 does nothing
            if path:
                path.unlink(missing_ok=True)
            for work in [] if path else case.workshop.home.rglob(".*.partial"):
                shutil.rmtree(work, ignore_errors=True)

        ended = case.run(lambda: None, remove)
        if path:
            shutil.copy(case.before / path.relative_to(case.workshop.home), path)
        return f"{path or 'its unfinished work'} after {moment:.3f} s", ended, _unclear(ended)

    def _twice(self, case: Case) -> tuple[str, Ended, str]:
        seconds = []

        def again(process: int) -> None:
            after(self.random.uniform(0, 0.5) * case.seconds, 0)(process)
            seconds.append(run_broken(case.argv, case.workshop.folder / "second log"))

        ended = case.run(lambda: None, again)
        complaint = _unclear(ended, "is being created by") or _unclear(seconds[0], "is being created by")
        return f"the second start ends with {seconds[0].status}", ended, complaint


def _unclear(ended: Ended, *words: str) -> str:
    """Problem of the message of a run that failed as expected; "" if there is none."""
    if DAMAGE in ended.printed:
        return f"a traceback: {ended.printed[-1500:]}"
    if ended.status and "error: " not in ended.printed:
        return f"it ends with {ended.status} and says nothing"
    if ended.status and words and not any(word in ended.printed for word in words):
        return f"its message is another: {ended.printed[-300:]}"
    return ""


def damaged(case: Case) -> str:
    """Message naming the files of earlier stages that have changed; "" if none has."""
    old, now = content(case.before), content(case.workshop.home)
    wrong = [name for name in old if now.get(name) not in (old[name], case.expected.get(name))]
    return f"what was there is damaged: {wrong}" if wrong else ""


@contextmanager
def mounted(home: Path, before: Path, room: int, then: str = "") -> Iterator[None]:
    """Mount a tmpfs at ``home`` with a copy of ``before`` and ``room`` free bytes; ``then``: options of a remount."""
    os.chdir("/")
    size = sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in before.rglob("*")) + room + 65_536
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(home)], check=True)
    try:
        shutil.copytree(before, home, dirs_exist_ok=True)
        if then:
            subprocess.run(["mount", "-o", then, str(home)], check=True)
        yield
    finally:
        os.chdir("/")
        subprocess.run(["umount", "-l", str(home)], check=True)


class Slow(BaseHTTPRequestHandler):
    """Request handler that serves an archive slowly."""

    archive = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.archive)))
        self.end_headers()
        part = BYTES_A_SECOND // 100
        for start in range(0, len(self.archive), part):
            self.wfile.write(self.archive[start : start + part])
            time.sleep(0.01)

    def log_message(self, *arguments):
        pass


class Patient(HTTPServer):
    """Server that ignores clients which disconnect early."""

    def handle_error(self, *arguments):
        pass


@contextmanager
def serving(archive: Path) -> Iterator[str]:
    """Serve the archive from a separate process within the block; yields the address."""
    server = Patient(("127.0.0.1", 0), Slow)
    Slow.archive = archive.read_bytes()
    process = os.fork()
    if not process:
        server.serve_forever()
    server.server_close()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{archive.name}"
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def prepare(workshop: Workshop, stages: list[Stage], by_script: bool = True) -> list[Case]:
    """Run every stage once, by its script or in a forked process, and keep the content before and after."""
    cases = []
    for number, stage in enumerate(stages):
        case = Case(workshop, stage, workshop.command(stage), workshop.keep(f"before-{number}"))
        if by_script:
            workshop.run_for_real(stage)
        else:
            case.count_changes()
        case.written = max(_bytes(workshop.home) - _bytes(case.before), 4096)
        case.expected = content(workshop.home)
        cases.append(case)
        print(f"stage {stage.name}: ran once", flush=True)
    return cases


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def table(trials: Trials) -> str:
    """Table of the number of trials by stage and kind."""
    kinds = list(dict.fromkeys(kind for _, kind in trials.tried))
    lines = [f"{'stage':<12}" + "".join(f"{kind:>10}" for kind in kinds) + f"{'lost':>10}"]
    for name in dict.fromkeys(name for name, _ in trials.tried):
        lost = sum(loss["stage"] == name for loss in trials.lost)
        lines.append(f"{name:<12}" + "".join(f"{trials.tried[name, kind]:>10}" for kind in kinds) + f"{lost:>10}")
    return "\n".join(lines)


def report(trials: Trials, seconds: float) -> dict:
    """Report of the trials so far, exit statuses of broken runs, and losses."""
    tried = [{"stage": stage, "kind": kind, "count": count} for (stage, kind), count in trials.tried.items()]
    ended = [{"kind": kind, "status": status, "count": count} for (kind, status), count in trials.ended.items()]
    return {"tried": tried, "ended": ended, "lost": trials.lost, "seconds": seconds}


def kinds_here() -> tuple[str, ...]:
    """Kinds of faults that are possible here: all as root, else those that need no root."""
    return INTERRUPTIONS + tuple(kind for kind in DISK if os.geteuid() == 0 or kind not in ("full", "read-only"))


def schedule(times: int, disk_times: int, kinds: tuple[str, ...]) -> list[str]:
    """Faults of a stage: ``times`` interruptions, cycling through the kinds, and ``disk_times`` of each other kind."""
    interruptions = [kind for kind in kinds if kind in INTERRUPTIONS]
    chosen = [interruptions[i % len(interruptions)] for i in range(times)] if interruptions else []
    return chosen + [kind for kind in kinds if kind not in INTERRUPTIONS for _ in range(disk_times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="interruptions of each stage, kinds in turn")
    parser.add_argument("--disk_times", type=int, default=5, help="faults of each other kind, for each stage")
    parser.add_argument("--stages", default="", help="names of the stages to break, with commas; empty: all")
    parser.add_argument("--kinds", default=",".join(kinds_here()), help="ways to break them, with commas")
    parser.add_argument("--save_steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further trial after so many minutes")
    parser.add_argument("--folder", help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes may start with it ignored
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # exit normally, so that the server is stopped too
    report_file = arguments.json and arguments.json.absolute()
    start = time.time()
    trials = Trials(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        folder = Path(folder).resolve()
        sample.generate(folder, 7)
        with serving(folder / amazon.ARCHIVE.name) as address:
            workshop = Workshop(folder, SMALL, arguments.save_steps)
            cases = prepare(workshop, all_stages(folder / amazon.ARCHIVE.name, address))
            chosen = [name.strip() for name in arguments.stages.split(",") if name.strip()]
            cases = [case for case in cases if not chosen or case.stage.name in chosen]
            kinds = schedule(arguments.times, arguments.disk_times, tuple(arguments.kinds.split(",")))
            trials.random.shuffle(kinds)
            for number, (kind, case) in enumerate(itertools.product(kinds, cases), 1):
                if time.time() - start > 60 * arguments.minutes:
                    print(f"{arguments.minutes} minutes are over")
                    break
                trials.once(case, kind)
                if report_file:
                    report_file.write_text(json.dumps(report(trials, time.time() - start), indent=1))
                print(
                    f"{number}: stage {case.stage.name}, {kind}: {len(trials.lost)} lost so far, {time.time() - start:.0f} s",
                    flush=True,
                )
        os.chdir("/")
    print(table(trials))
    broke = sum(count for (_, status), count in trials.ended.items() if status)
    print(f"{sum(trials.tried.values())} faults tried, {broke} of them ended the stage, {len(trials.lost)} lost")


if __name__ == "__main__":
    main()
