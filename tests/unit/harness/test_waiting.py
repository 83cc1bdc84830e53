# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from septet.harness.waiting import SLACK, Waiting


def drained(waiting: Waiting, most: int) -> list[list[int]]:
    """The indices of one batch after the other, until nobody waits."""
    found = []
    while waiting:
        ids, indices = waiting.take(most)
        assert ids == [index + 1_000 for index in indices]
        found.append(indices)
    return found


def add(waiting: Waiting, lengths: list[int], first: int = 0) -> None:
    indices = list(range(first, first + len(lengths)))
    waiting.add([index + 1_000 for index in indices], indices, np.array(lengths))


def test_without_lengths_it_is_a_plain_queue() -> None:
    waiting = Waiting()
    waiting.add([1_000, 1_001, 1_002], [0, 1, 2])
    waiting.add([1_003], [3])
    assert len(waiting) == 4
    assert drained(waiting, 3) == [[0, 1, 2], [3]]
    assert len(waiting) == 0


def test_a_query_of_many_is_taken_longest_first_and_like_with_like() -> None:
    waiting = Waiting()
    add(waiting, [64, 384, 128, 64, 384, 376, 128])
    assert drained(waiting, 2) == [[1, 4], [5], [2, 6], [0, 3]]


def test_whoever_came_first_goes_first_with_those_nearest_in_length() -> None:
    waiting = Waiting()
    for place, length in enumerate([160, 384, 152, 168, 384, 200]):
        add(waiting, [length], place)
    assert drained(waiting, 3) == [[0, 2, 3], [1, 4], [5]]


def test_a_lonely_length_is_taken_however_many_of_another_keep_coming() -> None:
    waiting = Waiting()
    for place, length in enumerate([100, 384, 100]):
        add(waiting, [length], place)
    assert waiting.take(8)[1] == [0, 2]
    for place in range(3, 60):
        add(waiting, [100], place)
    assert waiting.take(8)[1] == [1]


@given(st.lists(st.integers(1, 48).map(lambda eighth: 8 * eighth), min_size=1, max_size=80), st.integers(1, 9))
def test_all_are_taken_once_in_batches_of_like_length_and_nobody_starves(lengths: list[int], most: int) -> None:
    waiting = Waiting()
    for place, length in enumerate(lengths):
        add(waiting, [length], place)
    batches = drained(waiting, most)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for turn, batch in enumerate(batches):
        taken = [lengths[index] for index in batch]
        assert len(batch) <= most
        assert max(taken) <= (1 + SLACK) * min(taken)
        assert all(turn <= index for index in batch)  # no more batches before it than samples
