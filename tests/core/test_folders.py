"""Folders that a user names are judged by kind before anything is computed, and links to other disks are kept."""

import os
import tempfile
from pathlib import Path

import pytest

from teachback.core.arguments import DataArguments
from teachback.core.errors import TeachbackError, disk_message, unreadable_file
from teachback.core.files import real_place, sync, write_atomically
from teachback.core.folders import require_folder
from teachback.core.parsing import parse
from teachback.core.runs import StageRun

DEEP = "/".join(["y" * 200] * 18)


def make(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("/nowhere/at/all")
    (folder / "linked").symlink_to(folder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "file is a file, but a folder is needed"),
        ("file/below", "part of this path is a file, but a folder is needed"),
        ("/dev/null", "/dev/null is a file, but a folder is needed"),
        ("loop", "leads back to itself"),
        ("loop/below", "leads back to itself"),
        ("dangling", "is a symbolic link to /nowhere/at/all, which does not exist; is its disk mounted?"),
        ("x" * 256, "a name in this path has 256 bytes, but the file system allows"),
        ("\u4e2d" * 100, "a name in this path has 300 bytes, but the file system allows"),
        (DEEP, "this path has "),
    ],
    ids=lambda value: value[:12],
)
def test_a_folder_that_no_stage_could_work_in_is_refused_by_its_kind(name, reason, tmp_path):
    make(tmp_path)
    with pytest.raises(TeachbackError, match=r"^OUTPUT_DIR=") as refused:
        require_folder("OUTPUT_DIR", tmp_path / name)
    assert reason in str(refused.value) and len(str(refused.value)) < 800


def test_a_folder_that_is_there_is_linked_to_or_is_still_to_be_made_is_taken(tmp_path):
    make(tmp_path)
    for name in ("", "linked", "linked/new/below", "x" * 255, "caf\u00e9"):
        require_folder("DATA_DIR", tmp_path / name)


@pytest.mark.parametrize(("flag", "variable"), [("data_dir", "DATA_DIR"), ("output_root", "OUTPUT_DIR"),
                                                ("teacher_root", "TEACHER_DIR"), ("student_root", "STUDENT_DIR")])  # fmt: skip
def test_every_entry_point_judges_its_folders(flag, variable):
    with pytest.raises(TeachbackError, match=f"{variable}=/dev/null: "):
        parse(DataArguments, argv=[f"--{flag}", "/dev/null"])


@pytest.fixture
def closed():
    """A folder of another user's, or of this one's without its rights, with a file and a folder that may not be read.

    The root user may read everything, and becomes somebody else for the time of a test.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "model.safetensors").write_text("x")
        (folder / "model.safetensors").chmod(0)
        (folder / "inside").mkdir(mode=0)
        root, before = os.geteuid() == 0, os.getcwd()
        os.chdir("/")  # the folder one works in may be closed to others too
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield folder
        finally:
            if root:
                os.setresuid(0, 0, 0)
            os.chdir(before)
            (folder / "inside").chmod(0o700)


def test_a_file_that_may_not_be_read_is_not_said_to_be_gone(closed):
    file = closed / "model.safetensors"
    as_safetensors_says = FileNotFoundError(f"No such file or directory: {file}")
    assert disk_message(as_safetensors_says).startswith(f"{file} is not readable (Permission denied)")
    assert unreadable_file(closed).startswith(f"{closed / 'inside'} is not readable")  # the first by name
    below = PermissionError(13, "Permission denied", str(closed / "inside/config.json"))
    assert disk_message(below).startswith(f"{closed / 'inside'} is not readable (Permission denied)")
    assert unreadable_file("bert-base-uncased") == ""  # a hub name


def test_what_is_published_can_be_read_as_the_umask_says(tmp_path):
    for mask, file_mode, folder_mode in ((0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)):
        folder = tmp_path / f"{mask:o}"
        (folder / "last").mkdir(parents=True)
        for name in ("model.safetensors", "last/model.safetensors"):
            (folder / name).write_text("x")
            (folder / name).chmod(0o600)
        folder.chmod(0o2700)  # whose group is inherited
        before = os.umask(mask)
        try:
            sync(folder)
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o7777 for path in (folder, *folder.rglob("*"))}
        assert modes == {folder.name: 0o2000 | folder_mode, "last": folder_mode, "model.safetensors": file_mode}


def test_a_stage_folder_that_is_a_link_to_another_disk_is_written_there(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "teacher-meta"
    link.symlink_to("disk/teacher")
    for text in ("first", "second"):
        run = StageRun(link, "teacher", {"text": text}, {})
        run.checkpoints()
        with run.publishing({}) as folder:
            (folder / "weights").write_text(text)
    assert link.is_symlink() and (tmp_path / "disk/teacher/weights").read_text() == "second"
    assert run.up_to_date() and StageRun(link, "teacher", {"text": "second"}, {}).up_to_date()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "teacher-meta"}
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"teacher"}


def test_a_file_that_is_a_link_is_written_where_it_leads(tmp_path):
    make(tmp_path)
    (tmp_path / "results.tsv").symlink_to("file")
    write_atomically(tmp_path / "results.tsv", "new")
    assert (tmp_path / "results.tsv").is_symlink() and (tmp_path / "file").read_text() == "new"
    with pytest.raises(TeachbackError, match="leads back to itself"):
        real_place(tmp_path / "loop")
    with pytest.raises(TeachbackError, match="is a symbolic link to /nowhere/at/all, but /nowhere/at is not a folder"):
        real_place(tmp_path / "dangling")


def test_the_longest_name_can_still_be_replaced(tmp_path):
    write_atomically(tmp_path / ("\u4e2d" * 85), "x")
    assert (tmp_path / ("\u4e2d" * 85)).read_text() == "x"
