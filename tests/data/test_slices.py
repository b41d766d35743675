import numpy as np
import pytest

from teachback.data.slices import Slices


def lists(slices):
    return [one.tolist() for one in slices]


def test_parts_of_an_array():
    slices = Slices(np.arange(12).reshape(6, 2), [1, 3, 2])
    assert len(slices) == 3 and slices[1].tolist() == [[2, 3], [4, 5], [6, 7]]
    assert lists(slices[0:2]) == lists(slices)[:2] and slices[-1].tolist() == [[8, 9], [10, 11]]
    with pytest.raises(IndexError):
        slices[3]


def test_lists_of_ids_take_four_bytes_each():
    slices = Slices.of_lists([[5, 6, 7], [], [8]])
    assert lists(slices) == [[5, 6, 7], [], [8]] and slices.flat.nbytes == 16 and slices[0].dtype == np.int32


def test_some_in_another_order_share_what_they_are_parts_of():
    slices = Slices.of_lists([[1], [2, 3], [4, 5, 6]])
    chosen = slices.chosen([2, 0, 2])
    assert lists(chosen) == [[4, 5, 6], [1], [4, 5, 6]] and np.shares_memory(chosen[0], slices.flat)
    assert lists(chosen.chosen([1])) == [[1]] and lists(slices.chosen([])) == []


def test_several_are_joined():
    parts = [Slices.of_lists(one) for one in ([[1, 2], [3]], [], [[4]])]
    joined = Slices.joined(parts)
    assert lists(joined) == [[1, 2], [3], [4]] and joined.flat.dtype == np.int32


def test_a_file_is_read_where_it_is_mapped(tmp_path):
    np.save(tmp_path / "flat.npy", np.arange(6, dtype=np.int32))
    mapped = np.load(tmp_path / "flat.npy", mmap_mode="r")
    slices = Slices(mapped, [4, 2])
    assert slices[1].tolist() == [4, 5] and np.shares_memory(slices[1], mapped)
