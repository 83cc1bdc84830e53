# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs in memory: read and write them whole, name their nodes, ask who makes and who takes a tensor."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import external_data_helper, helper, numpy_helper

from septet.engines.model import read_onnx
from septet.errors import ModelInvalid
from septet.tensor import Array

OUTSIDE = 256 * 2**20
"""A weight that lies outside of its file and has more bytes than this stays there: nothing changes in a table."""

_HASHED = 2**26
"""Of a larger file its beginning, its length and its date tell which it is: tables may have gigabytes."""

_ONE_FILE = 1_500 * 2**20
"""A file of ONNX may hold 2 GB; from here on weights go into a file beside it."""

_HEAVY = 1_024
"""Initialisers of more elements than this are left out where only shapes are wanted."""


def read(path: Path) -> onnx.ModelProto:
    """The model at `path`, each node with a name of its own, its weights in memory but for the largest that lie
    outside. Raises ModelNotFound, ModelInvalid."""
    read_onnx(path)
    try:
        model = onnx.load(path, load_external_data=False)
        for tensor in _tensors(model.graph):
            if external_data_helper.uses_external_data(tensor) and size(tensor) <= OUTSIDE:
                external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ModelInvalid(f"{path}: its weights cannot be read: {error}") from error
    _name(model)
    return model


def write(model: onnx.ModelProto, path: Path, source: Path) -> None:
    """Write `model`, which was read at `source`, to `path`; what lies outside is linked, or copied, beside it.

    Raises ModelInvalid where it is too large, and OSError.
    """
    for name in _locations(model):
        link(source.parent / name, path.parent / name)
    held = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    try:
        if held > _ONE_FILE:
            onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
        else:
            onnx.save(model, path)
    except (EncodeError, ValueError) as error:
        raise ModelInvalid(f"{path}: cannot be written as ONNX: {error}") from error


def link(source: Path, to: Path) -> None:
    """Have the file `source` at `to` too, without a second copy of its bytes where the disk allows."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.exists() and to.samefile(source):
        return
    to.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), to)  # not a link of that name to it, which leads nowhere from another folder
    except OSError:
        shutil.copyfile(source, to)


def copy(source: Path, to: Path) -> None:
    """Have the file `source` at `to` too, with bytes of its own: whoever changes one does not change the other."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)


def files(path: Path) -> list[Path]:
    """The files that belong to the model file `path`: itself, what an ONNX file has outside, an IR's weights."""
    if path.suffix != ".onnx":
        return [path, path.with_suffix(".bin")]
    return [path, *(path.parent / name for name in _locations(onnx.load(path, load_external_data=False)))]


def digest(path: Path) -> str:
    """What tells the model at `path` from others: of its contents, and for the rest of very large files of their
    lengths and dates. Raises ModelInvalid where a part of it is missing."""
    found = hashlib.sha256()
    try:
        for part in files(path):
            state = part.stat()
            found.update(f"{part.name} {state.st_size} ".encode())
            if state.st_size > _HASHED:
                found.update(str(state.st_mtime_ns).encode())
            with part.open("rb") as file:
                found.update(file.read(_HASHED))
    except OSError as error:
        raise ModelInvalid(f"{path}: its weights cannot be read: {error}") from error
    return found.hexdigest()[:32]


def size(tensor: onnx.TensorProto) -> int:
    """Its length in bytes."""
    width: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(prod(tensor.dims)) * width


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initialisers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def array(tensor: onnx.TensorProto) -> Array:
    """The initialiser as numpy."""
    found: Array = np.asarray(numpy_helper.to_array(tensor))
    return found


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each tensor."""
    return {output: node for node in model.graph.node for output in node.output if output}


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that take each tensor; one that a graph gives out has a consumer of type «Output»."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    for info in model.graph.output:
        found.setdefault(info.name, []).append(helper.make_node("Output", [info.name], []))
    return found


def idle(model: onnx.ModelProto) -> set[str]:
    """Initialisers that no node takes and no graph gives: a decoder that runs beside the engine may read them."""
    taken = {*_taken(model.graph), *(info.name for info in model.graph.output)}
    return {tensor.name for tensor in model.graph.initializer} - taken


def prune(model: onnx.ModelProto, idle: set[str]) -> None:
    """Remove nodes that lead to no output, then initialisers that no node takes, but those that were `idle`
    before."""
    graph = model.graph
    wanted = {info.name for info in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            wanted.update(_inputs(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in wanted | idle:
            del graph.initializer[place]


def know_shapes(model: onnx.ModelProto) -> None:
    """Note the dtype and, where it can be told, the shape of every tensor in the graph; heavy weights are not
    needed for that."""
    graph = model.graph
    heavy = [tensor for tensor in graph.initializer if prod(tensor.dims) > _HEAVY]
    light = [tensor for tensor in graph.initializer if prod(tensor.dims) <= _HEAVY]
    stand_ins = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in heavy]
    bare = helper.make_graph(graph.node, graph.name, [*graph.input, *stand_ins], graph.output, light)
    whole = helper.make_model(
        bare, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
    seen = onnx.shape_inference.infer_shapes(whole, data_prop=True).graph
    del graph.value_info[:]
    graph.value_info.extend(info for info in seen.value_info if info.type.tensor_type.elem_type)


def _taken(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from _inputs(node)


def taken_inside(model: onnx.ModelProto) -> set[str]:
    """The tensors that nodes of inner graphs take, such as those of an If's branches."""
    return {name for node in model.graph.node for name in _inside(node)}


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, its inner graphs' nodes included."""
    yield from node.input
    yield from _inside(node)


def _inside(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            yield from _taken(inner)
            yield from (info.name for info in inner.output)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph and its inner graphs, those of Constant nodes included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _name(model: onnx.ModelProto) -> None:
    """Give each node a name that no other has: quantisers tell nodes by name."""
    seen = Counter(node.name for node in model.graph.node)
    for place, node in enumerate(model.graph.node):
        if not node.name or seen[node.name] > 1:
            node.name = f"{node.op_type}.{place}"


def _locations(model: onnx.ModelProto) -> list[str]:
    """The files with tensors that lie outside of the model's, by their paths from its folder."""
    return sorted({_location(tensor) for tensor in _tensors(model.graph)} - {""})


def _location(tensor: onnx.TensorProto) -> str:
    if not external_data_helper.uses_external_data(tensor):
        return ""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
