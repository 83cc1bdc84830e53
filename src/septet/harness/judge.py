# SPDX-License-Identifier: Apache-2.0
"""Judge a score against FP32: met, missed, or not to be told from so few samples."""

from __future__ import annotations

from typing import Literal

from septet.harness.result import Accuracy
from septet.harness.rules import NetworkRules
from septet.score import Score, compare


def judge_paired(score: Score, reference: Score, ratio: float) -> Accuracy:
    """Against the FP32 reference run on the same samples, pair by pair."""
    against = compare(score, reference, ratio)
    return _accuracy(
        score,
        reference.value,
        against.ratio,
        against.ratio_low,
        against.ratio_high,
        ratio,
        against.verdict,
        against.why,
    )


def judge_itself(score: Score, ratio: float) -> Accuracy:
    """The FP32 reference against itself: nothing can be lost."""
    return _accuracy(score, score.value, 1.0, 1.0, 1.0, ratio, "met", "this run is the FP32 reference itself")


def judge_published(score: Score, rules: NetworkRules, whole: bool, ratio: float) -> Accuracy:
    """Against v0.7's published FP32 score.

    Over the `whole` data set the rule is a plain comparison; over a part of it only an interval can tell.
    """
    reference = rules.reference
    value, low, high = (figure / reference for figure in (score.value, score.low, score.high))
    if whole:
        verdict: Literal["met", "missed", "undecided"] = "met" if value >= ratio else "missed"
        why = "the whole data set, judged as v0.7 does"
    elif low >= ratio:
        verdict, why = "met", "the whole interval is above the target"
    elif high < ratio:
        verdict, why = "missed", "the whole interval is below the target"
    else:
        verdict, why = "undecided", f"a part of the data set, {score.samples:,} scored, is too little to tell"
    return _accuracy(score, reference, value, low, high, ratio, verdict, why)


def _accuracy(
    score: Score,
    reference: float,
    ratio: float,
    low: float,
    high: float,
    target: float,
    verdict: Literal["met", "missed", "undecided"],
    why: str,
) -> Accuracy:
    return Accuracy(
        metric=score.metric,
        unit=score.unit,
        value=score.value,
        low=score.low,
        high=score.high,
        reference=reference,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        target=target,
        verdict=verdict,
        why=why,
        samples=score.samples,
        beside=dict(score.beside),
    )
