# SPDX-License-Identifier: Apache-2.0
"""Score: a metric over a set of samples with its interval, and its comparison with a reference.

All intervals are of 95 % confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np

from septet.tensor import Array

Z = 1.959964
"""The standard normal's 97.5th percentile."""

Verdict = Literal["met", "missed", "undecided"]


@dataclass(frozen=True)
class Score:
    """A metric over a set of samples.

    `value`, `low` and `high` are in `unit`; `low` and `high` bound a 95 % confidence interval.
    `per_sample` is float64[samples], the metric's part of each sample in the order of the data set, so
    that two scores over the same samples can be compared pair by pair: their mean is proportional to
    `value`, and 1 is about what a sample wholly right adds. `graded` says that a small change of outputs
    changes parts a little; otherwise a sample's part stays or jumps, as right and wrong do. `beside` holds
    further figures, in the same unit, that are shown and not judged.
    """

    metric: str
    unit: str
    value: float
    low: float
    high: float
    per_sample: Array = field(repr=False)
    graded: bool = False
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return len(self.per_sample)


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


def mean(metric: str, unit: str, parts: Array, *, scale: float = 1.0, graded: bool = False) -> Score:
    """The mean of `parts`, each 0…1, times `scale`, with the normal interval of a mean."""
    return ratio(metric, unit, parts, np.ones(len(parts)), scale=scale, graded=graded)


def ratio(
    metric: str, unit: str, parts: Array, wholes: Array, *, scale: float = 1.0, graded: bool = False
) -> Score:
    """Σ `parts` ÷ Σ `wholes` times `scale`, such as right words of words, with the interval of a ratio."""
    low, high = _interval(parts, wholes)
    value = float(parts.sum() / wholes.sum())
    # more errors than words make a value below 0, which its interval holds
    low, high = low if value < 0 else max(low, 0.0), min(high, 1.0)
    return Score(
        metric, unit, scale * value, scale * low, scale * high, parts / float(wholes.mean()), graded=graded
    )


def jackknife(metric: str, unit: str, value: float, without: Array, *, scale: float = 1.0) -> Score:
    """A `value`, 0…1, that is no mean, times `scale`; `without` holds what it is when each sample is left out.

    A sample's part is its pseudo-value (Tukey, «Bias and confidence in not quite large samples», 1958),
    shifted so that the mean of all is `value` itself.
    """
    count = len(without)
    parts = value + (count - 1) * (float(np.mean(without)) - without)
    half = Z * float(np.std(parts, ddof=1)) / math.sqrt(count)
    low, high = max(value - half, 0.0), min(value + half, 1.0)
    return Score(metric, unit, scale * value, scale * low, scale * high, parts, graded=True)


def compare(score: Score, reference: Score, target: float, looks: int = 1) -> Comparison:
    """Hold `score` against `reference`, sample by sample, at the ratio `target`.

    Where it is the k-th that is held against the same samples, one after the other until one is good enough, and
    not the first, the interval is of 1 − 0.05 ÷ (k² − k) confidence: who looks more often is more often fooled.
    However many are looked at, one that misses the target is passed with a chance of 5 % at most, half of it at
    the first look (Bonferroni's inequality over one side; the shares 1 ÷ (k² − k) make one).

    The ratio of the means r = Σx ÷ Σy has, by the delta method (Cochran, «Sampling Techniques», 3rd ed., §6.3),
    the variance Σ(x − r·y)² ÷ (Σy)². To the pairs seen, one that was lost and one that was gained are
    added, as Agresti and Min do for paired shares («Statistics in Medicine» 24, 2005): without them a set
    on which no sample differs would seem to prove that none ever does. Graded scores differ a little on
    every sample, and need no such addition.
    """
    x, y = score.per_sample, reference.per_sample
    if len(x) != len(y):
        raise ValueError(f"{len(x)} samples cannot be paired with {len(y)}")
    total = float(y.sum())
    if total <= 0:
        return Comparison(0.0, 0.0, 0.0, "undecided", "the reference itself scores nothing")
    seen = float(x.sum()) / total
    more = _more(x, y, target, _z(looks), 0.0 if score.graded else 2.0)
    if not score.graded:
        x, y = np.append(x, (0.0, 1.0)), np.append(y, (1.0, 0.0))
    low, high = _interval(x, y, _z(looks))
    low, high = min(low, seen), max(high, seen)
    return Comparison(seen, low, high, *_verdict(low, high, target, more))


def _z(looks: int) -> float:
    return Z if looks == 1 else NormalDist().inv_cdf(1 - 0.025 / (looks * (looks - 1)))


def _interval(x: Array, y: Array, z: float = Z) -> tuple[float, float]:
    total = float(y.sum())
    ratio = float(x.sum()) / total
    half = z * math.sqrt(float(((x - ratio * y) ** 2).sum())) / total
    return ratio - half, ratio + half


def to_target(ratio: float, target: float, half: float) -> float:
    """How far `ratio` is from `target`, for telling how many samples would decide: where it lies on the target, a
    tenth of what may be lost, or less where the interval, `half` as wide, is that narrow already."""
    return max(abs(ratio - target), min(0.1 * (1 - target), half / 2))


def _verdict(low: float, high: float, target: float, more: int) -> tuple[Verdict, str]:
    if low >= target:
        return "met", f"the whole interval is at or above {100 * target:g} % of FP32"
    if high < target:
        return "missed", f"the whole interval is below {100 * target:g} % of FP32"
    return "undecided", f"needs about {more:,} more samples to tell"


def _more(x: Array, y: Array, target: float, z: float, added: float) -> int:
    """How many samples more would shrink the interval to the distance between the ratio and `target`, if what was
    seen goes on: `added` squares come from pairs that are added once, all others grow with the samples.

    """
    count, total = len(x), float(y.sum())
    ratio = float(x.sum()) / total
    each = float(((x - ratio * y) ** 2).sum()) / count
    half = z * math.sqrt(each * count + added) / total
    distance = to_target(ratio, target, half)
    steep = (distance * total / count / z) ** 2  # steep · n² = each · n + added
    needed = (each + math.sqrt(each**2 + 4 * steep * added)) / (2 * steep)
    return max(1, math.ceil(needed) - count)
