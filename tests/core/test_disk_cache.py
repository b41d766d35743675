"""What teachers said, on disk: whole or absent, and never more than is allowed."""

import multiprocessing
import os
import shutil

import pytest

from teachback.core.disk_cache import ATTEMPTS, DiskCache
from teachback.core.errors import TeachbackError
from teachback.core.files import remove_at_once

MEGABYTE = 1_000_000


def writer(size=MEGABYTE, calls=None):
    def write(folder):
        if calls is not None:
            calls.append(folder)
        (folder / "file.npy").write_bytes(b"x" * size)

    return write


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def used_at(place, seconds: float) -> None:
    os.utime(place, (seconds, seconds))


def test_a_key_is_written_once(tmp_path):
    cache, calls = DiskCache(tmp_path, None), []
    place = cache.keep("one", MEGABYTE, writer(calls=calls))
    assert cache.keep("one", MEGABYTE, writer(calls=calls)) == place == tmp_path / "one" and len(calls) == 1
    assert (place / "file.npy").stat().st_size == MEGABYTE


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    cache = DiskCache(tmp_path, 2.5 * MEGABYTE / 1e9)
    for number, name in enumerate(("old", "older", "new")):
        place = cache.keep(name, MEGABYTE, writer())
        used_at(place, {"old": 2000, "older": 1000, "new": 3000}[name])
        assert len(names(tmp_path)) == min(number + 1, 2)
    assert names(tmp_path) == ["new", "old"]
    cache.keep("old", MEGABYTE, writer())  # using it makes it the newest
    cache.keep("next", MEGABYTE, writer())
    assert names(tmp_path) == ["next", "old"]


def test_nothing_is_removed_while_there_is_room(tmp_path):
    cache = DiskCache(tmp_path, 2 * MEGABYTE / 1e9)
    cache.keep("one", MEGABYTE, writer())
    cache.keep("two", MEGABYTE, writer())
    assert names(tmp_path) == ["one", "two"]


def test_what_is_larger_than_allowed_is_refused_with_both_sizes(tmp_path):
    assert DiskCache(tmp_path, 0.002).refusal(2 * MEGABYTE) == ""
    reason = DiskCache(tmp_path, 1).refusal(2_500 * MEGABYTE)
    assert reason == "they would take 2.5 GB, but TEACHER_CACHE_GB is 1.0 GB"
    assert "a fifth of the free disk" in DiskCache(tmp_path / "new", None).refusal(10**18)


def test_what_was_not_finished_is_not_there(tmp_path):
    def fail(folder):
        writer()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DiskCache(tmp_path, None).keep("one", MEGABYTE, fail)
    assert names(tmp_path) == []


def test_another_process_that_was_faster_is_believed(tmp_path):
    cache = DiskCache(tmp_path, None)

    def write(folder):
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "theirs").write_text("whole")
        writer()(folder)

    place = cache.keep("one", MEGABYTE, write)
    assert names(place) == ["theirs"] and names(tmp_path) == ["one"]


def test_what_another_process_removed_before_it_was_read_is_written_again(tmp_path):
    cache, calls, removals = DiskCache(tmp_path, None), [], iter([True, True, False])

    def read(place):
        if next(removals):
            shutil.rmtree(place)
        return (place / "file.npy").stat().st_size

    assert cache.get("one", MEGABYTE, writer(calls=calls), read) == MEGABYTE and len(calls) == 3
    assert names(tmp_path) == ["one"]


def test_a_folder_with_a_missing_file_is_written_again(tmp_path):
    cache = DiskCache(tmp_path, None)
    (cache.keep("one", MEGABYTE, writer()) / "file.npy").unlink()
    assert cache.get("one", MEGABYTE, writer(), lambda place: (place / "file.npy").stat().st_size) == MEGABYTE


def test_processes_that_leave_each_other_no_room_are_told_of(tmp_path):
    calls = []

    def read(place):
        shutil.rmtree(place)
        return (place / "file.npy").read_bytes()

    with pytest.raises(TeachbackError, match="one was evicted 5 times .* TEACHER_CACHE_GB"):
        DiskCache(tmp_path, None).get("one", MEGABYTE, writer(calls=calls), read)
    assert len(calls) == ATTEMPTS


def ask(folder, own: str) -> None:
    """A process's wishes: two keys of its own and one that all have, in a cache that holds two."""

    def write(place):
        for part in ("a", "b"):
            (place / part).write_bytes(place.name.split(".")[1].encode().ljust(MEGABYTE // 2, b"."))

    for turn in range(40):
        name = (f"{own}1", "shared", f"{own}2")[turn % 3]
        found = DiskCache(folder, 2.1 * MEGABYTE / 1e9).get(
            name, MEGABYTE, write, lambda place: [(place / part).read_bytes().rstrip(b".") for part in ("a", "b")]
        )
        assert found == [name.encode()] * 2


def test_processes_that_share_a_cache_with_little_room_all_read_what_they_asked_for(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=ask, args=(tmp_path, own)) for own in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert all(not name.startswith(".") for name in names(tmp_path))


def test_the_rest_of_a_removal_that_was_cut_short_is_removed_later(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path, 1.5 * MEGABYTE / 1e9)
    place = cache.keep("old", MEGABYTE, writer())
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        remove_at_once(place)
    assert [name.startswith(".old.") for name in names(tmp_path)] == [True]
    cache.keep("new", MEGABYTE, writer())
    assert names(tmp_path) == ["new"]


def test_what_may_not_be_removed_stays_whole(tmp_path, monkeypatch):
    place = DiskCache(tmp_path, None).keep("one", MEGABYTE, writer())
    monkeypatch.setattr(type(place), "rename", refuse)
    remove_at_once(place)
    remove_at_once(tmp_path / "never there")
    assert names(tmp_path) == ["one"] and names(place) == ["file.npy", "files.json"]


def refuse(*_):
    raise PermissionError
