"""Work in a forked process: exit statuses, environment and signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from teachback.core.child import in_child

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}


def test_the_exit_status_of_the_child_is_returned():
    def leave() -> None:
        os._exit(7)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(leave) == 7 and in_child(die) == 128 + signal.SIGKILL
    assert in_child(lambda: os._exit(0)) == 0


def test_environment_changes_of_a_child_do_not_reach_its_parent(monkeypatch):
    monkeypatch.setenv("OF_THE_PARENT", "1")

    def change() -> None:
        os.environ["OF_THE_PARENT"] = "2"
        os._exit(0)

    assert in_child(change) == 0 and os.environ["OF_THE_PARENT"] == "1"


@pytest.mark.parametrize("in_the_end", [0, 143])
def test_sigterm_is_forwarded_and_returned_whatever_the_child_does(in_the_end):
    """A sequence of stages then ends here, whether the stage stops because of the signal or ends without an error."""
    code = f"""
import os, signal, sys, time
from teachback.core.child import in_child

def work():
    signal.signal(signal.SIGTERM, lambda *_: os._exit({in_the_end}))
    print("ready", flush=True)
    time.sleep(60)

sys.exit(in_child(work))
"""
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_ctrl_c_ends_child_and_parent(tmp_path):
    code = """
import os, sys, time
from teachback.core.errors import run_entry_point
from teachback.core.child import in_child

def stage():
    print("ready", flush=True)
    time.sleep(60)

sys.exit(in_child(lambda: run_entry_point(stage)))
"""
    process = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and error.count(b"stopped by Ctrl-C") == 1
