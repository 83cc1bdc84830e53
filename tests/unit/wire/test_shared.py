# SPDX-License-Identifier: Apache-2.0
"""Memory that a client shares: what is not to be had is told, and leaves nothing behind."""

from __future__ import annotations

import errno
import os

import pytest

from septet.errors import UsageError
from septet.wire.shared import Shared
from septet.wire.shm import FOLDER


@pytest.mark.parametrize("size", [0, -1, 1 << 62, 1 << 70])
def test_sizes_that_are_not_to_be_had(size: int) -> None:
    with pytest.raises(UsageError, match="shared memory"):
        Shared(size)
    assert not [path for path in FOLDER.iterdir() if path.name.startswith("client-")]


def test_memory_that_is_full_is_told_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageError, match="No space left"):
        Shared(100)
    assert not [path for path in FOLDER.iterdir() if path.name.startswith("client-")]


def test_a_server_that_does_not_take_it_leaves_nothing() -> None:
    shared = Shared(100)
    with pytest.raises(ZeroDivisionError), shared.offered():
        raise ZeroDivisionError
    assert not (FOLDER / shared.name).exists()
