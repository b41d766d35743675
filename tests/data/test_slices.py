import numpy as np
import pytest

from teachback.data.slices import Slices


def lists(slices):
    return [one.tolist() for one in slices]


def test_slices_of_an_array_are_indexed_like_a_list():
    slices = Slices(np.arange(12).reshape(6, 2), [1, 3, 2])
    assert len(slices) == 3 and slices[1].tolist() == [[2, 3], [4, 5], [6, 7]]
    assert lists(slices[0:2]) == lists(slices)[:2] and slices[-1].tolist() == [[8, 9], [10, 11]]
    with pytest.raises(IndexError):
        slices[3]


def test_lists_of_ids_take_four_bytes_per_id():
    slices = Slices.of_lists([[5, 6, 7], [], [8]])
    assert lists(slices) == [[5, 6, 7], [], [8]] and slices.flat.nbytes == 16 and slices[0].dtype == np.int32


def test_chosen_slices_share_the_memory_of_their_array():
    slices = Slices.of_lists([[1], [2, 3], [4, 5, 6]])
    chosen = slices.chosen([2, 0, 2])
    assert lists(chosen) == [[4, 5, 6], [1], [4, 5, 6]] and np.shares_memory(chosen[0], slices.flat)
    assert lists(chosen.chosen([1])) == [[1]] and lists(slices.chosen([])) == []


def test_joined_concatenates_several_slices():
    parts = [Slices.of_lists(one) for one in ([[1, 2], [3]], [], [[4]])]
    joined = Slices.joined(parts)
    assert lists(joined) == [[1, 2], [3], [4]] and joined.flat.dtype == np.int32


def test_slices_of_a_memory_mapped_file_are_not_copied(tmp_path):
    np.save(tmp_path / "flat.npy", np.arange(6, dtype=np.int32))
    mapped = np.load(tmp_path / "flat.npy", mmap_mode="r")
    slices = Slices(mapped, [4, 2])
    assert slices[1].tolist() == [4, 5] and np.shares_memory(slices[1], mapped)
