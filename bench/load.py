# SPDX-License-Identifier: Apache-2.0
"""A closed-loop client as cheap as Python allows, the same for every server; a process of its own.

``python bench/load.py http|grpc HOST:PORT MODEL CONNECTIONS SECONDS ELEMENTS [EXPECTED.npy]`` keeps one request of
FP32[1, ELEMENTS] under way on each connection and prints a JSON line. Each answer's status is checked, and the
first one's tensor: it is what was sent, or about what the file holds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import uvloop

from septet.request import Request
from septet.stubs import SERVICE
from septet.wire import frames, proto
from septet.wire import json as wire
from septet.wire.frames import Setting
from septet.wire.headers import HeaderReader, write_headers
from septet.wire.messages import enveloped
from septet.wire.shm import Regions

WARM_SECONDS = 0.5
WIDE = 1 << 30
"""A window that never closes."""


@dataclass
class Tally:
    """What all connections have seen."""

    expected: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    counting: bool = False
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    checked: bool = False

    def check(self, got: object) -> None:
        """Hold the first answer's tensor against what was sent."""
        self.checked = True
        have = cast(np.ndarray[tuple[int, ...], np.dtype[np.float32]], got)
        if have.shape != self.expected.shape or not np.allclose(have, self.expected, rtol=1e-3, atol=1e-3):
            self.failures.append("the tensor that came back is not the one expected")


class Loop(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, tally: Tally, messages: list[bytes]) -> None:
        self.tally = tally
        self.messages = messages
        self.begun = 0.0
        self.transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.greet()
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.tally.counting:
            self.tally.failures.append(f"the server hung up: {exc}")

    def greet(self) -> None:
        """Say what the protocol wants said first."""

    def send(self) -> None:
        """Begin the next request."""
        self.begun = time.perf_counter()
        self.transport.writelines(self.messages)

    def done(self) -> None:
        """An answer is whole."""
        if self.tally.counting:
            self.tally.latencies.append(time.perf_counter() - self.begun)
        self.send()


class HttpLoop(Loop):
    """HTTP/1.1."""

    parts: list[bytes]
    missing = -1
    json_size = 0

    def greet(self) -> None:
        self.parts = []

    def data_received(self, data: bytes) -> None:
        if self.missing < 0:
            data = b"".join((*self.parts, data))
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.parts = [data]
                return
            head = data[:end].lower()
            if head[9:12] != b"200":
                self.tally.failures.append(data[:200].decode("latin-1"))
            self.json_size = int(head.split(b"inference-header-content-length: ")[1].split(b"\r\n")[0])
            self.missing = int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            self.parts, data = [], data[end + 4 :]
        self.missing -= len(data)
        self.parts.append(data)
        if self.missing == 0:
            if not self.tally.checked:
                body = b"".join(self.parts)
                self.tally.check(wire.ResponseReader(Regions()).read(body, self.json_size).outputs["OUTPUT0"])
            self.parts, self.missing = [], -1
            self.done()


class GrpcLoop(Loop):
    """gRPC: as much of HTTP/2 as one call at a time needs."""

    def greet(self) -> None:
        self.rest = b""
        self.inside = 0
        self.stream = -1
        self.body: list[bytes] = []
        self.owed = 0
        self.reader = HeaderReader(1 << 16, 1 << 16)
        wide = {Setting.INITIAL_WINDOW_SIZE: WIDE, Setting.MAX_FRAME_SIZE: 1 << 20}
        self.transport.write(frames.PREFACE + frames.settings(wide) + frames.window_update(0, WIDE))
        self.open_window = frames.DEFAULT_WINDOW
        self.stream_window = frames.DEFAULT_WINDOW
        self.left = memoryview(b"")
        self.largest = 16384

    def send(self) -> None:
        self.begun = time.perf_counter()
        self.stream += 2
        headers, body = self.messages
        self.left = memoryview(body)
        self.room = self.stream_window
        self.transport.writelines([frames.headers(self.stream, headers, False, 16384), *self.pieces()])

    def pieces(self) -> list[bytes | memoryview]:
        """As many DATA frames as the windows let out."""
        made: list[bytes | memoryview] = []
        while self.left:
            size = min(len(self.left), self.largest, self.open_window, self.room)
            if size <= 0:
                break
            last = size == len(self.left)
            made += (
                frames.header(size, frames.DATA, frames.END_STREAM if last else 0, self.stream),
                self.left[:size],
            )
            self.left = self.left[size:]
            self.open_window -= size
            self.room -= size
        return made

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        position, end = self.take_data(data, 0), len(data)
        while end - position >= 9:
            high, low, kind, flags, _ = frames.HEADER.unpack_from(data, position)
            start, size = position + 9, high << 8 | low
            if kind == frames.DATA:
                self.inside = size
                position = self.take_data(data, start)
            elif start + size > end:
                break
            else:
                position = start + size
                self.take(kind, flags, data[start:position])
        self.rest = data[position:]

    def take_data(self, data: bytes, position: int) -> int:
        """What there is of the DATA frame that has begun; where that ends. Kept only for the first answer."""
        size = min(self.inside, len(data) - position)
        self.inside -= size
        self.owed += size
        if size and not self.tally.checked:
            self.body.append(data[position : position + size])
        return position + size

    def take(self, kind: int, flags: int, payload: bytes) -> None:
        """One frame of another kind."""
        if kind == frames.HEADERS:
            fields = dict(self.reader.read(payload, request=False))
            if flags & frames.END_STREAM:
                self.answered(fields)
        elif kind == frames.WINDOW_UPDATE:
            self.widen(int.from_bytes(payload, "big"))
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            told = dict(frames.read_settings(payload))
            self.stream_window = told.get(Setting.INITIAL_WINDOW_SIZE, self.stream_window)
            self.largest = told.get(Setting.MAX_FRAME_SIZE, self.largest)
            self.transport.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        elif kind == frames.PING and not flags & frames.ACK:
            self.transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind in (frames.GOAWAY, frames.RST_STREAM):
            self.tally.failures.append(f"frame {kind}: {payload!r}")

    def widen(self, size: int) -> None:
        """The server takes more; for which window does not matter with one call at a time."""
        self.open_window += size
        self.room += size
        if self.left:
            self.transport.writelines(self.pieces())

    def answered(self, fields: dict[str, str]) -> None:
        """Trailers have come."""
        if fields.get("grpc-status") != "0":
            self.tally.failures.append(str(fields))
        if not self.tally.checked:
            body = b"".join(self.body)
            self.tally.check(proto.read_response(body[5:], Regions()).outputs["OUTPUT0"])
            self.body = []
        if self.owed > WIDE // 2:
            self.transport.write(frames.window_update(0, self.owed))
            self.owed = 0
        self.done()


def messages(
    kind: str, address: str, model: str, tensor: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> list[bytes]:
    """What one request is made of."""
    request = Request(model, {"INPUT0": tensor})
    if kind == "grpc":
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/ModelInfer"), (":authority", address),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        return [write_headers(fields), b"".join(enveloped(proto.write_request(request)))]
    body = wire.write_request(request)
    whole = b"".join(body.chunks)
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(whole)}\r\n"
        f"Inference-Header-Content-Length: {body.length}\r\n\r\n"
    )
    return [head.encode() + whole]


def tensor_of(elements: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What is sent: FP32 [1, elements]."""
    return np.random.default_rng(7).normal(size=(1, elements)).astype(np.float32)


async def run(
    kind: str, address: str, model: str, connections: int, seconds: float, elements: int, expected: str
) -> dict[str, object]:
    """Drive the server for `seconds` after a warm-up; the figures."""
    tensor = tensor_of(elements)
    tally, loop = Tally(np.load(expected) if expected else tensor), asyncio.get_running_loop()
    made = messages(kind, address, model, tensor)
    host, port = address.rsplit(":", 1)
    protocol = HttpLoop if kind == "http" else GrpcLoop
    for _ in range(connections):
        await loop.create_connection(lambda: protocol(tally, made), host, int(port))
    await asyncio.sleep(WARM_SECONDS)
    print("counting", flush=True)
    tally.counting, begun = True, time.perf_counter()
    await asyncio.sleep(seconds)
    tally.counting, took = False, time.perf_counter() - begun
    times = np.array(tally.latencies) * 1e3
    percentiles = np.percentile(times, [50, 99]).tolist() if len(times) else [0.0, 0.0]
    return {
        "requests": len(times), "seconds": took, "p50_ms": percentiles[0], "p99_ms": percentiles[1],
        "failures": len(tally.failures), "first_failure": tally.failures[0] if tally.failures else "",
        "checked": tally.checked,
    }  # fmt: skip


def main() -> None:
    """Read the command line, run, print."""
    kind, address, model, connections, seconds, elements, *expected = sys.argv[1:]
    work = run(kind, address, model, int(connections), float(seconds), int(elements), "".join(expected))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(work)), flush=True)


if __name__ == "__main__":
    main()
