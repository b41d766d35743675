"""On-disk cache of teacher outputs: entries appear whole or not at all, and the size limit holds."""

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


def test_an_entry_is_written_once_per_key(tmp_path):
    cache, calls = DiskCache(tmp_path, None), []
    place = cache.keep("one", MEGABYTE, writer(calls=calls))
    assert cache.keep("one", MEGABYTE, writer(calls=calls)) == place == tmp_path / "one" and len(calls) == 1
    assert (place / "file.npy").stat().st_size == MEGABYTE


def test_the_least_recently_used_entry_is_evicted_first(tmp_path):
    cache = DiskCache(tmp_path, 2.5 * MEGABYTE / 1e9)
    for number, name in enumerate(("old", "older", "new")):
        place = cache.keep(name, MEGABYTE, writer())
        used_at(place, {"old": 2000, "older": 1000, "new": 3000}[name])
        assert len(names(tmp_path)) == min(number + 1, 2)
    assert names(tmp_path) == ["new", "old"]
    cache.keep("old", MEGABYTE, writer())  # makes it the most recently used
    cache.keep("next", MEGABYTE, writer())
    assert names(tmp_path) == ["next", "old"]


def test_nothing_is_evicted_below_the_size_limit(tmp_path):
    cache = DiskCache(tmp_path, 2 * MEGABYTE / 1e9)
    cache.keep("one", MEGABYTE, writer())
    cache.keep("two", MEGABYTE, writer())
    assert names(tmp_path) == ["one", "two"]


def test_an_entry_above_the_limit_is_refused_naming_both_sizes(tmp_path):
    assert DiskCache(tmp_path, 0.002).refusal(2 * MEGABYTE) == ""
    reason = DiskCache(tmp_path, 1).refusal(2_500 * MEGABYTE)
    assert reason == "they would take 2.5 GB, but TEACHER_CACHE_GB is 1.0 GB"
    assert "a fifth of the free disk" in DiskCache(tmp_path / "new", None).refusal(10**18)


def test_an_interrupted_write_leaves_no_entry(tmp_path):
    def fail(folder):
        writer()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DiskCache(tmp_path, None).keep("one", MEGABYTE, fail)
    assert names(tmp_path) == []


def test_an_entry_written_meanwhile_by_another_process_is_used(tmp_path):
    cache = DiskCache(tmp_path, None)

    def write(folder):
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "theirs").write_text("whole")
        writer()(folder)

    place = cache.keep("one", MEGABYTE, write)
    assert names(place) == ["theirs"] and names(tmp_path) == ["one"]


def test_an_entry_evicted_before_it_is_read_is_written_again(tmp_path):
    cache, calls, removals = DiskCache(tmp_path, None), [], iter([True, True, False])

    def read(place):
        if next(removals):
            shutil.rmtree(place)
        return (place / "file.npy").stat().st_size

    assert cache.get("one", MEGABYTE, writer(calls=calls), read) == MEGABYTE and len(calls) == 3
    assert names(tmp_path) == ["one"]


def test_an_entry_with_a_missing_file_is_written_again(tmp_path):
    cache = DiskCache(tmp_path, None)
    (cache.keep("one", MEGABYTE, writer()) / "file.npy").unlink()
    assert cache.get("one", MEGABYTE, writer(), lambda place: (place / "file.npy").stat().st_size) == MEGABYTE


def test_repeated_eviction_before_reading_is_an_error(tmp_path):
    calls = []

    def read(place):
        shutil.rmtree(place)
        return (place / "file.npy").read_bytes()

    with pytest.raises(TeachbackError, match="one was evicted 5 times .* TEACHER_CACHE_GB"):
        DiskCache(tmp_path, None).get("one", MEGABYTE, writer(calls=calls), read)
    assert len(calls) == ATTEMPTS


def request_entries(folder, own: str) -> None:
    """Request two private entries and a shared one in turn from a cache that holds two; the work of one process."""

    def write(place):
        for part in ("a", "b"):
            (place / part).write_bytes(place.name.split(".")[1].encode().ljust(MEGABYTE // 2, b"."))

    for turn in range(40):
        name = (f"{own}1", "shared", f"{own}2")[turn % 3]
        found = DiskCache(folder, 2.1 * MEGABYTE / 1e9).get(
            name, MEGABYTE, write, lambda place: [(place / part).read_bytes().rstrip(b".") for part in ("a", "b")]
        )
        assert found == [name.encode()] * 2


def test_concurrent_processes_read_their_entries_from_a_small_cache(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=request_entries, args=(tmp_path, own)) for own in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert all(not name.startswith(".") for name in names(tmp_path))


def test_leftovers_of_an_interrupted_removal_are_removed_by_the_next_write(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path, 1.5 * MEGABYTE / 1e9)
    place = cache.keep("old", MEGABYTE, writer())
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        remove_at_once(place)
    assert [name.startswith(".old.") for name in names(tmp_path)] == [True]
    cache.keep("new", MEGABYTE, writer())
    assert names(tmp_path) == ["new"]


def test_an_entry_that_cannot_be_removed_stays_whole(tmp_path, monkeypatch):
    place = DiskCache(tmp_path, None).keep("one", MEGABYTE, writer())
    monkeypatch.setattr(type(place), "rename", refuse)
    remove_at_once(place)
    remove_at_once(tmp_path / "never there")
    assert names(tmp_path) == ["one"] and names(place) == ["file.npy", "files.json"]


def refuse(*_):
    raise PermissionError
