# SPDX-License-Identifier: Apache-2.0
"""Calibrators: the range that each tensor of a network takes on samples, from which INT8 scales follow.

MinMax takes the whole range. Percentile cuts off the rarest values. Entropy takes the range whose eight bits tell
most of the distribution (Migacz, «8-bit Inference with TensorRT», 2017). Their mathematics is ONNX Runtime's; its
«Distribution» is left out, because it destroyed a network on which the others lost nothing.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import CalibrationMethod, HistogramCollector, TensorData, TensorsData

from septet.optimize import graph
from septet.tensor import Tensors

Calibrator = Literal["minmax", "percentile", "entropy"]

CALIBRATORS: tuple[Calibrator, ...] = get_args(Calibrator)

PERCENTILE = 99.999
_BINS = {"percentile": 2_048, "entropy": 1_024}
"""ONNX Runtime's own 128 for entropy leave no choice: with as many bins as levels the whole range always wins."""

_QUANTISED_BINS = 128

_AT_ONCE = 2**28
"""Elements of tensors that are held for histograms at a time; the samples are run again for those left over."""

_FATAL = 4


def ranges(path: Path, tensors: Sequence[str], feeds: Sequence[Tensors], calibrator: Calibrator) -> TensorsData:
    """The range of each of `tensors`, float32, of the network at `path` over `feeds`.

    Raises ValueError where there are none, or one has values without a range.
    """
    if not tensors:
        raise ValueError("the network has no layers that compute in float32")
    if calibrator == "minmax":
        return TensorsData(CalibrationMethod.MinMax, _extremes(path, tensors, feeds))
    collector = HistogramCollector(
        calibrator, False, _BINS[calibrator], _QUANTISED_BINS, PERCENTILE, scenario="same"
    )
    method = CalibrationMethod.Percentile if calibrator == "percentile" else CalibrationMethod.Entropy
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        for some in _portions(path, tensors, feeds[0]):
            for values in _run(path, some, feeds):
                collector.collect(values)
        found: dict[str, Any] = collector.compute_collection_result()
    return TensorsData(method, {name: _data(*entry[:2]) for name, entry in found.items()})


def quantisable(model: onnx.ModelProto, kinds: Iterable[str]) -> list[str]:
    """The float32 tensors that nodes of these `kinds` take and give, but constants, in the graph's order."""
    types = {info.name: info.type.tensor_type.elem_type for info in _infos(model)}
    constant, wanted = graph.constants(model), set(kinds)
    found = {
        name: None
        for node in model.graph.node
        if node.op_type in wanted
        for name in (*node.input, *node.output)
        if name not in constant and types.get(name) == TensorProto.FLOAT
    }
    return list(found)


def _infos(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    yield from model.graph.input
    yield from model.graph.value_info
    yield from model.graph.output


def _extremes(path: Path, tensors: Sequence[str], feeds: Sequence[Tensors]) -> dict[str, TensorData]:
    """Lowest and highest values, found inside the engine, so that no tensor has to come out of it."""
    lows, highs = ([f"{name}/{word}" for name in tensors] for word in ("lowest", "highest"))
    nodes = [
        helper.make_node(kind, [name], [output], keepdims=0)
        for kind, outputs in (("ReduceMin", lows), ("ReduceMax", highs))
        for name, output in zip(tensors, outputs, strict=True)
    ]
    seen = [[values[output] for output in (*lows, *highs)] for values in _run(path, [*lows, *highs], feeds, nodes)]
    low, high = np.split(np.array(seen, np.float32), 2, axis=1)
    return {name: _data(*pair) for name, *pair in zip(tensors, low.min(axis=0), high.max(axis=0), strict=True)}


def _data(low: Any, high: Any) -> TensorData:
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("the network computes what is not finite: it has no range")
    return TensorData(lowest=np.asarray(low, np.float32), highest=np.asarray(high, np.float32))


def _portions(path: Path, tensors: Sequence[str], feed: Tensors) -> Iterator[list[str]]:
    """`tensors` in portions that can be held at once."""
    sizes = [f"{name}/size" for name in tensors]
    nodes = [helper.make_node("Size", [name], [size]) for name, size in zip(tensors, sizes, strict=True)]
    counts = next(_run(path, sizes, [feed], nodes))
    portion: list[str] = []
    held = 0
    for name, count in zip(tensors, sizes, strict=True):
        elements = int(counts[count])
        if portion and held + elements > _AT_ONCE:
            yield portion
            portion, held = [], 0
        portion.append(name)
        held += elements
    yield portion


def _run(
    path: Path, outputs: Sequence[str], feeds: Sequence[Tensors], more: Sequence[onnx.NodeProto] = ()
) -> Iterator[Tensors]:
    """What `outputs`, made by nodes of the network or by `more`, hold for each of `feeds`."""
    model = onnx.load(path, load_external_data=False)
    model.graph.node.extend(more)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    with tempfile.NamedTemporaryFile(suffix=".onnx", dir=path.parent) as beside:  # what lies outside lies there
        onnx.save(model, beside.name)
        session = ort.InferenceSession(beside.name, _options(), ["CPUExecutionProvider"])
    for feed in feeds:
        yield dict(zip(outputs, session.run(list(outputs), dict(feed)), strict=True))


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    return options
