# SPDX-License-Identifier: Apache-2.0
"""Look at a model file before an engine gets it: is it whole, what goes in and out, is it quantised."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from septet.errors import ModelInvalid, ModelNotFound, PrecisionUnsupported
from septet.tensor import TensorSpec

_QUANTISED = re.compile(r"QuantizeLinear|DequantizeLinear|QLinear|.*Integer$|DynamicQuantize")
_BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says of itself."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    quantised: bool


def read_onnx(path: Path) -> OnnxFile:
    """Read the graph of an ONNX file, without data that lies outside of it.

    Raises ModelNotFound, ModelInvalid (empty, truncated, not ONNX, without inputs or outputs).
    """
    require(path)
    try:
        graph = onnx.load(path, load_external_data=False).graph
        _require_inside(path, graph)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelInvalid(f"{path}: not a readable ONNX file (corrupt or truncated)") from error
    constants = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_spec(value) for value in graph.input if value.name not in constants)
    outputs = tuple(_spec(value) for value in graph.output)
    if not inputs or not outputs:
        raise ModelInvalid(f"{path}: an ONNX file without inputs or outputs")
    return OnnxFile(inputs, outputs, _quantised(graph))


def _quantised(graph: onnx.GraphProto) -> bool:
    """Whether nodes quantise, or weights are stored in 8 bits."""
    weights = any(tensor.data_type in _BYTES and len(tensor.dims) > 1 for tensor in graph.initializer)
    return weights or any(_QUANTISED.match(node.op_type) for node in graph.node)


def _require_inside(path: Path, graph: onnx.GraphProto) -> None:
    """Raise ModelInvalid where a tensor's data lies outside the folder of the file (CVE-2024-27318)."""
    folder = path.parent.resolve()
    for tensor in _tensors(graph):
        for entry in tensor.external_data:
            if entry.key == "location" and not (folder / entry.value).resolve().is_relative_to(folder):
                raise ModelInvalid(f"{path}: the data of tensor {tensor.name!r} lies outside the model's folder")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph and of the graphs in it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def require(path: Path) -> None:
    """Raise ModelNotFound unless `path` is a file, ModelInvalid if it is empty."""
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such model file")
    if path.stat().st_size == 0:
        raise ModelInvalid(f"{path}: the model file is empty")


def require_precision(path: Path, quantised: bool, precision: str) -> None:
    """Raise PrecisionUnsupported where `precision` would be a wrong name for what the file computes in."""
    if precision == "int8" and not quantised:
        raise PrecisionUnsupported(f"{path}: not a quantised file; quantise it first, or ask f32 or bf16")
    if precision != "int8" and quantised:
        raise PrecisionUnsupported(f"{path}: a quantised file; ask precision int8, not {precision}")


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorSpec(value.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)
