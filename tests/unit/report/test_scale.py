# SPDX-License-Identifier: Apache-2.0
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.report.scale import Scale, precise, tail, ticks, words

SIZES = st.floats(1e-6, 1e9)


@given(st.floats(-1e6, 1e6), SIZES, st.integers(3, 8))
def test_ticks_cover_the_data_in_even_round_steps(low: float, size: float, most: int) -> None:
    marks = ticks(low, low + size, most)
    assert 2 <= len(marks) <= most + 1
    steps = [after - before for before, after in pairwise(marks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)
    slack = 1e-6 * steps[0] + 1e-9 * abs(low)
    assert marks[0] <= low + slack
    assert marks[-1] >= low + size - slack


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_one_value_alone_has_ticks_too(value: float) -> None:
    marks = ticks(value, value)
    assert marks[0] <= value <= marks[-1]
    assert len(marks) >= 2


@given(SIZES, st.floats(0, 1))
def test_a_scale_keeps_to_its_places(high: float, share: float) -> None:
    scale = Scale(0, high, 300, 20)
    assert 20 - 1e-6 <= scale(share * high) <= 300 + 1e-6


def test_each_further_nine_has_the_same_room() -> None:
    assert [tail(percentile) for percentile in (90, 99, 99.9)] == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12_345.6, "12,346"),
        (0.412, "0.412"),
        (0.00769, "0.00769"),
        (53.64, "53.6"),
        (100, "100"),
        (9, "9"),
    ],
)
def test_numbers_for_a_person(value: float, text: str) -> None:
    assert words(value) == text


def test_accuracies_have_five_digits_that_count() -> None:
    assert precise(0.7123456, "") == "0.71235"
    assert precise(84.5, "%") == "84.500 %"
    assert precise(100, "%") == "100.00 %"
