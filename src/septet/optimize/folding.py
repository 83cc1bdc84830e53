# SPDX-License-Identifier: Apache-2.0
"""Passes that compute beforehand what does not depend on the inputs."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from septet.optimize import graph
from septet.tensor import Array

_LARGEST = 2**24
"""Results of more elements than this are left to be computed: they would make the file larger than they save."""

_CHANGING = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli",
             "If", "Loop", "Scan"}  # fmt: skip
"""Kinds of nodes that are not constant even where their inputs are, or whose inner graphs may take others."""


def fold_constants(model: onnx.ModelProto) -> int:
    """Put in the place of each node that takes only constants what it gives; the number of nodes that go."""
    known = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_location != onnx.TensorProto.EXTERNAL and prod(tensor.dims) <= _LARGEST
    }
    outputs = {info.name for info in model.graph.output}
    stays: list[onnx.NodeProto] = []
    for node in model.graph.node:
        made = None if outputs.intersection(node.output) else _evaluated(model, node, known)
        if made is None:
            stays.append(node)
            continue
        known |= {tensor.name: tensor for tensor in made}
        model.graph.initializer.extend(made)
    return _replaced(model, stays)


def drop_identities(model: onnx.ModelProto) -> int:
    """Lead past each Identity and each Dropout, which does nothing when a network is used; how many go."""
    outputs = {info.name for info in model.graph.output}
    counts = {name: len(takers) for name, takers in graph.consumers(model).items()}
    makers = graph.producers(model)
    instead: dict[str, str] = {}
    stays: list[onnx.NodeProto] = []
    for node in model.graph.node:
        source = instead.get(node.input[0], node.input[0]) if node.input else ""
        nothing = node.op_type in ("Identity", "Dropout") and not any(counts.get(name) for name in node.output[1:])
        if not nothing or (node.output[0] in outputs and not _may_rename(source, outputs, counts, makers)):
            stays.append(node)
        elif node.output[0] in outputs:
            _rename_output(makers[source], source, node.output[0])
        else:
            instead[node.output[0]] = source
    for node in stays:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
    return _replaced(model, stays)


def fold_normalisation(model: onnx.ModelProto) -> int:
    """Fold each BatchNormalization into the weights of the layer before it, where nothing else takes that layer's
    output; how many go.

    y = (Wx + b − μ) · γ ÷ √(σ² + ε) + β is a layer again: Ioffe and Szegedy, «Batch Normalization», 2015.
    """
    takers, makers, known = graph.consumers(model), graph.producers(model), graph.constants(model)
    gone: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or any(name not in known for name in node.input[1:]):
            continue
        layer = makers.get(node.input[0])
        if layer is None or len(takers[node.input[0]]) > 1 or len(node.output) > 1:
            continue
        if _fold_into(model, layer, node, known):
            layer.output[0] = node.output[0]
            gone.append(node)
    names = {node.name for node in gone}
    return _replaced(model, [node for node in model.graph.node if node.name not in names])


def _evaluated(
    model: onnx.ModelProto, node: onnx.NodeProto, known: dict[str, onnx.TensorProto]
) -> list[onnx.TensorProto] | None:
    """What `node` gives, as initialisers; None where that is not constant, not known, or too large."""
    inputs = [name for name in node.input if name]
    if (
        node.domain not in ("", "ai.onnx")
        or node.op_type in _CHANGING
        or any(name not in known for name in inputs)
    ):
        return None
    values = [helper.make_tensor_value_info(name, known[name].data_type, known[name].dims) for name in inputs]
    ends = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    alone = helper.make_model(
        helper.make_graph([node], "alone", values, ends),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    try:
        made = ReferenceEvaluator(alone).run(None, {name: graph.array(known[name]) for name in inputs})
        arrays = [np.asarray(value) for value in made]
        if sum(value.size for value in arrays) > _LARGEST:
            return None
        return [numpy_helper.from_array(value, end.name) for value, end in zip(arrays, ends, strict=True)]
    except Exception:  # the evaluator does not know every operator: the node stays as it is
        return None


def _fold_into(
    model: onnx.ModelProto, layer: onnx.NodeProto, node: onnx.NodeProto, known: dict[str, onnx.TensorProto]
) -> bool:
    """Scale and shift `layer`'s weights as `node` does; False where they are not its own, or no such layer's."""
    if layer.op_type not in ("Conv", "ConvTranspose") or layer.input[1] not in known:
        return False
    gamma, beta, mean, variance = (graph.array(known[name]) for name in node.input[1:])
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    factor = (gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)).astype(np.float32)
    weights = graph.array(known[layer.input[1]])
    had = graph.array(known[layer.input[2]]) if len(layer.input) > 2 and layer.input[2] in known else 0
    if len(layer.input) > 2 and layer.input[2] and layer.input[2] not in known:
        return False
    bias = ((had - mean.astype(np.float64)) * factor + beta).astype(np.float32)
    scaled = _scaled(layer, weights, factor)
    if scaled is None:
        return False
    names = [f"{layer.name}.{word}.folded" for word in ("weight", "bias")]
    for name, value in zip(names, (scaled, bias), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    inputs = [layer.input[0], *names]
    del layer.input[:]
    layer.input.extend(inputs)
    return True


def _scaled(layer: onnx.NodeProto, weights: Array, factor: Array) -> Array | None:
    """`weights` with each output channel times its factor."""
    ends = [1] * (weights.ndim - 2)
    if layer.op_type == "Conv":
        scaled: Array = weights * factor.reshape(-1, 1, *ends)
        return scaled
    groups = next((attribute.i for attribute in layer.attribute if attribute.name == "group"), 1)
    if groups != 1:
        return None
    turned: Array = weights * factor.reshape(1, -1, *ends)
    return turned


def _may_rename(source: str, outputs: set[str], counts: dict[str, int], makers: dict[str, onnx.NodeProto]) -> bool:
    return source in makers and source not in outputs and counts.get(source) == 1


def _rename_output(node: onnx.NodeProto, old: str, new: str) -> None:
    node.output[list(node.output).index(old)] = new


def _replaced(model: onnx.ModelProto, stays: list[onnx.NodeProto]) -> int:
    """Leave only the nodes that stay and the constants that they take; how many nodes went."""
    gone = len(model.graph.node) - len(stays)
    if gone:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in stays]
        unused = graph.idle(model)
        del model.graph.node[:]
        model.graph.node.extend(kept)
        graph.prune(model, unused)
    return gone
