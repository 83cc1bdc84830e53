# SPDX-License-Identifier: Apache-2.0
"""Slots that are lent to calls: which, and that nobody waits for ever."""

from __future__ import annotations

import threading

import pytest

from septet.engines.pool import Pool
from septet.errors import EngineClosed
from serving_made import until


def lent(pool: Pool[str]) -> str:
    with pool.slot() as slot:
        return slot


def test_each_slot_is_lent_once_and_then_the_one_that_was_used_last() -> None:
    pool = Pool("abc")
    assert [lent(pool) for _ in range(6)] == ["a", "b", "c", "c", "c", "c"]
    with pool.slot() as first, pool.slot() as second:
        assert (first, second) == ("c", "b")
    assert lent(pool) == "c"


def test_calls_beyond_the_slots_wait_for_one_and_a_close_for_them_all() -> None:
    pool, go, seen, refused = Pool("ab"), threading.Event(), list[str](), list[str]()

    def call() -> None:
        with pool.slot() as slot:
            seen.append(slot)
            go.wait(10)

    def late() -> None:
        with pytest.raises(EngineClosed), pool.slot():
            pass
        refused.append("late")

    calls = [threading.Thread(target=call) for _ in range(5)]
    for each in calls:
        each.start()
    until(lambda: len(seen) == 2)
    assert sorted(seen) == ["a", "b"]
    go.set()
    for each in calls:
        each.join(10)
    assert len(seen) == 5
    with pool.slot():
        closing = threading.Thread(target=pool.close)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
    closing.join(10)
    threads = [threading.Thread(target=late) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert refused == ["late"] * 3
    pool.close()
