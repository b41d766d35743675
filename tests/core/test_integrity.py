"""Detection of damaged files, and remembered hashes, with which unchanged files are read once."""

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
    """Folder with three files, one of them in a subfolder."""
    (tmp_path / "last").mkdir()
    for name in ("model.safetensors", "last/model.safetensors"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 40)
    (tmp_path / "rows.tsv").write_text(TEXT)
    return tmp_path


@pytest.fixture
def settled_files(monkeypatch):
    """Let every file count as unmodified for a long time, so that its hash is remembered."""
    monkeypatch.setattr(integrity, "SETTLED_SECONDS", -3600.0)


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are hashed, in order; the process has no remembered hashes at first."""
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
def test_damage_is_detected_and_described(kind, name, folder):
    files = describe(folder)
    assert damage(folder, files) == []
    spoil, problem = DAMAGE[kind]
    spoil(folder / name)
    (found,) = damage(folder, files)
    assert found.startswith(f"{name} ") and problem in found


def test_rows_of_tables_are_counted_and_missing_ones_reported(folder):
    files = describe(folder)
    assert files["rows.tsv"]["rows"] == 2 and "rows" not in files["model.safetensors"]
    (folder / "rows.tsv").write_text(TEXT.removesuffix("2\tbad\n"))
    assert damage(folder, files) == ["rows.tsv has 1 rows, but 2 were written"]
    assert damage(folder, files, ["model.safetensors"]) == []


def test_nested_stages_model_cards_and_stage_json_are_not_described(folder):
    (folder / "onnx").mkdir()
    for name in ("onnx/stage.json", "onnx/model.onnx", "README.md", "stage.json"):
        (folder / name).write_text("x")
    assert sorted(describe(folder)) == ["last/model.safetensors", "model.safetensors", "rows.tsv"]


def test_unchanged_files_are_hashed_once_across_processes(folder, read, settled_files, monkeypatch):
    files = describe(folder)
    assert len(read) == 3 and damage(folder, files) == [] and len(read) == 3
    monkeypatch.setattr(integrity, "_hashes", {})  # as in another process
    assert damage(folder, files) == [] and len(read) == 3
    (folder / REMEMBERED).write_text("[")
    monkeypatch.setattr(integrity, "_hashes", {})
    assert damage(folder, files) == [] and len(read) == 6  # with a damaged record, files are hashed again
    assert set(json.loads((folder / REMEMBERED).read_text())) == set(files)


@pytest.mark.parametrize("known_by", ["the process", "the record"])
def test_a_change_that_keeps_size_and_times_is_detected(known_by, folder, read, settled_files, monkeypatch):
    files = describe(folder)
    damage(folder, files)
    if known_by == "the record":
        monkeypatch.setattr(integrity, "_hashes", {})
    time.sleep(0.05)  # longer than the resolution of the file system's clock
    flip(folder / "model.safetensors", keep_times=True)
    assert damage(folder, files) == ["model.safetensors has changed since it was written"]


def test_a_replacement_file_of_equal_size_and_times_is_detected(folder, settled_files):
    files, path = describe(folder), folder / "model.safetensors"
    damage(folder, files)
    found = path.stat()
    (folder / "other").write_bytes(bytes(found.st_size))
    os.utime(folder / "other", ns=(found.st_atime_ns, found.st_mtime_ns))
    os.replace(folder / "other", path)
    assert damage(folder, files) == ["model.safetensors has changed since it was written"]


@pytest.mark.parametrize("seconds", [0, 3600], ids=["just now", "a clock that was set back"])
def test_recently_modified_files_are_hashed_again(seconds, folder, read, monkeypatch):
    present = time.time()
    monkeypatch.setattr(integrity.time, "time", lambda: present - seconds)
    files = describe(folder)
    assert damage(folder, files) == [] and len(read) == 6 and not (folder / REMEMBERED).exists()


def test_files_are_hashed_where_the_record_cannot_be_written(folder, read, settled_files, monkeypatch):
    files = describe(folder)

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(integrity.os, "replace", refuse)
    assert damage(folder, files) == []
    assert damage(folder / "moved away", files) == [f"{name} is missing" for name in files]
    assert not (folder / "moved away").exists()


def test_the_content_hash_is_the_sha256_of_the_file(folder):
    import hashlib

    path = folder / "model.safetensors"
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_checksum_of_a_record_detects_changes():
    record = with_checksum({"loss": float("nan"), "by": {1: 0.1 + 0.2}, "path": os.path})
    read = json.loads(json.dumps(record, indent=2))
    require_checksum(read)
    assert with_checksum(read) == read or read["loss"] != read["loss"]
    for changed in (read | {"by": {"1": 0.3}}, {k: v for k, v in read.items() if k != "path"}, read | {"new": 1}):
        with pytest.raises(ValueError, match="checksum"):
            require_checksum(changed)


def test_a_seal_detects_damaged_files_and_damage_of_itself(folder):
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
