# SPDX-License-Identifier: Apache-2.0
"""The client, synchronous and asynchronous, over HTTP, gRPC and shared memory."""

from __future__ import annotations

import asyncio
import math
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import cast

import numpy as np
import pytest

from fake_plane import FREE, FakePlane, Running
from septet.client import AsyncClient, Client
from septet.errors import Refused, Status, Unreachable, UsageError
from septet.request import Parameter, Wanted
from septet.serving.server import Server, Settings
from septet.wire.shm import FOLDER
from serving_made import until


@pytest.fixture
def running() -> Iterator[Running]:
    plane, ready = FakePlane(), threading.Event()
    server = Server(plane, Settings(FREE, FREE, None, exit_seconds=2.0))
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    assert ready.wait(10)
    yield Running(plane, server)
    server.stop()
    thread.join(10)


@pytest.fixture(params=["http", "grpc"])
def url(running: Running, request: pytest.FixtureRequest) -> str:
    return f"{request.param}://{running.http if request.param == 'http' else running.grpc}"


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array([b"a", b""], np.object_),
    np.random.default_rng(0).normal(size=3_000_000),
]


@pytest.mark.parametrize("array", ARRAYS, ids=["small", "bytes", "24 MB"])
def test_infer(url: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    with Client(url) as client:
        for _ in range(2):
            outputs = client.infer("identity", {"INPUT0": array}, request_id="1", parameters={"a": 1})
            np.testing.assert_array_equal(outputs["OUTPUT0"], array)
        scores = client.infer("scores", {"INPUT0": array[:1]}, outputs=[Wanted("SCORES", classes=1)])
        assert scores["SCORES"].tolist() == [[b"0.700000:1:dog"]]


def test_everything_else(url: str, running: Running) -> None:
    with Client(url) as client:
        assert client.live()
        assert client.ready()
        assert client.ready("identity")
        assert not client.ready("nobody")
        assert client.metadata()["name"] == "septet"
        assert client.metadata("identity")["inputs"][0]["datatype"] == "FP32"
        assert client.statistics("identity")[0]["name"] == "identity"
        running.plane.retire()
        assert not client.ready()


def test_refusals_have_words_and_status(url: str) -> None:
    with Client(url) as client:
        for model, status in (("full", Status.UNAVAILABLE), ("broken", Status.INTERNAL)):
            with pytest.raises(Refused) as caught:
                client.infer(model, {"INPUT0": ARRAYS[0]})
            assert caught.value.status is status
        assert "internal error" in str(caught.value)
        assert client.live()


def test_what_was_prepared_is_asked_again_and_again(url: str) -> None:
    """With the inputs that lie in shared memory then, also after a connection that was lost and a refusal."""
    with Client(url) as client:
        shared = client.share(1000)
        placed = {"INPUT0": shared.put(np.zeros(5, np.float32))}
        call = client.prepare("identity", {}, outputs=["OUTPUT0"], placed=placed, shared=shared)
        for number in range(4):
            shared.clear()
            shared.put(np.full(5, number, np.float32))
            client.begin(call)
            assert client.finish(call)["OUTPUT0"].tolist() == [number] * 5
            assert call.answer is None, "it is kept, and would keep each answer"
            if number == 1:
                client.close()
        client.unshare(shared)
        for _ in range(2):
            client.begin(call)
            with pytest.raises(Refused, match="Unable to find shared memory region"):
                client.finish(call)


def test_what_was_begun_is_readable_once_it_is_answered_and_finished_by_any_thread(url: str) -> None:
    with Client(url) as client, ThreadPoolExecutor(1) as other:
        for array in ARRAYS[:2]:
            call = client.prepare("identity", {"INPUT0": array})
            client.begin(call)
            assert not client.overdue
            later = other.submit(client.metadata)  # its turn comes when this is finished
            assert select.select([client.fileno()], [], [], 10)[0]
            np.testing.assert_array_equal(client.finish(call)["OUTPUT0"], array)
            assert later.result(10)["name"] == "septet"


def test_what_could_not_be_begun_keeps_nobody_waiting(url: str) -> None:
    scheme, _, _ = url.partition("://")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        away = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
    with Client(away, seconds=5) as client:
        call = client.prepare("identity", {"INPUT0": ARRAYS[0]})
        for _ in range(2):
            with pytest.raises(Unreachable, match="refused"):
                client.begin(call)


def test_what_was_begun_ends_in_time_and_with_its_connection(url: str) -> None:
    scheme, _, _ = url.partition("://")
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(Client(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2))
        call = client.prepare("identity", {"INPUT0": ARRAYS[0]})
        client.begin(call)
        until(lambda: client.overdue)
        with pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
            client.finish(call)
        client.begin(call)
        for _ in range(2):
            silent.accept()[0].close()
        with pytest.raises(Unreachable):
            client.finish(call)


def test_shared_memory(url: str, running: Running) -> None:
    before = set(FOLDER.iterdir())
    array = np.arange(1000, dtype=np.int64)
    with Client(url) as client:
        shared = client.share(20_000)
        assert set(FOLDER.iterdir()) == before, "a client that is killed would leave it behind"
        for _ in range(3):
            shared.clear()
            placed = {"INPUT0": shared.put(array)}
            wanted = [shared.leave("OUTPUT0", array.nbytes)]
            outputs = client.infer("identity", {}, placed=placed, outputs=wanted, shared=shared)
            np.testing.assert_array_equal(outputs["OUTPUT0"], array)
        words = np.array([b"one", b"", b"three"], np.object_)
        shared.clear()
        placed, wanted = {"INPUT0": shared.put(words)}, [shared.leave("OUTPUT0", 100)]
        outputs = client.infer("identity", {}, placed=placed, outputs=wanted, shared=shared)
        assert outputs["OUTPUT0"].tolist() == words.tolist()
        with pytest.raises(UsageError, match="no room"):
            shared.put(np.zeros(10_000))
        client.unshare(shared)
        assert running.plane.regions.status() == []
        with pytest.raises(Refused):
            client.infer("identity", {}, placed=placed)
        with pytest.raises(UsageError, match="given back"):
            shared.put(array)
    assert set(FOLDER.iterdir()) == before


def test_a_connection_that_was_closed_is_made_anew(url: str, running: Running) -> None:
    with Client(url) as client:
        assert client.live()
        assert client._link is not None
        client._link._socket.shutdown(2)
        outputs = client.infer("identity", {"INPUT0": ARRAYS[0]})
        np.testing.assert_array_equal(outputs["OUTPUT0"], ARRAYS[0])


def test_nobody_there_and_no_answer(url: str) -> None:
    with Client(url.split("://")[0] + "://127.0.0.1:1") as client:
        assert not client.live()
        with pytest.raises(Unreachable, match="refused"):
            client.metadata()
    with Client(url, seconds=0.3) as client, pytest.raises(Unreachable):
        client.infer("slow", {"INPUT0": ARRAYS[0]})


def test_many_calls_side_by_side(url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(url, connections=8) as client:
            assert await client.ready()
            arrays = [np.full(100 + number, number, np.float32) for number in range(300)]
            answers = await asyncio.gather(*(client.infer("identity", {"INPUT0": array}) for array in arrays))
            for array, outputs in zip(arrays, answers, strict=True):
                np.testing.assert_array_equal(outputs["OUTPUT0"], array)
            with pytest.raises(Refused):
                await client.infer("full", {"INPUT0": arrays[0]})
            assert (await client.metadata())["name"] == "septet"
            shared = await client.share(1000)
            placed = {"INPUT0": shared.put(arrays[0])}
            outputs = await client.infer("identity", {}, placed=placed, shared=shared)
            np.testing.assert_array_equal(outputs["OUTPUT0"], arrays[0])
            await client.unshare(shared)

    asyncio.run(ask())


def test_a_call_that_is_cancelled_is_cancelled_at_the_server(url: str, running: Running) -> None:
    async def ask() -> None:
        async with AsyncClient(url) as client:
            task = asyncio.ensure_future(client.infer("slow", {"INPUT0": ARRAYS[0]}))
            while not running.plane.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.live()

    asyncio.run(ask())
    assert running.plane.cancelled.wait(5)


def test_an_asynchronous_client_finds_nobody(url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(url.split("://")[0] + "://127.0.0.1:1") as client:
            assert not await client.live()
        async with AsyncClient(url, seconds=0.3) as client:
            begun = time.monotonic()
            with pytest.raises(Unreachable):
                await client.infer("slow", {"INPUT0": ARRAYS[0]})
            assert time.monotonic() - begun < 3

    asyncio.run(ask())


def test_threads_may_share_a_client(url: str) -> None:
    with Client(url) as client, ThreadPoolExecutor(8) as threads:
        arrays = [np.full(1 + number, number, np.float32) for number in range(100)]
        answers = threads.map(lambda array: client.infer("identity", {"INPUT0": array}), arrays)
        for array, outputs in zip(arrays, answers, strict=True):
            np.testing.assert_array_equal(outputs["OUTPUT0"], array)


def test_an_interrupted_call_leaves_nothing_for_the_next(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(data: bytes) -> None:
        raise KeyboardInterrupt

    with Client(url) as client:
        assert client.live()
        monkeypatch.setattr(client._session, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.infer("identity", {"INPUT0": ARRAYS[0]})
        assert client._link is None, "its answer is still to come there"
        np.testing.assert_array_equal(client.infer("identity", {"INPUT0": ARRAYS[1]})["OUTPUT0"], ARRAYS[1])


def test_both_protocols_tell_the_same(running: Running) -> None:
    with Client(f"http://{running.http}") as http, Client(f"grpc://{running.grpc}") as grpc:
        assert http.metadata() == grpc.metadata()
        assert http.metadata("identity") == grpc.metadata("identity")
        assert http.config("identity") == grpc.config("identity")
        [told], [also] = http.statistics("identity"), grpc.statistics("identity")
        assert told == {name: _as_told(also[name], value) for name, value in told.items()}


def _as_told(also: object, told: object) -> object:
    """What one said, without what the other was silent of."""
    if isinstance(told, dict) and isinstance(also, dict):
        return {name: _as_told(also[name], value) for name, value in told.items()}
    return also


@pytest.mark.parametrize("seconds", [100_000, 1e12, math.inf, 1e-9 + 20])
def test_any_time_may_be_waited(url: str, seconds: float) -> None:
    async def ask() -> None:
        async with AsyncClient(url, seconds=seconds) as client:
            assert (await client.infer("identity", {"INPUT0": ARRAYS[0]})).keys() == {"OUTPUT0"}

    with Client(url, seconds=seconds) as client:
        assert client.infer("identity", {"INPUT0": ARRAYS[0]}).keys() == {"OUTPUT0"}
    asyncio.run(ask())


@pytest.mark.parametrize("seconds", [0, -1, math.nan, -math.inf])
def test_times_that_are_none(seconds: float) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(UsageError, match="more than 0 seconds"):
            client("grpc://localhost:1", seconds=seconds)
    with pytest.raises(UsageError, match="connection"):
        AsyncClient("http://localhost:1", connections=0)


def test_what_cannot_be_sent_is_told_by_its_name(url: str) -> None:
    with Client(url) as client:
        for wrong in (np.zeros(2, np.complex64), np.array([1, 2], np.object_), np.zeros(2, "M8[s]")):
            with pytest.raises(UsageError, match="input 'INPUT0'"):
                client.infer("identity", {"INPUT0": wrong})
        outputs = client.infer("identity", {"INPUT0": np.arange(5, dtype=">f4")})
        np.testing.assert_array_equal(outputs["OUTPUT0"], np.arange(5, dtype=np.float32))
        shared = client.share(1000)
        placed = {"INPUT0": shared.put(np.arange(5, dtype=">i8"))}
        outputs = client.infer("identity", {}, placed=placed, shared=shared)
        np.testing.assert_array_equal(outputs["OUTPUT0"], np.arange(5))
        client.unshare(shared)


PARAMETERS = {"a": True, "b": 7, "c": 0.5, "d": "text", "e": 2**64 - 1}


@pytest.mark.parametrize(
    "parameters",
    [
        PARAMETERS,
        {"a": np.bool_(True), "b": np.int64(7), "c": np.float32(0.5), "d": np.str_("text"), "e": 2**64 - 1},
    ],
    ids=["Python's", "numpy's"],
)
def test_parameters_are_what_they_mean(url: str, running: Running, parameters: dict[str, Parameter]) -> None:
    with Client(url) as client:
        client.infer("identity", {"INPUT0": ARRAYS[0]}, parameters=parameters)
    got = {name: running.plane.requests[0].parameters[name] for name in PARAMETERS}
    assert got == PARAMETERS
    assert list(map(type, got.values())) == list(map(type, PARAMETERS.values()))


ODD = [None, 2**70, -(2**63) - 1, {"b": 1}, [1], b"", np.zeros(1), np.complex64(1), math.nan, math.inf, "\ud800"]


def test_parameters_that_cannot_be_sent_are_told_by_name(url: str) -> None:
    with Client(url) as client:
        for value in ODD:
            with pytest.raises(UsageError, match="parameter 'odd'"):
                client.infer("identity", {"INPUT0": ARRAYS[0]}, parameters={"odd": cast(Parameter, value)})
        with pytest.raises(UsageError, match="a name is text, not int"):
            client.infer("identity", {"INPUT0": ARRAYS[0]}, parameters=cast(dict[str, Parameter], {1: 2}))


def test_nothing_is_left_in_shared_memory() -> None:
    assert not [path for path in FOLDER.iterdir() if path.name.startswith("client-")]
