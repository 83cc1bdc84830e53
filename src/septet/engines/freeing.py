# SPDX-License-Identifier: Apache-2.0
"""Give a model file that was written for one length of sequences a free one.

The length stands in its shapes of reshapes and expansions, and in constants that have a row for each token, such
as the places of tokens. Both are made to follow the input. Whether that number meant the length everywhere is not
to be seen: so the new file is run at samples' own lengths, and kept only if it gives the answers of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from septet.errors import NotSequences
from septet.pipelines.sequence import Sequences
from septet.tensor import Array, Tensors

NAME = "tokens"
"""What the free dimension is called."""

TOLERANCE = 1e-3
"""By how much of the largest an answer may differ: float32, summed in another order through many layers."""

_SHAPED = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}
"""Operators whose input of that place is a shape."""

_BY_ELEMENT = {"Add", "Sub", "Mul", "Div", "Where", "Equal", "And", "Or"}

_LENGTH = "septet.length"

_LARGEST = 1_500_000_000
"""Weights of more bytes than this go into a file of their own: one file of ONNX may hold 2 GB."""


def free(path: Path, to: Path, sequences: Sequences, samples: Sequence[Tensors]) -> Sequences:
    """Write `path` with a free dimension of tokens to `to`; what `prove` gives for `samples`, which may be padded.

    Raises NotSequences, with the reason, where answers change or the new file does not run.
    """
    fixed = sequences.longest
    if fixed is None:
        raise NotSequences("its dimension of tokens is free already")
    model = onnx.load(path)
    _Freeing(model.graph, sequences, fixed).run()
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST
    onnx.save(model, to, save_as_external_data=large, location=f"{to.name}.data")
    proven = prove(path, to, sequences, fixed, samples)
    _declare(to, {name: axis for name, axis in sequences.outputs.items() if name not in proven.outputs}, fixed)
    return proven


def _declare(path: Path, others: Mapping[str, int], fixed: int) -> None:
    """Have a file say that these dimensions of outputs stay as they were: another number was the length's."""
    if others:
        model = onnx.load(path, load_external_data=False)
        for info in model.graph.output:
            if info.name in others:
                info.type.tensor_type.shape.dim[others[info.name]].dim_value = fixed
        onnx.save(model, path)


class _Freeing:
    """The change of one graph."""

    def __init__(self, graph: onnx.GraphProto, sequences: Sequences, fixed: int) -> None:
        self._graph = graph
        self._sequences = sequences
        self._fixed = fixed
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._constants |= {
            node.output[0]: node.attribute[0].t
            for node in graph.node
            if node.op_type == "Constant" and node.attribute[0].name == "value"
        }
        self._made: list[onnx.NodeProto] = []
        self._following: set[str] = set()

    def run(self) -> None:
        for node in self._graph.node:
            for place, name in enumerate(node.input):
                if name in self._constants and (follows := self._follows(node, place, name)):
                    node.input[place] = follows
        constants = [node for node in self._graph.node if node.op_type == "Constant"]
        others = [node for node in self._graph.node if node.op_type != "Constant"]
        nodes = [*constants, *self._length(), *self._made, *others]
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(nodes)
        for info in self._graph.input:
            if info.name in self._sequences.inputs:
                info.type.tensor_type.shape.dim[1].dim_param = NAME
        for info in self._graph.output:
            if (axis := self._sequences.outputs.get(info.name)) is not None:
                info.type.tensor_type.shape.dim[axis].dim_param = NAME

    def _follows(self, node: onnx.NodeProto, place: int, name: str) -> str | None:
        """What stands for the constant `name` in `node` once lengths are free; None where nothing need."""
        constant = self._constants[name]
        if _SHAPED.get(node.op_type) == place:
            return self._shape(name, numpy_helper.to_array(constant).tolist())
        indexes = node.op_type == "Gather" and place == 1
        if (node.op_type in _BY_ELEMENT or indexes) and self._fixed in constant.dims:
            return self._rows(name, [axis for axis, size in enumerate(constant.dims) if size == self._fixed])
        return None

    def _shape(self, name: str, entries: list[int]) -> str | None:
        """A shape whose entries of the fixed length are the input's."""
        if self._fixed not in entries:
            return None
        parts = [_LENGTH if entry == self._fixed else self._numbers(entry) for entry in entries]
        return self._follow(name, "Concat", parts, axis=0)

    def _rows(self, name: str, axes: list[int]) -> str:
        """The first rows of a constant along each of `axes`, as many as the input has tokens."""
        count = len(axes)
        lengths = (
            _LENGTH
            if count == 1
            else self._follow(f"{_LENGTH}.{count} times", "Concat", [_LENGTH] * count, axis=0)
        )
        return self._follow(name, "Slice", [name, self._numbers(*[0] * count), lengths, self._numbers(*axes)])

    def _follow(self, name: str, kind: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{name}.{NAME}"
        if output not in self._following:
            self._made.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
            self._following.add(output)
        return output

    def _numbers(self, *entries: int) -> str:
        name = ".".join(map(str, (_LENGTH, *entries)))
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(entries, np.int64), name)
            self._graph.initializer.append(self._constants[name])
        return name

    def _length(self) -> list[onnx.NodeProto]:
        """How many tokens the input has, int64 [1]."""
        whole = helper.make_node("Shape", [self._sequences.mask], [f"{_LENGTH}.shape"])
        inputs = [f"{_LENGTH}.shape", self._numbers(1), self._numbers(2), self._numbers(0)]
        return [whole, helper.make_node("Slice", inputs, [_LENGTH])]


def prove(old: Path, new: Path, sequences: Sequences, longest: int, samples: Sequence[Tensors]) -> Sequences:
    """Raise NotSequences unless `new` answers `samples` without their padding as `old` does with it, and with more
    where they are shorter than `longest`.

    Gives `sequences` with those outputs alone that are seen to have a place for each token: a dimension may have
    the length's number, or be free, for another reason.
    """
    sessions = {path: _session(path) for path in (old, new)}
    cut = [sequences.cut(sample) for sample in samples]
    short = [_run(sessions[new], {name: array[None] for name, array in one.items()}) for one in cut]
    lengths = [len(one[sequences.mask]) for one in cut]
    axes = {
        name: axis
        for name, axis in sequences.outputs.items()
        if all(
            outputs[name].shape[axis : axis + 1] == (length,)
            for outputs, length in zip(short, lengths, strict=True)
        )
    }
    proven = replace(sequences, outputs=axes)
    for sample, mine, length in zip(samples, short, lengths, strict=True):
        padded = {name: _pad(array, longest, name in sequences.inputs) for name, array in sample.items()}
        _require_same(proven, mine, _run(sessions[old], padded), length)
    return proven


def _require_same(sequences: Sequences, short: Tensors, long: Tensors, length: int) -> None:
    """Raise NotSequences unless outputs for one sequence, alone and padded, are the same for its own tokens."""
    mine, theirs = (sequences.part(outputs, np.array([length]))[0] for outputs in (short, long))
    for name, wanted in theirs.items():
        if wanted.shape != mine[name].shape:
            have = f"{list(mine[name].shape)}, not {list(wanted.shape)}"
            raise NotSequences(f"at {length} tokens its output {name} would be {have}")
        off = _off(mine[name], wanted)
        if not off <= TOLERANCE:
            raise NotSequences(f"at {length} tokens its output {name} would change by {100 * off:.2g} %")


def _off(mine: Array, wanted: Array) -> float:
    """The largest difference as a share of the largest entry; of what are no floats, whether any differs."""
    if wanted.dtype.kind not in "fV" or not wanted.size:
        return float(not np.array_equal(mine, wanted))
    one, other = mine.astype(np.float64), wanted.astype(np.float64)
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))


def _pad(array: Array, length: int, tokens: bool) -> Array:
    more = length - len(array) if tokens else 0
    return np.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1))[None] if more else array[None]


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:
        raise _not_run(error) from error


def _run(session: ort.InferenceSession, batch: Tensors) -> Tensors:
    """The answers of ONNX Runtime to a batch of one. Raises NotSequences."""
    names = [value.name for value in session.get_outputs()]
    try:
        outputs = dict(zip(names, session.run(names, dict(batch)), strict=True))
    except Exception as error:
        raise _not_run(error) from error
    for name, array in outputs.items():
        if array.shape[:1] != (1,):
            raise NotSequences(f"its output {name} is {list(array.shape)}, without a row for each sequence")
    return outputs


def _not_run(error: Exception) -> NotSequences:
    why = " ".join(str(error).split())[:300]
    return NotSequences(f"it does not run with a length of its own: {why}")
