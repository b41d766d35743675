"""Options of the C library's allocator that keep freed memory during training, and their reset afterwards."""

import ctypes
import sys

import pytest

from teachback.training import memory
from teachback.training.memory import KEEPING, USUAL, freed_memory_kept


class Library:
    """Fake C library that records the options set with ``mallopt``."""

    def __init__(self):
        self.told = {}

    def mallopt(self, name, value):
        self.told[name] = value
        return 1


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    return found


def test_allocator_options_are_restored_even_after_an_error(library):
    with pytest.raises(KeyError), freed_memory_kept():
        assert library.told == KEEPING
        raise KeyError
    assert library.told == USUAL


def test_other_systems_and_c_libraries_are_left_unchanged(library, monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    with freed_memory_kept():
        assert library.told == {}
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with freed_memory_kept():
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_installed_c_library_accepts_every_allocator_option():
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        pytest.skip("this C library has no mallopt")
    assert all(mallopt(name, value) == 1 for values in (KEEPING, USUAL) for name, value in values.items())
