"""What all tests share: no model hub, no network, few threads, no waiting for the disk, and the order of the files."""

import os
import shutil
import tempfile

import pytest

from teachback.core import integrity

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")
# Small tensors: more threads only wait for each other, and several processes of tests for each other's threads. Not to be
# told apart by PYTEST_XDIST_WORKER: the processes inherit what the one that starts them has set here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A disk takes milliseconds to say that a file has reached it, which matters only where the power can fail.
os.fsync = lambda handle: None
# Whether a record of read files lies in a folder would depend on how long a test took: files count as just written.
integrity.SETTLED_SECONDS = 1e9

# The costly files, dearest first: handed out by file, one that begins last would be waited for alone.
COSTLY = "end_to_end curriculum stages evaluate reproduce snakefile api bad_data faults benchmarks".split()

ROOM = 0.6  # GB of temporary folders at once


def pytest_sessionstart():
    """On a full disk hundreds of tests would fail, each with another message."""
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free / 1e9
    if free < ROOM:
        pytest.exit(f"{place} has {free:.2f} GB free, and the tests need {ROOM}; make room or set TMPDIR", returncode=1)


def pytest_collection_modifyitems(items):
    place = {f"test_{name}": number for number, name in enumerate(COSTLY)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
