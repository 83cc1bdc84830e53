# SPDX-License-Identifier: Apache-2.0
"""Shared memory over both doors, from clients that mean harm to it: only their own requests fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from fake_plane import Running, Start
from septet.wire.shm import FOLDER, OWN, Regions
from serving_made import until

CLIENTS = {"http": http_client, "grpc": grpc_client}
KEY = f"hostile-{os.getpid()}"
SIZE = 1 << 20
VALUES = np.arange(1000, dtype=np.float32)


@pytest.fixture
def file() -> Iterator[Path]:
    """A mebibyte of shared memory, the first of it `VALUES`."""
    path = FOLDER / KEY
    path.write_bytes(VALUES.tobytes() + bytes(SIZE - VALUES.nbytes))
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(params=["http", "grpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def talk(running: Running, kind: str) -> Iterator[Any]:
    with client(running, kind) as made:
        yield made


def client(running: Running, kind: str) -> Any:
    """One of Triton's."""
    return CLIENTS[kind].InferenceServerClient(running.http if kind == "http" else running.grpc)


def placed(kind: str) -> dict[str, Any]:
    """A request whose input is at the region's begin, and its output in the middle."""
    given = CLIENTS[kind].InferInput("INPUT0", VALUES.shape, "FP32")
    given.set_shared_memory("r", VALUES.nbytes)
    wanted = CLIENTS[kind].InferRequestedOutput("OUTPUT0")
    wanted.set_shared_memory("r", VALUES.nbytes, offset=SIZE // 2)
    return {"inputs": [given], "outputs": [wanted]}


class Slowly:
    """A request under way until it is `let` go; then what became of it."""

    def __init__(self, running: Running, kind: str) -> None:
        self._running = running
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._ask, args=(kind,))
        self._thread.start()
        until(lambda: bool(running.plane.requests))

    def _ask(self, kind: str) -> None:
        try:
            with client(self._running, kind) as mine:  # Triton's client over HTTP belongs to a thread
                mine.infer("held", **placed(kind))
        except InferenceServerException as error:
            self._error = error

    def let(self) -> Exception | None:
        """What it failed with."""
        self._running.plane.go_on.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self._error


def serves(talk: Any, kind: str) -> bool:
    tensor = CLIENTS[kind].InferInput("INPUT0", VALUES.shape, "FP32")
    tensor.set_data_from_numpy(VALUES)
    return bool((talk.infer("identity", [tensor]).as_numpy("OUTPUT0") == VALUES).all())


@pytest.mark.parametrize(("datatype", "count"), [("FP32", 3 << 18), ("BYTES", 1)])
def test_what_is_read_from_regions_counts_as_what_is_sent(
    start: Start, kind: str, file: Path, datatype: str, count: int
) -> None:
    """A sparse file has no memory of its own, and what is read from it has."""
    running, large = start(held=2 << 20), 3 << 20
    os.truncate(file, large)
    with client(running, kind) as talk:
        talk.register_system_shared_memory("r", KEY, large)
        given = CLIENTS[kind].InferInput("INPUT0", [count], datatype)
        given.set_shared_memory("r", large)
        for _ in range(2):  # the second is of a form that is known
            with pytest.raises(InferenceServerException, match="holds 2097152 bytes of requests already"):
                talk.infer("identity", [given])
        given.set_shared_memory("r", large + 1)
        with pytest.raises(InferenceServerException, match="Invalid offset"):
            talk.infer("identity", [given])
        assert serves(talk, kind)
    until(lambda: running.server.budget.held == 0)


def test_a_size_below_0_does_not_make_room_for_another(
    running: Running, talk: Any, kind: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk.register_system_shared_memory("r", KEY, SIZE)
    monkeypatch.setattr(Regions, "read", lambda *_: pytest.fail("it was read before it was counted"))
    large, below = (CLIENTS[kind].InferInput(name, [1], "FP32") for name in ("INPUT0", "INPUT1"))
    large.set_shared_memory("r", SIZE)
    below.set_shared_memory("r", -SIZE)
    with pytest.raises(InferenceServerException, match="Invalid offset"):
        talk.infer("identity", [large, below])


def test_truncated_while_a_request_is_under_way(running: Running, talk: Any, kind: str, file: Path) -> None:
    talk.register_system_shared_memory("r", KEY, SIZE)
    under_way = Slowly(running, kind)
    os.truncate(file, 10)
    error = under_way.let()
    assert error is not None
    assert "truncated" in str(error)
    assert file.stat().st_size == 10
    with pytest.raises(InferenceServerException, match="truncated"):
        talk.infer("identity", **placed(kind))
    assert serves(talk, kind)


def test_unlinked_while_a_request_is_under_way(running: Running, talk: Any, kind: str, file: Path) -> None:
    talk.register_system_shared_memory("r", KEY, SIZE)
    under_way = Slowly(running, kind)
    with file.open("rb") as still:
        file.unlink()
        assert under_way.let() is None
        still.seek(SIZE // 2)
        assert still.read(VALUES.nbytes) == VALUES.tobytes()
    assert serves(talk, kind)


def test_truncated_and_grown_all_the_time(running: Running, talk: Any, kind: str, file: Path) -> None:
    talk.register_system_shared_memory("r", KEY, SIZE)
    over = threading.Event()

    def torment() -> None:
        while not over.is_set():
            os.truncate(file, 0)
            os.truncate(file, SIZE)

    tormentor = threading.Thread(target=torment)
    tormentor.start()
    try:
        for _ in range(200):
            try:
                talk.infer("identity", **placed(kind))
            except InferenceServerException as error:
                assert "truncated" in str(error)  # noqa: PT017 - it may, and need not, fail
    finally:
        over.set()
        tormentor.join()
    assert serves(talk, kind)


def test_unregistered_while_a_request_is_under_way(running: Running, talk: Any, kind: str, file: Path) -> None:
    other = FOLDER / f"{KEY}-other"
    other.write_bytes(bytes(SIZE))
    try:
        talk.register_system_shared_memory("r", KEY, SIZE)
        under_way = Slowly(running, kind)
        talk.unregister_system_shared_memory("r")
        talk.register_system_shared_memory("r", other.name, SIZE)
        assert under_way.let() is None
        assert file.read_bytes()[SIZE // 2 :][: VALUES.nbytes] == VALUES.tobytes()
        assert other.read_bytes() == bytes(SIZE), "the other region of that name is not written to"
    finally:
        other.unlink()


def test_registered_twice_and_under_two_names(talk: Any, kind: str, file: Path) -> None:
    talk.register_system_shared_memory("r", KEY, SIZE)
    with pytest.raises(InferenceServerException, match="already"):
        talk.register_system_shared_memory("r", KEY, SIZE)
    talk.register_system_shared_memory("s", KEY, SIZE // 2)
    talk.unregister_system_shared_memory("s")
    talk.infer("identity", **placed(kind))
    assert file.read_bytes()[SIZE // 2 :][: VALUES.nbytes] == VALUES.tobytes()


@pytest.mark.parametrize(
    ("key", "offset", "size"),
    [(KEY, 0, SIZE + 1), (KEY, SIZE, 1), (KEY, 1 << 63, 1), (KEY, 1, (1 << 64) - 1), (KEY, 0, 0),
     (f"../shm/{KEY}", 0, 1), (f"/dev/shm/{KEY}", 0, 1), (OWN + KEY, 0, 1), ("nobody", 0, 1)],
)  # fmt: skip
def test_what_may_not_be_registered(talk: Any, kind: str, file: Path, key: str, offset: int, size: int) -> None:
    (FOLDER / (OWN + KEY)).write_bytes(bytes(10))
    try:
        with pytest.raises(InferenceServerException) as caught:
            talk.register_system_shared_memory("r", key, size, offset=offset)
    finally:
        (FOLDER / (OWN + KEY)).unlink()
    assert caught.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    assert "/dev/shm" not in str(caught.value)
    assert OWN not in str(caught.value)
    assert serves(talk, kind)


@pytest.mark.parametrize(("offset", "size"), [(SIZE, 4000), (SIZE - 3999, 4000), (1 << 62, 4000), (0, 1 << 62)])
def test_what_lies_outside_is_neither_read_nor_written(
    talk: Any, kind: str, file: Path, offset: int, size: int
) -> None:
    talk.register_system_shared_memory("r", KEY, SIZE)
    for part in ("inputs", "outputs"):
        asked = placed(kind)
        asked[part][0].set_shared_memory("r", size, offset=offset)
        with pytest.raises(InferenceServerException) as caught:
            talk.infer("identity", **asked)
        assert caught.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    assert serves(talk, kind)


def test_regions_without_end_are_refused(running: Running, talk: Any, kind: str, file: Path) -> None:
    running.plane.regions = Regions(most=2)
    for name in ("r", "s"):
        talk.register_system_shared_memory(name, KEY, SIZE)
    with pytest.raises(InferenceServerException, match="at most 2 regions") as caught:
        talk.register_system_shared_memory("t", KEY, SIZE)
    assert caught.value.status() in ("503", "StatusCode.RESOURCE_EXHAUSTED")
    talk.infer("identity", **placed(kind))
    assert serves(talk, kind)
