# SPDX-License-Identifier: Apache-2.0
"""Batches are formed as Triton forms them, and nobody waits for ever or is answered twice."""

import gc
import itertools
import random
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from septet.errors import DeadlineExceeded, QueueFull, RequestCancelled, RequestTimedOut, SeptetError, Stopping
from septet.model_config.config import DynamicBatching, ModelConfig, QueuePolicy
from septet.request import Request, Response
from septet.serving import queue, scheduler
from septet.serving.expiry import Expiry
from septet.serving.pending import Pending
from septet.serving.scheduler import Scheduler
from serving_made import Answers, until

_HOUR = 3_600_000_000


@pytest.fixture
def expiry() -> Iterator[Expiry]:
    clock = Expiry()
    yield clock
    clock.close()


class Bed:
    """A scheduler under one configuration, and what it dropped."""

    def __init__(self, expiry: Expiry, batching: DynamicBatching | None, largest: int = 8) -> None:
        self.dropped: list[tuple[str, SeptetError]] = []
        config = ModelConfig(name="m", max_batch_size=largest, dynamic_batching=batching)
        self.scheduler = Scheduler(config, expiry, self._drop)

    def _drop(self, pending: Pending, error: SeptetError) -> None:
        self.dropped.append((pending.request.id, error))
        pending.fail(error)

    def put(
        self, id_: str, size: int = 1, key: object = None, *, rouse: bool = True, **parameters: int
    ) -> Pending:
        request = Request("m", {}, id=id_, parameters=dict(parameters))
        pending = Pending(request, Answers(), "1", size, key)
        self.scheduler.enqueue(pending, rouse=rouse)
        return pending

    def take(self) -> list[str]:
        batch = self.scheduler.take()
        assert batch is not None
        return [pending.request.id for pending in batch]


def plain(**settings: object) -> DynamicBatching:
    return DynamicBatching(**settings)  # type: ignore[arg-type]


def test_without_batching_every_request_runs_alone(expiry: Expiry) -> None:
    bed = Bed(expiry, None)
    for name in "abc":
        bed.put(name)
    assert [bed.take() for _ in range(3)] == [["a"], ["b"], ["c"]]


def test_a_batch_grows_until_somebody_takes_it(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    for name in "abc":
        bed.put(name)
    assert bed.take() == ["a", "b", "c"]


def test_a_batch_is_never_larger_than_the_model_takes(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    bed.put("a", 5)
    bed.put("b", 4)
    bed.put("c", 1)
    assert bed.take() == ["a"]
    assert bed.take() == ["b", "c"]


def test_only_what_fits_together_shares_a_batch(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    for name, key in (("a", 1), ("b", 1), ("c", 2), ("d", 1)):
        bed.put(name, key=key)
    assert [bed.take() for _ in range(3)] == [["a", "b"], ["c"], ["d"]]


def test_a_batch_is_cut_back_to_the_largest_preferred_size(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(preferred_batch_size=(2, 4)))
    for name in "abcdefg":
        bed.put(name)
    assert [bed.take() for _ in range(3)] == [["a", "b", "c", "d"], ["e", "f"], ["g"]]


def test_a_delay_lets_a_batch_fill_and_then_ends(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(max_queue_delay_microseconds=200_000))
    bed.put("a")
    late = threading.Timer(0.02, bed.put, ["b"])
    late.start()
    assert bed.take() == ["a", "b"]
    late.join()


def test_a_full_batch_does_not_wait_for_the_delay(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(max_queue_delay_microseconds=_HOUR))
    taken: list[list[str]] = []
    thread = threading.Thread(target=lambda: taken.append(bed.take()))
    thread.start()
    for number in range(8):
        bed.put(str(number))
    thread.join(10)
    assert taken == [[str(number) for number in range(8)]]


def test_a_preferred_size_does_not_wait_for_the_delay(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(max_queue_delay_microseconds=_HOUR, preferred_batch_size=(3, 8)))
    taken: list[list[str]] = []
    thread = threading.Thread(target=lambda: taken.append(bed.take()))
    thread.start()
    for name in "abc":
        bed.put(name)
    thread.join(10)
    assert taken == [["a", "b", "c"]]


def test_whoever_does_not_fit_ends_the_waiting(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(max_queue_delay_microseconds=_HOUR))
    taken: list[list[str]] = []
    thread = threading.Thread(target=lambda: taken.append(bed.take()))
    thread.start()
    bed.put("a", key=1)
    bed.put("b", key=2)
    thread.join(10)
    assert taken == [["a"]]


def test_what_cannot_grow_does_not_wait_for_the_delay(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(max_queue_delay_microseconds=_HOUR))
    bed.put("a", 6)
    bed.put("b", 6)
    assert bed.take() == ["a"]


def test_higher_priorities_run_first(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(priority_levels=3, default_priority_level=2), largest=1)
    bed.put("low", priority=3)
    bed.put("usual")
    bed.put("high", priority=1)
    bed.put("beyond", priority=9)
    assert [bed.take() for _ in range(4)] == [["high"], ["usual"], ["beyond"], ["low"]]


def test_a_full_queue_refuses_at_once(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(default_queue_policy=QueuePolicy(max_queue_size=2)))
    bed.put("a")
    bed.put("b")
    with pytest.raises(QueueFull, match="maximum queue size"):
        bed.put("c")
    assert bed.take() == ["a", "b"]
    bed.put("d")
    assert bed.take() == ["d"]


def test_whoever_nobody_waits_for_makes_room_and_never_runs(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(default_queue_policy=QueuePolicy(max_queue_size=2)))
    bed.put("a").request.cancel()
    bed.put("b")
    bed.put("c")
    assert bed.take() == ["b", "c"]
    [(name, error)] = bed.dropped
    assert (name, type(error)) == ("a", RequestCancelled)


def test_a_full_queue_that_is_long_is_not_looked_through_at_each_refusal(
    expiry: Expiry, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = Bed(expiry, plain(default_queue_policy=QueuePolicy(max_queue_size=2)))
    clock = itertools.count(0, queue.GLANCE + 1)  # each look at it is a glance too long
    monkeypatch.setattr(queue, "monotonic_ns", lambda: next(clock))
    first, _ = bed.put("a"), bed.put("b")
    with pytest.raises(QueueFull):
        bed.put("c")
    first.request.cancel()
    for _ in range(queue.REST - 1):
        with pytest.raises(QueueFull):
            bed.put("c")
    bed.put("d")
    assert bed.take() == ["b", "d"]


def test_a_long_queue_is_not_searched_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many deadlines pass, each at another time."""
    now, took, watched = 0, 1_000_000, list[int]()

    def search(self: queue.Queue, when: int, dropped: queue.Dropped) -> int:
        nonlocal now
        now += took
        return now

    monkeypatch.setattr(scheduler, "monotonic_ns", lambda: now)
    monkeypatch.setattr(queue.Queue, "clean", search)
    expiry = cast(Expiry, SimpleNamespace(watch=lambda when, call: watched.append(when)))
    bed = Bed(expiry, plain(default_queue_policy=QueuePolicy(default_timeout_microseconds=1)))
    bed.put("a")
    assert watched == [1_000]
    for _ in range(3):
        bed.scheduler.clean()
        bed.put("b")
        assert watched.pop() == now + queue.REST * took
    assert watched == [1_000]


def test_a_cancelled_request_is_never_run(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    first = bed.put("a")
    bed.put("b")
    first.request.cancel()
    assert bed.take() == ["b"]
    assert [name for name, _ in bed.dropped] == ["a"]


def test_a_timeout_is_told_while_every_instance_is_busy(expiry: Expiry) -> None:
    policy = QueuePolicy(default_timeout_microseconds=20_000)
    bed = Bed(expiry, plain(default_queue_policy=policy))
    pending = bed.put("a")
    until(lambda: pending.answered)
    assert isinstance(bed.dropped[0][1], RequestTimedOut)
    assert len(bed.scheduler) == 0


def test_a_request_may_ask_for_less_time_but_not_for_more(expiry: Expiry) -> None:
    policy = QueuePolicy(default_timeout_microseconds=50_000, allow_timeout_override=True)
    bed = Bed(expiry, plain(default_queue_policy=policy))
    less, more = bed.put("less", timeout=1_000), bed.put("more", timeout=_HOUR)
    until(lambda: less.answered)
    assert [name for name, _ in bed.dropped] == ["less"]
    until(lambda: more.answered)


def test_a_timeout_that_a_request_may_not_set_is_ignored(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    bed.put("a", timeout=1)
    time.sleep(0.02)
    assert bed.take() == ["a"]


def test_delayed_instead_of_refused_runs_last(expiry: Expiry) -> None:
    policy = QueuePolicy(timeout_action="DELAY", default_timeout_microseconds=5_000)
    bed = Bed(expiry, plain(default_queue_policy=policy), largest=1)
    bed.put("late")
    time.sleep(0.05)
    bed.put("fresh")
    assert [bed.take(), bed.take()] == [["fresh"], ["late"]]
    assert bed.dropped == []


def test_the_delayed_keep_their_order(expiry: Expiry) -> None:
    policy = QueuePolicy(timeout_action="DELAY", default_timeout_microseconds=5_000)
    bed = Bed(expiry, plain(default_queue_policy=policy), largest=1)
    for name in "abc":
        bed.put(name)
        time.sleep(0.05)
    assert [bed.take(), bed.take(), bed.take()] == [["a"], ["b"], ["c"]]


def test_a_timeout_beyond_what_a_thread_can_wait_harms_nobody(expiry: Expiry) -> None:
    policy = QueuePolicy(allow_timeout_override=True)
    endless = Bed(expiry, plain(default_queue_policy=policy))
    pending = Pending(Request("m", {}, deadline=1 << 70), Answers(), "1", 1)
    endless.scheduler.enqueue(pending)
    time.sleep(0.05)
    bed = Bed(expiry, plain(default_queue_policy=QueuePolicy(default_timeout_microseconds=5_000)))
    bed.put("a")
    until(lambda: bool(bed.dropped))


def test_a_scheduler_is_not_kept_for_the_timeouts_of_requests_that_were_answered(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    hour = time.monotonic_ns() + 1000 * _HOUR
    bed.scheduler.enqueue(Pending(Request("m", {}, deadline=hour), Answers(), "1", 1))
    assert bed.take() == [""]
    gone = weakref.ref(bed.scheduler)
    del bed
    gc.collect()
    assert gone() is None


def test_a_deadline_that_has_passed_is_never_run(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    request = Request("m", {}, id="a", deadline=time.monotonic_ns() + 5_000_000)
    pending = Pending(request, Answers(), "1", 1)
    bed.scheduler.enqueue(pending)
    until(lambda: pending.answered)
    bed.put("b")
    assert bed.take() == ["b"]
    assert isinstance(bed.dropped[0][1], DeadlineExceeded)


def test_stopping_runs_what_waits_and_takes_nothing_new(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(max_queue_delay_microseconds=_HOUR))
    bed.put("a")
    bed.scheduler.stop()
    with pytest.raises(Stopping):
        bed.put("b")
    assert bed.take() == ["a"]
    assert bed.scheduler.take() is None


def test_stopping_lets_every_waiting_instance_go(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    threads = [threading.Thread(target=bed.scheduler.take) for _ in range(4)]
    for thread in threads:
        thread.start()
    bed.scheduler.stop()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_whoever_is_not_able_is_sent_away_and_the_others_go_on(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    able = [True]
    got: list[object] = []
    leader = threading.Thread(target=lambda: got.append(bed.scheduler.take(lambda: able[0])))
    leader.start()
    until(lambda: bed.scheduler._leading)
    follower = threading.Thread(target=lambda: got.append(bed.take()))
    follower.start()
    able[0] = False
    bed.scheduler.wake()
    leader.join(10)
    assert got == [[]]
    bed.put("a")
    follower.join(10)
    assert got == [[], ["a"]]


def test_answers_come_in_the_order_of_requests_where_that_is_asked(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(preserve_ordering=True), largest=1)
    order: list[str] = []

    def answer(response: Response) -> None:
        order.append(response.id)

    for name in "abc":
        bed.scheduler.enqueue(Pending(Request("m", {}, id=name), answer, "1", 1))
    batches = [bed.scheduler.take() for _ in range(3)]
    for batch in reversed(batches):
        assert batch
        batch[0].succeed({})
    assert order == ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(4))
def test_everybody_is_answered_once_whatever_happens(expiry: Expiry, seed: int) -> None:
    draw = random.Random(seed)
    policy = QueuePolicy(default_timeout_microseconds=3_000, allow_timeout_override=True, max_queue_size=50)
    batching = plain(
        preferred_batch_size=(3, 6),
        max_queue_delay_microseconds=draw.choice([0, 500]),
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=policy,
    )
    bed, sizes = Bed(expiry, batching), []

    def instance() -> None:
        while (batch := bed.scheduler.take()) is not None:
            sizes.append(sum(pending.size for pending in batch))
            assert not any(pending.answered for pending in batch)
            time.sleep(draw.random() / 500)
            for pending in batch:
                pending.succeed({})

    threads = [threading.Thread(target=instance) for _ in range(3)]
    for thread in threads:
        thread.start()
    sent: list[tuple[Answers, Pending]] = []
    refused = 0
    for number in range(400):
        answers = Answers()
        request = Request("m", {}, id=str(number), parameters={"priority": draw.randrange(3)})
        pending = Pending(request, answers, "1", draw.randint(1, 4))
        try:
            bed.scheduler.enqueue(pending)
        except QueueFull:
            refused += 1
            continue
        sent.append((answers, pending))
        if draw.random() < 0.1:
            request.cancel()
        if draw.random() < 0.2:
            time.sleep(0.001)
    bed.scheduler.stop()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert [len(answers.wait()) for answers, _ in sent] == [1] * len(sent)
    assert max(sizes) <= 8
    assert len(sent) + refused == 400
    assert np.sum(sizes) + sum(
        pending.size for answers, pending in sent if answers.responses[0].error is not None
    ) == sum(pending.size for _, pending in sent)


# In an idle instance's stead


def any_batch(batch: list[Pending]) -> bool:
    return True


def test_nothing_is_taken_in_the_stead_of_nobody(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    bed.put("a")
    assert bed.scheduler.take_idle(any_batch) == []
    assert bed.take() == ["a"]


def taker(bed: Bed) -> tuple[threading.Thread, list[list[str]]]:
    """An instance that waits for one batch, and what it got."""
    got: list[list[str]] = []
    thread = threading.Thread(target=lambda: got.append(bed.take()))
    thread.start()
    until(lambda: bed.scheduler._leading)
    return thread, got


def test_what_is_taken_in_an_instances_stead_is_not_run_by_it_too(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    thread, got = taker(bed)
    for name in "ab":
        bed.put(name, rouse=False)
    assert [pending.request.id for pending in bed.scheduler.take_idle(any_batch)] == ["a", "b"]
    assert bed.scheduler.take_idle(any_batch) == []
    bed.put("c")
    thread.join(10)
    assert got == [["c"]]


def test_what_does_not_fit_into_the_batch_is_left_to_the_instance(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(), largest=2)
    thread, got = taker(bed)
    for name in "abc":
        bed.put(name, rouse=False)
    assert [pending.request.id for pending in bed.scheduler.take_idle(any_batch)] == ["a", "b"]
    assert bed.scheduler._leading
    bed.scheduler.rouse()
    thread.join(10)
    assert got == [["c"]]


def test_what_does_not_suit_the_other_thread_is_left_to_the_instance(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    thread, got = taker(bed)
    for name in "ab":
        bed.put(name, rouse=False)
    assert bed.scheduler.take_idle(lambda batch: len(batch) < 2) == []
    thread.join(10)
    assert got == [["a", "b"]]


def test_what_is_to_wait_for_more_is_left_to_the_instance(expiry: Expiry) -> None:
    bed = Bed(expiry, plain(max_queue_delay_microseconds=20_000))
    thread, got = taker(bed)
    bed.put("a", rouse=False)
    assert bed.scheduler.take_idle(any_batch) == []
    thread.join(10)
    assert got == [["a"]]


def test_what_was_put_in_silence_is_run_once_somebody_is_roused(expiry: Expiry) -> None:
    bed = Bed(expiry, plain())
    thread, got = taker(bed)
    for name in "ab":
        bed.put(name, rouse=False)
    bed.scheduler.rouse()
    thread.join(10)
    assert got == [["a", "b"]]


@pytest.mark.parametrize(
    ("batching", "shares", "batches"),
    [
        (plain(), True, ["abc", "de"]),
        (plain(), False, ["abcde"]),
        (plain(preferred_batch_size=[1, 2, 3, 4]), True, ["abc", "de"]),
        (plain(preferred_batch_size=[5]), True, ["abcde"]),
        (plain(max_queue_delay_microseconds=1), True, ["abcde"]),
    ],
)
def test_instances_that_are_free_share_what_waits(
    expiry: Expiry, batching: DynamicBatching, shares: bool, batches: list[str]
) -> None:
    bed = Bed(expiry, batching)
    got: list[str] = []

    def work() -> None:
        while (batch := bed.scheduler.take(shares=lambda: shares)) is not None:
            got.append("".join(pending.request.id for pending in batch))
            until(lambda: sum(map(len, got)) == 5)  # busy, until everything is taken

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: bed.scheduler._leading and bed.scheduler._followers == 1)
    for name in "abcde":
        bed.put(name, rouse=False)
    bed.scheduler.rouse()
    until(lambda: sum(map(len, got)) == 5)
    bed.scheduler.stop()
    for thread in threads:
        thread.join(10)
    assert sorted(got) == sorted(batches)
