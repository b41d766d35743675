"""Stage folders: checked for being up to date, prepared beside, published atomically, described by stage.json."""

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

from teachback.core.errors import TeachbackError, naming
from teachback.core.files import real_place, sync, write_atomically
from teachback.core.integrity import damage, describe, with_checksum
from teachback.core.locks import locked, owner_of, release_lock, take_lock
from teachback.core.published import is_finished, read_record, read_stage
from teachback.core.threads import waiting

logger = logging.getLogger(__name__)

ONCE_RECORDED: dict = {"debug": []}  # arguments that earlier releases recorded in every training stage
HASH_DIGITS = 64  # of SHA-256
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "scikit-learn")


class StageRun:
    """One run of one stage into ``folder``.

    ``arguments`` and ``inputs`` (name -> hash) are all that the result depends on and form the fingerprint; finished or
    unfinished work with another fingerprint is never reused. ``dry_run`` leaves the disk untouched.
    ``base_model``: pretrained model of the weights, recorded for information and not part of the fingerprint; "" if none.
    """

    def __init__(self, folder: Path, stage: str, arguments: dict, inputs: dict, dry_run: bool = False,
                 base_model: str = ""):  # fmt: skip
        self.folder, self.stage, self.arguments, self.inputs = Path(folder), stage, arguments, inputs
        self.base_model = base_model
        self.place = real_place(self.folder)  # of a link to another disk: the work is done there
        self.work = self.place.parent / f".{self.place.name}.partial"
        self.aside = self.place.parent / f".{self.place.name}.damaged"  # where a damaged folder is kept after it was recreated
        self.started = time.time()
        self.damaged: list[str] = []  # problems of the finished folder's files, set by `up_to_date`
        if not dry_run:
            _restore_interrupted_swap(self.place)

    def warn(self) -> None:
        """Log why an existing finished folder is recreated. Call after `up_to_date`."""
        for change in self.changes():
            logger.warning("%s is being recreated because this changed: %s", self.folder, change)
        for problem in self.damaged:
            logger.warning("%s is damaged and is being recreated; the damaged copy is kept as %s: %s", self.folder, self.aside, problem)

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.stage, self.arguments, self.inputs)

    def _is_mine(self, fingerprint: str | None) -> bool:
        """Whether a fingerprint is this run's, written by this or an earlier release."""
        return fingerprint in (self.fingerprint, _fingerprint(self.stage, self.arguments | ONCE_RECORDED, self.inputs))

    def up_to_date(self) -> bool:
        """Whether the folder already holds this run's result, undamaged."""
        self.damaged = []
        if not is_finished(self.folder):
            return False
        try:
            record = read_record(self.folder)
        except TeachbackError as error:
            self.damaged = [str(error)]
            return False
        if not self._is_mine(record.get("fingerprint")):
            return False
        self.damaged = damage(self.folder, record.get("files", {}))
        return not self.damaged

    def changes(self) -> list[str]:
        """Differences in arguments and inputs from the finished folder, as "name: old -> new"."""
        if not is_finished(self.folder) or self.damaged:
            return []
        before, now = read_record(self.folder), {"arguments": self.arguments, "inputs": self.inputs}
        now = json.loads(json.dumps(now, default=str))
        return [
            f"{name}: {_shown(before[part].get(name))} -> {_shown(now[part].get(name))}"
            for part in ("arguments", "inputs")
            for name in sorted({*before[part], *now[part]})
            if before[part].get(name) != now[part].get(name, ONCE_RECORDED.get(name))
        ]

    def tidy(self) -> None:
        """Remove the leftovers of a process that was killed right after publishing the folder."""
        mark, old = self.work / "fingerprint", _set_aside(self.place)
        ours = self.work.is_dir() and (not _read_mark(mark) or self._is_mine(_read_mark(mark)))
        if not ours and not old.is_dir():
            return
        with suppress(TeachbackError, OSError), locked(self.folder):  # leftovers are harmless
            if ours:
                shutil.rmtree(self.work)
            shutil.rmtree(old, ignore_errors=True)

    def dry_run_message(self) -> str:
        """Describe what running the stage would do, and why."""
        if owner := owner_of(self.folder):
            return f"is being created by {owner}"
        if self.up_to_date():
            return "is up to date with the earlier stages"
        if self.damaged:
            return f"would be recreated because it is damaged: {'; '.join(self.damaged)}"
        changes = "; ".join(self.changes())
        what = f"recreated because this changed: {changes}" if changes else "created because it does not exist yet"
        return f"would be {what}{self._unfinished()}"

    def _unfinished(self) -> str:
        """Describe what would happen to unfinished work; "" if there is none."""
        checkpoints = sorted(path.name for path in (self.work / "checkpoints").glob("*-*"))
        if not checkpoints:
            return ""
        if self._is_ours():
            return f"; it would continue from a checkpoint ({', '.join(checkpoints)})"
        return "; unfinished work with other settings would be removed"

    def claim(self) -> None:
        """Lock the folder until it is published; with several processes, call in the main process only."""
        take_lock(self.folder)

    def checkpoints(self) -> Path:
        """Folder for this run's checkpoints, cleared of unfinished work of a different fingerprint."""
        if self.work.is_dir() and not self._is_ours():
            if (self.work / "checkpoints").is_dir():
                logger.warning("%s is unfinished work with other settings or data and is being removed", self.work)
            shutil.rmtree(self.work)
        with naming(self.work):
            write_atomically(self.work / "fingerprint", self.fingerprint)
            folder = self.work / "checkpoints"
            folder.mkdir(exist_ok=True)
        self._note_threads()
        return folder

    def _note_threads(self) -> None:
        """Record the number of threads at the start, and warn if the work is resumed with another."""
        import torch  # as in `_process`

        begun, now = self.remembered("threads", lambda: str(torch.get_num_threads())), torch.get_num_threads()
        if begun != str(now):
            logger.warning(
                "%s was started with %s threads and continues with %s: on a CPU this rounds sums differently, so the result differs from "
                "that of an uninterrupted run; to avoid this, set OMP_NUM_THREADS=%s", self.work, begun, now, begun,
            )  # fmt: skip

    def remembered(self, name: str, decide: Callable[[], str]) -> str:
        """Return the recorded value of ``name``, or record ``decide()``, so that a resumed run computes as it began.

        For values that depend on the machine's state rather than on arguments. Call after `checkpoints`.
        """
        path = self.work / name
        if not path.is_file():
            with naming(self.work):
                write_atomically(path, decide())
        return path.read_text(encoding="utf-8")

    def _is_ours(self) -> bool:
        """Whether the unfinished work has this run's fingerprint."""
        return self._is_mine(_read_mark(self.work / "fingerprint"))

    def require_own(self, checkpoint: Path) -> None:
        """Refuse a user-given checkpoint that is not part of unfinished work with this run's fingerprint."""
        mark = Path(checkpoint).absolute().parents[1] / "fingerprint"
        if not checkpoint.is_dir() or not self._is_mine(_read_mark(mark)):
            raise TeachbackError(
                f"--resume_from_checkpoint {checkpoint} is not a checkpoint of a run with these arguments and inputs; "
                "remove the flag to resume from this run's last checkpoint"
            )

    @contextmanager
    def publishing(self, record: dict, keep: tuple[str, ...] = ()):
        """Yield an empty folder to fill; then write stage.json and replace the old folder by it.

        ``keep`` names subfolders that move from the old folder to the new. After an error the old folder is unchanged.
        """
        self.claim()
        result = self.work / "result"
        try:
            with naming(self.folder):
                shutil.rmtree(result, ignore_errors=True)
                result.mkdir(parents=True)
                created = result.stat()
                yield result
                sync(result)
                if not (result.is_dir() and os.path.samestat(created, result.stat())):
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

    def reuse(self, other: Path, **fields) -> bool:
        """Publish a copy of another stage folder if its fingerprint is the same; returns whether it was.

        ``fields`` replace those of the copied description.
        """
        if not is_finished(other) or not self._is_mine(read_record(other).get("fingerprint")):
            return False
        with self.publishing(read_stage(other) | {"copied_from": str(other)} | fields) as result:
            shutil.copytree(other, result, dirs_exist_ok=True)
        return True

    def description(self, record: dict) -> dict:
        """Content of stage.json: ``record`` and the fields common to all stages."""
        return record | ({"base_model": self.base_model} if self.base_model else {}) | {
            "stage": self.stage, "fingerprint": self.fingerprint, "arguments": self.arguments, "inputs": self.inputs,
            "wall_time_seconds": round(time.time() - self.started, 1),
        } | _process()  # fmt: skip


def _process() -> dict:
    """Memory, threads and packages of this process, for stage.json."""
    import torch  # not above: a stage that is up to date needs no PyTorch

    from teachback.core.devices import peak_memory_bytes

    return {
        "peak_memory_bytes": peak_memory_bytes(),
        "threads": torch.get_num_threads(),
        "thread_waiting": waiting(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def _fingerprint(stage: str, arguments: dict, inputs: dict) -> str:
    text = json.dumps([stage, arguments, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _shown(value) -> str:
    """A value for a message, hashes shortened."""
    return f"{value[:12]!r}" if isinstance(value, str) and len(value) == HASH_DIGITS else repr(value)


def _read_mark(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _move(names: tuple[str, ...], source: Path, target: Path) -> None:
    """Move the named subfolders that exist in ``source`` and not in ``target``."""
    for name in names:
        if (source / name).is_dir() and target.is_dir() and not (target / name).exists():
            os.rename(source / name, target / name)


def swap(new: Path, target: Path, aside: Path | None = None) -> None:
    """Replace the folder ``target`` by ``new``; the next run repairs a crash in between.

    The old folder is removed, or kept as ``aside``.
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
        with locked(target):  # the holder of the lock may be between the two renames
            if old.is_dir() and not target.exists():  # else it has finished meanwhile
                os.rename(old, target)
