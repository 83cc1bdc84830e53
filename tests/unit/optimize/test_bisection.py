# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from septet.optimize.bisection import fewest


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n + 1))))
def test_the_fewest_that_hold_are_found_with_few_questions(numbers: tuple[int, int]) -> None:
    count, threshold = numbers
    asked: list[int] = []

    def holds(number: int) -> bool:
        asked.append(number)
        return number >= threshold

    assert fewest(count, holds) == (threshold if threshold <= count else None)
    assert len(asked) == len(set(asked)) <= 2 * count.bit_length() + 1
    assert all(1 <= number <= count for number in asked)
