"""Imports without garbage collection, which would slow down the start of a stage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Import modules with Python's garbage collector off: it would traverse all of them repeatedly, and again at exit.

    That takes a third of a stage's start-up. At the end of the first such block the existing objects are frozen (`gc.freeze`).
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()
