"""Damaged files are seen, whatever was done to them, and unchanged ones are read once."""

import json
import os
import time

import pytest

from teachback.core import integrity
from teachback.core.integrity import (
    REMEMBERED,
    SEAL,
    broken_seal,
    content_hash,
    damage,
    describe,
    require_checksum,
    seal,
    with_checksum,
)

TEXT = "guid\ttext\n1\tgood\n2\tbad\n"


@pytest.fixture
def folder(tmp_path):
    """Three files, one of them in a folder within."""
    (tmp_path / "last").mkdir()
    for name in ("model.safetensors", "last/model.safetensors"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 40)
    (tmp_path / "rows.tsv").write_text(TEXT)
    return tmp_path


@pytest.fixture
def long_ago(monkeypatch):
    """Lets every file count as one that changed long ago."""
    monkeypatch.setattr(integrity, "SETTLED_SECONDS", -3600.0)


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read, in order; the process remembers nothing at first."""
    names: list[str] = []
    original = integrity.sha256
    monkeypatch.setattr(integrity, "sha256", lambda path: names.append(path.name) or original(path))
    monkeypatch.setattr(integrity, "_hashes", {})
    return names


def flip(path, keep_times=False):
    found = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) * 6 // 10] ^= 1
    path.write_bytes(content)
    if keep_times:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE = {
    "cut": (cut, "has 10,239 bytes, but 10,240 were written"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes, but 10,240 were written"),
    "a bit": (flip, "has changed since it was written"),
    "zeros": (zeros, "has changed since it was written"),
    "removed": (lambda path: path.unlink(), "is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "were written"),
}


@pytest.mark.parametrize("name", ["model.safetensors", "last/model.safetensors"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_seen_and_named(kind, name, folder):
    files = describe(folder)
    assert damage(folder, files) == []
    spoil, problem = DAMAGE[kind]
    spoil(folder / name)
    (found,) = damage(folder, files)
    assert found.startswith(f"{name} ") and problem in found


def test_rows_of_a_table_are_counted(folder):
    files = describe(folder)
    assert files["rows.tsv"]["rows"] == 2 and "rows" not in files["model.safetensors"]
    (folder / "rows.tsv").write_text(TEXT.removesuffix("2\tbad\n"))
    assert damage(folder, files) == ["rows.tsv has 1 rows, but 2 were written"]
    assert damage(folder, files, ["model.safetensors"]) == []


def test_a_stage_folder_within_and_a_model_card_are_others_business(folder):
    (folder / "onnx").mkdir()
    for name in ("onnx/stage.json", "onnx/model.onnx", "README.md", "stage.json"):
        (folder / name).write_text("x")
    assert sorted(describe(folder)) == ["last/model.safetensors", "model.safetensors", "rows.tsv"]


def test_what_did_not_change_is_read_once_by_all_processes(folder, read, long_ago, monkeypatch):
    files = describe(folder)
    assert len(read) == 3 and damage(folder, files) == [] and len(read) == 3
    monkeypatch.setattr(integrity, "_hashes", {})  # another process
    assert damage(folder, files) == [] and len(read) == 3
    (folder / REMEMBERED).write_text("[")
    monkeypatch.setattr(integrity, "_hashes", {})
    assert damage(folder, files) == [] and len(read) == 6  # a damaged record costs a reading
    assert set(json.loads((folder / REMEMBERED).read_text())) == set(files)


@pytest.mark.parametrize("known_by", ["the process", "the record"])
def test_a_change_that_keeps_size_and_times_is_seen(known_by, folder, read, long_ago, monkeypatch):
    files = describe(folder)
    damage(folder, files)
    if known_by == "the record":
        monkeypatch.setattr(integrity, "_hashes", {})
    time.sleep(0.05)  # some ticks of the file system's clock
    flip(folder / "model.safetensors", keep_times=True)
    assert damage(folder, files) == ["model.safetensors has changed since it was written"]


def test_another_file_of_the_same_size_and_times_is_seen(folder, long_ago):
    files, path = describe(folder), folder / "model.safetensors"
    damage(folder, files)
    found = path.stat()
    (folder / "other").write_bytes(bytes(found.st_size))
    os.utime(folder / "other", ns=(found.st_atime_ns, found.st_mtime_ns))
    os.replace(folder / "other", path)
    assert damage(folder, files) == ["model.safetensors has changed since it was written"]


@pytest.mark.parametrize("seconds", [0, 3600], ids=["just now", "a clock that was set back"])
def test_what_may_still_change_unseen_is_read_again(seconds, folder, read, monkeypatch):
    present = time.time()
    monkeypatch.setattr(integrity.time, "time", lambda: present - seconds)
    files = describe(folder)
    assert damage(folder, files) == [] and len(read) == 6 and not (folder / REMEMBERED).exists()


def test_where_nothing_can_be_written_down_files_are_read(folder, read, long_ago, monkeypatch):
    files = describe(folder)

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(integrity.os, "replace", refuse)
    assert damage(folder, files) == []
    assert damage(folder / "moved away", files) == [f"{name} is missing" for name in files]
    assert not (folder / "moved away").exists()


def test_a_file_is_hashed_as_a_whole(folder):
    import hashlib

    path = folder / "model.safetensors"
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_record_knows_whether_it_is_what_it_was():
    record = with_checksum({"loss": float("nan"), "by": {1: 0.1 + 0.2}, "path": os.path})
    read = json.loads(json.dumps(record, indent=2))
    require_checksum(read)
    assert with_checksum(read) == read or read["loss"] != read["loss"]
    for changed in (read | {"by": {"1": 0.3}}, {k: v for k, v in read.items() if k != "path"}, read | {"new": 1}):
        with pytest.raises(ValueError, match="checksum"):
            require_checksum(changed)


def test_a_sealed_folder(folder):
    assert broken_seal(folder) == [f"{SEAL} is missing"]
    seal(folder)
    assert broken_seal(folder) == []
    flip(folder / "last/model.safetensors")
    assert broken_seal(folder) == ["last/model.safetensors has changed since it was written"]
    flip(folder / "last/model.safetensors")
    whole = (folder / SEAL).read_text()
    for text in ("", "[]", whole[:-20], whole.replace('"bytes": 10240', '"bytes": 10241')):
        (folder / SEAL).write_text(text)
        (problem,) = broken_seal(folder)
        assert problem.startswith(f"{SEAL} cannot be read")
