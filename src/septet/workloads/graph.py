# SPDX-License-Identifier: Apache-2.0
"""Build an ONNX graph layer by layer, and count what it holds and costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import helper, numpy_helper

from septet.tensor import Array

OPSET = 17
IR_VERSION = 8
BATCH = "N"
"""The name of the free batch dimension."""

_CONSTANT = ".constant"
"""How the name of an initialiser ends that nobody trained."""

_HEAVY = 1_024
"""Initialisers of more elements than this are left out where only shapes are wanted."""


@dataclass(frozen=True)
class Outside:
    """A weight whose bytes lie in `file` beside the model, from `offset` on: for what is too large for one file
    of ONNX, which may hold 2 GB."""

    file: str
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def tensor(self, name: str) -> onnx.TensorProto:
        """What stands for it in the graph."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=self.shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, entry in (("location", self.file), ("offset", self.offset), ("length", self.size)):
            tensor.external_data.add(key=key, value=str(entry))
        return tensor


class Graph:
    """A graph in the making. Each method adds one layer on `source` and returns the name of its output.

    `weights` holds arrays, or what lies `Outside`, by name; a layer called ``conv1`` takes ``conv1.weight``
    and so on. Layers and their weights follow torch's conventions, so that a torch module of the same names fits.
    """

    def __init__(self, name: str, weights: Mapping[str, Any]) -> None:
        self._name = name
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._used: dict[str, onnx.TensorProto] = {}

    def node(self, kind: str, name: str, sources: Sequence[str], **attributes: Any) -> str:
        """Any ONNX operator of one output; an empty name among `sources` leaves an optional input out."""
        return self.nodes(kind, name, sources, 1, **attributes)[0]

    def nodes(self, kind: str, name: str, sources: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Any ONNX operator, and the names of its first `count` outputs."""
        outputs = [f"{name}.out", *(f"{name}.out{place}" for place in range(1, count))]
        self._nodes.append(helper.make_node(kind, list(sources), outputs, name=name, **attributes))
        return outputs

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the trained weight called `name`."""
        found: tuple[int, ...] = self._weights[name].shape
        return found

    def weight(self, name: str) -> str:
        """The trained weight called `name`, as an initialiser."""
        return self._initialiser(name, self._weights[name])

    def constant(self, name: str, value: Any, dtype: DTypeLike = np.int64) -> str:
        """An initialiser that nobody trained: a shape, an axis, a table of anchors."""
        return self._initialiser(f"{name}{_CONSTANT}", np.asarray(value, dtype))

    def conv(
        self,
        name: str,
        source: str,
        *,
        stride: int = 1,
        padding: int | Sequence[int] = 0,
        groups: int = 1,
    ) -> str:
        """A convolution over as many dimensions as its weights [out, in ÷ groups, …] have, with its bias if
        there is one. `padding` is the same on all sides, or ONNX's list of begins and ends."""
        kernel = self._weights[f"{name}.weight"].shape[2:]
        return self.node(
            "Conv",
            name,
            [source, *self._weight_and_bias(name)],
            kernel_shape=kernel,
            strides=[stride] * len(kernel),
            pads=_pads(padding, len(kernel)),
            group=groups,
        )

    def conv_transpose(self, name: str, source: str, *, stride: int) -> str:
        """A transposed convolution; weights are [in, out, …], with its bias if there is one."""
        kernel = self._weights[f"{name}.weight"].shape[2:]
        return self.node(
            "ConvTranspose",
            name,
            [source, *self._weight_and_bias(name)],
            kernel_shape=kernel,
            strides=[stride] * len(kernel),
        )

    def batch_norm(self, name: str, source: str, *, epsilon: float = 1e-5) -> str:
        """Batch normalisation with its running statistics."""
        parts = ("weight", "bias", "running_mean", "running_var")
        statistics = [self.weight(f"{name}.{part}") for part in parts]
        return self.node("BatchNormalization", name, [source, *statistics], epsilon=epsilon)

    def instance_norm(self, name: str, source: str, *, epsilon: float = 1e-5) -> str:
        """Normalisation of each channel of each sample over all its places."""
        return self.node("InstanceNormalization", name, [source, *self._weight_and_bias(name)], epsilon=epsilon)

    def layer_norm(self, name: str, source: str, *, epsilon: float) -> str:
        """Normalisation over the last dimension."""
        return self.node("LayerNormalization", name, [source, *self._weight_and_bias(name)], epsilon=epsilon)

    def relu(self, name: str, source: str) -> str:
        return self.node("Relu", name, [source])

    def relu6(self, name: str, source: str) -> str:
        """ReLU, cut at 6."""
        bounds = [self.constant(f"{name}.{bound}", bound, np.float32) for bound in (0.0, 6.0)]
        return self.node("Clip", name, [source, *bounds])

    def leaky_relu(self, name: str, source: str, *, slope: float) -> str:
        return self.node("LeakyRelu", name, [source], alpha=slope)

    def sigmoid(self, name: str, source: str) -> str:
        return self.node("Sigmoid", name, [source])

    def softmax(self, name: str, source: str) -> str:
        """Softmax over the last dimension."""
        return self.node("Softmax", name, [source], axis=-1)

    def gelu(self, name: str, source: str) -> str:
        """The exact x · (1 + erf(x ÷ √2)) ÷ 2: Hendrycks and Gimpel, «Gaussian Error Linear Units», 2016."""
        root, one, half = (
            self.constant(f"{name}.{word}", value, np.float32)
            for word, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5))
        )
        erf = self.node("Erf", f"{name}.erf", [self.node("Div", f"{name}.div", [source, root])])
        share = self.node("Add", f"{name}.add", [erf, one])
        return self.node("Mul", name, [self.node("Mul", f"{name}.mul", [source, share]), half])

    def add(self, name: str, one: str, other: str) -> str:
        return self.node("Add", name, [one, other])

    def concat(self, name: str, sources: Sequence[str], *, axis: int) -> str:
        return self.node("Concat", name, sources, axis=axis)

    def reshape(self, name: str, source: str, shape: Sequence[int]) -> str:
        """To `shape`, in which 0 keeps a dimension and -1 takes what is left."""
        return self.node("Reshape", name, [source, self.constant(name, shape)])

    def transpose(self, name: str, source: str, order: Sequence[int]) -> str:
        return self.node("Transpose", name, [source], perm=list(order))

    def max_pool(self, name: str, source: str, *, kernel: int, stride: int, padding: int) -> str:
        return self.node(
            "MaxPool",
            name,
            [source],
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[padding] * 4,
        )

    def mean(self, name: str, source: str) -> str:
        """The mean over height and width: [N, C, H, W] -> [N, C]."""
        pooled = self.node("GlobalAveragePool", name, [source])
        return self.node("Flatten", f"{name}.flat", [pooled], axis=1)

    def linear(self, name: str, source: str) -> str:
        """A matrix product with bias, [N, in] -> [N, out]; weights are [out, in]."""
        return self.node("Gemm", name, [source, *self._weight_and_bias(name)], transB=1)

    def dense(self, name: str, source: str) -> str:
        """`linear` over the last of any number of dimensions. The initialiser lies as [in, out]."""
        turned = self._initialiser(f"{name}.weight", self._weights[f"{name}.weight"].T)
        product = self.node("MatMul", f"{name}.matmul", [source, turned])
        return self.node("Add", name, [product, self.weight(f"{name}.bias")])

    def embedding(self, name: str, indices: str) -> str:
        """Rows of the table ``name.weight`` by index."""
        return self.node("Gather", name, [self.weight(f"{name}.weight"), indices], axis=0)

    def lstm(self, name: str, layer: int, source: str, lengths: str = "") -> str:
        """One layer of a one-way LSTM from a state of zeros: [T, N, in] -> [T, N, hidden].

        Weights are torch's ``name.weight_ih_l{layer}`` and so on, gates in its order i, f, g, o. Where
        `lengths` (int32 [N]) is given, steps from a sample's length on give zeros.
        """

        def reordered(part: str) -> Array:
            i, f, g, o = np.split(self._weights[f"{name}.{part}_l{layer}"], 4)
            return np.concatenate([i, o, f, g])  # ONNX's order: input, output, forget, cell

        title = f"{name}.{layer}"
        hidden = self._weights[f"{name}.weight_hh_l{layer}"].shape[1]
        biases = np.concatenate([reordered("bias_ih"), reordered("bias_hh")])
        parts = {"weight_ih": reordered("weight_ih"), "weight_hh": reordered("weight_hh"), "bias": biases}
        sources = [self._initialiser(f"{name}.{part}_l{layer}", array[None]) for part, array in parts.items()]
        steps = self.node("LSTM", title, [source, *sources, lengths], hidden_size=hidden)
        return self.node("Squeeze", f"{title}.squeeze", [steps, self.constant(f"{title}.axes", [1])])

    def model(
        self, inputs: Iterable[onnx.ValueInfoProto], outputs: Mapping[str, onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """The finished model: its inputs, and its outputs by the layer's output that each of them is."""
        for source, info in outputs.items():
            self._nodes.append(helper.make_node("Identity", [source], [info.name], name=info.name))
        initialisers = list(self._used.values())
        graph = helper.make_graph(self._nodes, self._name, list(inputs), list(outputs.values()), initialisers)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="septet")

    def _weight_and_bias(self, name: str) -> list[str]:
        return [self.weight(part) for part in (f"{name}.weight", f"{name}.bias") if part in self._weights]

    def _initialiser(self, name: str, array: Any) -> str:
        if name not in self._used and isinstance(array, Outside):
            self._used[name] = array.tensor(name)
        elif name not in self._used:
            self._used[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name


def value(name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """An input or output; a dimension that is a name is free."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))


def _pads(padding: int | Sequence[int], dimensions: int) -> list[int]:
    return [padding] * 2 * dimensions if isinstance(padding, int) else list(padding)


def parameters(model: onnx.ModelProto) -> int:
    """How many weights were trained: all initialisers but constants and the running statistics of batch
    normalisation."""
    statistics = {
        name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]
    }
    return sum(
        prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name not in statistics and not tensor.name.endswith(_CONSTANT)
    )


def flops(model: onnx.ModelProto, **dims: int) -> int:
    """Floating-point operations of one call: 2 for each multiply-accumulate of convolutions, matrix products
    and LSTMs, nothing for the rest, as MLPerf's figures count.

    `dims` gives the free dimensions by name; the batch is 1 where it does not say.
    """
    shapes = _shapes(model, {BATCH: 1, **dims})
    return sum(2 * _multiplications(node, shapes) for node in model.graph.node)


def _multiplications(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    match node.op_type:
        case "Conv" | "Gemm":  # an output element costs one for each weight that leads to it
            return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        case "ConvTranspose":  # an input element costs one for each weight that leads from it
            return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
        case "MatMul":
            return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        case "LSTM":
            steps, batch, _ = shapes[node.input[0]]
            return steps * batch * (prod(shapes[node.input[1]]) + prod(shapes[node.input[2]]))
    return 0


def _shapes(model: onnx.ModelProto, dims: Mapping[str, int]) -> dict[str, list[int]]:
    """The shape of every tensor in `model`, found without its heavy weights."""
    graph = model.graph
    heavy = [tensor for tensor in graph.initializer if prod(tensor.dims) > _HEAVY]
    light = [tensor for tensor in graph.initializer if prod(tensor.dims) <= _HEAVY]
    stand_ins = [helper.make_tensor_value_info(heavy_.name, heavy_.data_type, heavy_.dims) for heavy_ in heavy]
    inputs = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in graph.input]
    for info in inputs:
        for dim in info.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_value = dims[dim.dim_param]
    ends = [helper.make_empty_tensor_value_info(info.name) for info in graph.output]
    bare = helper.make_graph(graph.node, graph.name, [*inputs, *stand_ins], ends, light)
    whole = helper.make_model(bare, opset_imports=model.opset_import, ir_version=model.ir_version)
    seen = onnx.shape_inference.infer_shapes(whole, data_prop=True).graph
    known = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*seen.input, *seen.value_info, *seen.output)
    }
    return known | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
