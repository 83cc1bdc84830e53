# SPDX-License-Identifier: Apache-2.0
"""A connection whose waits end in time, whatever its peer does."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.client.link import FURTHER, READ, Link

SOON = 0.2


def pair() -> tuple[Link, socket.socket]:
    """A link, and its peer's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        link = Link(host, port, time.monotonic() + 10)
        peer, _ = listener.accept()
    return link, peer


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    link, peer = pair()
    yield link, peer
    link.close()
    peer.close()


def soon() -> float:
    return time.monotonic() + SOON


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 3 * FURTHER).map(bytes)), max_size=4),
    st.sampled_from([READ // 7, READ, 3 * READ]),
)
def test_all_bytes_go_both_ways(chunks: list[bytes], at_once: int) -> None:
    link, peer = pair()
    whole = b"".join(chunks)

    def echo() -> None:
        while data := peer.recv(at_once):
            peer.sendall(data)

    echoing = threading.Thread(target=echo)
    echoing.start()
    sending = threading.Thread(target=link.send, args=(chunks, math.inf))
    sending.start()
    got = b""
    while len(got) < len(whole):
        got += link.receive(time.monotonic() + 20)
    assert got == whole
    sending.join(10)
    assert not link.waiting()
    link.close()
    echoing.join(10)
    peer.close()


def test_a_peer_that_says_nothing_is_waited_for_no_longer(ends: tuple[Link, socket.socket]) -> None:
    link, _ = ends
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        link.receive(soon())
    assert SOON <= time.monotonic() - begin < 5


def test_a_peer_that_takes_nothing_is_waited_for_no_longer(ends: tuple[Link, socket.socket]) -> None:
    link, _ = ends
    with pytest.raises(TimeoutError):
        link.send([bytes(1 << 26)], soon())


def test_a_peer_that_drips_does_not_make_it_longer(ends: tuple[Link, socket.socket]) -> None:
    link, peer = ends
    stop = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not stop.is_set():
                peer.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    end = soon()
    with pytest.raises(TimeoutError):
        deque(iter(lambda: link.receive(end), b""), maxlen=0)
    assert time.monotonic() - end < 5
    stop.set()
    link.close()
    dripping.join(10)


def test_the_end_of_a_connection_is_heard(ends: tuple[Link, socket.socket]) -> None:
    link, peer = ends
    assert not link.waiting()
    peer.sendall(b"last")
    peer.shutdown(socket.SHUT_WR)
    assert link.receive(math.inf) == b"last"
    assert link.waiting()
    assert link.receive(math.inf) == b""


def test_what_nobody_listens_to_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        Link(host, port, math.inf)
    with pytest.raises(TimeoutError):
        Link(host, port, time.monotonic() - 1)


def test_all_addresses_of_a_host_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes a connection whose listener has no room for another."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        host, port = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((host, port))
        [found] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: [found] * 50)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            Link(host, port, soon())
        assert time.monotonic() - begin < 5
        for filler in fillers:
            filler.close()
