# SPDX-License-Identifier: Apache-2.0
"""The gate: whether a candidate keeps what was asked, told from paired results sample by sample.

Never from a point estimate alone: a set that is too small to tell says so.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from septet.optimize.subject import Judged
from septet.score import Score, compare, to_target

Verdict = Literal["kept", "rejected", "undecided"]

_VERDICTS: dict[str, Verdict] = {"met": "kept", "missed": "rejected", "undecided": "undecided"}

BROKEN = 0.5
"""Where nothing is judged, outputs that agree less than this with FP32's are not rounded but broken."""


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A score beside FP32's on the same samples: `ratio` with its interval, and what that says of the ratio to
    `keep`; it is the `looks`-th that was held against samples of that part."""

    metric: str
    unit: str
    value: float
    reference: float
    ratio: float
    low: float
    high: float
    samples: int
    keep: float
    verdict: Verdict
    why: str
    looks: int = 1


def judge(score: Score, reference: Score, keep: float, judged: Judged, looks: int = 1) -> Judgement:
    """Hold `score` against `reference`, of the same samples, at the ratio `keep`; `looks` as in
    `septet.score.compare`."""
    against = compare(score, reference, keep, looks)
    verdict, why = _VERDICTS[against.verdict], against.why
    if judged == "speed":
        sane = against.ratio >= BROKEN
        verdict = "kept" if sane else "rejected"
        why = f"weights are noise: agreement is shown, not judged, {'and' if sane else 'but'} it is " + (
            "no accident" if sane else "that of a broken file"
        )
    return Judgement(
        score.metric,
        score.unit,
        score.value,
        reference.value,
        against.ratio,
        against.ratio_low,
        against.ratio_high,
        score.samples,
        keep,
        verdict,
        why,
        looks,
    )


def times_to_tell(found: Judgement) -> float:
    """About how many times as many samples an interval needs that leaves no doubt, if what was found is true.

    An interval's width falls with the root of the count. Half as many again are added, because ratio and width
    were themselves found on a set.
    """
    half = max(found.ratio - found.low, found.high - found.ratio)
    return 1.5 * (half / to_target(found.ratio, found.keep, half)) ** 2
