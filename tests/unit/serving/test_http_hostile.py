# SPDX-License-Identifier: Apache-2.0
"""HTTP from clients that mean harm, or are broken: right status, bounded memory, and the next client is served."""

from __future__ import annotations

import base64
import gc
import gzip
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import grpc
import msgspec
import numpy as np
import psutil
import pytest

from fake_plane import Running, Start
from http_talk import answers, dial
from septet.errors import RequestInvalid
from septet.request import Request, Response
from septet.serving import generate, routes
from septet.serving.exchange import Exchange
from septet.serving.http import HttpConnection, HttpLimits
from septet.stubs import SERVICE, service_pb2
from septet.wire import head as drafts
from septet.wire import json as wire
from septet.wire.encoding import decompress
from serving_made import until

LIMITS = HttpLimits(body=4 << 20, head_seconds=1.0, body_seconds=1.0, body_rate=1 << 20, linger_seconds=0.5)
SLOW = 500


def ask(running: Running, wire: bytes, count: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    with dial(running) as talk:
        talk.sendall(wire)
        return answers(talk, count)


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def infer(model: str = "identity", **parameters: float) -> bytes:
    body = wire.write_request(Request(model, {"INPUT0": np.zeros(2, np.float32)}, parameters=dict(parameters)))
    return post(
        f"/v2/models/{model}/infer", b"".join(body.chunks), f"Inference-Header-Content-Length: {body.length}"
    )


def still_serves(running: Running) -> bool:
    ((status, _, body),) = ask(running, infer())
    return status == 200 and bool(body)


@pytest.fixture
def wary(start: Start) -> Running:
    return start(http_limits=LIMITS)


# Requests on one connection


def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    wire_ = (
        infer("slow", seconds=0.2) + infer() + b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n" + infer("full")
    )
    got = ask(running, wire_, 4)
    assert [status for status, _, _ in got] == [200, 200, 200, 503]
    assert b'"slow"' in got[0][2]
    assert b'"identity"' in got[1][2]


def test_who_asks_without_end_leaves_others_their_turn(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each answer is there at once, so that none waits."""
    turns = 0
    have_turn = HttpConnection._have_turn

    def counted(connection: HttpConnection) -> None:
        nonlocal turns
        assert not connection._reading
        turns += 1
        have_turn(connection)

    monkeypatch.setattr(HttpConnection, "_have_turn", counted)
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with dial(start(http_limits=replace(LIMITS, turn=4))) as talk:
        for _ in range(10):
            for _ in range(2):
                talk.sendall(live)
                assert answers(talk)[0][0] == 200
            talk.sendall(2 * live)
            assert [status for status, _, _ in answers(talk, 2)] == [200, 200]
    assert turns == 10


def test_more_pipelined_requests_than_the_limit_wait(start: Start) -> None:
    running = start(http_limits=replace(LIMITS, pipelined=4))
    got = ask(running, infer() * 200, 200)
    assert {status for status, _, _ in got} == {200}


def test_a_connection_is_kept_or_closed_as_asked(running: Running) -> None:
    with dial(running) as talk:
        for _ in range(3):
            talk.sendall(infer())
            assert answers(talk)[0][0] == 200
        talk.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answers(talk)[0][1]["connection"] == "close"
        assert talk.recv(1) == b""


def test_a_request_in_single_bytes(running: Running) -> None:
    with dial(running) as talk:
        for byte in infer():
            talk.sendall(bytes((byte,)))
        assert answers(talk)[0][0] == 200


def test_chunked_bodies_and_expect(running: Running) -> None:
    body = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1],"data":[1]}]}'
    head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    with dial(running) as talk:
        talk.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert answers(talk)[0][0] == 100
        talk.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nTrailer: x\r\n\r\n")
        assert json.loads(answers(talk)[0][2])["outputs"][0]["data"] == [1.0]


def test_an_answer_to_head_has_no_body(running: Running) -> None:
    path = "/v2/models/identity/infer"
    asked = post(path, b"abc").replace(b"POST", b"HEAD")
    with dial(running) as talk:
        talk.sendall(asked + asked + b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = talk.makefile("rb").read()
    heads = told.split(b"HTTP/1.1 ")[1:]
    assert [head[:3] for head in heads] == [b"405", b"405", b"200"]
    assert all(head.endswith(b"\r\n\r\n") for head in heads[:2])


def test_what_is_refused_waits_for_the_answers_before_it(start: Start) -> None:
    running = start(http_limits=replace(LIMITS, linger_seconds=0.0))
    with dial(running) as talk:
        talk.sendall(infer("held") + b"GARBAGE\r\n\r\n")
        until(lambda: bool(running.plane.requests))
        assert still_serves(running)
        running.plane.go_on.set()
        assert [status for status, _, _ in answers(talk, 2)] == [200, 400]
        assert talk.recv(1) == b""


def test_a_client_that_says_no_more_gets_its_answers(running: Running) -> None:
    with dial(running) as talk:
        talk.sendall(infer("held") + infer())
        talk.shutdown(socket.SHUT_WR)
        until(lambda: len(running.plane.requests) == 2)
        assert still_serves(running)
        running.plane.go_on.set()
        assert [status for status, _, _ in answers(talk, 3)] == [100, 200, 200]
        assert talk.recv(1) == b""


def test_a_client_that_says_no_more_after_many_requests(start: Start) -> None:
    running = start(http_limits=replace(LIMITS, pipelined=2))
    with dial(running) as talk:
        talk.sendall(infer() * 20)
        talk.shutdown(socket.SHUT_WR)
        told = talk.makefile("rb").read()
    assert told.count(b"HTTP/1.1 200") == 20


def test_a_target_with_the_servers_name_in_it(running: Running) -> None:
    for target in (b"http://x:8000/v2/models/identity", b"HTTP://x/v2/models/identity?a=b"):
        assert ask(running, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)[0][0] == 200
    assert ask(running, b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n")[0][0] == 404


def listed(*values: float) -> bytes:
    """A request that asks for its tensor back as JSON; all of one length have the same head."""
    data = ",".join(f"{value:.1f}" for value in values)
    body = f'{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[{len(values)}],"data":[{data}]}}]}}'
    return post("/v2/models/identity/infer", body.encode())


@pytest.mark.parametrize("piece", [1, 7, 150, 1_000, 100_000])
def test_a_head_that_was_seen_before_says_the_same_again(start: Start, piece: int) -> None:
    running = start(http_limits=replace(LIMITS, direct=500))
    long = [float(number % 10) for number in range(300)]
    sent = [[1.0, 2.0], [3.0, 4.0], [5.0], [6.0, 7.0], long, [8.0, 9.0], long[::-1], [1.0, 1.0]] * 2
    wire_ = b"".join(listed(*values) for values in sent)
    with dial(running) as talk:
        for begin in range(0, len(wire_), piece):
            talk.sendall(wire_[begin : begin + piece])
        got = [json.loads(body)["outputs"][0]["data"] for _, _, body in answers(talk, len(sent))]
    assert got == sent


def test_a_body_with_an_empty_line_in_it_is_no_head(wary: Running) -> None:
    body = b"\r\n\r\nGET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
    lines = f"POST /v2/models/identity/infer HTTP/1.1\nHost: x\nContent-Length: {len(body)}\n\n".encode()
    for head in (lines, lines.replace(b"\n", b"\r\n"), lines.replace(b"\n\n", b"\n\r\n")):
        for _ in range(3):
            with dial(wary) as talk:
                talk.sendall((head + body) * 2)
                talk.shutdown(socket.SHUT_WR)
                told = talk.makefile("rb").read()
            assert b"200 OK" not in told, "a part of the body was taken for a request"
    assert still_serves(wary)


def test_a_head_seen_by_a_server_of_wider_limits_is_still_refused(start: Start) -> None:
    wide, narrow = start(), start(http_limits=replace(LIMITS, body=10))
    assert ask(wide, listed(1.0))[0][0] == 200
    assert ask(narrow, listed(1.0))[0][0] == 413


# Row 36: what could be understood in two ways


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5, 6",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"Content-Length: 0x5",
        b"Content-Length: 99999999999999999999999",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: xchunked",
        b"Content-Length : 5",
        b"Bad\x00Name: x",
        b"Bad Name: x",
        b"X: a\x00b",
        b"X: a\rb",
        b" folded: x",
        b"X: a\n\n",
        b"Host: y",
        b"Inference-Header-Content-Length: 1\r\nInference-Header-Content-Length: 2",
        b"Content-Encoding: gzip\r\nContent-Encoding: deflate",
        b": empty",
    ],
)
def test_smuggling_is_refused(wary: Running, head: bytes) -> None:
    with dial(wary) as talk:
        talk.sendall(
            b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\nGET /v2 HTTP/1.1\r\n\r\n"
        )
        got = talk.makefile("rb").read()
    assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")), got
    assert got.count(b"HTTP/1.1 ") == 1, "what follows must not be taken for another request"
    assert still_serves(wary)


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity, chunked", b"gzip\r\nTransfer-Encoding: chunked"])
def test_no_coding_but_chunked_is_taken_however_well_it_is_framed(wary: Running, coding: bytes) -> None:
    with dial(wary) as talk:
        talk.sendall(b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + coding)
        talk.sendall(b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        assert answers(talk)[0][0] == 400


@pytest.mark.parametrize(
    "wire_", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_no_http_is_told_so(wary: Running, wire_: bytes) -> None:
    assert ask(wary, wire_)[0][0] == 400


# Rows 1, 11, 15: sizes


def test_a_million_tiny_chunks(start: Start) -> None:
    running = start(http_limits=replace(LIMITS, body=64 << 20))  # 6 MB are not too many: their pieces are
    before = psutil.Process().memory_info().rss
    head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with dial(running) as talk:

        def send() -> None:
            with suppress(OSError):  # refused and hung up before the end
                talk.sendall(head + b"6\r\nabcdef\r\n" * 1_000_000 + b"0\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        assert answers(talk)[0][0] == 413
        sender.join()
    assert psutil.Process().memory_info().rss - before < 64 << 20
    assert still_serves(running)


def test_a_body_above_the_limit_is_refused_before_it_is_read(wary: Running) -> None:
    head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n\r\n"
    assert ask(wary, head)[0][0] == 413
    with dial(wary) as talk:
        talk.sendall(b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(6):
                talk.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        except OSError:
            pass
        assert answers(talk)[0][0] == 413
    assert still_serves(wary)


def test_headers_have_a_limit(wary: Running) -> None:
    with dial(wary) as talk:
        try:
            talk.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n")
            for number in range(3000):
                talk.sendall(b"X-%d: " % number + b"y" * 100 + b"\r\n")
        except OSError:
            pass
        assert talk.recv(12) == b"HTTP/1.1 431"
    assert still_serves(wary)


@pytest.mark.parametrize("size", [3_000_000, 60_000_000])
def test_a_bomb_is_refused(wary: Running, size: int) -> None:
    bomb = gzip.compress(bytes(size))
    status = ask(wary, post("/v2/models/identity/infer", bomb, "Content-Encoding: gzip"))[0][0]
    assert status == (400 if size < LIMITS.body else 413)
    assert ask(wary, post("/v2/models/identity/infer", b"x", "Content-Encoding: br"))[0][0] == 501
    assert still_serves(wary)


def test_a_body_is_inflated_beside_the_loop(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    served = threading.Event()

    def slowly(*given: Any) -> bytes:
        assert served.wait(20), "nobody else was served meanwhile"
        return decompress(*given)

    monkeypatch.setattr(routes, "decompress", slowly)
    body = wire.write_request(Request("identity", {"INPUT0": np.random.default_rng(0).normal(size=10_000)}))
    packed = gzip.compress(b"".join(body.chunks))
    with dial(running) as talk:
        talk.sendall(
            post(
                "/v2/models/identity/infer",
                packed,
                "Content-Encoding: gzip",
                f"Inference-Header-Content-Length: {body.length}",
            )
        )
        assert still_serves(running)
        served.set()
        assert answers(talk)[0][0] == 200


def test_long_lists_are_read_and_written_beside_the_loop(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = {step: threading.Event() for step in ("document", "elements", "write")}
    read, bind, write = wire.read_request, drafts.bind, wire.write_response

    def slow_read(*given: Any) -> drafts.Draft:
        assert len(given[2]) < 100_000 or served["document"].wait(20), "nobody else was served meanwhile"
        return read(*given)

    def slow_bind(given: drafts.Head, *more: Any) -> Request:
        assert given.viewed or served["elements"].wait(20), "nobody else was served meanwhile"
        return bind(given, *more)

    def slow_write(*given: Any) -> wire.Body:
        large = given[1].outputs["OUTPUT0"].size > 1_000
        assert not large or served["write"].wait(20), "nobody else was served meanwhile"
        return write(*given)

    monkeypatch.setattr(wire, "read_request", slow_read)
    monkeypatch.setattr(drafts, "bind", slow_bind)
    monkeypatch.setattr(wire, "write_response", slow_write)
    data = list(range(200_000))
    tensor = {"name": "INPUT0", "datatype": "INT32", "shape": [len(data)], "data": data}
    with dial(running) as talk:
        talk.sendall(post("/v2/models/identity/infer", json.dumps({"inputs": [tensor]}).encode()))
        for step in served:
            assert still_serves(running)
            served[step].set()
        ((status, _, body),) = answers(talk)
    assert status == 200
    assert json.loads(body)["outputs"][0]["data"] == data


def texts(model: str, count: int, shape: list[int]) -> bytes:
    """A request that brings `count` empty texts in binary."""
    raw = bytes(4 * count)
    tensor = {"name": "INPUT0", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    document = json.dumps({"inputs": [tensor]}).encode()
    return post(f"/v2/models/{model}/infer", document + raw, f"Inference-Header-Content-Length: {len(document)}")


def test_many_texts_are_read_beside_the_loop(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    served, bind = threading.Event(), drafts.bind

    def slowly(given: drafts.Head, *more: Any) -> Request:
        assert given.viewed or served.wait(20), "nobody else was served meanwhile"
        return bind(given, *more)

    monkeypatch.setattr(drafts, "bind", slowly)
    with dial(running) as talk:
        talk.sendall(texts("identity", 50_000, [50_000]))
        assert still_serves(running)
        served.set()
        assert answers(talk)[0][0] == 200
    assert running.plane.requests[-1].inputs["INPUT0"].tolist() == [b""] * 50_000


def test_many_texts_are_written_beside_the_loop(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    served, write = threading.Event(), wire.write_response

    def slowly(request: Request, *given: Any) -> wire.Body:
        assert request.inputs["INPUT0"].dtype.kind != "O" or served.wait(20), "nobody else was served meanwhile"
        return write(request, *given)

    monkeypatch.setattr(wire, "write_response", slowly)
    body = wire.write_request(Request("identity", {"INPUT0": np.full(50_000, b"", object)}))
    length = f"Inference-Header-Content-Length: {body.length}"
    with dial(running) as talk:
        talk.sendall(post("/v2/models/identity/infer", b"".join(body.chunks), length))
        until(lambda: bool(running.plane.requests))
        assert still_serves(running)
        served.set()
        assert answers(talk)[0][2].endswith(bytes(200_000))


def test_texts_that_nobody_takes_are_not_read(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "bind", lambda *given: pytest.fail("elements were read"))
    assert ask(running, texts("nobody", 50_000, [50_000]))[0][0] == 404
    assert ask(running, texts("identity", 50_000, [50_001]))[0][0] == 400
    assert ask(running, texts("identity", 50_000, [2**31 - 1, 2**31 - 1]))[0][0] == 400


# What all connections hold together


def test_texts_count_as_what_they_take_in_memory(start: Start) -> None:
    running = start(http_limits=LIMITS, held=2 << 20)
    ((status, _, body),) = ask(running, texts("identity", 50_000, [50_000]))
    assert status == 503
    assert b"the server holds" in body
    assert ask(running, texts("identity", 20_000, [20_000]))[0][0] == 200
    until(lambda: held(running) == 0)


def test_all_bodies_together_have_a_limit(start: Start) -> None:
    running = start(http_limits=LIMITS, held=6 << 20)
    head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\n"
    plain = head + b"Content-Length: 3000000\r\n\r\n" + bytes(2_900_000)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % 2_900_000 + bytes(2_900_000)
    for wire_ in (plain, chunked):
        with dial(running) as first, dial(running) as second, dial(running) as third:
            first.sendall(wire_)
            second.sendall(wire_)
            until(lambda: held(running) > 5_700_000)
            with suppress(OSError):  # refused and hung up before the end
                third.sendall(wire_)
            ((status, headers, body),) = answers(third)
            assert (status, headers["connection"]) == (503, "close")
            assert b"the server holds" in body
            assert still_serves(running), "what is small is served nevertheless"
        until(lambda: held(running) == 0)
        large = wire.write_request(Request("identity", {"INPUT0": np.zeros(700_000, np.float32)}))
        length = f"Inference-Header-Content-Length: {large.length}"
        whole = post("/v2/models/identity/infer", b"".join(large.chunks), length)
        for _ in range(5):
            assert ask(running, whole)[0][0] == 200
        until(lambda: held(running) == 0)


def test_what_is_inflated_counts_as_it_is(start: Start) -> None:
    running = start(http_limits=LIMITS, held=2 << 20)
    large = wire.write_request(Request("slow", {"INPUT0": np.zeros(400_000, np.float32)}))
    head = (f"Inference-Header-Content-Length: {large.length}", "Content-Encoding: gzip")
    packed = post("/v2/models/slow/infer", gzip.compress(b"".join(large.chunks)), *head)
    with dial(running) as waits:
        waits.sendall(packed)
        until(lambda: bool(running.plane.requests))
        assert ask(running, packed)[0][0] == 503
        assert still_serves(running)
    until(lambda: held(running) == 0)


def test_loads_that_take_long_hold_up_nothing_else(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.plane, "load", lambda *_: running.plane.go_on.wait(20))
    load = post("/v2/repository/models/x/load", b"{}")
    numbers = np.random.default_rng(0).random(4_000).astype(np.float32)
    large = wire.write_request(Request("identity", {"INPUT0": numbers}))
    head = (f"Inference-Header-Content-Length: {large.length}", "Content-Encoding: gzip")
    with ExitStack() as stack, grpc.insecure_channel(running.grpc) as channel:
        loading = [stack.enter_context(dial(running)) for _ in range(20)]
        for talk in loading:
            talk.sendall(load)
        ask_load = channel.unary_unary(f"/{SERVICE}/RepositoryModelLoad")
        calls = [ask_load.future(service_pb2.RepositoryModelLoadRequest(model_name="x").SerializeToString())
                 for _ in range(20)]  # fmt: skip
        packed = gzip.compress(b"".join(large.chunks))
        assert ask(running, post("/v2/models/identity/infer", packed, *head))[0][0] == 200
        assert ask(running, b"GET /v2/models/identity HTTP/1.1\r\nHost: x\r\n\r\n")[0][0] == 200
        assert ask(running, post("/v2/logging", b" " * (2 << 20)))[0][0] == 413
        ask_metadata = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
        assert ask_metadata(service_pb2.ServerMetadataRequest().SerializeToString(), timeout=10)
        running.plane.go_on.set()
        assert [answers(talk)[0][0] for talk in loading] == [200] * 20
        assert all(call.result(10) is not None for call in calls)


def held(running: Running) -> int:
    """Bytes of requests that the server counts."""
    return running.server.budget.held


# Row 14, and 12, 13, 16 where they are told over HTTP


@pytest.mark.parametrize("length", ["99999", "-1", "abc", "1e3", ""])
def test_a_false_header_length(running: Running, length: str) -> None:
    ((status, _, body),) = ask(
        running, post("/v2/models/identity/infer", b"{}", f"Inference-Header-Content-Length: {length}")
    )
    assert status == 400
    assert b"in range" in body


def test_deep_and_odd_json(running: Running) -> None:
    deep = b"[" * 100_000
    for path in ("infer", "generate", "generate_stream", "load"):
        target = "/v2/repository/models/identity/load" if path == "load" else f"/v2/models/identity/{path}"
        for body in (deep, b'{"inputs":NaN}', b'{"a":"\xff"}', b"[]", b"", b"7"):
            if path == "load" and body == b"":
                continue
            assert ask(running, post(target, body))[0][0] == 400, (path, body[:20])
    assert still_serves(running)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/repository/index",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/repository/models/identity/unload",
        "/v2/repository/models/identity/load",
    ],
)
def test_documents_that_are_no_inference_are_short(running: Running, path: str) -> None:
    for long in ('"%s"' % ("x" * (1 << 20)), "[%s1]" % ("1," * (1 << 20))):
        document = f'{{"parameters":{{"config":{long}}},"log_verbose_level":1,"other":{long}}}'
        assert ask(running, post(path, document.encode()))[0][0] == 413
    assert running.plane.loaded == []


def test_a_load_may_bring_long_files(running: Running) -> None:
    path, content = "/v2/repository/models/identity/load", bytes(2 << 20)
    parameters = {"config": "{}", "file:1/model.onnx": base64.b64encode(content).decode()}
    assert ask(running, post(path, json.dumps({"parameters": parameters}).encode()))[0][0] == 200
    assert running.plane.loaded == [("identity", {"config": "{}", "file:1/model.onnx": content})]
    many = {f"file:{number}": "" for number in range(100_000)}
    assert ask(running, post(path, json.dumps({"parameters": many}).encode()))[0][0] == 413


# Row 8: names


@pytest.mark.parametrize(
    "name",
    ["../x", "..", "%2e%2e", "%2e%2e%2fx", "%252e%252e", "a%5Cb", "a\\b", "a%00b", "/etc/passwd", "%2fetc", "."],
)
def test_names_that_climb(running: Running, name: str) -> None:
    for path in (f"/v2/models/{name}/infer", f"/v2/repository/models/{name}/load", f"/v2/models/{name}"):
        method = (
            post(path, b"{}")
            if path.endswith(("infer", "load"))
            else f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        assert ask(running, method)[0][0] == 400, path
    assert running.plane.loaded == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/models/identity/versions/x", 404),
        ("GET", "/v3", 404),
        ("HEAD", "/v2/health/live", 405),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/v2/models/identity/infer", 405),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 400),
        ("GET", "/metrics", 404),
    ],
)
def test_statuses_are_tritons(running: Running, method: str, path: str, status: int) -> None:
    with dial(running) as talk:
        talk.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert int(talk.recv(12).split()[1]) == status


def test_nothing_inside_is_told(running: Running) -> None:
    ((status, _, body),) = ask(running, infer("broken"))
    assert (status, json.loads(body)) == (500, {"error": "internal error"})


def test_a_decoupled_model_over_http(running: Running) -> None:
    body = b'{"inputs":[{"name":"IN","datatype":"INT32","shape":[3],"data":[1,2,3]}]}'
    assert ask(running, post("/v2/models/repeat/infer", body))[0][0] == 501
    assert running.plane.requests == []  # it was not run in vain
    ((status, _, text),) = ask(running, post("/v2/models/repeat/generate", b'{"IN":[1,2,3]}'))
    assert status == 400
    assert b"exactly 1 response" in text


def test_generate(running: Running) -> None:
    ((status, _, body),) = ask(
        running, post("/v2/models/identity/generate", b'{"INPUT0":1.5,"id":"7","temperature":1}')
    )
    assert status == 200
    expected = {"model_name": "identity", "model_version": "1", "id": "7", "OUTPUT0": 1.5}
    assert json.loads(body) == expected
    assert running.plane.requests[-1].parameters == {"temperature": 1}
    with dial(running) as talk:
        talk.sendall(post("/v2/models/repeat/generate_stream", b'{"IN":[1,2]}', "Connection: close"))
        got = talk.makefile("rb").read()
    assert b"text/event-stream" in got
    events = [json.loads(line[6:]) for line in got.split(b"\r\n") if line.startswith(b"data: ")]
    assert [event["OUT"] for event in events] == [1, 2]
    assert got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("model", "data", "read"),
    [
        ("identity", "[1,2.5]", [1.0, 2.5]),
        ("identity", "[ ]", []),
        ("identity", "7", [7.0]),
        ("words", '["a,b","[\\"]"]', [b"a,b", b'["]']),
        ("words", '"a"', [b"a"]),
        ("identity", "[[1]]", None),
        ("identity", "[true]", None),
        ("identity", '["1"]', None),
        ("identity", "{}", None),
        ("words", "[1]", None),
    ],
)
def test_what_generate_reads(running: Running, model: str, data: str, read: list[object] | None) -> None:
    ((status, _, _),) = ask(running, post(f"/v2/models/{model}/generate", b'{"INPUT0":%b}' % data.encode()))
    assert status == (400 if read is None else 200)
    assert read is None or running.plane.requests[-1].inputs["INPUT0"].tolist() == read


@pytest.mark.parametrize(
    ("dims", "count", "shape"),
    [
        ([-1, -1], 3, (1, 3)),
        ([-1, -1], 0, (1, 0)),
        ([-1, 2], 4, (2, 2)),
        ([-1, 2, -1], 6, (1, 2, 3)),
        ([2, 2], 4, (2, 2)),
        ([2, 2], 2, None),
        ([2, 2], 8, None),
        ([-1, 2], 3, None),
    ],
)
def test_generate_makes_the_models_shapes(
    running: Running, monkeypatch: pytest.MonkeyPatch, dims: list[int], count: int, shape: tuple[int, ...] | None
) -> None:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": dims}
    monkeypatch.setattr(running.plane, "model_metadata", lambda *model: {"inputs": [tensor]})
    body = json.dumps({"INPUT0": [1.5] * count}).encode()
    assert ask(running, post("/v2/models/identity/generate", body))[0][0] == (200 if shape else 400)
    assert not shape or running.plane.requests[-1].inputs["INPUT0"].shape == shape


@pytest.mark.parametrize("count", [1, 100_000])
def test_generate_writes_lists_in_pieces_as_infer_does(running: Running, count: int) -> None:
    for model, given, told in (("identity", 0.1, float(np.float32(0.1))), ("words", 'a"ö', 'a"ö')):
        body = json.dumps({"INPUT0": [given] * count}).encode()
        ((status, _, text),) = ask(running, post(f"/v2/models/{model}/generate", body))
        assert status == 200
        assert json.loads(text)["OUTPUT0"] == (told if count == 1 else [told] * count)


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
def test_long_answers_of_generate_are_written_beside_the_loop(
    running: Running, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    served, flat = threading.Event(), generate._flat

    def slowly(response: Response) -> Any:
        assert served.wait(20), "nobody else was served meanwhile"
        return flat(response)

    monkeypatch.setattr(generate, "_flat", slowly)
    with dial(running) as talk:
        body = json.dumps({"INPUT0": [1.5] * 100_000}).encode()
        talk.sendall(post(f"/v2/models/identity/{path}", body, "Connection: close"))
        until(lambda: bool(running.plane.requests))
        assert still_serves(running)
        served.set()
        assert talk.makefile("rb").read().count(b"1.5") == 100_000


def test_long_and_short_answers_of_a_stream_keep_their_order(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, flat = threading.Event(), generate._flat

    def slowly(response: Response) -> Any:
        first = response.outputs and response.outputs["OUT"][0] == 1
        assert not first or served.wait(20), "nobody else was served meanwhile"
        return flat(response)

    monkeypatch.setattr(generate, "_flat", slowly)
    monkeypatch.setattr(generate, "AT_ONCE", 3, raising=False)  # the last response, without outputs, is short
    with dial(running) as talk:
        talk.sendall(post("/v2/models/repeat/generate_stream", b'{"IN":[1,2,3]}', "Connection: close"))
        until(lambda: bool(running.plane.requests))
        assert still_serves(running)
        served.set()
        got = talk.makefile("rb").read()
    events = [json.loads(line[6:]) for line in got.split(b"\r\n") if line.startswith(b"data: ")]
    assert [event["OUT"] for event in events] == [1, 2, 3]
    assert got.endswith(b"0\r\n\r\n")


def test_generate_reads_elements_last_and_few_fields(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/v2/models/identity/generate"
    monkeypatch.setattr(drafts, "bind", lambda *given: pytest.fail("elements were read"))
    many = {f"{number:020}": 1 for number in range(50_000)}
    assert ask(running, post(path, json.dumps(many).encode()))[0][0] == 400
    monkeypatch.setattr(running.plane, "admit", refuse)
    assert ask(running, post(path, json.dumps({"INPUT0": [1] * 100_000}).encode()))[0][0] == 400


def refuse(request: Request) -> None:
    raise RequestInvalid(f"nobody takes {request.inputs['INPUT0'].shape}")


def test_a_raw_request(running: Running) -> None:
    tensor = np.arange(3, dtype=np.float32)
    ((status, headers, body),) = ask(
        running, post("/v2/models/identity/infer", tensor.tobytes(), "Inference-Header-Content-Length: 0")
    )
    assert status == 200
    length = int(headers["inference-header-content-length"])
    assert msgspec.json.decode(body[:length])["outputs"][0]["shape"] == [3]
    assert body[length:] == tensor.tobytes()
    wrong = post("/v2/models/scores/infer", b"abcd", "Inference-Header-Content-Length: 0")
    assert ask(running, wrong)[0][0] == 400


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "h2c, HTTP2-Settings"])
@pytest.mark.parametrize("size", [1, 300, 100_000])
def test_an_upgrade_is_ignored(running: Running, protocol: str, size: int) -> None:
    body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [size], "data": [1.5] * size}]})
    asked = post("/v2/models/identity/infer", body.encode(), "Connection: Upgrade", f"Upgrade: {protocol}")
    get = f"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()
    seen = ask(running, asked + get + asked + get, 4)
    assert [status for status, _, _ in seen] == [200] * 4
    assert json.loads(seen[2][2])["outputs"][0]["data"] == [1.5] * size
    assert json.loads(seen[3][2])["name"] == "septet"


@pytest.mark.parametrize("count", [4, 1 << 19])
def test_a_body_that_has_not_come_is_not_answered(running: Running, count: int) -> None:
    tensor = np.arange(count, dtype=np.float32).tobytes()
    asked = post("/v2/models/identity/infer", tensor, "Inference-Header-Content-Length: 0",
                 "Connection: Upgrade", "Upgrade: h2c")  # fmt: skip
    head, _, _ = asked.partition(b"\r\n\r\n")
    with dial(running) as talk:
        talk.sendall(head + b"\r\n\r\n")
        assert still_serves(running)
        assert running.plane.requests[:-1] == []
        for begin in range(0, len(tensor), 1 << 18):
            talk.sendall(tensor[begin : begin + (1 << 18)])
        ((status, _, body),) = answers(talk)
    assert status == 200
    assert body.endswith(tensor)


@pytest.mark.parametrize(
    "asked",
    [b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
     b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
     b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
)  # fmt: skip
def test_no_other_protocol_is_spoken(running: Running, asked: bytes) -> None:
    ((status, _, body),) = ask(running, asked)
    assert (status, json.loads(body)) == (400, {"error": "no other protocol is spoken here"})


# Row 39: what is said twice


def test_two_requests_of_one_id_get_their_own_answers(running: Running) -> None:
    def asked(value: float) -> bytes:
        tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [value]}
        return post("/v2/models/identity/infer", json.dumps({"id": "twice", "inputs": [tensor]}).encode())

    got = [json.loads(body) for _, _, body in ask(running, b"".join(asked(value) for value in range(50)), 50)]
    assert [answer["outputs"][0]["data"] for answer in got] == [[float(value)] for value in range(50)]
    assert {answer["id"] for answer in got} == {"twice"}


# Row 17: patience


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as 500 connections take at both ends, and some to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * SLOW + 256
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} open files are needed, and this process may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_clients_are_hung_up_on_and_others_served_meanwhile(wary: Running, many_files: None) -> None:
    slow = [dial(wary) for _ in range(SLOW)]
    for number, talk in enumerate(slow):
        talk.sendall(
            b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100"
            + b"\r\n\r\n" * (number % 2)
        )
    end = time.monotonic() + 3.2
    while time.monotonic() < end:
        for talk in slow:
            with suppress(OSError):
                talk.sendall(b"1")
        assert still_serves(wary)
        time.sleep(0.3)
    for talk in slow:
        assert talk.recv(12) in (b"HTTP/1.1 408", b"")
        talk.close()


def test_an_idle_connection_is_closed(start: Start) -> None:
    running = start(http_limits=replace(LIMITS, idle_seconds=0.5))
    with dial(running) as talk:
        talk.sendall(infer())
        assert answers(talk)[0][0] == 200
        assert talk.recv(1) == b""


def test_a_client_that_does_not_read_is_hung_up_on(start: Start) -> None:
    running = start(http_limits=replace(HttpLimits(), stuck_seconds=1.0))
    body = wire.write_request(Request("identity", {"INPUT0": np.zeros(4_000_000, np.float32)}))
    one = post(
        "/v2/models/identity/infer", b"".join(body.chunks), f"Inference-Header-Content-Length: {body.length}"
    )
    with dial(running) as talk, pytest.raises((ConnectionResetError, BrokenPipeError)):
        talk.sendall(one * 20)
    assert still_serves(running)


# Row 18: clients that leave


def test_a_client_that_leaves_cancels_its_requests(running: Running) -> None:
    with dial(running) as talk:
        talk.sendall(infer("slow"))
        while not running.plane.requests:
            time.sleep(0.01)
        assert not running.plane.requests[0].cancelled
    assert running.plane.cancelled.wait(5)
    assert still_serves(running)


def test_a_client_that_leaves_a_stream_ends_its_request(running: Running) -> None:
    with dial(running) as talk:
        talk.sendall(post("/v2/models/endless/generate_stream", b'{"IN":1}'))
        assert b"data: " in talk.recv(1 << 16) + talk.recv(1 << 16)
        assert not running.plane.requests[0].cancelled
    assert running.plane.cancelled.wait(5)
    assert still_serves(running)


BLANKS = b" " * (1 << 20)
ONE = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1%b]}]}'


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{" + BLANKS, 400), (BLANKS + ONE % b"", 400), (ONE % BLANKS, 200), (ONE % (b",2" + BLANKS), 400)],
    ids=["cut", "too much", "right", "too many"],
)
def test_what_was_answered_is_let_go_without_a_collection(
    running: Running, body: bytes, status: int, packed: bool
) -> None:
    """Collections look for circles once in many thousands of objects, and a few bodies fill a server."""
    wire_ = gzip.compress(body, 1) if packed else body
    headers = ["Content-Encoding: gzip"] if packed else []
    gc.collect()
    gc.disable()
    try:
        assert ask(running, post("/v2/models/identity/infer", wire_, *headers))[0][0] == status
        until(lambda: not any(type(each) in (Exchange, HttpConnection) for each in gc.get_objects()))
    finally:
        gc.enable()


def test_an_unforeseen_fault_holds_nothing(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(wire, "read_request", fault)
    gc.collect()
    gc.disable()
    try:
        assert ask(running, post("/v2/models/identity/infer", ONE % BLANKS))[0][0] == 500
        until(lambda: not any(type(each) in (Exchange, HttpConnection) for each in gc.get_objects()))
    finally:
        gc.enable()
