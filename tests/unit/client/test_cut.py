# SPDX-License-Identifier: Apache-2.0
"""Connections that end under a call: it is sent a second time only where that does no harm."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from septet.client import AsyncClient, Client
from septet.errors import Status, Unreachable
from septet.request import Request, Response
from septet.wire import proto
from septet.wire.events import DataReceived, HeadersReceived
from septet.wire.frames import Code, goaway, rst_stream
from septet.wire.http2 import Connection
from septet.wire.messages import OK_TAIL, RESPONSE_HEAD, enveloped, error_tail
from septet.wire.shm import Regions

INPUTS = {"INPUT0": np.ones(3, np.float32)}
ANSWER = {"model_name": "m", "model_version": "1", "outputs": []}


class Peer:
    """A server's end of one connection."""

    def __init__(self, asked: list[str], connection: socket.socket) -> None:
        self._asked = asked
        self._socket = connection
        self._http2 = Connection(client=False)

    def take(self) -> None:
        """Read a request over HTTP."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self._socket.recv(1 << 16)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        sizes = [int(line.split(": ")[1]) for line in lines if line.startswith("Content-Length")]
        while sizes and len(body) < sizes[0]:
            body += self._socket.recv(1 << 16)
        self._asked.append(lines[0].split()[1].split("/")[-1])

    def answer(self) -> None:
        """Answer it."""
        self.take()
        text = json.dumps(ANSWER)
        self._socket.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    def take_call(self) -> int:
        """Read a call over gRPC; its stream."""
        while data := self._socket.recv(1 << 16):
            for event in self._http2.receive(data):
                if isinstance(event, HeadersReceived):
                    self._asked.append(dict(event.headers)[":path"].split("/")[-1])
                if isinstance(event, DataReceived) and event.ended:
                    return event.stream
        raise EOFError

    def answer_call(self) -> None:
        """Answer it."""
        stream = self.take_call()
        message = proto.write_response(Request("m", {}), Response("m", "1"), Regions())
        self._http2.send_headers(stream, RESPONSE_HEAD)
        self._http2.send_data(stream, enveloped(message))
        self._http2.send_trailers(stream, OK_TAIL)
        self._flush()

    def refuse_call(self) -> None:
        """Let it fall before it is begun."""
        self._flush(rst_stream(self.take_call(), Code.REFUSED_STREAM))

    def expire_call(self) -> None:
        """Say that the time is up, before the client does."""
        stream = self.take_call()
        self._http2.send_trailers(stream, error_tail(Status.DEADLINE.grpc, "Deadline Exceeded", begun=False))
        self._flush()

    def leave_call(self) -> None:
        """Say that no call after this one is begun, and let this one wait until the client hangs up."""
        self._flush(goaway(self.take_call(), Code.NO_ERROR))
        self._socket.settimeout(20)
        with suppress(TimeoutError):
            while self._socket.recv(1 << 16):
                pass

    def go_away(self) -> None:
        """Say at a call that no call was begun, and go."""
        self.take_call()
        self._flush(goaway(0, Code.NO_ERROR))

    def _flush(self, *more: bytes) -> None:
        self._socket.sendall(b"".join([*self._http2.take(), *more]))


Script = Sequence[Callable[[Peer], object]]


@contextmanager
def scripted(*scripts: Script) -> Iterator[tuple[str, list[str], threading.Semaphore]]:
    """A server whose connections each follow a script and then end: its address, what it is asked, ended ones."""
    asked: list[str] = []
    ended = threading.Semaphore(0)

    def serve() -> None:
        for script in scripts:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test is over
                return
            with connection:
                peer = Peer(asked, connection)
                for step in script:
                    step(peer)
            ended.release()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked, ended
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_an_inference_that_was_cut_off_may_have_been_run_and_is_not_sent_again() -> None:
    with (
        scripted([Peer.answer, Peer.take], [Peer.answer]) as (address, asked, _),
        Client(f"http://{address}") as client,
    ):
        assert client.live()
        with pytest.raises(Unreachable, match="hung up"):
            client.infer("m", INPUTS)
        assert asked == ["live", "infer"]
        assert client.infer("m", INPUTS) == {}


def test_a_call_over_grpc_that_was_cut_off_is_not_sent_again() -> None:
    script = (Peer.answer_call, Peer.take_call)
    with scripted(script, [Peer.answer_call]) as (address, asked, _), Client(f"grpc://{address}") as client:
        assert client.infer("m", INPUTS) == {}
        with pytest.raises(Unreachable, match="hung up"):
            client.infer("m", INPUTS)
        assert asked == ["ModelInfer"] * 2


def test_what_may_be_asked_twice_is() -> None:
    with (
        scripted([Peer.answer, Peer.take], [Peer.answer]) as (address, asked, _),
        Client(f"http://{address}") as client,
    ):
        assert client.live()
        assert client.metadata("m") == ANSWER
        assert asked == ["live", "m", "m"]


def test_a_connection_that_ended_meanwhile_carries_nothing() -> None:
    with scripted([Peer.answer], [Peer.answer]) as (address, asked, ended), Client(f"http://{address}") as client:
        assert client.live()
        assert ended.acquire(timeout=10)
        assert client.infer("m", INPUTS) == {}
        assert asked == ["live", "infer"]


@pytest.mark.parametrize(
    "scripts",
    [[(Peer.refuse_call, Peer.answer_call)], [(Peer.go_away,), (Peer.answer_call,)]],
    ids=["refused", "going away"],
)
def test_a_call_that_was_not_begun_is_sent_again(scripts: list[Script]) -> None:
    async def ask(address: str) -> None:
        async with AsyncClient(f"grpc://{address}") as client:
            assert await client.infer("m", INPUTS) == {}

    with scripted(*scripts) as (address, asked, _), Client(f"grpc://{address}") as client:
        assert client.infer("m", INPUTS) == {}
        assert asked == ["ModelInfer"] * 2
    with scripted(*scripts) as (address, asked, _):
        asyncio.run(ask(address))
        assert asked == ["ModelInfer"] * 2


def test_an_asynchronous_client_does_the_same() -> None:
    async def ask(address: str, asked: list[str]) -> None:
        async with AsyncClient(f"http://{address}", connections=1) as client:
            assert await client.live()
            with pytest.raises(Unreachable, match="hung up"):
                await client.infer("m", INPUTS)
            assert asked == ["live", "infer"]
            assert await client.metadata("m") == ANSWER
            assert asked == ["live", "infer", "m", "m"]

    with scripted([Peer.answer, Peer.take], [Peer.take], [Peer.answer]) as (address, asked, _):
        asyncio.run(ask(address, asked))


def test_whoever_hangs_up_dials_no_more() -> None:
    async def ask(address: str) -> None:
        client = AsyncClient(f"http://{address}")
        task = asyncio.ensure_future(client.metadata("m"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(Unreachable, match="hung up"):
            await task
        assert not client._dialling

    with scripted([Peer.answer]) as (address, asked, _):
        asyncio.run(ask(address))
        assert not asked


def test_whoever_hangs_up_asks_no_more() -> None:
    async def ask(address: str, asked: list[str]) -> None:
        client = AsyncClient(f"http://{address}", connections=1)
        tasks = [asyncio.ensure_future(client.metadata(model)) for model in ("m", "n")]
        while not asked:
            await asyncio.sleep(0.001)
        await client.close()
        for task in tasks:
            with pytest.raises(Unreachable, match="hung up"):
                await task
        assert asked == ["m"]

    with scripted([Peer.take, Peer.take], [Peer.answer]) as (address, asked, _):
        asyncio.run(ask(address, asked))


def test_whoever_hangs_up_leaves_no_call_on_a_connection_that_ends() -> None:
    async def ask(address: str, asked: list[str]) -> None:
        client = AsyncClient(f"grpc://{address}")
        task = asyncio.ensure_future(client.metadata("m"))
        while not asked or any(line.session.usable for line in client._lines):
            await asyncio.sleep(0.001)
        assert not task.done()
        await client.close()
        with pytest.raises(Unreachable, match="hung up"):
            await asyncio.wait_for(task, 10)

    with scripted([Peer.leave_call]) as (address, asked, _):
        asyncio.run(ask(address, asked))
        assert asked == ["ModelMetadata"]


def test_time_that_is_up_at_the_server_is_up_here() -> None:
    async def ask(address: str) -> None:
        async with AsyncClient(f"grpc://{address}") as client:
            with pytest.raises(Unreachable, match="did not answer within 60 s"):
                await client.infer("m", INPUTS)

    with scripted([Peer.expire_call], [Peer.expire_call]) as (address, _, _):
        with Client(f"grpc://{address}") as client, pytest.raises(Unreachable, match="did not answer within 60 s"):
            client.infer("m", INPUTS)
        asyncio.run(ask(address))
