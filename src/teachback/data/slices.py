"""Arrays of different lengths that lie in one: token ids, or states of tokens, by sequence."""

from collections.abc import Sequence
from itertools import chain

import numpy as np


class Slices(Sequence):
    """Arrays [n_i, ...] that are parts of ``flat``, which may be a memory-mapped file; one after another, or at ``starts``.

    What is read is a view of ``flat``, never a copy.
    """

    def __init__(self, flat: np.ndarray, lengths: Sequence[int] | np.ndarray, starts: np.ndarray | None = None):
        self.flat, self.lengths = np.asarray(flat), np.asarray(lengths, dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths if starts is None else starts

    @classmethod
    def of_lists(cls, lists: Sequence[Sequence[int]]) -> "Slices":
        """Lists of integers as int32."""
        return cls(np.fromiter(chain.from_iterable(lists), np.int32), [len(one) for one in lists])

    @classmethod
    def joined(cls, parts: "Sequence[Slices]") -> "Slices":
        """The arrays of several, whose own lie one after another."""
        return cls(np.concatenate([part.flat for part in parts]), np.concatenate([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self.starts[index]
        return self.flat[start : start + self.lengths[index]]

    def chosen(self, order: list[int]) -> "Slices":
        """Some of the arrays, in the given order."""
        return Slices(self.flat, self.lengths[order], self.starts[order])
