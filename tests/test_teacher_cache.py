"""What teachers said, on disk: whole or absent, and never more than is allowed."""

import os

import pytest

from teachback.teacher_cache import TeacherCache

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
    cache, calls = TeacherCache(tmp_path, None), []
    place = cache.get("one", MEGABYTE, writer(calls=calls))
    assert cache.get("one", MEGABYTE, writer(calls=calls)) == place == tmp_path / "one" and len(calls) == 1
    assert (place / "file.npy").stat().st_size == MEGABYTE


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    cache = TeacherCache(tmp_path, 2.5 * MEGABYTE / 1e9)
    for number, name in enumerate(("old", "older", "new")):
        place = cache.get(name, MEGABYTE, writer())
        used_at(place, {"old": 2000, "older": 1000, "new": 3000}[name])
        assert len(names(tmp_path)) == min(number + 1, 2)
    assert names(tmp_path) == ["new", "old"]
    cache.get("old", MEGABYTE, writer())  # using it makes it the newest
    cache.get("next", MEGABYTE, writer())
    assert names(tmp_path) == ["next", "old"]


def test_nothing_is_removed_while_there_is_room(tmp_path):
    cache = TeacherCache(tmp_path, 2 * MEGABYTE / 1e9)
    cache.get("one", MEGABYTE, writer())
    cache.get("two", MEGABYTE, writer())
    assert names(tmp_path) == ["one", "two"]


def test_what_is_larger_than_allowed_is_refused_with_both_sizes(tmp_path):
    assert TeacherCache(tmp_path, 0.002).refusal(2 * MEGABYTE) == ""
    reason = TeacherCache(tmp_path, 1).refusal(2_500 * MEGABYTE)
    assert reason == "they would take 2.5 GB, and TEACHER_CACHE_GB is 1.0 GB"
    assert "a fifth of the free disk" in TeacherCache(tmp_path / "new", None).refusal(10**18)


def test_what_was_not_finished_is_not_there(tmp_path):
    def fail(folder):
        writer()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TeacherCache(tmp_path, None).get("one", MEGABYTE, fail)
    assert names(tmp_path) == []


def test_another_process_that_was_faster_is_believed(tmp_path):
    cache = TeacherCache(tmp_path, None)

    def write(folder):
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "theirs").write_text("whole")
        writer()(folder)

    place = cache.get("one", MEGABYTE, write)
    assert names(place) == ["theirs"] and names(tmp_path) == ["one"]
