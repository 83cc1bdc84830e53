# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from septet.optimize.gate import judge, times_to_tell
from septet.score import Score, mean, share


def right(count: int, wrong: int, seed: int = 0) -> Score:
    parts = np.ones(count)
    parts[np.random.default_rng(seed).permutation(count)[:wrong]] = 0
    return share("top-1", parts)


def test_fifty_samples_cannot_decide_a_thousandth() -> None:
    found = judge(right(50, 0), right(50, 0), 0.999, "accuracy")
    assert found.verdict == "undecided"
    assert "more samples" in found.why


def test_many_samples_decide() -> None:
    assert judge(right(20_000, 900), right(20_000, 900), 0.999, "accuracy").verdict == "kept"
    assert judge(right(5_000, 600), right(5_000, 300), 0.99, "accuracy").verdict == "rejected"


def test_a_later_look_must_be_surer() -> None:
    first, fourth = (judge(right(3_000, 33), right(3_000, 30), 0.99, "accuracy", looks) for looks in (1, 4))
    assert fourth.low < first.low < first.ratio < first.high < fourth.high


@pytest.mark.parametrize("share_lost", [0.002, 0.006])
def test_so_many_samples_as_are_said_to_tell_do_tell(share_lost: float) -> None:
    decided = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)

        def scores(count: int, draw: np.random.Generator = draw) -> tuple[Score, Score]:
            y = (draw.random(count) < 0.9).astype(float)
            return share("t", np.where(draw.random(count) < share_lost, 0.0, y)), share("t", y)

        small = judge(*scores(300), 0.99, "accuracy")
        decided += (
            judge(*scores(int(300 * max(1.0, times_to_tell(small)))), 0.99, "accuracy").verdict != "undecided"
        )
    assert decided > 10


def test_noise_is_shown_and_not_judged() -> None:
    same = mean("agreement of outputs", "%", np.full(4, 1.0), scale=100, graded=True)
    far, broken = (
        mean("agreement of outputs", "%", np.full(4, part), scale=100, graded=True) for part in (0.9, 0.1)
    )
    kept, rejected = (judge(score, same, 0.999, "speed") for score in (far, broken))
    assert (kept.verdict, rejected.verdict) == ("kept", "rejected")
    assert "not judged" in kept.why
