"""Reuse of freed memory in the next training step, instead of returning it to the system."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt (malloc.h), and the values to which its dynamic adjustment rises for large tensors.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep glibc's malloc from returning freed tensor memory to the system within the block; a no-op without glibc.

    A training step on a CPU allocates the same large tensors every time. By default the system clears and maps their pages
    at first touch: tens of thousands per step, a tenth to a fifth of its time.
    """
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)


def _set(values: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda name, value: 0)  # missing in musl, for example
    for name, value in values.items():
        mallopt(name, value)
