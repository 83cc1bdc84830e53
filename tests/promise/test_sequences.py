# SPDX-License-Identifier: Apache-2.0
"""Sequences at their own length get the answers that they get padded: on every engine, at its own precision."""

from pathlib import Path

import numpy as np
import pytest

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.engines.model import read_onnx
from septet.engines.tokens import sequences_of
from septet.harness.library import Library
from septet.tensor import Array, Tensors
from septet.workloads.workload import Asked, Workload, open_workload
from sequences_made import WORDS, tagger

TOLERANCE = {"f32": 1e-5, "bf16": 0.05}
"""How far answers may differ, as a share of the largest: bf16 keeps 8 bits, and engines sum in another order."""

WAYS = [("onnx", "f32"), ("openvino", "f32"), ("openvino", "bf16")]


@pytest.fixture(params=WAYS, ids=" ".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    if request.param[1] == "bf16" and not Cpu.detect().bf16:
        pytest.skip("this CPU does not compute in bf16")
    engine: tuple[str, str] = request.param
    return engine


def load_way(way: tuple[str, str], path: Path | None) -> Engine:
    return load(way[0], path, EngineConfig(way[1]), Cpu.detect().partition())


def near(one: Array, other: Array, precision: str) -> bool:
    return bool(np.abs(one - other).max() <= TOLERANCE[precision] * np.abs(other).max())


def answers(workload: Workload, way: tuple[str, str], indices: list[int], batch: int) -> list[Array]:
    library = Library(workload)
    library.load(indices)
    found: list[Array] = []
    with workload.predictor(lambda path: load_way(way, path)) as predict:
        for begin in range(0, len(indices), batch):
            found += [np.array(row) for row in predict(library.gather(indices[begin : begin + batch]))]
    return found


@pytest.mark.parametrize("batch", [1, 4])
def test_bert_answers_alike_at_own_length_and_padded(
    way: tuple[str, str], batch: int, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))
    own, padded = (open_workload("bert", "mini", Asked(padded=padded)) for padded in (False, True))
    indices = [3, 250, 17, 99, 1_000, 42, 8, 77]
    short, long = answers(own, way, indices, batch), answers(padded, way, indices, batch)
    assert {len(row) for row in long} == {384}
    assert len({len(row) for row in short}) > 4
    for mine, theirs in zip(short, long, strict=True):
        assert near(mine, theirs[: len(mine)], way[1])


def test_any_network_of_sequences_does(way: tuple[str, str], tmp_path: Path) -> None:
    path = tagger(tmp_path / "tagger.onnx", "tokens in a text")
    sequences = sequences_of(read_onnx(path))
    draw = np.random.default_rng(0)
    samples: list[Tensors] = [
        {"tokens": draw.integers(0, WORDS, size), "token_mask": np.ones(size, np.int64)}
        for size in (5, 17, 40, 64)
    ]
    with load_way(way, path) as engine:
        batch = sequences.join(samples)
        assert batch["tokens"].shape == (4, 64)
        together = sequences.part(engine.infer(batch), sequences.lengths(batch))
        for sample, mine in zip(samples, together, strict=True):
            alone = sequences.join([sample])
            assert alone["tokens"].shape[1] < len(sample["tokens"]) + 8
            theirs = sequences.part(engine.infer(alone), sequences.lengths(alone))[0]
            assert theirs["tags"].shape == (len(sample["tokens"]), 3)
            assert near(mine["tags"], theirs["tags"], way[1])
            assert near(mine["topic"], theirs["topic"], way[1])
