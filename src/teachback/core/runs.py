"""Stage folders: up to date or not, worked on beside, published whole, described by stage.json."""

import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import torch

from teachback.core.devices import peak_memory_bytes
from teachback.core.errors import TeachbackError, naming
from teachback.core.files import real_place, sync, write_atomically
from teachback.core.integrity import damage, describe, with_checksum
from teachback.core.locks import locked, owner_of, release_lock, take_lock
from teachback.core.published import is_finished, read_record, read_stage

logger = logging.getLogger(__name__)

HASH_DIGITS = 64  # of SHA-256
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "scikit-learn")


class StageRun:
    """One run of one stage into ``folder``.

    ``arguments`` and ``inputs`` (name -> hash) are all that the result depends on; a finished folder, or unfinished
    work, of other arguments or inputs is never taken for this run's. With ``dry_run`` nothing on disk is touched.
    ``base_model``: what its weights began as, which is only told; "" where it has none, or it is not known.
    """

    def __init__(
        self, folder: Path, stage: str, arguments: dict, inputs: dict, dry_run: bool = False, base_model: str = ""
    ):
        self.folder, self.stage, self.arguments, self.inputs = Path(folder), stage, arguments, inputs
        self.base_model = base_model
        self.place = real_place(self.folder)  # where it is a link to another disk, the work is done there
        self.work = self.place.parent / f".{self.place.name}.partial"
        self.started = time.time()
        self.damaged: list[str] = []  # what `up_to_date` found wrong with files of this run's finished folder
        if not dry_run:
            _restore_interrupted_swap(self.place)

    @property
    def aside(self) -> Path:
        """Where the finished folder is kept if it is damaged and was made again."""
        return self.place.parent / f".{self.place.name}.damaged"

    def warn(self) -> None:
        """Say why the finished folder is made again, if there is one; after `up_to_date`."""
        for change in self.changes():
            logger.warning("%s is made again, as this changed: %s", self.folder, change)
        for problem in self.damaged:
            logger.warning(
                "%s is damaged and made again, the old one is kept as %s: %s", self.folder, self.aside, problem
            )

    @property
    def fingerprint(self) -> str:
        text = json.dumps([self.stage, self.arguments, self.inputs], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def up_to_date(self) -> bool:
        """Whether the folder already holds this run's result, all of it as it was written."""
        self.damaged = []
        if not is_finished(self.folder):
            return False
        try:
            record = read_record(self.folder)
        except TeachbackError as error:
            self.damaged = [str(error)]
            return False
        if record.get("fingerprint") != self.fingerprint:
            return False
        self.damaged = damage(self.folder, record.get("files", {}))
        return not self.damaged

    def changes(self) -> list[str]:
        """Which arguments and inputs differ from those of the finished folder."""
        if not is_finished(self.folder) or self.damaged:
            return []
        before, now = read_record(self.folder), {"arguments": self.arguments, "inputs": self.inputs}
        now = json.loads(json.dumps(now, default=str))
        return [
            f"{name}: {_shown(before[part].get(name))} -> {_shown(now[part].get(name))}"
            for part in ("arguments", "inputs")
            for name in sorted({*before[part], *now[part]})
            if before[part].get(name) != now[part].get(name)
        ]

    def tidy(self) -> None:
        """Remove what a process left beside the finished folder that was killed right after it had published it."""
        mark, old = self.work / "fingerprint", _set_aside(self.place)
        ours = self.work.is_dir() and _read_mark(mark) in ("", self.fingerprint)
        if not ours and not old.is_dir():
            return
        with suppress(TeachbackError, OSError), locked(self.folder):  # leftovers harm nobody
            if ours:
                shutil.rmtree(self.work)
            shutil.rmtree(old, ignore_errors=True)

    def dry_run_message(self) -> str:
        """What running the stage would do, and why."""
        if owner := owner_of(self.folder):
            return f"is being made by {owner}"
        if self.up_to_date():
            return "is up to date with what the stages before have written"
        if self.damaged:
            return f"would be made again, as it is damaged: {'; '.join(self.damaged)}"
        changes = "; ".join(self.changes())
        why = f"this changed: {changes}" if changes else "it is not there yet"
        return f"would be made, as {why}{self._unfinished()}"

    def _unfinished(self) -> str:
        """What would become of unfinished work."""
        found = sorted(path.name for path in (self.work / "checkpoints").glob("*-*"))
        if not found:
            return ""
        if self._is_ours():
            return f"; it would continue from a checkpoint ({', '.join(found)})"
        return "; unfinished work there is of other settings and would be removed"

    def claim(self) -> None:
        """Let nobody else work on the folder until it is published; with several processes the first one claims it."""
        take_lock(self.folder)

    def checkpoints(self) -> Path:
        """The folder for checkpoints of this run; unfinished work of a different run is removed from it."""
        if self.work.is_dir() and not self._is_ours():
            if (self.work / "checkpoints").is_dir():
                logger.warning("%s is unfinished work of other settings or data; it is removed", self.work)
            shutil.rmtree(self.work)
        with naming(self.work):
            write_atomically(self.work / "fingerprint", self.fingerprint)
            folder = self.work / "checkpoints"
            folder.mkdir(exist_ok=True)
        self._note_threads()
        return folder

    def _note_threads(self) -> None:
        """Keep the number of threads that the work is begun with, and warn where it goes on with another."""
        begun, now = self.remembered("threads", lambda: str(torch.get_num_threads())), torch.get_num_threads()
        if begun != str(now):
            logger.warning(
                "%s was begun with %s threads and goes on with %s: on a CPU sums are rounded otherwise, and the result is not that "
                "of an uninterrupted run; set OMP_NUM_THREADS=%s for that", self.work, begun, now, begun,
            )  # fmt: skip

    def remembered(self, name: str, decide: Callable[[], str]) -> str:
        """What ``decide`` says, or said when this work was begun: a run that goes on computes as it did before.

        For what the machine's state decides and arguments do not; after `checkpoints`.
        """
        path = self.work / name
        if not path.is_file():
            with naming(self.work):
                write_atomically(path, decide())
        return path.read_text(encoding="utf-8")

    def _is_ours(self) -> bool:
        """Whether the unfinished work, if there is any, is of this run's arguments and inputs."""
        return _read_mark(self.work / "fingerprint") == self.fingerprint

    def require_own(self, checkpoint: Path) -> None:
        """Refuse a checkpoint that the user names unless it lies in the unfinished work of a run like this one."""
        mark = Path(checkpoint).absolute().parents[1] / "fingerprint"
        if not checkpoint.is_dir() or _read_mark(mark) != self.fingerprint:
            raise TeachbackError(
                f"--resume_from_checkpoint {checkpoint}: it is not of this run's arguments and inputs, or is no checkpoint; "
                "leave the flag out, as a stage finds its own last checkpoint"
            )

    @contextmanager
    def publishing(self, record: dict, keep: tuple[str, ...] = ()):
        """Yield an empty folder to fill; then describe it in stage.json and put it in place of the old one.

        ``keep`` names folders of the old one that move into the new. After an error the old one is as it was.
        """
        self.claim()
        result = self.work / "result"
        try:
            with naming(self.folder):
                shutil.rmtree(result, ignore_errors=True)
                result.mkdir(parents=True)
                own = result.stat()
                yield result
                sync(result)
                if not (result.is_dir() and os.path.samestat(own, result.stat())):
                    raise TeachbackError(f"{result} was removed while the stage wrote it; run the same command again")
                description = with_checksum(self.description(record) | {"files": describe(result)})
                write_atomically(result / "stage.json", json.dumps(description, indent=2) + "\n")
                _move(keep, self.place, result)
                swap(result, self.place, self.aside if self.damaged else None)
        except BaseException:
            _move(keep, result, self.place)
            shutil.rmtree(result, ignore_errors=True)
            with suppress(OSError):  # checkpoints stay
                self.work.rmdir()
            raise
        finally:
            release_lock(self.folder)
        shutil.rmtree(self.work)

    def reuse(self, other: Path, **own) -> bool:
        """Publish a copy of another folder whose run had the same fingerprint; False where it had not.

        ``own`` replaces fields of the copied description.
        """
        if not is_finished(other) or read_record(other).get("fingerprint") != self.fingerprint:
            return False
        with self.publishing(read_stage(other) | {"copied_from": str(other)} | own) as result:
            shutil.copytree(other, result, dirs_exist_ok=True)
        return True

    def description(self, record: dict) -> dict:
        """What stage.json says: ``record``, and what is known of every run."""
        return record | ({"base_model": self.base_model} if self.base_model else {}) | {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "arguments": self.arguments,
            "inputs": self.inputs,
            "wall_time_seconds": round(time.time() - self.started, 1),
            "peak_memory_bytes": peak_memory_bytes(),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        }


def _shown(value) -> str:
    """A value as a message shows it: of a hash the first digits do."""
    return f"{value[:12]!r}" if isinstance(value, str) and len(value) == HASH_DIGITS else repr(value)


def _read_mark(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _move(names: tuple[str, ...], source: Path, target: Path) -> None:
    """Move those folders that the one has and the other has not."""
    for name in names:
        if (source / name).is_dir() and target.is_dir() and not (target / name).exists():
            os.rename(source / name, target / name)


def swap(new: Path, target: Path, aside: Path | None = None) -> None:
    """Put a whole folder in the place of another; a crash in between is mended by the next run.

    The other is removed, or kept as ``aside``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    old = _set_aside(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
    os.rename(new, target)
    if aside and old.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(old, aside)
    shutil.rmtree(old, ignore_errors=True)


def _set_aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def _restore_interrupted_swap(target: Path) -> None:
    old = _set_aside(target)
    if old.is_dir() and not target.exists():
        take_lock(target)  # whoever holds it may be between the two renames
        os.rename(old, target)
        release_lock(target)
