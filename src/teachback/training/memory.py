"""Memory that a training frees is kept for its next step, instead of being given back and asked for anew."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt (malloc.h), and the values that its own adjustment arrives at where tensors are large.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While this holds, glibc's malloc gives no freed memory of tensors back to the system; elsewhere it does nothing.

    A training step on a CPU allocates the same large tensors every time. By default each comes as pages that the system
    has to clear and map at first touch: tens of thousands a step, a tenth to a fifth of its time.
    """
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)


def _set(values: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda name, value: 0)  # absent from musl, for example
    for name, value in values.items():
        mallopt(name, value)
