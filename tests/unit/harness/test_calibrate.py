# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping

import numpy as np
import pytest

from septet.harness.calibrate import Batches, calibrate
from septet.harness.library import Library
from septet.tensor import Tensors
from septet.workloads.null import NullWorkload


class Ragged(NullWorkload):
    """Sample i is as long as i."""

    def length(self, sample: Tensors) -> int:
        return int(sample["x"][0])


def library(kind: type[NullWorkload], count: int = 64) -> Library:
    made = Library(kind("mini"))
    made.load(range(count))
    return made


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_batches_are_of_like_length_and_their_lengths_are_spread_as_all_are(batch: int) -> None:
    batches = Batches(library(Ragged))
    drawn = [batches.next(batch) for _ in range(40)]
    assert all(len(indices) == batch for indices in drawn)
    assert all(max(indices) - min(indices) < 4 for indices in drawn)
    means = [np.mean(indices) for indices in drawn]
    assert np.mean(means) == pytest.approx(31.5, abs=2)
    assert np.mean(means[:4]) == pytest.approx(31.5, abs=8)  # few are enough
    assert min(means) < 5
    assert max(means) > 58


def test_each_size_goes_through_the_same_lengths() -> None:
    batches = Batches(library(Ragged))
    singles = [batches.next(1)[0] for _ in range(10)]
    fours = [batches.next(4) for _ in range(10)]
    assert all(single // 4 == four[0] // 4 for single, four in zip(singles, fours, strict=True))


def test_samples_of_one_length_take_turns() -> None:
    batches = Batches(library(NullWorkload))
    drawn = [batches.next(16) for _ in range(30)]
    assert {index for indices in drawn for index in indices} == set(range(64))
    assert all(len(set(indices)) == 16 for indices in drawn)


def test_calls_are_warm_before_they_are_timed() -> None:
    seen: list[tuple[str, int]] = []
    found = calibrate(lambda b: seen.append(("warm", b)), lambda b: seen.append(("call", b)), 1, largest=2)
    seconds: Mapping[int, float] = found.seconds
    assert set(seconds) == {1, 2}
    assert [what for what, batch in seen if batch == 2][:2] == ["warm", "call"]
    assert sum(what == "warm" for what, _ in seen) == 2
