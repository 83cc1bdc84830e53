# SPDX-License-Identifier: Apache-2.0
"""The promise of `Engine`, held by every engine at every precision that it has."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from models_made import breaking_model, conv_answer, conv_model, pair_model, quantised_model
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.devices.device import Partition
from septet.engines.engine import ENGINES, Engine, engine_class, load
from septet.errors import (
    EngineClosed,
    InferenceFailed,
    ModelInvalid,
    ModelNotFound,
    PrecisionUnsupported,
    TensorMismatch,
    UnknownEngine,
    UsageError,
)
from septet.tensor import Array, TensorSpec

CPU = Cpu.detect()
WHOLE = CPU.partition()
TOLERANCE = {"f32": 1e-4, "bf16": 3e-2, "int8": 0.1, "int8-bf16": 0.1}

COMPUTING = [
    (name, precision) for name in ENGINES if name != "null" for precision in engine_class(name).precisions
]
ALL = [*COMPUTING, *(("null", precision) for precision in engine_class("null").precisions)]

Open = Callable[..., Engine]


def images(count: int) -> Array:
    return np.random.default_rng(count).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "conv": conv_model(folder / "conv.onnx"),
        "int8": quantised_model(folder / "int8.onnx"),
        "pair": pair_model(folder / "pair.onnx"),
        "breaking": breaking_model(folder / "breaking.onnx"),
    }


@pytest.fixture(params=ALL, ids=lambda each: f"{each[0]}-{each[1]}")
def each(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, precision = request.param
    if precision == "bf16" and not CPU.bf16 and name != "null":
        pytest.skip("this CPU does not compute in bf16")
    return name, precision


@pytest.fixture
def opened(each: tuple[str, str], models: dict[str, Path]) -> Iterator[Open]:
    """Opens the conv model (quantised for int8) on each engine."""
    name, precision = each
    engines: list[Engine] = []

    def open_(threads: int | None = None, streams: int = 1) -> Engine:
        config = EngineConfig(precision, threads, streams)
        engines.append(load(name, models["int8" if precision.startswith("int8") else "conv"], config, WHOLE))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


def right(name: str, precision: str, image: Array, scores: Array) -> bool:
    wanted = np.zeros((len(image), 5)) if name == "null" else conv_answer(image)
    return bool(np.abs(scores - wanted).max() <= TOLERANCE[precision] * max(1.0, np.abs(wanted).max()))


def test_it_says_what_goes_in_and_out(opened: Open) -> None:
    engine = opened()
    [taken], [given] = engine.inputs, engine.outputs
    assert taken == TensorSpec("image", np.dtype(np.float32), (None, 3, 8, 8))
    assert given == TensorSpec("scores", np.dtype(np.float32), (None, 5))


@pytest.mark.parametrize("batches", [[1], [1, 2, 7, 3, 1], [16, 1, 16]])
def test_answers_are_right_for_any_batch(opened: Open, each: tuple[str, str], batches: list[int]) -> None:
    engine = opened()
    for count in batches:
        image = images(count)
        before = image.copy()
        scores = engine.infer({"image": image})["scores"]
        assert scores.shape == (count, 5)
        assert scores.dtype == np.float32
        assert right(*each, image, scores)
        assert np.array_equal(image, before)


def test_memory_that_is_not_contiguous_is_read_right(opened: Open, each: tuple[str, str]) -> None:
    image = images(8)[::2, :, ::-1]
    assert right(*each, image, opened().infer({"image": image})["scores"])


def test_memory_that_is_read_only_is_read(opened: Open, each: tuple[str, str]) -> None:
    image = images(3)
    received = np.frombuffer(image.tobytes(), np.float32).reshape(image.shape)
    assert right(*each, image, opened().infer({"image": received})["scores"])


def test_answers_belong_to_the_caller(opened: Open) -> None:
    engine = opened()
    first = engine.infer({"image": images(2)})["scores"]
    kept = first.copy()
    engine.infer({"image": images(2) + 1})
    engine.close()
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("streams", [1, 2])
def test_calls_from_many_threads_are_right(opened: Open, each: tuple[str, str], streams: int) -> None:
    engine = opened(threads=2, streams=streams)
    wrong: list[int] = []

    def call(seed: int) -> None:
        for turn in range(10):
            image = images(1 + (seed + turn) % 5)
            if not right(*each, image, engine.infer({"image": image})["scores"]):
                wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"picture": images(1)},
        {"image": images(1), "more": images(1)},
        {"image": images(1).astype(np.float64)},
        {"image": images(1)[:, :2]},
        {"image": images(1)[0]},
    ],
    ids=["none", "name", "more", "dtype", "shape", "rank"],
)
def test_wrong_tensors_are_told(opened: Open, batch: dict[str, Array]) -> None:
    engine = opened()
    with pytest.raises(TensorMismatch, match=r"takes \(image: float32\[\?, 3, 8, 8\]\)"):
        engine.infer(batch)
    assert engine.infer({"image": images(1)})["scores"].shape == (1, 5)


def test_after_close_it_says_so(opened: Open) -> None:
    engine = opened()
    engine.close()
    engine.close()
    for _ in range(2):
        with pytest.raises(EngineClosed):
            engine.infer({"image": images(1)})


@pytest.mark.parametrize(("name", "precision"), [(n, p) for n, p in COMPUTING if p == "f32"])
def test_several_inputs_and_outputs_of_free_length(name: str, precision: str, models: dict[str, Path]) -> None:
    with load(name, models["pair"], EngineConfig(precision), WHOLE) as engine:
        for shape in ((2, 3), (1, 7)):
            ids = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape)
            mask = (ids % 2).astype(np.float32)
            outputs = engine.infer({"mask": mask, "ids": ids})
            assert np.array_equal(outputs["kept"], ids * mask)
            assert np.array_equal(outputs["next"], ids + 1)


@pytest.mark.parametrize("name", sorted({name for name, _ in COMPUTING}))
def test_a_failing_run_is_told_and_the_engine_goes_on(name: str, models: dict[str, Path]) -> None:
    with load(name, models["breaking"], EngineConfig(), WHOLE) as engine:
        with pytest.raises(InferenceFailed):
            engine.infer({"x": np.zeros((3, 5), np.float32)})
        assert engine.infer({"x": np.zeros((2, 5), np.float32)})["y"].shape == (2, 5)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "text", "truncated"])
def test_a_bad_file_is_told_by_name(
    name: str, content: bytes | None, tmp_path: Path, models: dict[str, Path]
) -> None:
    path = tmp_path / "bad.onnx"
    whole = models["conv"].read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ModelInvalid, match=r"bad\.onnx") as caught:
        load(name, path, EngineConfig(), WHOLE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ENGINES)
def test_a_missing_file_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"none\.onnx"):
        load(name, tmp_path / "none.onnx", EngineConfig(), WHOLE)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (EngineConfig(threads=0), "at least 1 thread"),
        (EngineConfig(streams=0, threads=1), "0 streams"),
        (EngineConfig(streams=3, threads=2), "3 streams do not fit on 2 threads"),
    ],
)
@pytest.mark.parametrize("name", ENGINES)
def test_threads_and_streams_must_fit(
    name: str, config: EngineConfig, words: str, models: dict[str, Path]
) -> None:
    with pytest.raises(UsageError, match=words):
        load(name, models["conv"], config, WHOLE)


@pytest.mark.parametrize("name", sorted({name for name, _ in COMPUTING}))
def test_a_precision_is_never_a_wrong_name(name: str, models: dict[str, Path]) -> None:
    with pytest.raises(PrecisionUnsupported, match="not a quantised file"):
        load(name, models["conv"], EngineConfig("int8"), WHOLE)
    with pytest.raises(PrecisionUnsupported, match="a quantised file"):
        load(name, models["int8"], EngineConfig("f32"), WHOLE)


def test_a_precision_that_an_engine_has_not_is_told(models: dict[str, Path]) -> None:
    with pytest.raises(PrecisionUnsupported, match="it runs: f32, int8"):
        load("onnx", models["conv"], EngineConfig("bf16"), WHOLE)


def test_an_unknown_engine_is_told(models: dict[str, Path]) -> None:
    with pytest.raises(UnknownEngine, match="null, onnx, openvino"):
        load("tensorflow", models["conv"], EngineConfig(), WHOLE)


@pytest.mark.skipif(not CPU.bf16, reason="this CPU does not compute in bf16")
def test_openvino_computes_in_f32_unless_told_otherwise(models: dict[str, Path]) -> None:
    image = images(64)
    off: dict[str, float] = {}
    for precision in ("f32", "bf16"):
        with load("openvino", models["conv"], EngineConfig(precision), WHOLE) as engine:
            off[precision] = float(np.abs(engine.infer({"image": image})["scores"] - conv_answer(image)).max())
    assert off["f32"] < 1e-5 < off["bf16"]


def test_one_core_is_enough(each: tuple[str, str], models: dict[str, Path]) -> None:
    name, precision = each
    one = Partition("one", WHOLE.cores[:1])
    with load(
        name, models["int8" if precision.startswith("int8") else "conv"], EngineConfig(precision), one
    ) as engine:
        assert engine.infer({"image": images(1)})["scores"].shape == (1, 5)
