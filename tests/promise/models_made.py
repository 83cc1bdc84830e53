# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models that the engines' suite runs."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from septet.tensor import Array, Tensors

_DRAW = np.random.default_rng(3)
_KERNEL = _DRAW.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5
_MATRIX = _DRAW.standard_normal((8, 5)).astype(np.float32)


def conv_model(path: Path) -> Path:
    """``image`` float32 [N, 3, 8, 8] -> ``scores`` float32 [N, 5]."""
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "matrix"], ["scores"], name="product"),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])]
    weights = [numpy_helper.from_array(_KERNEL, "kernel"), numpy_helper.from_array(_MATRIX, "matrix")]
    return _save(helper.make_graph(nodes, "conv", inputs, outputs, weights), path)


def conv_answer(image: Array) -> Array:
    """What `conv_model` computes, in numpy."""
    padded = np.pad(image.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    convolved = np.einsum("nchwij,ocij->nohw", windows, _KERNEL)
    answer: Array = np.maximum(convolved, 0).mean((2, 3)) @ _MATRIX
    return answer


def pair_model(path: Path) -> Path:
    """``ids`` int64 [N, L] and ``mask`` float32 [N, L] -> ``kept`` float32 [N, L] and ``next`` int64 [N, L]."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "mask"], ["kept"], name="keep"),
        helper.make_node("Add", ["ids", "one"], ["next"], name="count"),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", "L"]),
    ]
    outputs = [
        helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["N", "L"]),
        helper.make_tensor_value_info("next", TensorProto.INT64, ["N", "L"]),
    ]
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    return _save(helper.make_graph(nodes, "pair", inputs, outputs, [one]), path)


def breaking_model(path: Path) -> Path:
    """Loads, but cannot run a batch of 3: it reshapes ``x`` float32 [N, 4] to [2, M]."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["A", "B"])]
    shape = numpy_helper.from_array(np.array([2, -1], np.int64), "shape")
    return _save(helper.make_graph(nodes, "breaking", inputs, outputs, [shape]), path)


def quantised_model(path: Path) -> Path:
    """`conv_model`, statically quantised."""
    plain = conv_model(path.with_name("plain.onnx"))
    quantize_static(plain, path, _Images(), quant_format=QuantFormat.QDQ, per_channel=True)
    return path


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self._batches = iter([{"image": draw.standard_normal((8, 3, 8, 8)).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> Tensors | None:
        return next(self._batches, None)


def _save(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
