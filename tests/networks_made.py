# SPDX-License-Identifier: Apache-2.0
"""Small networks that the optimiser's tests give it, and samples for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from septet.tensor import Array, Tensors

WIDTH, HIDDEN, CLASSES = 24, 64, 10


def perceptron(path: Path, *, outliers: float = 1.0, layers: int = 4) -> Path:
    """``x`` float32 [N, 24] -> ``scores`` float32 [N, 10] through `layers` matrix products.

    In the second layer's input three channels are `outliers` times the rest, and the second layer's weights undo
    that: in FP32 nothing changes, but eight bits for the whole tensor leave the other channels nothing.
    """
    draw = np.random.default_rng(5)
    widths = [WIDTH, *[HIDDEN] * (layers - 1), CLASSES]
    weights = [
        draw.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5) for shape in pairwise(widths)
    ]
    loud = draw.permutation(HIDDEN)[:3]
    weights[0][:, loud] *= outliers
    weights[1][loud] /= outliers
    nodes, source = [], "x"
    for place in range(layers):
        last = place == layers - 1
        product = "scores" if last else f"product{place}"
        nodes.append(helper.make_node("MatMul", [source, f"w{place}"], [product], name=f"layer{place}"))
        if not last:
            nodes.append(helper.make_node("Relu", [product], [f"h{place}"], name=f"relu{place}"))
            source = f"h{place}"
    constants = {f"w{place}": weight for place, weight in enumerate(weights)}
    return save(path, nodes, {"x": ["N", WIDTH]}, {"scores": ["N", CLASSES]}, constants)


def sharp_attention(path: Path, *, temperature: float) -> Path:
    """``x`` float32 [N, 8, 24] -> ``y`` float32 [N, 8, 24]: attention whose softmax multiplies its scores by
    `temperature`, so that a small error in them turns into another answer."""
    draw = np.random.default_rng(6)
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], name="key"),
        helper.make_node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], name="scores"),
        helper.make_node("Mul", ["s", "temperature"], ["hot"], name="heat"),
        helper.make_node("Softmax", ["hot"], ["p"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["c"], name="context"),
        helper.make_node("MatMul", ["c", "wo"], ["y"], name="out"),
    ]
    constants: dict[str, Array] = {
        name: draw.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 5 for name in ("wq", "wk", "wo")
    }
    constants["temperature"] = np.array(temperature, np.float32)
    shape: list[int | str] = ["N", 8, WIDTH]
    return save(path, nodes, {"x": shape}, {"y": shape}, constants)


def normalised_convolutions(path: Path) -> Path:
    """``image`` float32 [N, 3, 16, 16] -> ``class`` float32 [N, 10]: convolution, batch normalisation and ReLU
    twice, constants to fold, a softmax at the end."""
    draw = np.random.default_rng(7)
    constants: dict[str, Array] = {"two": np.array(2, np.float32), "half": np.array(0.25, np.float32)}
    nodes = [helper.make_node("Mul", ["two", "half"], ["scale"], name="constant")]
    source, width = "image", 3
    for place in range(2):
        constants[f"w{place}"] = (draw.standard_normal((16, width, 3, 3)) / 5).astype(np.float32)
        for word, low, high in (("gamma", 0.5, 2), ("beta", -1, 1), ("mean", -1, 1), ("variance", 0.2, 3)):
            constants[f"{word}{place}"] = draw.uniform(low, high, 16).astype(np.float32)
        parts = [f"{word}{place}" for word in ("gamma", "beta", "mean", "variance")]
        nodes += [
            helper.make_node("Conv", [source, f"w{place}"], [f"c{place}"], name=f"conv{place}", pads=[1] * 4),
            helper.make_node("BatchNormalization", [f"c{place}", *parts], [f"b{place}"], name=f"norm{place}"),
            helper.make_node("Relu", [f"b{place}"], [f"r{place}"], name=f"relu{place}"),
        ]
        source, width = f"r{place}", 16
    constants["wc"] = draw.standard_normal((16, CLASSES)).astype(np.float32)
    nodes += [
        helper.make_node("Mul", [source, "scale"], ["scaled"], name="scaled"),
        helper.make_node("Identity", ["scaled"], ["same"], name="same"),
        helper.make_node("GlobalAveragePool", ["same"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "wc"], ["logits"], name="classes"),
        helper.make_node("Softmax", ["logits"], ["class"], name="softmax", axis=1),
    ]
    return save(path, nodes, {"image": ["N", 3, 16, 16]}, {"class": ["N", CLASSES]}, constants)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Array],
) -> Path:
    """A checked model of float32 inputs and outputs."""
    takes, gives = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in some.items()]
        for some in (inputs, outputs)
    )
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "made", takes, gives, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def vectors(count: int, seed: int = 0, shape: Sequence[int] = (WIDTH,)) -> list[Tensors]:
    """`count` samples for ``x``."""
    draw = np.random.default_rng(seed)
    return [{"x": draw.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def twenty_vectors() -> list[Tensors]:
    """What ``--data networks_made:twenty_vectors`` gives."""
    return vectors(20)


def broken_samples() -> Iterator[Tensors]:
    """Samples that cannot all be read."""
    yield from vectors(5)
    raise OSError("no disk")
