# SPDX-License-Identifier: Apache-2.0
"""Only a model whose batches have been short, again and again, is run on a thread that has other work."""

from hypothesis import given
from hypothesis import strategies as st

from septet.serving.brevity import FIRST, PER_SHORT, SHORT, Brevity


def brief(*batches: int) -> bool:
    judged = Brevity()
    for ns in batches:
        judged.saw(ns)
    return bool(judged)


def test_nobody_is_trusted_at_first() -> None:
    assert not brief()
    assert not brief(*[SHORT] * (FIRST - 1))
    assert brief(*[SHORT] * FIRST)


def test_a_long_batch_is_paid_for_by_its_length() -> None:
    short = [SHORT] * FIRST
    for times in (2, 50):
        assert not brief(*short, times * SHORT, *[1] * (times * PER_SHORT - 1))
        assert brief(*short, times * SHORT, *[1] * (times * PER_SHORT))


@given(st.lists(st.integers(1, 100 * SHORT), max_size=300))
def test_the_others_are_held_up_by_little_whatever_the_model_does(batches: list[int]) -> None:
    judged, held, seen = Brevity(), 0, 0
    for ns in batches:
        held += ns - SHORT if judged and ns > SHORT else 0
        seen += 1
        judged.saw(ns)
    longest = max(batches, default=0)
    assert held <= SHORT // PER_SHORT * seen + longest
