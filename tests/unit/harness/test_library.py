# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from septet.engines.engine import LoadEngine
from septet.harness.library import Library
from septet.score import Score
from septet.tensor import Tensors
from septet.workloads.predictor import Predictor
from septet.workloads.workload import Asked, Size, Workload


class Rows(Workload):
    """Sample i is the vector [i, i + 1], or of i % 3 + 1 elements where `ragged`."""

    def __init__(self, ragged: bool = False) -> None:
        self.ragged = ragged

    @classmethod
    def open(cls, size: Size, asked: Asked) -> Workload:
        raise NotImplementedError

    def __len__(self) -> int:
        return 20

    def sample(self, index: int) -> Tensors:
        return {"x": np.arange(index, index + (index % 3 + 1 if self.ragged else 2))}

    def predictor(self, load: LoadEngine) -> Predictor:
        raise NotImplementedError

    @property
    def scored(self) -> bool:
        return False

    def score(self, responses: Mapping[int, bytes]) -> Score:
        raise NotImplementedError


class Measured(Rows):
    """Ragged rows, each as long as it has elements."""

    def length(self, sample: Tensors) -> int:
        return len(sample["x"])


class Joined(Rows):
    """Rows that a batch holds one after the other."""

    def collate(self, samples: Sequence[Tensors]) -> Tensors:
        return {"x": np.concatenate([sample["x"] for sample in samples])}


def test_a_batch_is_the_samples_in_the_order_asked() -> None:
    library = Library(Rows())
    library.load([3, 7, 11])
    assert library.gather([11, 3, 3])["x"].tolist() == [[11, 12], [3, 4], [3, 4]]


def test_one_sample_is_a_view_and_copies_nothing() -> None:
    library = Library(Rows())
    library.load([3, 7])
    one, other = library.gather([7])["x"], library.gather([7])["x"]
    assert one.shape == (1, 2)
    assert np.shares_memory(one, other)


def test_samples_of_unlike_shape_are_joined_by_the_workload() -> None:
    library = Library(Joined(ragged=True))
    library.load([1, 2])
    assert library.gather([2, 1])["x"].tolist() == [2, 3, 4, 1, 2]


def test_a_sample_that_is_not_loaded_is_named() -> None:
    library = Library(Rows())
    library.load([3])
    with pytest.raises(KeyError, match="sample 4"):
        library.gather([3, 4])
    library.unload()
    with pytest.raises(KeyError, match="sample 3"):
        library.gather([3])


def test_loading_replaces_and_tells_how_far_it_is() -> None:
    library = Library(Rows())
    told: list[int] = []
    library.load([1, 2])
    library.load([5, 6, 7], told.append)
    assert told == [1, 2, 3]
    with pytest.raises(KeyError, match="sample 1"):
        library.gather([1])


def test_a_workload_that_joins_in_its_own_way_does_so_for_samples_of_one_shape_too() -> None:
    library = Library(Joined())
    library.load([3, 7])
    assert library.gather([7, 3])["x"].tolist() == [7, 8, 3, 4]


def test_samples_are_known_by_their_length_where_it_differs() -> None:
    library = Library(Measured(ragged=True))
    library.load([5, 0, 7, 3])
    lengths = library.lengths([3, 5, 7])
    assert lengths is not None
    assert lengths.tolist() == [1, 3, 2]
    assert library.by_length() == [0, 3, 7, 5]
    kinds = library.of_each_length()
    assert [index % 3 + 1 for index in kinds] == [3, 2, 1]
    library.load([0, 3])
    assert library.lengths([0]) is None
    assert library.of_each_length() == [3]
    assert library.by_length() == [0, 3]


def test_samples_that_are_loaded_side_by_side_keep_their_order() -> None:
    library, told = Library(Rows(ragged=True)), list[int]()
    library.load(range(20), told.append, threads=4)
    for index in range(20):
        assert library.gather([index])["x"].tolist() == [Rows(ragged=True).sample(index)["x"].tolist()]
    assert told == list(range(1, 21))
