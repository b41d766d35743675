"""Atomic replacement of files and folders, and removal of the temporary files of killed processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from teachback.core.files import replacing, working_folder, write_atomically

SOURCE = str(Path(__file__).parents[2] / "src")
DIE = """
import os, sys
from pathlib import Path
from teachback.core.files import replacing, working_folder
place = Path(sys.argv[1])
with working_folder(place / "folder") as folder, replacing(place / "file") as file:
    (folder / "half").write_text("half")
    file.write(b"half")
    print("writing", flush=True)
    if sys.stdin.readline():
        os.kill(os.getpid(), 9)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_temporary_files_of_killed_processes_are_removed_and_live_ones_kept(tmp_path):
    command = [sys.executable, "-c", DIE, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": SOURCE}
    other = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "writing\n"
    left = names(tmp_path)
    assert len(left) == 2 and all(name.startswith((".file.", ".folder.")) for name in left)
    write_atomically(tmp_path / "file", "whole")
    assert set(left) < set(names(tmp_path))  # the other process is still writing
    other.communicate("die\n")
    write_atomically(tmp_path / "file", "whole")
    with working_folder(tmp_path / "folder") as folder:
        assert names(tmp_path) == [folder.name, "file"]
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "whole"


def test_an_error_leaves_the_old_file_and_no_temporary_files(tmp_path):
    write_atomically(tmp_path / "file", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as file:
        file.write(b"half")
        1 / 0
    with pytest.raises(ZeroDivisionError), working_folder(tmp_path / "folder") as folder:
        (folder / "half").write_text("half")
        1 / 0
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_temporary_folder_removed_before_it_is_locked_is_created_again(tmp_path, monkeypatch):
    import fcntl

    original, calls = fcntl.flock, []

    def remove_first(handle, how):
        calls.append(handle)
        if len(calls) == 1:
            next(tmp_path.glob(".file.*")).rmdir()
        original(handle, how)

    monkeypatch.setattr("teachback.core.files.fcntl.flock", remove_first)
    write_atomically(tmp_path / "file", "whole")
    assert len(calls) == 2 and names(tmp_path) == ["file"]
