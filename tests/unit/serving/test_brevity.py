# SPDX-License-Identifier: Apache-2.0
"""Only a model whose batches have been short, again and again, is run on a thread that has other work."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from septet.model_config.text import parse
from septet.request import Request
from septet.serving.brevity import FIRST, PER_SHORT, SHORT, Brevity
from septet.serving.echo import echo_engine
from septet.serving.executor import EngineExecutor
from septet.serving.gather import Gather
from septet.serving.pending import Pending
from septet.serving.signature import Signature
from septet.serving.statistics import Statistics
from serving_made import until


def brief(*batches: int) -> bool:
    judged = Brevity()
    for ns in batches:
        judged.saw(ns, 1)
    assert judged.admits(1) == bool(judged)
    return bool(judged)


def test_nobody_is_trusted_at_first() -> None:
    assert not brief()
    assert not brief(*[SHORT] * (FIRST - 1))
    assert brief(*[SHORT] * FIRST)


def test_a_long_batch_is_paid_for_by_its_length() -> None:
    short = [SHORT] * FIRST
    for times in (2, 50):
        assert not brief(*short, times * SHORT, *[1] * (times * PER_SHORT - 1))
        assert brief(*short, times * SHORT, *[1] * (times * PER_SHORT))


def test_short_batches_say_nothing_of_larger_ones() -> None:
    judged = Brevity()
    for _ in range(FIRST):
        judged.saw(SHORT, 64)
    assert judged.admits(64)
    assert not judged.admits(65)
    judged.saw(10_000 * SHORT, 1_000_000)  # it was run where it held up nobody
    assert judged.admits(64)
    judged.saw(SHORT, 640)
    assert judged.admits(640)


@given(st.lists(st.integers(1, 100 * SHORT), max_size=300))
def test_the_others_are_held_up_by_little_whatever_the_model_does(batches: list[int]) -> None:
    judged, held, seen = Brevity(), 0, 0
    for ns in batches:
        held += ns - SHORT if judged and ns > SHORT else 0
        seen += 1
        judged.saw(ns, 1)
    longest = max(batches, default=0)
    assert held <= SHORT // PER_SHORT * seen + longest


def test_an_input_that_is_suddenly_large_is_left_to_the_models_own_thread() -> None:
    config = parse(
        """name: "m" backend: "null"
        input { name: "x" data_type: TYPE_FP32 dims: -1 } output { name: "y" data_type: TYPE_FP32 dims: -1 }"""
    )
    executor = EngineExecutor(echo_engine(config), Gather(config, Signature(config)))

    def batch(count: int) -> list[Pending]:
        return [Pending(Request("m", {"x": np.zeros(count, np.float32)}), lambda response: None, "1", 1)]

    def run() -> bool:
        executor.execute(batch(16), Statistics())
        return executor.brief

    until(run)
    assert executor.is_brief(batch(16))
    assert not executor.is_brief(batch(1_000_000))
