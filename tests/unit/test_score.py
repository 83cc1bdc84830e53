# SPDX-License-Identifier: Apache-2.0
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.score import Score, _z, compare, jackknife, mean, ratio, wilson
from septet.tensor import Array


def score(per_sample: Array) -> Score:
    value = 100 * float(np.mean(per_sample))
    return Score("top-1", "%", value, value, value, np.asarray(per_sample, float))


def test_more_errors_than_words_stay_within_their_interval() -> None:
    found = ratio("100 − WER", "%", np.array([-3.0, -1.0, 0.0, -2.0]), np.full(4, 2.0), scale=100.0)
    assert found.low < found.value == -75 < found.high


def test_wilson_is_the_published_interval() -> None:
    # Wilson's interval of 81 of 263, as tabulated by Newcombe, Statistics in Medicine 17 (1998), table I
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(counts: tuple[int, int]) -> None:
    right, count = counts
    low, high = wilson(right, count)
    assert 0 <= low <= right / count <= high <= 1


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_wilson_covers_about_95_percent(share: float) -> None:
    draw = np.random.default_rng(1)
    seen = draw.binomial(500, share, 2_000)
    covered = np.mean([low <= share <= high for low, high in (wilson(int(n), 500) for n in seen)])
    assert 0.93 <= covered <= 0.975


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.01), (0.02, 0.005), (0.002, 0.001)])
def test_the_ratios_interval_covers_about_95_percent(lost: float, gained: float) -> None:
    draw = np.random.default_rng(2)
    share, count, covered = 0.85, 3_000, []
    true = (share * (1 - lost) + (1 - share) * gained) / share
    for _ in range(600):
        y = draw.random(count) < share
        x = np.where(y, draw.random(count) >= lost, draw.random(count) < gained)
        found = compare(score(x), score(y), 0.99)
        covered.append(found.ratio_low <= true <= found.ratio_high)
    assert 0.92 <= np.mean(covered) <= 0.995


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300), st.sampled_from([0.99, 0.999]))
def test_the_interval_holds_the_ratio_and_the_verdict_follows_it(
    pairs: list[tuple[bool, bool]], target: float
) -> None:
    x, y = np.array(pairs, float).T
    found = compare(score(x), score(y), target)
    if y.sum() == 0:
        assert found.verdict == "undecided"
        return
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert (found.verdict == "met") == (found.ratio_low >= target)
    assert (found.verdict == "missed") == (found.ratio_high < target)


def test_fifty_alike_samples_cannot_decide() -> None:
    alike = np.ones(50)
    for target in (0.99, 0.999):
        found = compare(score(alike), score(alike), target)
        assert found.verdict == "undecided"
        assert "more samples" in found.why


def test_a_clear_loss_is_missed_and_no_loss_on_many_is_met() -> None:
    y = np.ones(5_000)
    assert compare(score(y), score(y), 0.99).verdict == "met"
    x = y.copy()
    x[:250] = 0
    assert compare(score(x), score(y), 0.99).verdict == "missed"


def test_about_as_many_samples_as_it_says_are_enough() -> None:
    draw = np.random.default_rng(4)
    y = (draw.random(1_000_000) < 0.9).astype(float)
    x = np.where(draw.random(len(y)) < 0.008, 1 - y, y)
    small = compare(score(x[:400]), score(y[:400]), 0.99)
    assert small.verdict == "undecided"
    more = int(small.why.split("about ")[1].split(" more")[0].replace(",", ""))
    assert compare(score(x[: 400 + 3 * more]), score(y[: 400 + 3 * more]), 0.99).verdict != "undecided"


def test_where_no_sample_differs_as_many_are_enough_as_it_says() -> None:
    found = compare(score(np.ones(20)), score(np.ones(20)), 0.999)
    more = int(found.why.split("about ")[1].split(" more")[0].replace(",", ""))
    alike = np.ones(20 + more + 2)  # the two that are added count, too
    assert compare(score(alike), score(alike), 0.999).verdict == "met"
    assert more < 3_000


def test_scores_of_other_samples_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 samples cannot be paired with 4"):
        compare(score(np.ones(3)), score(np.ones(4)), 0.99)


def test_a_mean_and_a_ratio_of_sums() -> None:
    parts = np.array([0.0, 1.0, 0.5, 0.5])
    score = mean("F1", "%", parts, scale=100.0)
    assert score.value == 50.0
    assert score.low < 50.0 < score.high
    words = np.array([10.0, 30.0])
    right = ratio("100 − WER", "%", np.array([5.0, 30.0]), words, scale=100.0)
    assert right.value == pytest.approx(87.5)
    assert right.per_sample.mean() == pytest.approx(0.875)


def test_the_jackknife_of_a_mean_is_the_mean() -> None:
    parts = np.random.default_rng(0).random(50)
    without = (parts.sum() - parts) / 49
    score = jackknife("m", "", float(parts.mean()), without)
    np.testing.assert_allclose(score.per_sample, parts)
    plain = mean("m", "", parts)
    assert score.high == pytest.approx(plain.high, rel=0.02)


def test_graded_scores_that_barely_differ_are_told_apart_from_few_samples() -> None:
    draw = np.random.default_rng(0)
    reference = draw.uniform(0.7, 0.9, 60)
    score = mean("Dice", "", reference * 0.9995, graded=True)
    assert compare(score, mean("Dice", "", reference, graded=True), 0.999).verdict == "met"
    jumpy = mean("Dice", "", reference * 0.9995)
    assert compare(jumpy, mean("Dice", "", reference), 0.999).verdict == "undecided"


def test_who_looks_again_must_be_surer() -> None:
    draw = np.random.default_rng(4)
    x, y = (draw.random((2, 2_000)) < 0.9).astype(float)
    looks = [compare(score(x), score(y), 0.99, looks) for looks in (1, 2, 5)]
    widths = [found.ratio_high - found.ratio_low for found in looks]
    assert widths[0] < widths[1] < widths[2]
    # the normal's 99.875th percentile over its 97.5th
    assert widths[2] / widths[0] == pytest.approx(3.023341 / 1.959964, rel=1e-5)


def test_however_often_one_looks_what_misses_is_passed_once_in_twenty_at_most() -> None:
    passed = sum(1 - NormalDist().cdf(_z(looks)) for looks in range(1, 1_000))
    assert 0.04 < passed < 0.05


def test_where_the_ratio_is_almost_the_target_many_more_samples_are_asked() -> None:
    reference = np.random.default_rng(0).uniform(0.7, 0.9, 2_000)
    near = np.where(np.arange(2_000) % 2, reference * 0.9898, reference * 0.9901)
    found = compare(mean("Dice", "", near, graded=True), mean("Dice", "", reference, graded=True), 0.98995)
    assert found.verdict == "undecided"
    assert int(found.why.split("about ")[1].split(" more")[0].replace(",", "")) >= 2_000
