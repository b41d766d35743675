"""Locks of folders, which end with their process, and turns of concurrent processes at a file."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.core.locks import exclusive_access, release_lock, take_lock

HOLD = "import sys, time; from teachback.core.locks import take_lock; take_lock(sys.argv[1]); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the lock of the folder ``stage``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "stage")]
    source = str(Path(__file__).parents[2] / "src")
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": source}, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_owner_of_a_lock_is_named_and_its_death_releases_the_lock(tmp_path, owner):
    with pytest.raises(TeachbackError, match=rf"stage is being created by process {owner.pid} on .* since .*; wait until"):
        take_lock(tmp_path / "stage")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    take_lock(tmp_path / "stage")
    take_lock(tmp_path / "stage")  # a process may take its own lock again
    release_lock(tmp_path / "stage")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_does_not_affect_other_folders(tmp_path, owner):
    take_lock(tmp_path / "other")
    release_lock(tmp_path / "other")


def test_a_lock_file_that_is_removed_while_taken_is_created_again(tmp_path, monkeypatch):
    import fcntl

    original, path = fcntl.flock, tmp_path / ".stage.lock"

    def remove_first(handle, how):
        original(handle, how)
        if remove_first.left:
            remove_first.left -= 1
            path.unlink()

    remove_first.left = 1
    monkeypatch.setattr(fcntl, "flock", remove_first)
    take_lock(tmp_path / "stage")
    assert path.exists()
    release_lock(tmp_path / "stage")


def test_a_file_system_without_locks_causes_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(handle, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    take_lock(tmp_path / "stage")
    assert "cannot be locked" in caplog.text
    release_lock(tmp_path / "stage")


def test_without_locks_a_turn_at_a_file_is_given_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fcntl.flock", lambda handle, how: (_ for _ in ()).throw(OSError(38, "Function not implemented")))
    with exclusive_access(tmp_path / "results.tsv"):
        pass
    assert "results.tsv cannot be locked (Function not implemented)" in caplog.text


def test_concurrent_changes_of_a_file_take_turns(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: _add(tmp_path / "numbers", number), range(40)))
    assert sorted(map(int, (tmp_path / "numbers").read_text().split())) == list(range(40))


def _add(path: Path, number: int) -> None:
    with exclusive_access(path):
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{before}{number}\n")
