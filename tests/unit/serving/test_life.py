# SPDX-License-Identifier: Apache-2.0
from itertools import product

from septet.serving.life import TRANSITIONS, Event, State

IMPOSSIBLE = {
    (state, event) for state in (State.UNLOADING, State.UNAVAILABLE) for event in (Event.LOADED, Event.FAILED)
}
"""Only what is being loaded, or serves meanwhile, can be loaded or fail to be."""


def test_whatever_can_happen_has_a_place_in_the_table() -> None:
    assert set(product(State, Event)) - set(TRANSITIONS) == IMPOSSIBLE
    assert {state for state, _ in TRANSITIONS} == {None, *State}


def test_every_state_is_reached_and_every_state_is_left() -> None:
    reached: set[State | None] = {None}
    while more := {to for (at, _), to in TRANSITIONS.items() if at in reached} - reached:
        reached |= more
    assert reached == {None, *State}
    for state in State:
        assert any(at is state and to is not state for (at, _), to in TRANSITIONS.items())


def test_what_serves_goes_on_until_it_is_unloaded() -> None:
    leaving = [event for (at, event), to in TRANSITIONS.items() if at is State.READY and to is not State.READY]
    assert leaving == [Event.UNLOAD]
