# SPDX-License-Identifier: Apache-2.0
"""The life of a version of a model: its states by Triton's names, and what leads from one to another."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """How far a version is; only READY answers."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class Event(Enum):
    """What happens to a version."""

    LOAD = "load"
    LOADED = "loaded"
    FAILED = "failed"
    UNLOAD = "unload"
    UNLOADED = "unloaded"


TRANSITIONS: dict[tuple[State | None, Event], State] = {
    (None, Event.LOAD): State.LOADING,
    (State.UNAVAILABLE, Event.LOAD): State.LOADING,
    (State.UNLOADING, Event.LOAD): State.LOADING,
    (State.LOADING, Event.LOAD): State.LOADING,
    (State.LOADING, Event.LOADED): State.READY,
    (State.LOADING, Event.FAILED): State.UNAVAILABLE,
    (State.LOADING, Event.UNLOAD): State.UNLOADING,
    # A version that serves goes on serving while its successor is loaded, and if that fails
    (State.READY, Event.LOAD): State.READY,
    (State.READY, Event.LOADED): State.READY,
    (State.READY, Event.FAILED): State.READY,
    (State.READY, Event.UNLOAD): State.UNLOADING,
    (State.UNLOADING, Event.UNLOAD): State.UNLOADING,
    (State.UNLOADING, Event.UNLOADED): State.UNAVAILABLE,
    (State.UNAVAILABLE, Event.UNLOAD): State.UNAVAILABLE,
    # Loaded anew before the old one had ended
    (State.READY, Event.UNLOADED): State.READY,
    (State.LOADING, Event.UNLOADED): State.LOADING,
    (State.UNAVAILABLE, Event.UNLOADED): State.UNAVAILABLE,
}
"""State and event -> next state; whatever is not here cannot happen."""
