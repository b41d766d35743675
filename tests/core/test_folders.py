"""Validation of user-given folders before any computation, messages on unreadable files, and symbolic links."""

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


def make_file_and_links(folder: Path) -> None:
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
def test_an_unusable_folder_is_refused_with_the_reason(name, reason, tmp_path):
    make_file_and_links(tmp_path)
    with pytest.raises(TeachbackError, match=r"^OUTPUT_DIR=") as refused:
        require_folder("OUTPUT_DIR", tmp_path / name)
    assert reason in str(refused.value) and len(str(refused.value)) < 800


def test_existing_linked_and_missing_folders_are_accepted(tmp_path):
    make_file_and_links(tmp_path)
    for name in ("", "linked", "linked/new/below", "x" * 255, "caf\u00e9"):
        require_folder("DATA_DIR", tmp_path / name)


@pytest.mark.parametrize(("flag", "variable"), [("data_dir", "DATA_DIR"), ("output_root", "OUTPUT_DIR"),
                                                ("teacher_root", "TEACHER_DIR"), ("student_root", "STUDENT_DIR")])  # fmt: skip
def test_folders_are_validated_when_arguments_are_parsed(flag, variable):
    with pytest.raises(TeachbackError, match=f"{variable}=/dev/null: "):
        parse(DataArguments, argv=[f"--{flag}", "/dev/null"])


@pytest.fixture
def unreadable_folder():
    """Folder with a file and a subfolder that the current user may not read.

    Root may read everything, so a process of root takes another user id for the duration of the test.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "model.safetensors").write_text("x")
        (folder / "model.safetensors").chmod(0)
        (folder / "inside").mkdir(mode=0)
        root, before = os.geteuid() == 0, os.getcwd()
        os.chdir("/")  # the other user may lack access to the working directory
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield folder
        finally:
            if root:
                os.setresuid(0, 0, 0)
            os.chdir(before)
            (folder / "inside").chmod(0o700)


def test_an_unreadable_file_is_not_reported_as_missing(unreadable_folder):
    file = unreadable_folder / "model.safetensors"
    as_safetensors_says = FileNotFoundError(f"No such file or directory: {file}")
    assert disk_message(as_safetensors_says).startswith(f"{file} is not readable (Permission denied)")
    assert unreadable_file(unreadable_folder).startswith(f"{unreadable_folder / 'inside'} is not readable")  # first by name
    below = PermissionError(13, "Permission denied", str(unreadable_folder / "inside/config.json"))
    assert disk_message(below).startswith(f"{unreadable_folder / 'inside'} is not readable (Permission denied)")
    assert unreadable_file("bert-base-uncased") == ""  # a hub name


def test_published_files_and_folders_have_the_modes_of_the_umask(tmp_path):
    for mask, file_mode, folder_mode in ((0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)):
        folder = tmp_path / f"{mask:o}"
        (folder / "last").mkdir(parents=True)
        for name in ("model.safetensors", "last/model.safetensors"):
            (folder / name).write_text("x")
            (folder / name).chmod(0o600)
        folder.chmod(0o2700)  # setgid: new files inherit the group
        before = os.umask(mask)
        try:
            sync(folder)
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o7777 for path in (folder, *folder.rglob("*"))}
        assert modes == {folder.name: 0o2000 | folder_mode, "last": folder_mode, "model.safetensors": file_mode}


def test_a_symlinked_stage_folder_is_replaced_at_the_target_of_the_link(tmp_path):
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


def test_a_symlinked_file_is_written_at_the_target_of_the_link(tmp_path):
    make_file_and_links(tmp_path)
    (tmp_path / "results.tsv").symlink_to("file")
    write_atomically(tmp_path / "results.tsv", "new")
    assert (tmp_path / "results.tsv").is_symlink() and (tmp_path / "file").read_text() == "new"
    with pytest.raises(TeachbackError, match="leads back to itself"):
        real_place(tmp_path / "loop")
    with pytest.raises(TeachbackError, match="is a symbolic link to /nowhere/at/all, but /nowhere/at is not a folder"):
        real_place(tmp_path / "dangling")


def test_a_file_with_a_name_of_maximum_length_can_be_replaced(tmp_path):
    write_atomically(tmp_path / ("\u4e2d" * 85), "x")
    assert (tmp_path / ("\u4e2d" * 85)).read_text() == "x"
