# SPDX-License-Identifier: Apache-2.0
"""Pixels in: a network that takes normalised floats becomes one that takes an image's bytes as they are.

Normalising outside costs as much as decoding and resizing together, and four times the bytes to carry. Inside, the
factor disappears into the first layer's weights, and the mean into its bias, where it pads nothing; where it pads,
zeros would no longer mean «mean», so that the mean is subtracted before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from septet.errors import ModelInvalid, UsageError
from septet.optimize import graph
from septet.optimize.passes import TOLERANCE, outputs
from septet.tensor import Array

CHANNELS = 3


@dataclass(frozen=True)
class Normalisation:
    """(pixel − `mean`) ÷ `deviation` for each channel, pixels being 0…255."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def read(cls, text: str) -> Self:
        """From ``mean,mean,mean`` or ``mean,mean,mean/deviation,deviation,deviation``. Raises UsageError."""
        parts = text.split("/")
        try:
            mean = tuple(float(number) for number in parts[0].split(","))
            deviation = (
                tuple(float(number) for number in parts[1].split(",")) if len(parts) > 1 else (1.0,) * CHANNELS
            )
        except ValueError as error:
            raise UsageError(f"{text}: not mean,mean,mean/deviation,deviation,deviation: {error}") from error
        sane = all(map(math.isfinite, (*mean, *deviation))) and min(deviation) > 0
        if len(parts) > 2 or {len(mean), len(deviation)} != {CHANNELS} or not sane:
            raise UsageError(f"{text}: not three means and, after a slash, three deviations above 0")
        return cls(mean, deviation)

    def __call__(self, images: Array) -> Array:
        """What the network took: uint8 [N, H, W, 3] -> float32 [N, 3, H, W]."""
        mean, deviation = np.array(self.mean), np.array(self.deviation)
        floats: Array = ((images - mean) / deviation).astype(np.float32).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(floats)


def take_pixels(source: Path, to: Path, normalisation: Normalisation, images: Sequence[Array]) -> float:
    """Write to `to` the network at `source` so that it takes uint8 [N, H, W, 3]; how far outputs on `images`, each
    uint8 [1, H, W, 3], are from the old ones.

    Raises ModelInvalid where the network does not begin with a convolution of one image, or outputs differ.
    """
    model = graph.read(source)
    name = _changed(model, source, normalisation)
    graph.write(model, to, source)
    before = outputs(source, [{name: normalisation(image)} for image in images])
    after = outputs(to, [{name: image} for image in images])
    apart = max(
        float(np.linalg.norm(mine[key].astype(float) - theirs[key].astype(float)))
        / max(float(np.linalg.norm(theirs[key].astype(float))), 1e-12)
        for mine, theirs in zip(after, before, strict=True)
        for key in theirs
    )
    if not apart <= TOLERANCE:
        raise ModelInvalid(f"{source}: with pixels for input its outputs change by {100 * apart:.2g} %")
    return apart


def _changed(model: onnx.ModelProto, source: Path, normalisation: Normalisation) -> str:
    """Change the beginning of the graph; the name of its input."""
    known = graph.constants(model)
    inputs = [info for info in model.graph.input if info.name not in known]
    layer = _first_layer(model, inputs, known)
    if layer is None:
        raise ModelInvalid(f"{source}: does not begin with one convolution of a float32 image [N, 3, H, W]")
    name: str = inputs[0].name
    _scale_weights(model, layer, known, np.array(normalisation.deviation))
    steps: list[tuple[str, dict[str, Any]]] = [
        ("Cast", {"to": TensorProto.FLOAT}),
        ("Transpose", {"perm": [0, 3, 1, 2]}),
    ]
    nodes, last = [], name
    for kind, attributes in steps:
        nodes.append(helper.make_node(kind, [last], [f"{name}.{kind}"], name=f"{name}.{kind}", **attributes))
        last = f"{name}.{kind}"
    mean = np.array(normalisation.mean, np.float32)
    if _pads(layer):
        stored = numpy_helper.from_array(mean.reshape(1, -1, 1, 1), f"{name}.mean")
        model.graph.initializer.append(stored)
        nodes.append(helper.make_node("Sub", [last, stored.name], [f"{name}.Sub"], name=f"{name}.Sub"))
        last = f"{name}.Sub"
    else:
        _shift_bias(model, layer, mean)
    layer.input[0] = last
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)
    _take_bytes(inputs[0])
    return name


def _first_layer(
    model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto], known: dict[str, TensorProto]
) -> onnx.NodeProto | None:
    """The convolution that alone takes the one input, if there is such a one."""
    if len(inputs) != 1:
        return None
    kind = inputs[0].type.tensor_type
    takers = graph.consumers(model).get(inputs[0].name, [])
    fits = kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4
    if not fits or kind.shape.dim[1].dim_value != CHANNELS or len(takers) != 1 or takers[0].op_type != "Conv":
        return None
    groups = next((attribute.i for attribute in takers[0].attribute if attribute.name == "group"), 1)
    return takers[0] if groups == 1 and all(name in known for name in takers[0].input[1:]) else None


def _scale_weights(
    model: onnx.ModelProto, layer: onnx.NodeProto, known: dict[str, TensorProto], deviation: Array
) -> None:
    weights = graph.array(known[layer.input[1]]) / deviation.reshape(1, -1, 1, 1)
    stored = numpy_helper.from_array(weights.astype(np.float32), f"{layer.input[1]}.by_pixel")
    model.graph.initializer.append(stored)
    layer.input[1] = stored.name


def _shift_bias(model: onnx.ModelProto, layer: onnx.NodeProto, mean: Array) -> None:
    """Take what the mean adds to each output from the bias."""
    known = graph.constants(model)
    weights = graph.array(known[layer.input[1]]).astype(np.float64)
    had = graph.array(known[layer.input[2]]) if len(layer.input) > 2 else np.zeros(len(weights))
    bias = had - np.einsum("oihw,i->o", weights, mean.astype(np.float64))
    stored = numpy_helper.from_array(bias.astype(np.float32), f"{layer.name}.bias.by_pixel")
    model.graph.initializer.append(stored)
    taken = [layer.input[0], layer.input[1], stored.name]
    del layer.input[:]
    layer.input.extend(taken)


def _pads(layer: onnx.NodeProto) -> bool:
    for attribute in layer.attribute:
        if (attribute.name == "pads" and any(attribute.ints)) or (
            attribute.name == "auto_pad" and attribute.s not in (b"NOTSET", b"VALID")
        ):
            return True
    return False


def _take_bytes(info: onnx.ValueInfoProto) -> None:
    """Make an input [N, 3, H, W] of floats one of bytes [N, H, W, 3]."""
    kind = info.type.tensor_type
    kind.elem_type = TensorProto.UINT8
    batch, channels, height, width = (
        onnx.TensorShapeProto.Dimension.FromString(dim.SerializeToString()) for dim in kind.shape.dim
    )
    del kind.shape.dim[:]
    kind.shape.dim.extend([batch, height, width, channels])
