# SPDX-License-Identifier: Apache-2.0
"""Answers to requests whose documents were read before: each as if it were the first."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

import fake_plane
from fake_plane import Running
from http_talk import answers, dial
from septet.request import Request, Wanted
from septet.tensor import Array, objects
from septet.wire import json as wire
from septet.wire.shm import Regions
from wire_strategies import same

X = np.arange(4, dtype=np.float32)

OUTPUTS: list[dict[str, Array]] = [
    {"y": X},
    {"y": X + 1},
    {"y": X.astype(np.float64)},
    {"y": X.astype(np.int32)},
    {"y": X.reshape(2, 2)},
    {"y": X.reshape(2, 2).T},
    {"y": X[::-1]},
    {"z": X},
    {"y": X, "z": X[:2]},
    {"z": X[:2], "y": X},
    {"y": X[:0]},
    {"y": X[:0].reshape(0, 3)},
    {"y": objects([b"a", b"bc"], (2,))},
    {"y": objects([b"abc", b""], (2,))},
    {},
    {"y": np.zeros(30_000, np.float32)},
    {"y": np.ones(30_000, np.float32)},
]
"""What a model may give to one and the same request, as it is loaded anew or has free shapes."""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Array]]:
    """What the model `changing` answers next."""
    queue: list[dict[str, Array]] = []
    monkeypatch.setitem(fake_plane.MODELS, "changing", lambda request: queue.pop(0))
    return queue


def _whole(model: str, request: Request, *headers: str) -> bytes:
    """A POST as it goes over the wire."""
    body = wire.write_request(request)
    size = sum(map(len, body.chunks))
    lines = [
        f"POST /v2/models/{model}/infer HTTP/1.1",
        "Host: x",
        f"Content-Length: {size}",
        f"Inference-Header-Content-Length: {body.length}",
        *headers,
    ]
    return b"".join(["\r\n".join(lines).encode() + b"\r\n\r\n", *body.chunks])


def read(answer: tuple[int, dict[str, str], bytes]) -> tuple[str, dict[str, Array]]:
    """Id and outputs of an answer."""
    status, headers, body = answer
    assert status == 200
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    length = headers.get("inference-header-content-length")
    assert headers["content-type"] == ("application/json" if length is None else "application/octet-stream")
    response = wire.ResponseReader(Regions()).read(body, int(length or len(body)))
    return response.id, response.outputs


@pytest.mark.parametrize("header", ["", "Accept-Encoding: gzip", "Connection: close"])
@pytest.mark.parametrize("id_", ["", "seven"])
def test_an_answer_is_that_of_its_own_tensors(
    running: Running, given: list[dict[str, Array]], header: str, id_: str
) -> None:
    request = Request("changing", {"x": X}, id=id_)
    for outputs in 2 * OUTPUTS:
        with dial(running) as talk:
            for _ in range(1 if "close" in header else 2):
                given.append(outputs)
                talk.sendall(_whole("changing", request, *([header] if header else [])))
                named, got = read(*answers(talk))
                assert named == id_
                assert list(got) == list(outputs)
                assert all(same(got[name], array) for name, array in outputs.items())
            if "close" in header:
                assert talk.recv(1) == b""


def test_outputs_go_out_as_they_are_asked_for(running: Running, given: list[dict[str, Array]]) -> None:
    ways = {
        Wanted("y", binary=True): X,
        Wanted("y", binary=False): X,
        Wanted("y", classes=1): objects([b"3.000000:3"], (1,)),
    }
    with dial(running) as talk:
        for _ in range(3):
            for wanted, expected in ways.items():
                given.append({"y": X})
                talk.sendall(_whole("changing", Request("changing", {"x": X}, wanted=(wanted,))))
                assert same(read(*answers(talk))[1]["y"], expected)


@pytest.mark.parametrize("piece", [100, 1_000, 1_000_000])
def test_pipelined_requests_of_one_form_are_each_answered_with_their_own(running: Running, piece: int) -> None:
    sent = [X + value for value in range(100)]
    wire_ = b"".join(_whole("identity", Request("identity", {"INPUT0": array})) for array in sent)
    with dial(running) as talk:
        for begin in range(0, len(wire_), piece):
            talk.sendall(wire_[begin : begin + piece])
        got = answers(talk, len(sent))
    assert all(same(read(answer)[1]["OUTPUT0"], array) for answer, array in zip(got, sent, strict=True))
