# SPDX-License-Identifier: Apache-2.0
"""Calls as they go over the wire."""

from __future__ import annotations

import pytest

from septet.errors import Refused, Status
from septet.request import Request
from septet.wire.call import GrpcAsks, GrpcSession, HttpAsks
from septet.wire.events import HeadersReceived
from septet.wire.headers import write_headers
from septet.wire.http2 import Connection
from septet.wire.messages import timeout_ns
from septet.wire.shm import Regions


def test_names_do_not_lead_to_other_paths() -> None:
    call = HttpAsks().infer(Request("a/b?c", {}, "1/ready HTTP/1.1\r\nX: y"), {}, Regions())
    assert call.target == "/v2/models/a%2Fb%3Fc/versions/1%2Fready%20HTTP%2F1.1%0D%0AX%3A%20y/infer"


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
