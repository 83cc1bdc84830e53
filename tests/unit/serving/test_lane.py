# SPDX-License-Identifier: Apache-2.0
"""Steps keep their order, whoever does them."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from septet.serving.lane import Lane, Step


def in_a_lane(fill: Callable[[Lane, list[bytes]], None]) -> tuple[list[bytes], list[str]]:
    """What came out of a lane, and what failed."""
    taken, failures = list[bytes](), list[str]()

    async def run() -> None:
        idle = asyncio.Event()
        with ThreadPoolExecutor(4) as pool:
            lane = Lane(asyncio.get_running_loop(), pool, lambda error: failures.append(str(error)), idle.set)
            fill(lane, taken)
            while lane.busy:
                idle.clear()
                await idle.wait()

    asyncio.run(run())
    return taken, failures


def test_results_come_in_the_order_of_the_steps() -> None:
    me = threading.get_ident()
    threads: list[bool] = []

    def fill(lane: Lane, taken: list[bytes]) -> None:
        for number in range(20):

            def work(number: int = number) -> bytes:
                threads.append(threading.get_ident() != me)
                return bytes([number])

            lane.run(Step(work, lambda got: taken.append(bytes(got)), long=number % 3 == 1))
        assert taken == [b"\0"], "what is behind a long step waits, what is before it does not"

    taken, failures = in_a_lane(fill)
    assert taken == [bytes([number]) for number in range(20)]
    assert failures == []
    assert threads == [number % 3 == 1 for number in range(20)]


def test_what_fails_is_told_and_nothing_follows_it() -> None:
    def fails() -> bytes:
        raise ValueError("no")

    def fill(lane: Lane, taken: list[bytes]) -> None:
        for step in (lambda: b"a", fails, lambda: b"b"):
            lane.run(Step(step, lambda got: taken.append(bytes(got)), long=True))

    assert in_a_lane(fill) == ([b"a"], ["no"])
