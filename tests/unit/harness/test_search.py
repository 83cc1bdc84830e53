# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from septet.harness.search import highest


@given(edge=st.floats(1.0, 1e5), start=st.floats(0.5, 2e5), tolerance=st.floats(0.005, 0.2))
def test_it_finds_the_edge_within_tolerance(edge: float, start: float, tolerance: float) -> None:
    found = highest(lambda rate: rate <= edge, start, tolerance=tolerance, floor=0.5)
    assert found is not None
    assert found <= edge <= found * (1 + tolerance)


@given(edge=st.integers(1, 5_000), start=st.floats(0.1, 1e4))
def test_whole_rates_are_exact_where_no_tolerance_is_given(edge: int, start: float) -> None:
    tried: list[float] = []

    def valid(rate: float) -> bool:
        tried.append(rate)
        return rate <= edge

    assert highest(valid, start, tolerance=0.0, floor=1.0, whole=True) == edge
    assert all(rate == int(rate) for rate in tried)
    assert len(tried) < 60


@given(start=st.floats(0.1, 1e4))
def test_nothing_valid_is_none_after_trying_the_floor(start: float) -> None:
    tried: list[float] = []

    def never(rate: float) -> bool:
        tried.append(rate)
        return False

    assert highest(never, start, tolerance=0.05, floor=1.0) is None
    assert tried[-1] == 1.0


@given(edge=st.floats(1.0, 1e5), start=st.floats(1.0, 1e5))
def test_no_rate_is_tried_twice(edge: float, start: float) -> None:
    tried: list[float] = []

    def valid(rate: float) -> bool:
        tried.append(rate)
        return rate <= edge

    highest(valid, start, tolerance=0.01, floor=0.5)
    assert len(tried) == len(set(tried))
