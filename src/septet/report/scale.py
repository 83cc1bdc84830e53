# SPDX-License-Identifier: Apache-2.0
"""From numbers to places on a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A straight line from data `low`…`high` to places `begin`…`end`; it may run backwards."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Where `value` lies."""
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers, evenly spaced by 1, 2 or 5 times a power of ten, the first at or below `low`, the last at
    or above `high`, at most `most` + 1 of them."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def tail(percentile: float) -> float:
    """A percentile's place on an axis that gives each further nine the same room: 90 -> 1, 99 -> 2."""
    return -math.log10(1 - percentile / 100)


def precise(value: float, unit: str) -> str:
    """A score with its unit, in the five digits that count which v0.7 asks of accuracies."""
    return f"{value:#.5g} {unit}".rstrip()


def words(value: float) -> str:
    """A number for a person: three digits that count, thousands apart."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
