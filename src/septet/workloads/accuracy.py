# SPDX-License-Identifier: Apache-2.0
"""Intervals, and the comparison of a score with its FP32 reference. All intervals are of 95 % confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from septet.tensor import Array
from septet.workloads.workload import Score

Z = 1.959964
"""The standard normal's 97.5th percentile."""

Verdict = Literal["met", "missed", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """The ratio of two scores over the same samples, its interval, and what that says of a target."""

    ratio: float
    ratio_low: float
    ratio_high: float
    verdict: Verdict
    why: str


def wilson(right: int, count: int) -> tuple[float, float]:
    """The interval of a share, 0…1, of which `right` of `count` were seen.

    Wilson, «Probable inference, the law of succession, and statistical inference», JASA 22 (1927).
    """
    if count == 0:
        return 0.0, 1.0
    share, spread = right / count, Z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    # the bounds hold the share itself, whatever rounding does at its ends
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def share(metric: str, right: Array) -> Score:
    """The score in % of samples that are each right (1) or wrong (0), with Wilson's interval."""
    low, high = wilson(int(right.sum()), len(right))
    return Score(metric, "%", 100 * float(right.mean()), 100 * low, 100 * high, right)


def compare(score: Score, reference: Score, target: float) -> Comparison:
    """Hold `score` against `reference`, sample by sample, at the ratio `target`.

    The ratio of the means r = Σx ÷ Σy has, by the delta method (Cochran, «Sampling Techniques», 3rd ed., §6.3),
    the variance Σ(x − r·y)² ÷ (Σy)². To the pairs seen, one that was lost and one that was gained are
    added, as Agresti and Min do for paired shares («Statistics in Medicine» 24, 2005): without them a set
    on which no sample differs would seem to prove that none ever does.
    """
    x, y = score.per_sample, reference.per_sample
    if len(x) != len(y):
        raise ValueError(f"{len(x)} samples cannot be paired with {len(y)}")
    total = float(y.sum())
    if total <= 0:
        return Comparison(math.nan, 0.0, math.inf, "undecided", "the reference itself scores nothing")
    ratio = float(x.sum()) / total
    low, high = _interval(np.append(x, (0.0, 1.0)), np.append(y, (1.0, 0.0)))
    low, high = min(low, ratio), max(high, ratio)
    return Comparison(ratio, low, high, *_verdict(low, high, ratio, target, len(x)))


def _interval(x: np.typing.NDArray[np.float64], y: np.typing.NDArray[np.float64]) -> tuple[float, float]:
    total = float(y.sum())
    ratio = float(x.sum()) / total
    half = Z * math.sqrt(float(((x - ratio * y) ** 2).sum())) / total
    return ratio - half, ratio + half


def _verdict(low: float, high: float, ratio: float, target: float, count: int) -> tuple[Verdict, str]:
    if low >= target:
        return "met", f"the whole interval is at or above {100 * target:g} % of FP32"
    if high < target:
        return "missed", f"the whole interval is below {100 * target:g} % of FP32"
    return "undecided", f"needs about {_more(low, high, ratio, target, count):,} more samples to tell"


def _more(low: float, high: float, ratio: float, target: float, count: int) -> int:
    """How many samples more would shrink the interval to the distance between `ratio` and `target`.

    An interval's width falls with the root of the count. Where the ratio lies on the target itself, the
    distance is taken to be a tenth of what may be lost.
    """
    distance = max(abs(ratio - target), 0.1 * (1 - target))
    half = max(ratio - low, high - ratio)
    return max(1, math.ceil(count * ((half / distance) ** 2 - 1)))
