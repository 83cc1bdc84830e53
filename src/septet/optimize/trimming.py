# SPDX-License-Identifier: Apache-2.0
"""Passes that remove what the task does not need."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from septet.optimize import graph

_ORDER_KEEPING = ("Softmax", "LogSoftmax")


def drop_outputs(model: onnx.ModelProto, read: Collection[str]) -> int:
    """Give only the outputs that are `read`, without the nodes that then lead nowhere; how many outputs go."""
    unread = [info.name for info in model.graph.output if info.name not in read]
    idle = graph.idle(model)
    for place in reversed(range(len(model.graph.output))):
        if model.graph.output[place].name in unread:
            del model.graph.output[place]
    graph.prune(model, idle)
    return len(unread)


def drop_softmax(model: onnx.ModelProto) -> int:
    """Remove each softmax over classes, the second dimension, whose result is an output of which only the largest
    counts: it changes no order. How many go."""
    takers, makers = graph.consumers(model), graph.producers(model)
    gone = 0
    for info in model.graph.output:
        node, rank = makers.get(info.name), len(info.type.tensor_type.shape.dim)
        if node is None or node.op_type not in _ORDER_KEEPING or len(takers[info.name]) > 1:
            continue
        source = makers.get(node.input[0])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        if source is not None and len(takers[node.input[0]]) == 1 and axis % max(rank, 1) == 1:
            source.output[list(source.output).index(node.input[0])] = info.name
            node.output[0] = f"{info.name}.dropped"
            gone += 1
    graph.prune(model, graph.idle(model))
    return gone
