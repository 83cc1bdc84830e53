# SPDX-License-Identifier: Apache-2.0
"""Queries over the wire: each answered once, with its own answer, whoever sends it."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.engines.remote import RemoteEngine
from septet.errors import InferenceFailed, SeptetError
from septet.harness.library import Library
from septet.harness.wired import WiredTarget
from septet.serving.server import Server
from septet.tensor import Tensors
from septet.workloads.null import NullWorkload
from septet.workloads.predictor import EnginePredictor, Rows
from serving_made import model, serving, until

WAYS = ["http", "grpc", "http+shm", "grpc+shm"]
CALLS = 4

ECHO = """
backend: "null"
max_batch_size: 8
input { name: "x" data_type: TYPE_INT64 dims: 1 }
output { name: "y" data_type: TYPE_INT64 dims: 1 }
dynamic_batching { }
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    model(tmp_path, "echo", ECHO)
    with serving(tmp_path) as (_, made):
        yield made


def opened(server: Server, way: str, calls: int = CALLS) -> Engine:
    place = server.grpc if way.startswith("grpc") else server.http
    partition = Cpu.detect().partition()
    return load(f"{way}://{place}/echo", None, EngineConfig("served", streams=calls), partition)


@dataclass
class Asking:
    """A target over a library of all numbers, and what it did."""

    engine: Engine
    batch: int = 1
    answers: Counter[tuple[int, int]] = field(default_factory=Counter)
    failures: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workload = NullWorkload("mini")
        library = Library(self.workload)
        library.load(range(len(self.workload)))
        predictor = self.workload.predictor(lambda path: self.engine)
        assert isinstance(predictor, EnginePredictor)
        self.target = WiredTarget(
            predictor, library, self.complete, calls=CALLS, batch=self.batch, fail=self.failures.append
        )

    def has_answers(self, count: int) -> bool:
        return len(self.answers) == count

    def complete(self, ids: Sequence[int], rows: Rows) -> None:
        self.answers.update((id_, int(row[0])) for id_, row in zip(ids, rows, strict=True))


@pytest.mark.parametrize("batch", [1, 20], ids=["one by one", "more than a request takes"])
@pytest.mark.parametrize("way", WAYS)
def test_each_query_has_its_own_answer_once(server: Server, way: str, batch: int) -> None:
    draw = random.Random(batch)
    indices = [draw.randrange(1024) for _ in range(400)]
    with opened(server, way) as engine:
        asking = Asking(engine, batch)
        for begin in range(0, 200, 40):  # some wait for a connection
            asking.target.issue(range(begin, begin + 40), indices[begin : begin + 40])
        for number in range(200, 400):
            asking.target.issue([number], [indices[number]])
        asking.target.close()
    assert not asking.failures
    assert asking.answers == Counter(enumerate(indices))


def test_a_target_that_was_asked_nothing_closes(server: Server) -> None:
    with opened(server, "http") as engine:
        asking = Asking(engine)
        asking.target.close()
    assert not asking.failures


def test_connections_that_are_made_anew_are_listened_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(server, "http", calls=1) as engine:
        asking = Asking(engine)
        for number in range(4):
            asking.target.issue([number], [number])
            until(partial(asking.has_answers, number + 1))
            engine._lines[0].client.close()  # type: ignore[attr-defined]
        asking.target.close()
    assert not asking.failures
    assert asking.answers == Counter((number, number) for number in range(4))


def test_a_failure_is_told_and_closing_does_not_wait_for_the_rest(server: Server) -> None:
    with opened(server, "http") as engine:
        assert isinstance(engine, RemoteEngine)
        asking = Asking(engine)

        def fail(outputs: Tensors) -> Rows:
            raise InferenceFailed("no such number")

        asking.target._predictor._respond = fail  # type: ignore[attr-defined]
        asking.target.issue([1], [1])
        until(lambda: bool(asking.failures))
        asking.target.close()
    [failure] = asking.failures
    assert "no such number" in str(failure)


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("septet.harness.wired.LOOK_SECONDS", 0.01)
    with opened(server, "http", calls=1) as engine, socket.create_server(("127.0.0.1", 0)) as silent:
        assert isinstance(engine, RemoteEngine)
        client = engine._lines[0].client
        client.close()
        client._target.port = silent.getsockname()[1]
        client._seconds = 0.1
        asking = Asking(engine)
        asking.target.issue([1], [1])
        until(lambda: bool(asking.failures))
        asking.target.close()
        assert server.http is not None
        client._target.port = server.http.port
    [failure] = asking.failures
    assert isinstance(failure, SeptetError)
    assert "did not answer within 0.1 s" in str(failure)
