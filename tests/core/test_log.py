"""Log of a stage: printed lines, warnings and the final error, without progress bars."""

import logging
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from teachback.core.errors import TeachbackError
from teachback.core.log import stage_log


def test_both_output_streams_go_to_the_log_and_to_the_terminal(tmp_path, capsys):
    path, out = tmp_path / "logs/3_train_teacher.log", sys.stdout
    with stage_log(path):
        print("padding: 1 %")
        sys.stderr.write("careful\n")
    assert sys.stdout is out
    time, *lines = path.read_text().splitlines()
    assert time.startswith("--- 2") and lines == ["padding: 1 %", "careful"]
    assert capsys.readouterr() == ("padding: 1 %\n", "careful\n")


def test_warnings_of_loggers_without_a_handler_are_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("teachback"), "propagate", False)
    with stage_log(tmp_path / "log"):
        logging.getLogger("teachback.core.runs").warning("made again")
    assert "made again" in (tmp_path / "log").read_text()


def test_the_final_error_is_logged_and_the_next_run_appended(tmp_path):
    with pytest.raises(TeachbackError), stage_log(tmp_path / "log"):
        raise TeachbackError("no such domain")
    with stage_log(tmp_path / "log"):
        print("now")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[1] == "TeachbackError: no such domain" and lines[2].startswith("--- ") and lines[3] == "now"


def test_progress_bars_are_not_logged(tmp_path, capsys):
    with stage_log(tmp_path / "log"):
        for _ in tqdm(range(3), desc="rows"):
            pass
    assert "rows" in capsys.readouterr().err and "rows" not in (tmp_path / "log").read_text()


def test_a_disabled_log_writes_nothing(tmp_path):
    with stage_log(tmp_path / "logs/log", wanted=False):
        print("words")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_loses_only_the_log_and_hides_no_error(capsys):
    with pytest.raises(ValueError, match="the stage's own"), stage_log(Path("/dev/full")):
        print("said")
        raise ValueError("the stage's own")
    assert capsys.readouterr().out == "said\n"
