# SPDX-License-Identifier: Apache-2.0
"""Mixed load for a long time, while models are reloaded, their processes killed, and requests given up.

Clients over HTTP and gRPC ask two models, on ONNX Runtime and in Python, for tensors of many lengths, in closed
loops; others send many calls at once over one connection and cancel some, or stream. Meanwhile models are loaded
anew, the Python model's process is killed, and connections are cut in the middle of a request. Every answer is
compared with what was sent, and where they come side by side, by the request's id: each once, none twice. Only a
killed process may make an answer or a reload an error, and only the Python model's. Resident memory is that of the
server and its children, by proportional share, in the last tenth of the time against the first after a tenth of
warming up.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import psutil

from ledger import Row, report
from peer import Peer, free_ports, running, septet_command, write_repository
from septet.client import Client
from septet.errors import Refused, SeptetError
from septet.request import Request
from septet.stubs import SERVICE, service_pb2
from septet.tensor import Array
from septet.wire import proto
from septet.wire.shm import Regions

LOOPS = 3
MANY = 32
"""Calls at once, and requests of a stream."""
RELOAD_SECONDS, KILL_SECONDS, CUT_SECONDS, LOOK_SECONDS = 1.0, 5.0, 0.2, 0.5
NOTHING = Regions()
GROWTH = 5.0
"""Percent by which resident memory may grow."""


class Soak:
    """The loops, what they saw, and what is done to the server meanwhile."""

    def __init__(self, server: Peer, seconds: float) -> None:
        self.server = server
        self.seen: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.resident: list[tuple[int, int]] = []
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()

    def run(self) -> None:
        """Do it all until the time is over."""
        threads = [
            threading.Thread(target=self._ask, args=(f"{scheme}://{address}", model, seed))
            for scheme, address in (("http", self.server.http), ("grpc", self.server.grpc))
            for model in ("identity_onnx", "identity_py")
            for seed in range(LOOPS)
        ]
        threads += [threading.Thread(target=self._at_once, args=(act,)) for act in (self._call, self._stream)]
        threads += [
            threading.Thread(target=self._every, args=each)
            for each in (
                (RELOAD_SECONDS, self._reload),
                (KILL_SECONDS, self._kill),
                (CUT_SECONDS, self._cut),
                (LOOK_SECONDS, self._look),
            )
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, url: str, model: str, seed: int) -> None:
        draw = np.random.default_rng(seed)
        with Client(url, seconds=30) as client:
            while time.monotonic() < self._end:
                shape = (int(draw.integers(1, 9)), int(draw.choice([1, 16, 1_000, 20_000])))
                sent = draw.standard_normal(shape, dtype=np.float32)
                try:
                    got = client.infer(model, {"INPUT0": sent})
                    self._count("answered" if np.array_equal(got["OUTPUT0"], sent) else "wrong")
                except Refused as error:
                    killed = model == "identity_py" and "process" in str(error)
                    self._count("killed" if killed else "unexpected", f"{model}: {error}")
                except SeptetError as error:
                    self._count("unexpected", f"{model}: {error}")

    def _at_once(self, act: Callable[[grpc.Channel, list[bytes]], list[bytes]]) -> None:
        """Send many requests side by side, each with an id and a tensor of its own, and tally the answers."""
        with grpc.insecure_channel(self.server.grpc) as channel:
            while time.monotonic() < self._end:
                try:
                    self._tally(act(channel, [_numbered(number) for number in range(MANY)]))
                except grpc.RpcError as error:
                    self._count("unexpected", str(error.details()))

    def _call(self, channel: grpc.Channel, messages: list[bytes]) -> list[bytes]:
        calls = [channel.unary_unary(f"/{SERVICE}/ModelInfer").future(each, timeout=30) for each in messages]
        for call in random.sample(calls, MANY // 4):
            if call.cancel():
                calls.remove(call)
                self._count("cancelled")
        return [call.result() for call in calls]

    def _stream(self, channel: grpc.Channel, messages: list[bytes]) -> list[bytes]:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        parts = [
            service_pb2.ModelStreamInferResponse.FromString(each) for each in stream(iter(messages), timeout=30)
        ]
        for part in parts:
            if part.error_message:
                self._count("unexpected", part.error_message)
        answers = [part.infer_response for part in parts if not part.error_message]
        if sorted(int(each.id) for each in answers) != list(range(MANY)):
            self._count("unexpected", "a stream's answers are not each there once")
        return [each.SerializeToString() for each in answers]

    def _tally(self, messages: list[bytes]) -> None:
        for message in messages:
            got = proto.read_response(message, NOTHING)
            right = np.array_equal(got.outputs["OUTPUT0"], np.full((1, 100), int(got.id), np.float32))
            self._count("answered" if right else "wrong")

    def _count(self, what: str, words: str = "") -> None:
        with self._lock:
            self.seen[what] += 1
            if what == "unexpected":
                self.unexpected.append(words)

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while time.monotonic() < self._end:
            time.sleep(seconds)
            act()

    def _reload(self) -> None:
        model = random.choice(["identity_onnx", "identity_py"])
        url = f"http://{self.server.http}/v2/repository/models/{model}/load"
        try:
            urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=60).close()
            self._count("reloads")
        except urllib.error.HTTPError as error:
            words = error.read().decode()
            killed = model == "identity_py" and "process died" in words
            self._count("killed" if killed else "unexpected", f"reload of {model}: {words}")
        except OSError as error:
            self._count("unexpected", f"reload of {model}: {error}")

    def _kill(self) -> None:
        children = self.server.process.children()
        if children:
            with suppress(psutil.NoSuchProcess):
                random.choice(children).kill()
                self._count("kills")

    def _cut(self) -> None:
        """Ask half a request, or a whole one, and hang up."""
        document = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        body = json.dumps(document).encode()
        head = f"POST /v2/models/identity_py/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        host, _, port = self.server.http.partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall((head.encode() + body)[: random.choice([20, 100, 10_000])])
        self._count("cuts")

    def _look(self) -> None:
        children = 0
        for process in self.server.process.children():
            with suppress(OSError):
                children += own_memory(process.pid)
        self.resident.append((own_memory(self.server.process.pid), children))

    def tenths(self) -> list[Array]:
        """MiB that the server and its children had in each tenth of the time, medians."""
        return [np.median(part, axis=0) / 2**20 for part in np.array_split(self.resident, 10)]

    def growth(self) -> float:
        """Percent by which memory grew from the second tenth of the time to the last."""
        tenths = self.tenths()
        return float(100 * (tenths[-1].sum() / tenths[1].sum() - 1))


def own_memory(pid: int) -> int:
    """Bytes of a process that no file has, shared ones by its part: pages of libraries count for less the more
    programs on the machine use them. Raises OSError where it is gone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def _numbered(number: int) -> bytes:
    """A request whose tensor tells its id."""
    tensor = np.full((1, 100), number, np.float32)
    return b"".join(proto.write_request(Request("identity_onnx", {"INPUT0": tensor}, id=str(number))))


def measure(minutes: float) -> list[Row]:
    """Soak a server."""
    with tempfile.TemporaryDirectory() as place:
        ports = free_ports(3)
        command, environment = septet_command(write_repository(Path(place, "models")), ports)
        command += ["--model-control-mode=explicit", "--load-model=*"]
        with running("Septet", command, environment, ports, Path(place, "log")) as server:
            soak = Soak(server, 60 * minutes)
            soak.run()
    for own, children in soak.tenths():
        print(f"{own:.1f} MiB and {children:.1f} of its children", file=sys.stderr)
    for words, count in Counter(soak.unexpected).most_common(10):
        print(f"{count} × {words}", file=sys.stderr)
    seen = soak.seen
    return [
        Row("answers, right", seen["answered"], "requests"),
        Row("answers, wrong", seen["wrong"], "requests", ceiling=0),
        Row("errors because a process was killed", seen["killed"], "requests"),
        Row("errors for any other reason", seen["unexpected"], "requests", ceiling=0),
        Row("calls cancelled", seen["cancelled"], "requests"),
        Row("models loaded anew", seen["reloads"], "times"),
        Row("processes killed", seen["kills"], "times"),
        Row("connections cut", seen["cuts"], "times"),
        Row("resident memory at the end", float(soak.tenths()[-1].sum()), "MiB"),
        Row("resident memory, growth", soak.growth(), "%", ceiling=GROWTH),
    ]


def main() -> None:
    """Read how long, and soak."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float, default=30.0)
    asked, sys.argv[1:] = parser.parse_known_args()
    report(lambda: measure(asked.minutes), title=f"{asked.minutes:g} minutes of mixed load")


if __name__ == "__main__":
    main()
