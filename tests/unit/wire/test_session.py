# SPDX-License-Identifier: Apache-2.0
"""Calls as they go over the wire; whatever a server says, a call ends."""

from __future__ import annotations

import pytest

from septet.errors import Refused, RequestInvalid, Status
from septet.wire import json
from septet.wire.call import Call, GrpcAsks, HttpAsks
from septet.wire.events import HeadersReceived
from septet.wire.headers import write_headers
from septet.wire.http2 import Connection
from septet.wire.messages import timeout_ns
from septet.wire.session import GrpcSession, HttpSession

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


@pytest.mark.parametrize("seconds", [1e-9, 0.5, 60, 9_999.5, 10_000, 100_000, 1_000_000])
def test_timeouts_as_grpc_reads_them(seconds: float) -> None:
    call = GrpcAsks().live()
    call.timeout = seconds
    session, server = GrpcSession("x:1"), Connection(client=False)
    session.begin(call)
    events = server.receive(b"".join(session.take()))
    [headers] = [dict(event.headers) for event in events if isinstance(event, HeadersReceived)]
    assert seconds <= timeout_ns(headers["grpc-timeout"]) / 1e9 <= seconds + 1


@pytest.mark.parametrize(
    ("said", "status"), [("5", Status.NOT_FOUND), ("²", Status.UNKNOWN), ("9" * 5_000, Status.UNKNOWN)]
)
def test_a_status_that_is_none_is_unknown(said: str, status: Status) -> None:
    call = GrpcAsks().live()
    session, server = GrpcSession("x:1"), Connection(client=False)
    session.begin(call)
    server.receive(b"".join(session.take()))
    server.send_trailers(1, write_headers([(":status", "200"), ("grpc-status", said)]))
    assert session.receive(b"".join(server.take())) == [call]
    assert isinstance(call.failure, Refused)
    assert call.failure.status is status


@pytest.fixture
def session() -> HttpSession:
    return HttpSession("host:1")


@pytest.fixture
def call(session: HttpSession) -> Call[bool]:
    """A call that was sent."""
    asked = HttpAsks().live()
    session.begin(asked)
    return asked


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_an_answer_in_pieces(session: HttpSession, call: Call[bool], pieces: int) -> None:
    whole = OK + b"\r\n{}"
    done = [one for at in range(0, len(whole), pieces) for one in session.receive(whole[at : at + pieces])]
    assert done == [call]
    assert call.result()
    assert session.room == 1


@pytest.mark.parametrize("length", [b"abc", b"-1", b"3", b"9" * 30, b""])
def test_a_length_that_is_none_ends_the_call(session: HttpSession, call: Call[bool], length: bytes) -> None:
    done = session.receive(OK + b"Inference-Header-Content-Length: " + length + b"\r\n\r\n{}")
    assert done == [call]
    with pytest.raises(RequestInvalid):
        call.result()
    assert not session.usable


@pytest.mark.parametrize("junk", [b"junk", b"\x00", b"HTTP/9"])
def test_what_follows_an_answer_does_not_take_it_away(session: HttpSession, call: Call[bool], junk: bytes) -> None:
    assert session.receive(OK + b"\r\n{}" + junk) == [call]
    assert call.result()
    session.receive(b"\r\n\r\n")
    assert not session.usable


def test_a_refusal_has_the_servers_words(session: HttpSession, call: Call[bool]) -> None:
    body = b'{"error":"not now"}'
    session.receive(b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    with pytest.raises(Refused, match="not now"):
        call.result()


def test_an_interrupt_in_the_middle_of_an_answer_is_no_fault_of_the_server(
    session: HttpSession, call: Call[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "header_length", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.receive(OK + b"\r\n{}")
    assert not call.done
    assert not session.usable
