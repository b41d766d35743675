"""Ragged arrays stored contiguously: token ids or token states by sequence."""

from collections.abc import Sequence
from itertools import chain

import numpy as np


class Slices(Sequence):
    """Sequence of arrays [n_i, ...], views of ``flat``, which may be memory-mapped.

    They lie one after another, or at ``starts``.
    """

    def __init__(self, flat: np.ndarray, lengths: Sequence[int] | np.ndarray, starts: np.ndarray | None = None):
        self.flat, self.lengths = np.asarray(flat), np.asarray(lengths, dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths if starts is None else starts

    @classmethod
    def of_lists(cls, lists: Sequence[Sequence[int]]) -> "Slices":
        """Pack lists of integers as int32."""
        return cls(np.fromiter(chain.from_iterable(lists), np.int32), [len(values) for values in lists])

    @classmethod
    def joined(cls, parts: "Sequence[Slices]") -> "Slices":
        """Concatenate several; the arrays of each must lie one after another."""
        return cls(np.concatenate([part.flat for part in parts]), np.concatenate([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self.starts[index]
        return self.flat[start : start + self.lengths[index]]

    def chosen(self, order: list[int]) -> "Slices":
        """Select arrays in the given order."""
        return Slices(self.flat, self.lengths[order], self.starts[order])
