# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from septet.optimize.agreement import agreement
from septet.optimize.gate import judge
from septet.tensor import Array, Tensors


def outputs(*arrays: Array) -> list[Tensors]:
    return [{"y": array} for array in arrays]


def test_a_classifier_agrees_where_its_class_is_the_same() -> None:
    want = outputs(np.array([0.0, 2.0, 1.0]), np.array([3.0, 2.0, 1.0]))
    have = outputs(np.array([0.1, 2.1, 0.9]), np.array([2.0, 2.1, 1.0]))
    assert agreement(have, want, "y").per_sample.tolist() == [1, 0]


@pytest.mark.parametrize("have", [[np.nan] * 3, [np.inf, 0, 0], [30.0, 1, 2], [3.0, 9, -9]])
def test_what_is_wholly_different_does_not_agree_though_its_class_be_the_same(have: list[float]) -> None:
    want = outputs(np.array([3.0, 1.0, 2.0]))
    assert agreement(outputs(np.array(have)), want, "y").value == 0


@pytest.mark.parametrize(("dtype", "verdict"), [(np.int64, "undecided"), (np.float32, "kept")])
def test_whole_numbers_jump_and_few_samples_cannot_decide(dtype: type, verdict: str) -> None:
    answers = outputs(*np.arange(20).reshape(20, 1).astype(dtype))
    score = agreement(answers, answers, None)
    assert judge(score, score, 0.999, "agreement").verdict == verdict
