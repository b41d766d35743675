"""Prediction for a folder of files, the shards of a large data set; each shard gets a file of answers.

Any number of processes and machines may work on a folder at a time: each takes the next shard that is neither finished nor
locked by another. Each file of answers has a record beside it, ``.<name>.json``, with the hashes of both files and of the
student, its temperatures if they are used, and the settings. A shard is finished as long as all of these match the record.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.integrity import identity, is_unchanged, require_checksum, with_checksum
from teachback.core.locks import Locked, locked, owner_of
from teachback.core.published import hash_model
from teachback.core.side_by_side import environment_of, interruptible, threads_each, visible_gpus
from teachback.inference.calibration import read_temperatures
from teachback.inference.predict import BadRow, PredictionArguments, load_predictor, predict_file

OUTPUTS = {".txt": ".tsv", ".tsv": ".tsv", ".csv": ".tsv", ".jsonl": ".jsonl", ".ndjson": ".jsonl", ".parquet": ".parquet"}
WITHOUT_EFFECT = {"folder", "input", "output", "batch_size", "window", "device", "jobs"}  # on the answers, but for rounding
FINISHED = "finished"


@dataclass(frozen=True)
class Shard:
    """A file of the input folder, and the file of its answers."""

    source: Path
    target: Path

    @property
    def record(self) -> Path:
        return self.target.parent / f".{self.target.name}.json"

    def state(self, made_by: dict) -> str:
        """Whether the shard is `FINISHED`; else the problem of its content that an earlier call found, or ""."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            require_checksum(record)
            same = record["made_by"] == made_by and is_unchanged(self.source, record["input"])
            problem = record["problem"]
            return (problem or (FINISHED if is_unchanged(self.target, record["output"]) else "")) if same else ""
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return ""

    def finish(self, made_by: dict, source: dict, problem: str = "") -> None:
        """Record the result for the content ``source`` of the input."""
        if problem:  # answers to earlier content could be mistaken for answers to this content
            self.target.unlink(missing_ok=True)
        output = {} if problem else identity(self.target)
        record = {"made_by": made_by, "input": source, "output": output, "problem": problem}
        write_atomically(self.record, json.dumps(with_checksum(record), indent=1) + "\n")


def find_shards(source: Path, target: Path) -> list[Shard]:
    """Find the files of a folder; names that begin with a dot or an underscore are left out.

    Raises:
        TeachbackError: there are no files, one has an unsupported type, or two would have answers of the same name.
    """
    if not str(target.name) or target.is_file() or source.resolve() == target.resolve():
        raise TeachbackError(f"--input {source} is a folder; set --output to another folder for the answers")
    paths = sorted(path for path in source.iterdir() if path.is_file() and path.name[0] not in "._")
    if unknown := [path for path in paths if path.suffix.lower() not in OUTPUTS]:
        raise TeachbackError(f"{unknown[0]}: files of this type are not supported; a folder may contain {', '.join(OUTPUTS)}, and files whose names begin with . or _")
    if not paths:
        raise TeachbackError(f"{source} contains no files of texts ({', '.join(OUTPUTS)})")
    shards = {path: Shard(path, target / (path.stem + OUTPUTS[path.suffix.lower()])) for path in paths}
    targets = [shard.target for shard in shards.values()]
    if twice := [path for path, shard in shards.items() if targets.count(shard.target) > 1]:
        raise TeachbackError(f"the answers to {twice[0]} and {twice[1]} would have the same name; rename one of them")
    return list(shards.values())


def predict_folder(args: PredictionArguments) -> None:
    """Predict every shard of the input folder that is not finished, by JOBS processes.

    Raises:
        TeachbackError: the folder cannot be read, or rows of some shards cannot be answered; the others are finished.
    """
    shards = find_shards(Path(args.input), Path(args.output))
    if args.jobs > 1:
        _side_by_side(args)
        return
    settings = {name: value for name, value in asdict(args).items() if name not in WITHOUT_EFFECT}
    made_by = {"student": hash_model(args.folder), "settings": settings}
    if args.calibrated:  # stage 7 may fit other temperatures to the same weights
        made_by["temperatures"] = read_temperatures(Path(args.folder))
    student = cache(lambda: load_predictor(args))  # loaded once, and only if a shard is not finished
    results = [_predict_shard(shard, args, made_by, student) for shard in shards]
    problems = [result for result in results if result not in (FINISHED, "made", "locked")]
    count = {name: results.count(name) for name in ("made", FINISHED, "locked")}
    print(f"{len(shards)} shards: {count['made']} made, {count[FINISHED]} finished before, {count['locked']} locked by other processes", file=sys.stderr)
    if problems:
        raise TeachbackError(*problems, f"{len(problems)} of {len(shards)} shards have rows that cannot be answered; correct them and run the same command again")


def _predict_shard(shard: Shard, args: PredictionArguments, made_by: dict, student) -> str:
    """Predict a shard unless it is finished; returns what became of it, or the problem of its content."""
    if state := shard.state(made_by):
        return state
    if owner_of(shard.target):
        return "locked"
    try:
        with locked(shard.target):
            if state := shard.state(made_by):  # another process was faster
                return state
            source = identity(shard.source)
            predict_file(replace(args, input=str(shard.source), output=str(shard.target)), *student())
            if not is_unchanged(shard.source, source):
                raise TeachbackError(f"{shard.source} changed while it was read; run the same command again when no process writes to it")
            shard.finish(made_by, source)
            return "made"
    except Locked:
        return "locked"
    except BadRow as error:
        shard.finish(made_by, source, str(error))
        return str(error)


def _side_by_side(args: PredictionArguments) -> None:
    """Run this command in several processes, each on one of the GPUs and with an equal share of the cores."""
    gpus, threads = visible_gpus(args.device), threads_each(args.jobs)
    command = [sys.executable, *sys.argv, "--jobs", "1"]
    workers = [subprocess.Popen(command, env=environment_of(slot, threads, gpus)) for slot in range(args.jobs)]
    try:
        with interruptible():
            failed = [worker for worker in workers if worker.wait()]
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        raise TeachbackError("interrupted; the same command continues with the unfinished shards") from None
    if failed:
        raise TeachbackError(f"{len(failed)} of {args.jobs} processes failed (see above); the same command continues from here")
