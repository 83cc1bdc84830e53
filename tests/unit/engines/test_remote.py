# SPDX-License-Identifier: Apache-2.0
"""`RemoteEngine` against a server of our own, over each way to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_made import conv_answer, conv_model
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import EngineClosed, EngineUnavailable, TensorMismatch, UsageError
from septet.serving.core import Core
from septet.serving.server import Server
from septet.tensor import Array
from septet.wire.shm import FOLDER
from serving_made import serving

WAYS = ["http", "grpc", "http+shm", "grpc+shm"]
MOST = 4
"""The largest batch that the server takes."""


@dataclass(frozen=True)
class Running:
    """A server of the model ``conv``."""

    core: Core
    server: Server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "conv" / "1").mkdir(parents=True)
    conv_model(folder / "conv" / "1" / "model.onnx")
    (folder / "conv" / "config.pbtxt").write_text(
        f'backend: "onnxruntime" max_batch_size: {MOST} dynamic_batching {{ }}'
    )
    (folder / "flat" / "1").mkdir(parents=True)
    conv_model(folder / "flat" / "1" / "model.onnx")
    (folder / "flat" / "config.pbtxt").write_text(
        f'backend: "onnxruntime" max_batch_size: {MOST} '
        'input { name: "image" data_type: TYPE_FP32 dims: [ 192 ] reshape { shape: [ 3, 8, 8 ] } } '
        'output { name: "scores" data_type: TYPE_FP32 dims: [ 1, 5 ] reshape { shape: [ 5 ] } }'
    )
    with serving(folder) as (core, server):
        yield Running(core, server)


def address(running: Running, way: str, model: str = "conv") -> str:
    server = running.server
    return f"{way}://{server.grpc if way.startswith('grpc') else server.http}/{model}"


def opened(running: Running, way: str, model: str = "conv", streams: int = 1) -> Engine:
    config = EngineConfig("served", streams=streams)
    return load(address(running, way, model), None, config, Cpu.detect().partition())


def images(count: int) -> Array:
    return np.random.default_rng(count).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@given(counts=st.lists(st.integers(1, 4 * MOST), min_size=1, max_size=4))
@settings(max_examples=10, deadline=None)
def test_answers_are_right_for_any_batch(running: Running, way: str, counts: list[int]) -> None:
    """Also for those that the server does not take at once, and for memory that grows in between."""
    with opened(running, way) as engine:
        for count in counts:
            scores = engine.infer({"image": images(count)})["scores"]
            np.testing.assert_allclose(scores, conv_answer(images(count)), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_answers_belong_to_the_caller(running: Running, way: str) -> None:
    with opened(running, way) as engine:
        first = engine.infer({"image": images(2)})["scores"]
        engine.infer({"image": images(3)})
        engine.infer({"image": images(4)})
    np.testing.assert_allclose(first, conv_answer(images(2)), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_shapes_are_those_of_the_models_file_where_clients_send_others(running: Running, way: str) -> None:
    with opened(running, way, "flat") as engine:
        assert [spec.shape for spec in (*engine.inputs, *engine.outputs)] == [(None, 3, 8, 8), (None, 5)]
        for count in (1, 2 * MOST + 1):
            scores = engine.infer({"image": images(count)})["scores"]
            np.testing.assert_allclose(scores, conv_answer(images(count)), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_calls_from_many_threads_are_right(running: Running, way: str) -> None:
    with opened(running, way, streams=4) as engine, ThreadPoolExecutor(8) as callers:
        counts = [1 + turn % 5 for turn in range(64)]
        for count, answer in zip(
            counts, callers.map(lambda count: engine.infer({"image": images(count)}), counts), strict=True
        ):
            np.testing.assert_allclose(answer["scores"], conv_answer(images(count)), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_wrong_tensors_are_told_before_they_are_sent(running: Running, way: str) -> None:
    with opened(running, way) as engine, pytest.raises(TensorMismatch, match="image: float32"):
        engine.infer({"image": images(1).astype(np.float64)})


def test_shared_memory_is_given_back(running: Running) -> None:
    regions = running.core.regions
    with opened(running, "http+shm", streams=2) as engine:
        engine.infer({"image": images(1)})
        engine.infer({"image": images(4)})
        shared = [FOLDER / each.key.lstrip("/") for each in regions.status()]
        assert len(shared) == 2
        assert not any(path.exists() for path in shared), "whoever is killed would leave them behind"
    assert not regions.status()
    assert not any(path.exists() for path in shared)
    with pytest.raises(EngineClosed):
        engine.infer({"image": images(1)})


def test_what_cannot_be_reached_is_told(running: Running) -> None:
    partition = Cpu.detect().partition()
    with pytest.raises(EngineUnavailable, match="nowhere"):
        load(address(running, "http", "nowhere"), None, EngineConfig("served"), partition)
    with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:1"):
        load("grpc://127.0.0.1:1/conv", None, EngineConfig("served"), partition)
    with pytest.raises(UsageError, match="does not name a model"):
        load(f"http://{running.server.http}", None, EngineConfig("served"), partition)
