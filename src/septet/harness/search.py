# SPDX-License-Identifier: Apache-2.0
"""Find the highest rate that is still valid: bracketing, then bisection."""

from __future__ import annotations

from collections.abc import Callable

GROWTH = 1.45
"""By how much the rate is raised or lowered until one valid and one invalid rate are known.

A quick run halves that, in logarithms, until 1.05 is left: three steps of 1.45, where 1.5 would take four.
"""


def highest(
    valid: Callable[[float], bool], start: float, *, tolerance: float, floor: float, whole: bool = False
) -> float | None:
    """The highest rate for which `valid` holds, to within `tolerance` (a fraction), tried from `start` on.

    `valid` is taken to hold up to some rate and to fail above it. None where it fails even at `floor`.
    With `whole`, rates are whole numbers.
    """
    tidy: Callable[[float], float] = (lambda rate: float(round(rate))) if whole else (lambda rate: rate)
    step = 1.0 if whole else 0.0
    low, high = _bracket(valid, tidy(max(start, floor)), floor, tidy, step)
    if low is None:
        return None
    while high > low * (1 + tolerance) and high - low > step:
        middle = tidy((low * high) ** 0.5)
        if whole:
            middle = min(max(middle, low + step), high - step)
        if valid(middle):
            low = middle
        else:
            high = middle
    return low


def _bracket(
    valid: Callable[[float], bool],
    rate: float,
    floor: float,
    tidy: Callable[[float], float],
    step: float,
) -> tuple[float | None, float]:
    """A valid rate and an invalid one above it; the first is None where even `floor` is invalid."""
    if valid(rate):
        while valid(above := tidy(max(rate * GROWTH, rate + step))):
            rate = above
        return rate, above
    while rate > floor:
        below = max(tidy(min(rate / GROWTH, rate - step)), floor)
        if valid(below):
            return below, rate
        rate = below
    return None, rate
