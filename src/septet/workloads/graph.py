# SPDX-License-Identifier: Apache-2.0
"""Build an ONNX graph layer by layer, and count what it holds and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from septet.tensor import Array

OPSET = 17
IR_VERSION = 8
BATCH = "N"
"""The name of the free batch dimension."""


class Graph:
    """A graph in the making. Each method adds one layer on `source` and returns the name of its output.

    `weights` holds float32 arrays by name; a layer called ``conv1`` takes ``conv1.weight`` and so on.
    """

    def __init__(self, name: str, weights: Mapping[str, Array]) -> None:
        self._name = name
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._used: dict[str, onnx.TensorProto] = {}

    def conv(self, name: str, source: str, *, stride: int = 1, padding: int = 0) -> str:
        """A convolution without bias; its kernel size is that of its weights, [out, in, height, width]."""
        kernel = self._weights[f"{name}.weight"].shape[2:]
        return self._add(
            "Conv",
            name,
            [source, self._weight(f"{name}.weight")],
            kernel_shape=kernel,
            strides=[stride] * 2,
            pads=[padding] * 4,
        )

    def batch_norm(self, name: str, source: str, *, epsilon: float = 1e-5) -> str:
        """Batch normalisation with its running statistics."""
        parts = ("weight", "bias", "running_mean", "running_var")
        return self._add(
            "BatchNormalization",
            name,
            [source, *(self._weight(f"{name}.{part}") for part in parts)],
            epsilon=epsilon,
        )

    def relu(self, name: str, source: str) -> str:
        return self._add("Relu", name, [source])

    def add(self, name: str, one: str, other: str) -> str:
        return self._add("Add", name, [one, other])

    def max_pool(self, name: str, source: str, *, kernel: int, stride: int, padding: int) -> str:
        return self._add(
            "MaxPool",
            name,
            [source],
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[padding] * 4,
        )

    def mean(self, name: str, source: str) -> str:
        """The mean over height and width: [N, C, H, W] -> [N, C]."""
        pooled = self._add("GlobalAveragePool", name, [source])
        return self._add("Flatten", f"{name}.flat", [pooled], axis=1)

    def linear(self, name: str, source: str) -> str:
        """A matrix product with bias; weights are [out, in]."""
        return self._add(
            "Gemm",
            name,
            [source, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")],
            transB=1,
        )

    def model(
        self, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, tuple[str, Sequence[int]]]
    ) -> onnx.ModelProto:
        """The finished model: float32 inputs name -> shape, outputs name -> (layer's output, shape), all
        without the batch dimension."""
        for name, (source, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [source], [name], name=name))
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [_value(name, shape) for name, shape in inputs.items()],
            [_value(name, shape) for name, (_, shape) in outputs.items()],
            list(self._used.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="septet")

    def _add(self, kind: str, name: str, sources: Sequence[str], **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(sources), [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def _weight(self, name: str) -> str:
        self._used[name] = numpy_helper.from_array(np.ascontiguousarray(self._weights[name]), name)
        return name


def _value(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])


def parameters(model: onnx.ModelProto) -> int:
    """How many weights were trained: all initialisers but the running statistics of batch normalisation."""
    statistics = {
        name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]
    }
    return sum(prod(tensor.dims) for tensor in model.graph.initializer if tensor.name not in statistics)


def flops(model: onnx.ModelProto) -> int:
    """Floating-point operations for one sample: 2 for each multiply-accumulate of convolutions and matrix
    products, nothing for the rest, as MLPerf's figures count."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(fixed).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    # an output element of either costs one multiply-accumulate per weight that leads to it
    return sum(
        2 * prod(shapes[node.output[0]]) * prod(weights[node.input[1]][1:])
        for node in graph.node
        if node.op_type in ("Conv", "Gemm")
    )
