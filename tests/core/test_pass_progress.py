"""Progress of passes over rows: lines on redirected output, a bar on a terminal, and silence if a pass is short."""

import io
import sys

import pytest
import torch

from teachback.core import pass_progress
from teachback.core.pass_progress import PassProgress, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by 40 seconds with each call."""
    times = iter(range(0, 10_000, 40))
    monkeypatch.setattr(pass_progress.time, "monotonic", lambda: float(next(times)))


def test_long_pass_prints_its_rows_and_remaining_time(clock, capsys):
    shown = PassProgress("embedded", 3000)  # at 0 s
    shown.add(1000)  # checked at 40 s, and printed with the time 80 s
    shown.add(2000)
    assert capsys.readouterr().out == "embedded 1,000 of 3,000 rows, about 3 min left\n"


def test_remaining_time_of_continued_work_is_that_of_this_process(clock, capsys):
    shown = PassProgress("ran", 40, unit="episodes", done=30)
    shown.add(1)
    assert capsys.readouterr().out == "ran 31 of 40 episodes, about 12 min left\n"


def test_pass_of_unknown_length_prints_its_rows_to_the_given_stream(clock, capsys):
    stream = io.StringIO()
    shown = PassProgress("predicted", file=stream)
    shown.add(1000)
    shown.add(500)
    assert stream.getvalue() == "predicted 1,000 rows\npredicted 1,500 rows\n" and not capsys.readouterr().out


def test_short_pass_prints_nothing(capsys):
    batches = [{"index": torch.arange(4)}, {"index": torch.arange(4, 6)}]
    assert list(PassProgress("embedded", 6).follow(batches)) == batches
    assert capsys.readouterr() == ("", "")


def test_rows_are_counted_when_their_batch_is_dealt_with_even_if_it_was_emptied():
    shown, seen = PassProgress("embedded", 6), []
    for batch in shown.follow([{"index": torch.arange(4)}, {"index": torch.arange(4, 6)}]):
        seen.append((len(batch.pop("index")), shown.done))
    assert seen == [(4, 0), (2, 4)] and shown.done == 6


def test_only_the_first_of_several_processes_prints(clock, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    PassProgress("embedded", 3000).add(1000)
    assert not capsys.readouterr().out


def test_terminal_shows_a_bar_instead_of_lines(clock, capsys, monkeypatch):
    monkeypatch.setattr(pass_progress, "DELAY", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = PassProgress("embedded", 3000)
    shown.add(1000)
    shown.bar.refresh()
    out, shown_on_terminal = capsys.readouterr()
    assert not out and "1000/3000" in shown_on_terminal and "embedded" in shown_on_terminal


def test_durations_are_formatted_in_suitable_units():
    assert [duration(seconds) for seconds in (4.21, 95, 720, 11_160)] == ["4.2 s", "95 s", "12 min", "3.1 h"]
