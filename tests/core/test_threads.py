"""Waiting policy of threads: set before PyTorch is loaded unless the user has set one, and recorded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from teachback.core.published import read_stage
from teachback.core.runs import StageRun
from teachback.core.threads import WAITING

ROOT = Path(__file__).parents[2]
PAGES = ("reference_pages", "site")  # scripts that write pages and compute nothing
ENTRY_POINTS = sorted(path for path in (ROOT / "scripts").glob("*.py") if path.stem not in PAGES)
ASK = """
import os, sys
from teachback.core.errors import run_entry_point

def main():
    assert "torch" not in sys.modules  # which reads the environment when it is loaded
    print({name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME") if name in os.environ})

run_entry_point(main)
"""


def waiting_variables(**given: str) -> str:
    """Variables of the waiting policy in an entry point's environment when it was started with ``given``."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    command = [sys.executable, "-c", ASK]
    environment |= given | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_an_entry_point_lets_threads_spin_briefly():
    assert waiting_variables() == "{'GOMP_SPINCOUNT': '1000'}"


@pytest.mark.parametrize("name", WAITING)
def test_a_waiting_policy_set_by_the_user_is_kept(name):
    assert waiting_variables(**{name: "1"}) == f"{{'{name}': '1'}}"


@pytest.mark.parametrize("entry_point", ENTRY_POINTS, ids=lambda path: path.stem)
def test_entry_points_set_the_policy_before_pytorch_is_loaded(entry_point):
    """Importing a script loads no PyTorch, and its main block only calls `run_entry_point`, which sets the policy."""
    code = f"import runpy, sys; runpy.run_path({str(entry_point)!r}, run_name='asked'); sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert entry_point.read_text().rstrip().endswith('if __name__ == "__main__":\n    run_entry_point(main)')


def test_the_waiting_policy_is_recorded(tmp_path, monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    run = StageRun(tmp_path / "stage", "a stage", {}, {})
    run.checkpoints()
    with run.publishing({}):
        pass
    assert read_stage(run.folder)["thread_waiting"] == {"OMP_WAIT_POLICY": "ACTIVE"}
