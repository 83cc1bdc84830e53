# SPDX-License-Identifier: Apache-2.0
"""What a server holds of requests, counted and bounded."""

import threading

import pytest

from septet.errors import Overloaded
from septet.serving.budget import Budget, Charge


def test_what_is_taken_is_bounded_and_comes_back_with_its_owner() -> None:
    budget = Budget(100)
    first, second = Charge(budget), Charge(budget)
    first.grow(60)
    first.grow(40)
    second.grow(40)
    assert budget.held == 100
    with pytest.raises(Overloaded, match="100 bytes"):
        second.grow(41)
    assert budget.held == 100
    del first
    assert budget.held == 40
    second.grow(100)
    del second
    assert budget.held == 0


def test_owners_may_die_on_any_thread() -> None:
    budget, charges = Budget(1 << 20), list[Charge]()
    for _ in range(1_000):
        charges.append(Charge(budget))
        charges[-1].grow(1_000)

    def drop() -> None:
        while charges:
            try:
                charges.pop()
            except IndexError:  # another thread was quicker
                return

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.held == 0
