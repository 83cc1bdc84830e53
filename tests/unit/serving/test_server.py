# SPDX-License-Identifier: Apache-2.0
"""A server's life: health, metrics, drain, ports."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from fake_plane import FREE, FakePlane, Running, Start
from http_talk import answers, dial
from septet.client import Client
from septet.errors import PortUnavailable, Unreachable
from septet.request import Request
from septet.serving.fallback import FallbackGrpc
from septet.serving.grpc import GrpcLimits
from septet.serving.mailbox import Mailbox
from septet.serving.server import Address, Server, Settings
from septet.stubs import SERVICE
from septet.wire import proto
from serving_made import until


def get(address: object, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_is_json_for_kserve_and_a_status_for_triton(running: Running) -> None:
    assert get(running.http, "/v2/health/live") == (200, '{"live":true}')
    assert json.loads(get(running.http, "/v2/health/ready")[1]) == {"live": True, "ready": True}
    assert json.loads(get(running.http, "/v2/models/identity/ready")[1]) == {"name": "identity", "ready": True}
    running.plane.retire()
    assert get(running.http, "/v2/health/ready")[0] == 400
    assert get(running.http, "/v2/health/live")[0] == 200


def test_health_is_told_however_busy_loading_is(running: Running) -> None:
    with ThreadPoolExecutor(40) as many:
        loads = [many.submit(post, running, "/v2/repository/models/slowly/load") for _ in range(40)]
        time.sleep(0.3)
        begun = time.monotonic()
        assert get(running.http, "/v2/health/ready")[0] == 200
        assert time.monotonic() - begun < 0.5
        assert {load.result() for load in loads} == {200}


def post(running: Running, path: str) -> int:
    request = urllib.request.Request(f"http://{running.http}{path}", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(answer.status)


def test_metrics_have_a_port_of_their_own(running: Running) -> None:
    assert "nv_inference_count 3" in get(running.server.metrics, "/metrics")[1]
    assert get(running.server.metrics, "/metrics/")[0] == 200
    assert get(running.server.metrics, "/v2")[0] == 404
    assert get(running.http, "/metrics")[0] == 404


def test_a_port_in_use_is_told(running: Running) -> None:
    for door in ("http", "grpc", "metrics"):
        taken = {"http": FREE, "grpc": FREE, "metrics": FREE} | {door: running.server.http}
        with pytest.raises(PortUnavailable, match=rf"(?i){door} on 127.0.0.1:\d+: Address already in use"):
            Server(FakePlane(), Settings(**taken))  # type: ignore[arg-type]
    with pytest.raises(PortUnavailable):
        Server(FakePlane(), Settings(http=Address("203.0.113.7", 0)))


def test_a_port_that_another_begins_to_listen_on_meanwhile_is_told() -> None:
    """Such as one that was started a moment earlier, and loads its models still."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        plane = FakePlane()
        server = Server(plane, Settings(http=FREE, grpc=Address("127.0.0.1", port)))
        other.listen()
        with pytest.raises(PortUnavailable, match=f"gRPC on 127.0.0.1:{port}: Address already in use"):
            server.run()


def test_two_doors_on_one_port_are_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", free.getsockname()[1])
    with pytest.raises(PortUnavailable, match="already in use"):
        Server(FakePlane(), Settings(http=address, grpc=address)).run()


@pytest.mark.parametrize("grpcio", [False, True])
def test_a_drain_says_not_ready_first_and_loses_nothing(start: Start, grpcio: bool) -> None:
    running = start(grpcio=grpcio)
    results: list[bool] = []

    def over_http() -> None:
        tensor = http_client.InferInput("INPUT0", [1], "FP32")
        tensor.set_data_from_numpy(np.zeros(1, np.float32))
        with http_client.InferenceServerClient(running.http) as talk:
            results.append(talk.infer("slow", [tensor], parameters={"seconds": 3.0}) is not None)

    def over_grpc() -> None:
        tensor = grpc_client.InferInput("INPUT0", [1], "FP32")
        tensor.set_data_from_numpy(np.zeros(1, np.float32))
        with grpc_client.InferenceServerClient(running.grpc) as talk:
            results.append(talk.infer("slow", [tensor], parameters={"seconds": 3.0}) is not None)

    threads = [threading.Thread(target=work) for work in (over_http, over_grpc)]
    for thread in threads:
        thread.start()
    while len(running.plane.requests) < 2:
        time.sleep(0.01)
    running.server.stop()
    time.sleep(0.2)
    assert get(running.http, "/v2/health/ready")[0] == 400
    for thread in threads:
        thread.join(10)
    assert results == [True, True]
    end = time.monotonic() + 5
    while not running.plane.closed:
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(urllib.error.URLError):
        get(running.http, "/v2/health/ready")


def test_no_request_that_was_sent_is_lost_to_a_drain(start: Start) -> None:
    running, lost, answered = start(exit_seconds=20.0), [0], [0]
    body = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1],"data":[1]}]}'
    head = f"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    wire_ = head.encode() + body

    def keep_asking() -> None:
        with dial(running) as talk:
            while ask_once(talk):
                answered[0] += 1

    def ask_once(talk: socket.socket) -> bool:
        """Whether the connection stays for more."""
        try:
            talk.sendall(wire_)
            ((status, headers, _),) = answers(talk)
        except (OSError, IndexError):
            lost[0] += 1
            return False
        assert status == 200
        return headers.get("connection") != "close"

    threads = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: answered[0] > 200)
    running.server.stop()
    for thread in threads:
        thread.join(20)
    assert lost == [0]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_drain_ends_under_load_and_no_call_of_a_grpc_client_is_lost(start: Start, kind: str) -> None:
    running, failures, answered, over = start(exit_seconds=20.0), list[Exception](), [0], threading.Event()

    def keep_asking() -> None:
        with Client(f"{kind}://{running.http if kind == 'http' else running.grpc}") as client:
            while not over.is_set():
                try:
                    client.infer("identity", {"INPUT0": np.ones(4, np.float32)})
                    answered[0] += 1
                except Unreachable:  # the ports are closed
                    return
                except Exception as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in threads:
        thread.start()
    while answered[0] < 100:
        time.sleep(0.01)
    begun = time.monotonic()
    running.server.stop()
    for thread in threads:
        thread.join(15)
    over.set()
    assert time.monotonic() - begun < 10
    assert failures == []


def test_a_drain_does_not_wait_beyond_its_time() -> None:
    plane, ready = FakePlane(), threading.Event()
    server = Server(plane, Settings(FREE, FREE, None, exit_seconds=0.5))
    finished: list[bool] = []
    thread = threading.Thread(target=lambda: finished.append(server.run(ready.set)))
    thread.start()
    assert ready.wait(10)

    def ask() -> None:
        tensor = grpc_client.InferInput("INPUT0", [1], "FP32")
        tensor.set_data_from_numpy(np.zeros(1, np.float32))
        with grpc_client.InferenceServerClient(str(server.grpc)) as talk, pytest.raises(InferenceServerException):
            talk.infer("slow", [tensor])

    asker = threading.Thread(target=ask)
    asker.start()
    while not plane.requests:
        time.sleep(0.01)
    begun = time.monotonic()
    server.stop()
    thread.join(10)
    asker.join(10)
    assert finished == [False]
    assert time.monotonic() - begun < 3.0
    assert plane.cancelled.wait(5)


@pytest.mark.parametrize("grpcio", [False, True])
def test_a_drain_ends_streams_once_nothing_is_under_way_in_them(grpcio: bool) -> None:
    plane, ready, finished = FakePlane(), threading.Event(), list[bool]()
    server = Server(plane, Settings(FREE, FREE, None, exit_seconds=6.0, grpcio=grpcio))
    thread = threading.Thread(target=lambda: finished.append(server.run(ready.set)))
    thread.start()
    assert ready.wait(10)
    sent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    request = proto.write_request(Request("held", {"INPUT0": np.zeros(1, np.float32)}))
    with grpc.insecure_channel(str(server.grpc)) as channel:
        ask = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        idle, busy = ask(iter(queue.SimpleQueue().get, b""), timeout=20), ask(iter(sent.get, b""), timeout=20)
        sent.put(b"".join(request))
        until(lambda: len(plane.requests) == 1)
        server.stop()
        assert ending_of(idle) == ([], grpc.StatusCode.UNAVAILABLE)
        assert not busy.done()
        plane.go_on.set()
        answers, code = ending_of(busy)
        assert (len(answers), code) == (1, grpc.StatusCode.UNAVAILABLE)
        thread.join(10)
    assert finished == [True]


def test_grpcios_server_ends_well_without_time_where_nothing_is_under_way() -> None:
    fallback = FallbackGrpc(FakePlane(), "127.0.0.1:0", GrpcLimits())
    assert fallback.stop(0.0)


def ending_of(stream: Any) -> tuple[list[bytes], grpc.StatusCode]:
    """What a stream still says, and the status that it ends with."""
    answers = list[bytes]()
    with suppress(grpc.RpcError):
        answers.extend(stream)
    return answers, stream.code()


def test_grpc_connections_that_idle_are_ended_by_a_drain(start: Start) -> None:
    running = start()
    with grpc.insecure_channel(running.grpc) as channel:
        grpc.channel_ready_future(channel).result(5)
        begun = time.monotonic()
        running.server.stop()
        while not running.plane.closed:
            assert time.monotonic() - begun < 4
            time.sleep(0.01)


def test_one_taker_that_fails_leaves_the_others_their_letters() -> None:
    import asyncio

    from septet.request import Response

    async def deliver() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        mailbox = Mailbox(loop, FakePlane())

        def fails(response: Response) -> None:
            raise ValueError

        def send() -> None:
            for number in range(100):
                mailbox.post(
                    fails if number % 2 else lambda one: seen.append(one.id), Response("m", id=str(number))
                )

        await loop.run_in_executor(None, send)
        await asyncio.sleep(0.1)
        return seen

    assert asyncio.run(deliver()) == [str(number) for number in range(0, 100, 2)]
