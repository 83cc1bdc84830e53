# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 without sockets: two of our own ends against each other, and one against a peer that breaks rules."""

from __future__ import annotations

import itertools

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.wire import frames
from septet.wire.events import (
    ConnectionEnded,
    DataReceived,
    Event,
    GoingAway,
    HeadersReceived,
    Limits,
    PingAnswered,
    StreamEnded,
)
from septet.wire.frames import Code, Setting
from septet.wire.headers import write_headers
from septet.wire.http2 import Connection

ASK = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("te", "trailers")]
BLOCK = write_headers(ASK)
HEAD, TAIL = write_headers([(":status", "200")]), write_headers([("grpc-status", "0")])


def sent(connection: Connection) -> bytes:
    return b"".join(connection.take())


def in_pieces(connection: Connection, data: bytes, sizes: list[int]) -> list[Event]:
    events: list[Event] = []
    for size in itertools.cycle(sizes):
        if not data:
            return events
        events += connection.receive(data[:size])
        data = data[size:]
    return events


def opened(**limits: int) -> Connection:
    """A server whose peer has greeted it."""
    server = Connection(limits=Limits(**limits), clock=lambda: 0.0)
    assert server.receive(frames.PREFACE + frames.settings({})) == []
    sent(server)
    return server


def headers(stream: int, block: bytes = BLOCK, flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(frames.HEADERS, flags, stream, block)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, stream, payload)


def ends_with(events: list[Event], code: Code) -> bool:
    return isinstance(events[-1], ConnectionEnded) and events[-1].code == code


@settings(deadline=None, max_examples=60)
@given(
    bodies=st.lists(st.binary(max_size=300_000), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=6),
    window=st.sampled_from([70_000, 1 << 20]),
)
def test_bodies_cross_whole_in_pieces_of_any_size(bodies: list[bytes], sizes: list[int], window: int) -> None:
    limits = Limits(stream_window=window, connection_window=window + 1000)
    client, server = Connection(client=True, limits=limits), Connection(limits=limits)
    streams = [client.request(BLOCK) for _ in bodies]
    for stream, body in zip(streams, bodies, strict=True):
        client.send_data(stream, [body], end=True)
    asked: dict[int, bytes] = dict.fromkeys(streams, b"")
    answered: dict[int, bytes] = dict.fromkeys(streams, b"")
    done: set[int] = set()
    for _ in range(1000):
        to_server, to_client = sent(client), sent(server)
        if not to_server and not to_client:
            break
        for event in in_pieces(server, to_server, sizes):
            if isinstance(event, DataReceived):
                asked[event.stream] += event.data
                server.acknowledge(event.stream, len(event.data))
            assert not isinstance(event, StreamEnded | ConnectionEnded)
            if isinstance(event, DataReceived | HeadersReceived) and event.ended:
                server.respond(event.stream, HEAD, [asked[event.stream]], TAIL)
        for event in in_pieces(client, to_client, sizes):
            if isinstance(event, DataReceived):
                answered[event.stream] += event.data
                client.acknowledge(event.stream, len(event.data))
            assert not isinstance(event, StreamEnded | ConnectionEnded)
            if isinstance(event, HeadersReceived) and event.ended:
                assert event.headers == (("grpc-status", "0"),)
                done.add(event.stream)
    assert [asked[stream] for stream in streams] == bodies
    assert [answered[stream] for stream in streams] == bodies
    assert done == set(streams)
    assert client.open_streams == server.open_streams == 0


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_whatever_raise(noise: bytes) -> None:
    for start in (b"", frames.PREFACE, frames.PREFACE + frames.settings({}) + headers(1)):
        server = Connection()
        events = server.receive(start + noise)
        sent(server)
        assert sum(isinstance(event, ConnectionEnded) for event in events) <= 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5]), st.binary(max_size=40)
        ),
        max_size=20,
    )
)
def test_no_frames_whatever_raise(unruly: list[tuple[int, int, int, bytes]]) -> None:
    for client in (False, True):
        end = Connection(client=client)
        if client:
            end.request(BLOCK)
        greeting = b"" if client else frames.PREFACE
        events = end.receive(greeting + frames.settings({}) + b"".join(frames.frame(*one) for one in unruly))
        sent(end)
        for event in events:
            if isinstance(event, DataReceived):
                end.acknowledge(event.stream, len(event.data))
            elif isinstance(event, HeadersReceived):
                end.respond(event.stream, HEAD, [b"x" * 100_000], TAIL)
        sent(end)


def test_what_is_no_http2_is_told_so() -> None:
    server = Connection()
    assert ends_with(server.receive(b"GET / HTTP/1.1\r\n\r\n"), Code.PROTOCOL_ERROR)


def test_headers_may_be_continued() -> None:
    block = Encoder().encode([*ASK, ("x-long", "y" * 5000)])
    parts = [block[:1000], block[1000:2000], block[2000:]]
    wire = headers(1, parts[0], flags=frames.END_STREAM)
    wire += frames.frame(frames.CONTINUATION, 0, 1, parts[1])
    wire += frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, parts[2])
    (event,) = opened().receive(wire)
    assert isinstance(event, HeadersReceived)
    assert event.ended
    assert dict(event.headers)["x-long"] == "y" * 5000


def test_a_continued_block_is_not_interrupted() -> None:
    wire = headers(1, BLOCK, flags=0) + frames.frame(frames.PING, 0, 0, bytes(8))
    assert ends_with(opened().receive(wire), Code.PROTOCOL_ERROR)


def test_a_flood_of_continuations_ends() -> None:
    wire = headers(1, BLOCK, flags=0) + 200 * frames.frame(frames.CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 200)
    assert ends_with(opened().receive(wire), Code.ENHANCE_YOUR_CALM)
    wire = headers(1, BLOCK, flags=0) + 2000 * frames.frame(frames.CONTINUATION, 0, 1)
    assert ends_with(opened().receive(wire), Code.ENHANCE_YOUR_CALM)


def test_a_header_bomb_ends() -> None:
    encoder = Encoder()
    first = encoder.encode([*ASK, ("x", "y" * 3000)])
    again = encoder.encode([(":method", "POST"), *[("x", "y" * 3000)] * 500])
    assert ends_with(opened().receive(headers(1, first) + headers(3, again)), Code.ENHANCE_YOUR_CALM)


def test_headers_above_the_limit_cost_their_stream_alone() -> None:
    encoder, server = Encoder(), opened()
    large = encoder.encode([*ASK, ("known", "later"), *[("x", "y" * 1000)] * 40])
    small = encoder.encode([*ASK, ("known", "later")])  # by what the large one has put into the table
    (refused,) = server.receive(headers(1, large))
    assert refused == HeadersReceived(1, (), False)
    server.send_trailers(1, TAIL)
    assert frames.headers(1, TAIL, True, 16384) in sent(server)
    (taken,) = server.receive(headers(3, small))
    assert isinstance(taken, HeadersReceived)
    assert dict(taken.headers)["known"] == "later"
    assert StreamEnded(3, Code.PROTOCOL_ERROR) in server.receive(
        headers(3, encoder.encode([("x", "y" * 20_000)]), frames.END_HEADERS | frames.END_STREAM)
    )
    assert not server.ended
    assert ends_with(server.receive(headers(5, large) * 1_100), Code.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(
    ("frame", "flags"),
    [
        (frames.RST_STREAM, 0),
        (frames.PING, 0),
        (frames.SETTINGS, 0),
        (frames.PRIORITY, 0),
        (frames.DATA, 0),
        (99, 0),
    ],
)
def test_frames_that_only_cost_are_borne_for_a_while(frame: int, flags: int) -> None:
    server = opened()
    payload = {frames.RST_STREAM: bytes(4), frames.PING: bytes(8), frames.PRIORITY: bytes(5)}.get(frame, b"")
    on = 0 if frame in (frames.PING, frames.SETTINGS) else 1
    server.receive(headers(1))
    one = frames.frame(frame, 0, on, payload)
    assert not any(isinstance(event, ConnectionEnded) for event in server.receive(one * 900))
    assert ends_with(server.receive(one * 200), Code.ENHANCE_YOUR_CALM)


def test_rapid_reset_ends_and_patience_returns_with_time() -> None:
    now = 0.0
    server = Connection(clock=lambda: now)
    server.receive(frames.PREFACE + frames.settings({}))
    number = itertools.count(1, 2)

    def resets(count: int) -> bytes:
        made = []
        for stream in itertools.islice(number, count):
            made.append(headers(stream) + frames.rst_stream(stream, Code.CANCEL))
        return b"".join(made)

    assert not any(isinstance(event, ConnectionEnded) for event in server.receive(resets(900)))
    now += 60.0
    assert not any(isinstance(event, ConnectionEnded) for event in server.receive(resets(900)))
    assert ends_with(server.receive(resets(500)), Code.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("large", [False, True])
def test_whoever_lets_as_many_streams_end_as_it_resets_goes_on(large: bool) -> None:
    server = opened()
    answer = [bytes(20_000)] if large else [b"x"]
    for number in range(1, 20_000, 4):
        server.receive(headers(number, flags=frames.END_HEADERS | frames.END_STREAM))
        server.respond(number, HEAD, answer, TAIL)
        server.receive(frames.frame(frames.WINDOW_UPDATE, 0, 0, (20_000).to_bytes(4, "big")))
        server.receive(headers(number + 2) + frames.rst_stream(number + 2, Code.CANCEL))
        assert not server.ended
        sent(server)


def test_more_streams_than_the_limit_are_refused_and_the_others_served() -> None:
    server = opened(streams=2)
    events = server.receive(headers(1) + headers(3) + headers(5))
    assert [event.stream for event in events if isinstance(event, HeadersReceived)] == [1, 3]
    assert frames.rst_stream(5, Code.REFUSED_STREAM) in sent(server)
    server.receive(data(1, b"", frames.END_STREAM))
    server.respond(1, HEAD, [b"x"], TAIL)
    assert any(isinstance(event, HeadersReceived) for event in server.receive(headers(7)))


def test_data_wait_for_the_windows() -> None:
    server = Connection(limits=Limits())
    server.receive(frames.PREFACE + frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}) + headers(1, flags=5))
    sent(server)
    server.respond(1, HEAD, [b"0123456789abcdef"], TAIL)
    assert sent(server) == frames.headers(1, HEAD, False, 16384) + data(1, b"0123456789")
    assert server.unsent(1) == 6
    server.receive(frames.window_update(1, 4))
    assert sent(server) == data(1, b"abcd")
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 5}))  # shrinks what is left to -5
    sent(server)
    server.receive(frames.window_update(1, 5))
    assert sent(server) == b""
    server.receive(frames.window_update(1, 2))
    assert sent(server) == data(1, b"ef") + frames.headers(1, TAIL, True, 16384)
    assert server.open_streams == 0


def test_the_connections_window_is_shared() -> None:
    server = opened()
    server.receive(headers(1, flags=5) + headers(3, flags=5) + frames.window_update(1, 1 << 20))
    server.respond(1, HEAD, [bytes(65_535)], TAIL)
    server.respond(3, HEAD, [b"late"], TAIL)
    assert b"late" not in sent(server)
    server.receive(frames.window_update(0, 100))
    assert sent(server) == data(3, b"late") + frames.headers(3, TAIL, True, 16384)


def test_many_updates_of_windows_cost_one_walk_over_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    server = opened()
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}) + headers(1, flags=5))
    server.respond(1, HEAD, [b"x"], TAIL)
    walks: list[Connection] = []
    monkeypatch.setattr(Connection, "_flush", lambda self: walks.append(self))
    server.receive((frames.window_update(0, 1) + frames.window_update(1, 1)) * 400)
    assert walks == [server]


def test_whoever_gives_back_what_it_was_sent_goes_on_in_however_many_updates() -> None:
    server = opened()
    server.receive(headers(1))
    for _ in range(2_000):
        server.send_data(1, [b"a token"])
        server.receive((frames.window_update(0, 1) + frames.window_update(1, 1)) * 7)
    server.send_data(1, [bytes(10 << 20)])
    for _ in range(10 << 10):
        server.receive(frames.window_update(0, 1 << 10) + frames.window_update(1, 1 << 10))
    assert not server.ended
    assert server.unsent(1) == 0


@pytest.mark.parametrize("size", [1 << 14, 1 << 16])
def test_streams_that_wait_for_a_window_share_it(size: int) -> None:
    server = opened()
    for number in (1, 3, 5):
        server.receive(headers(number, flags=5) + frames.window_update(number, 1 << 24))
        server.respond(number, HEAD, [bytes(1 << 20)], TAIL)
    sent(server)
    before = [server.unsent(number) for number in (1, 3, 5)]
    for _ in range(6):  # the first stream asks for more, too, each time
        server.receive(frames.window_update(0, size) + frames.window_update(1, size))
    gone = [left - server.unsent(number) for left, number in zip(before, (1, 3, 5), strict=True)]
    assert sum(gone) == 6 * size
    assert max(gone) - min(gone) <= size


def test_windows_do_not_overflow() -> None:
    largest = frames.LARGEST_WINDOW
    assert ends_with(opened().receive(frames.window_update(0, largest)), Code.FLOW_CONTROL_ERROR)
    assert ends_with(opened().receive(frames.window_update(0, 0)), Code.PROTOCOL_ERROR)
    *_, event = opened().receive(headers(1) + frames.window_update(1, largest))
    assert event == StreamEnded(1, Code.FLOW_CONTROL_ERROR)
    wide = frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31})
    assert ends_with(opened().receive(wide), Code.FLOW_CONTROL_ERROR)


def test_more_data_than_the_window_end_the_connection() -> None:
    server = opened(stream_window=100, connection_window=70_000)
    assert ends_with(server.receive(headers(1) + data(1, bytes(101))), Code.FLOW_CONTROL_ERROR)


def test_acknowledged_data_reopen_the_window() -> None:
    server = opened(stream_window=100, connection_window=70_000)
    server.receive(headers(1) + data(1, bytes(80)))
    server.acknowledge(1, 80)
    assert frames.window_update(1, 80) in sent(server)
    assert not any(isinstance(event, ConnectionEnded) for event in server.receive(data(1, bytes(100))))


def test_data_of_a_stream_that_was_reset_return_to_the_connections_window() -> None:
    server = opened(stream_window=60_000, connection_window=70_000)
    server.receive(headers(1))
    server.reset(1)
    sent(server)
    server.receive(data(1, bytes(40_000)))
    assert frames.window_update(0, 40_000) in sent(server)


def test_padding_and_priority_are_taken_off() -> None:
    flags = frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY
    wire = headers(1, bytes((3, 0, 0, 0, 0, 9)) + BLOCK + bytes(3), flags)
    wire += frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x04body" + bytes(4))
    for sizes in ([1], [7], [1000]):
        events = in_pieces(opened(), wire, sizes)
        assert b"".join(bytes(event.data) for event in events if isinstance(event, DataReceived)) == b"body"
        assert isinstance(events[-1], DataReceived)
        assert events[-1].ended
    assert ends_with(opened().receive(headers(1, b"\x7f" + BLOCK, 0xC)), Code.PROTOCOL_ERROR)
    wrong = headers(1) + frames.frame(frames.DATA, frames.PADDED, 1, b"\x05abc")
    assert ends_with(opened().receive(wrong), Code.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "POST"), (":path", "/x")],
        [*ASK, (":path", "/y")],
        [("a", "b"), *ASK],
        [*ASK, ("Upper", "x")],
        [*ASK, ("connection", "close")],
        [*ASK, ("transfer-encoding", "chunked")],
        [*ASK, ("te", "gzip")],
        [*ASK, ("a", "b\r\nc: d")],
        [*ASK, ("a b", "c")],
        [*ASK, (":status", "200")],
        [*ASK, ("content-length", "-1")],
    ],
)
def test_malformed_requests_end_their_stream_alone(fields: list[tuple[str, str]]) -> None:
    server = opened()
    events = server.receive(headers(1, write_headers(fields)))
    assert not any(isinstance(event, ConnectionEnded | HeadersReceived) for event in events)
    assert frames.rst_stream(1, Code.PROTOCOL_ERROR) in sent(server)
    assert isinstance(server.receive(headers(3))[0], HeadersReceived)


def test_a_body_is_as_long_as_declared() -> None:
    block = write_headers([*ASK, ("content-length", "3")])
    for body in (b"ab", b"abcd"):
        events = opened().receive(headers(1, block) + data(1, body, frames.END_STREAM))
        assert events[-1] == StreamEnded(1, Code.PROTOCOL_ERROR)
    events = opened().receive(headers(1, block) + data(1, b"abc", frames.END_STREAM))
    assert isinstance(events[-1], DataReceived)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (data(1, b"x"), Code.PROTOCOL_ERROR),
        (frames.rst_stream(1, 0), Code.PROTOCOL_ERROR),
        (headers(2), Code.PROTOCOL_ERROR),
        (headers(0), Code.PROTOCOL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(8)), Code.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
        (frames.settings({Setting.MAX_FRAME_SIZE: 1}), Code.PROTOCOL_ERROR),
        (frames.settings({Setting.ENABLE_PUSH: 2}), Code.PROTOCOL_ERROR),
        (headers(1, b"\xff\xff\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
        (frames.header(2 << 20, frames.DATA, 0, 1), Code.FRAME_SIZE_ERROR),
        (frames.header(1 << 20, frames.PING, 0, 0), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.CONTINUATION, 4, 1, b""), Code.PROTOCOL_ERROR),
    ],
)
def test_broken_rules_end_the_connection_with_their_code(wire: bytes, code: Code) -> None:
    server = opened()
    assert ends_with(server.receive(wire), code)
    assert sent(server)[3] == frames.GOAWAY
    assert server.receive(headers(1)) == []


def test_pings_are_answered_and_asked() -> None:
    client, server = Connection(client=True), Connection()
    client.ping(b"01234567")
    server.receive(sent(client))
    assert client.receive(sent(server)) == [PingAnswered(b"01234567")]


def test_a_shutdown_loses_no_stream_that_was_on_its_way() -> None:
    client, server = Connection(client=True), Connection()
    server.receive(sent(client))
    server.shut_down()
    late = client.request(BLOCK)  # sent before the client has read the first GOAWAY
    on_its_way = sent(client)
    first = client.receive(sent(server))
    assert GoingAway(frames.LARGEST_STREAM, 0) in first
    assert any(isinstance(event, HeadersReceived) for event in server.receive(on_its_way))
    server.receive(sent(client))  # the ping comes back
    assert GoingAway(late, 0) in client.receive(sent(server))
    later = client.request(BLOCK)
    server.receive(sent(client))
    assert client.receive(sent(server)) == [StreamEnded(later, Code.REFUSED_STREAM)]
    server.receive(sent(client))
    server.respond(late, HEAD, [b"x"], TAIL)
    assert any(isinstance(event, DataReceived) for event in client.receive(sent(server)))


def test_the_peer_is_told_to_stop_when_it_is_answered_early() -> None:
    server = opened()
    server.receive(headers(1) + data(1, b"part"))
    server.send_trailers(1, TAIL)
    assert sent(server).endswith(frames.rst_stream(1, Code.NO_ERROR))
    assert server.open_streams == 0
    assert server.receive(data(1, b"rest")) == []


def test_blocks_written_here_are_read_by_hpack() -> None:
    from hpack import Decoder

    fields = [(":status", "200"), (":path", "/a"), ("x" * 200, "y" * 300), ("content-type", "application/grpc")]
    decoded = [(str(name), str(value)) for name, value in Decoder().decode(write_headers(fields))]
    assert decoded == fields


def test_remembered_blocks_follow_the_table() -> None:
    """The same byte stands for another field once the table has changed."""
    encoder, server = Encoder(), opened()
    blocks = [encoder.encode([*ASK, ("x", value)]) for value in ("1", "1", "2")]
    wire = headers(1, blocks[0]) + headers(3, blocks[1]) + headers(5, blocks[1]) + headers(7, blocks[2])
    newest = encoder.encode([*ASK, ("x", "2")])
    wire += headers(9, newest) + headers(11, newest)
    seen = [dict(event.headers)["x"] for event in server.receive(wire) if isinstance(event, HeadersReceived)]
    assert seen == ["1", "1", "1", "2", "2", "2"]


def test_a_frame_that_comes_byte_by_byte_is_gathered_once() -> None:
    server = opened()
    wire = frames.frame(frames.PING + 8, 0, 0, bytes(20_000))
    assert server.receive(wire[:9]) == []
    gathered = server._rest
    assert in_pieces(server, wire[9:-1], [1]) == []
    assert server._rest is gathered
    assert server.receive(wire[-1:] + headers(1))[0] == HeadersReceived(1, tuple(ASK), False)


@pytest.mark.parametrize(
    "begun", [headers(1, flags=0), headers(1)[:20], frames.frame(frames.PING, 0, 0, bytes(8))[:4]]
)
def test_it_is_known_how_long_something_has_not_come_to_its_end(begun: bytes) -> None:
    now = 5.0
    server = Connection(clock=lambda: now)
    server.receive(frames.PREFACE + frames.settings({}))
    assert server.gathering(now) == 0
    server.receive(begun)
    now += 7
    server.receive(frames.frame(frames.CONTINUATION, 0, 1, b"")[: 9 * (begun == headers(1, flags=0))])
    assert server.gathering(now) == 7
