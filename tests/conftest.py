"""Setup of all tests: no model hub, no network, few threads, no synchronisation with the disk, and the order of files."""

import os
import shutil
import tempfile

import pytest

from teachback.core import integrity

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")
# With small tensors, more threads only wait for each other, as do the threads of parallel test processes. This cannot depend
# on PYTEST_XDIST_WORKER, as workers inherit the variables that the process that starts them has set here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Synchronising a file with the disk takes milliseconds, and matters only where the power can fail.
os.fsync = lambda handle: None
# All files count as just written; otherwise a folder would hold a record of hashed files depending on a test's duration.
integrity.SETTLED_SECONDS = 1e9

# Slow test files, slowest first: tests are distributed by file, and a slow file that starts last would run alone at the end.
COSTLY = "search end_to_end curriculum stages reproduce encoders shards imports evaluate api report in_turn benchmarks".split()

ROOM = 0.6  # GB that temporary folders need at once


def pytest_sessionstart():
    """Stop where the disk is nearly full, as hundreds of tests would fail, each with another message."""
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free / 1e9
    if free < ROOM:
        pytest.exit(f"{place} has {free:.2f} GB free, and the tests need {ROOM}; make room or set TMPDIR", returncode=1)


def pytest_collection_modifyitems(items):
    place = {f"test_{name}": number for number, name in enumerate(COSTLY)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
