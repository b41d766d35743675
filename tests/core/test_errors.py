"""Error messages for a full disk, a read-only folder, a missing file, Ctrl-C and SIGTERM."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from teachback.core import files
from teachback.core.errors import TeachbackError, disk_message, naming, run_entry_point
from teachback.core.files import reserve, write_atomically

SOURCE = str(Path(__file__).parents[2] / "src")
TALKATIVE = """
from teachback.core.errors import run_entry_point

def main():
    while True:
        print("a line")

run_entry_point(main)
"""
IN_A_DESTRUCTOR = """
import os, signal, sys
from teachback.core.errors import run_entry_point

class Thing:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        sum(range(1000))  # the handler runs here

def main():
    Thing()
    print("went on", flush=True)

run_entry_point(main)
"""


def system_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def outcome(main, capsys) -> tuple[int, str]:
    """Exit status and standard error of an entry point."""
    with pytest.raises(SystemExit) as end:
        run_entry_point(main)
    return end.value.code, capsys.readouterr().err


def test_a_closed_output_pipe_ends_the_command_silently_as_sigpipe():
    command = [sys.executable, "-c", TALKATIVE]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": SOURCE}
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE  # the status that a shell reports for a command before `head`


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (system_error(errno.ENOSPC, "/data/x"), "/data/x: the disk is full ("),
        (system_error(errno.EDQUOT, "/data/x"), "/data/x: the quota is used up ("),
        (system_error(errno.EFBIG, "/data/x"), "/data/x: the file has reached the maximum size (ulimit -f) ("),
        (system_error(errno.ENOSPC), "the folder: the disk is full ("),
        (OSError("4096 requested and 512 written"), "the folder: the disk is full ("),  # numpy
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the folder: the disk is full ("),
        (SafetensorError('IoError(Os { code: 28, kind: StorageFull })'), "the folder: the disk is full ("),
        (system_error(errno.EROFS, "/data/x"), "/data/x is not writable (Read-only file system); change"),
        (system_error(errno.EACCES, "/data/x"), "/data/x is not writable (Permission denied); change"),
        (system_error(errno.ENOENT, "/data/x"), "/data/x does not exist; was it removed while"),
        (FileNotFoundError("No such file or directory: m"), "the folder does not exist"),  # safetensors
        (system_error(errno.ENOTDIR, "/data/x"), "/data/x: part of this path is a file, but a folder is needed"),
        (system_error(errno.EEXIST, "/data/x"), "/data/x: is a file, but a folder is needed"),
        (system_error(errno.EISDIR, "/data/x"), "/data/x: is a folder, but a file is needed"),
        (system_error(errno.ELOOP, "/data/x"), "/data/x: a symbolic link in this path leads back to itself"),
        (system_error(errno.ENAMETOOLONG, "/data/x"), "/data/x: is too long for this file system"),
        (system_error(errno.ECONNRESET), ""),
        (OSError("something else"), ""),
    ],
)  # fmt: skip
def test_file_system_errors_name_the_path_and_the_remedy(error, words):
    message = disk_message(error, "the folder")
    assert message.startswith(words) and bool(message) == bool(words)


def test_exhausted_inodes_are_not_reported_as_a_lack_of_bytes(monkeypatch):
    state = SimpleNamespace(f_bavail=50_000, f_frsize=4096, f_files=1000, f_favail=0)
    monkeypatch.setattr("teachback.core.errors.os.statvfs", lambda place: state)
    message = disk_message(system_error(errno.ENOSPC, "/data/x"))
    assert message.startswith("/data/x: the disk can hold no more files (its inodes are used up, with 0.205 GB free); remove files")
    state.f_files = 0  # btrfs and others report no number of inodes
    assert disk_message(system_error(errno.ENOSPC, "/data/x")).startswith("/data/x: the disk is full (0.205 GB free); free some")


def test_library_errors_at_the_file_size_limit_are_explained(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(TeachbackError, match=f"{tmp_path}: the file has reached the maximum size"), naming(tmp_path):
            save_file({"x": np.zeros(1000)}, tmp_path / "x.safetensors")
        with pytest.raises(TeachbackError, match="the file has reached the maximum size"), naming(tmp_path):
            write_atomically(tmp_path / "text", "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "text").exists()


def test_reserving_the_blocks_of_a_mapped_file_raises_on_a_full_disk(tmp_path, monkeypatch):
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float16, shape=(1000, 1000))
    assert os.stat(tmp_path / "x.npy").st_blocks * 512 < mapped.nbytes
    reserve(tmp_path / "x.npy", mapped.offset + mapped.nbytes)
    found = os.stat(tmp_path / "x.npy")
    assert found.st_blocks * 512 >= mapped.nbytes and found.st_size == mapped.offset + mapped.nbytes

    def refuse(*arguments):
        raise system_error(errno.ENOSPC)

    monkeypatch.setattr(files.os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="x.npy"):
        reserve(tmp_path / "x.npy", 10)


def test_an_entry_point_reports_an_error_in_one_line(capsys):
    def full():
        raise system_error(errno.ENOSPC, "/data/x")

    before = signal.getsignal(signal.SIGTERM)
    status, printed = outcome(full, capsys)
    assert status == 1 and printed.startswith("error: /data/x: the disk is full") and printed.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_control_characters_in_a_message_are_escaped(capsys):
    def refuse():
        raise TeachbackError("DOMAIN=books\nerror: all is well\x1b[2J is not there")

    _, printed = outcome(refuse, capsys)
    assert printed == "error: DOMAIN=books\\nerror: all is well\\x1b[2J is not there\n"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_characters_outside_the_encoding_of_a_stream_are_escaped(encoding):
    code = "from teachback.core.errors import run_entry_point\nrun_entry_point(lambda: print('caf\u00e9 \U0001f600'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False,
                          env=os.environ | {"PYTHONPATH": SOURCE, "PYTHONIOENCODING": encoding})  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith(b"\\U0001f600\n"), done.stderr


def test_arguments_that_are_not_utf_8_are_refused_at_the_start():
    code = "from teachback.core.errors import run_entry_point\nrun_entry_point(lambda: print('went on'))"
    done = subprocess.run([sys.executable, "-c", code, b"--output_root", b"b\xff"], capture_output=True, check=False,
                          env=os.environ | {"PYTHONPATH": SOURCE})  # fmt: skip
    assert done.returncode == 1 and done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"error: 'b\\udcff' contains bytes that are not UTF-8")


@pytest.mark.parametrize(("name", "shown"), [("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM")])
def test_a_signal_during_a_destructor_ends_the_entry_point(name, shown):
    done = subprocess.run([sys.executable, "-c", IN_A_DESTRUCTOR, name], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": SOURCE})  # fmt: skip
    assert done.returncode == -getattr(signal, name) and done.stdout == ""
    assert done.stderr == f"error: stopped by {shown}: finished work is intact; run the same command again to continue\n"


@pytest.mark.parametrize("script", ["get_data", "process_data", "train_teacher", "distill_student", "curriculum", "evaluate"])
def test_ctrl_c_during_imports_leaves_no_traceback(script, tmp_path):
    library = "transformers" if script in ("get_data", "process_data") else "torch"  # stages 1 and 2 begin without PyTorch
    (tmp_path / f"{library}.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    path = os.pathsep.join((str(tmp_path), SOURCE))
    process = subprocess.Popen([sys.executable, Path(SOURCE).parent / f"scripts/{script}.py"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path})  # fmt: skip
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].startswith("error: stopped by Ctrl-C")
    assert process.returncode == -signal.SIGINT


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_entry_point(lambda: 1 / 0)


def test_line_breaks_between_message_lines_are_kept_those_inside_escaped(capsys):
    def main():
        raise TeachbackError("2 bad rows:", "  train.tsv line 3: label 'x\ny'", "Correct them.")

    with pytest.raises(SystemExit):
        run_entry_point(main)
    assert capsys.readouterr().err == "error: 2 bad rows:\n  train.tsv line 3: label 'x\\ny'\nCorrect them.\n"
