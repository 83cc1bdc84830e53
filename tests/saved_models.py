# SPDX-License-Identifier: Apache-2.0
"""Models of TensorFlow and TFLite written by hand, so that the tests need neither.

Field numbers are those of TensorFlow's ``graph.proto``, ``node_def.proto``, ``attr_value.proto``,
``tensor.proto``, ``tensor_shape.proto``, ``meta_graph.proto`` and ``saved_model.proto``.
"""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import flatbuffers

_FLOAT = 1


def frozen_graph(path: Path, factor: float) -> Path:
    """A GraphDef: ``x`` float32 [N, 4] -> ``y``, `factor` times as much."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_graph(factor))
    return path


def saved_model(folder: Path, factor: float) -> Path:
    """A SavedModel of the same, whose signature calls its input ``image`` and its output ``score``."""
    shape = _field(2, _varint(1, 2**64 - 1)) + _field(2, _varint(1, 4))

    def info(name: str) -> bytes:
        return _text(1, f"{name}:0") + _varint(2, _FLOAT) + _field(3, shape)

    signature = (
        _field(1, _text(1, "image") + _field(2, info("x")))
        + _field(2, _text(1, "score") + _field(2, info("y")))
        + _text(3, "tensorflow/serving/predict")
    )
    meta = (
        _field(1, _text(4, "serve"))
        + _field(2, _graph(factor))
        + _field(5, _text(1, "serving_default") + _field(2, signature))
    )
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(_varint(1, 1) + _field(2, meta))
    return folder


def _graph(factor: float) -> bytes:
    shape = _field(2, _varint(1, 2**64 - 1)) + _field(2, _varint(1, 4))
    constant = _varint(1, _FLOAT) + _field(2, b"") + _field(4, struct.pack("<f", factor))
    nodes = (
        _node("x", "Placeholder", [], {"dtype": _varint(6, _FLOAT), "shape": _field(7, shape)}),
        _node("factor", "Const", [], {"dtype": _varint(6, _FLOAT), "value": _field(8, constant)}),
        _node("y", "Mul", ["x", "factor"], {"T": _varint(6, _FLOAT)}),
    )
    return b"".join(_field(1, node) for node in nodes) + _field(4, _varint(1, 1_000))


def _node(name: str, kind: str, inputs: list[str], attributes: dict[str, bytes]) -> bytes:
    return (
        _text(1, name)
        + _text(2, kind)
        + b"".join(_text(3, each) for each in inputs)
        + b"".join(_field(5, _text(1, key) + _field(2, value)) for key, value in attributes.items())
    )


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _varint(number: int, value: int) -> bytes:
    return _number(number << 3) + _number(value)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def tflite(path: Path, factor: float) -> Path:
    """A TFLite model: ``x`` float32 [1, 4] -> ``y``, `factor` times as much; slots are those of ``schema.fbs``."""
    made = flatbuffers.Builder(1_024)
    data = made.CreateByteVector(struct.pack("<f", factor))
    buffers = [_table(made, {}), _table(made, {0: data})]
    tensors = [
        _table(made, {0: _ints(made, [1, 4]), 3: made.CreateString("x")}),
        _table(made, {0: _ints(made, []), 2: 1, 3: made.CreateString("factor")}, {2}),
        _table(made, {0: _ints(made, [1, 4]), 3: made.CreateString("y")}),
    ]
    options = _table(made, {})
    operator = _table(made, {1: _ints(made, [0, 1]), 2: _ints(made, [2]), 3: 21, 4: options}, bytes_={3})
    graph = _table(
        made,
        {0: _tables(made, tensors), 1: _ints(made, [0]), 2: _ints(made, [2]), 3: _tables(made, [operator])},
    )
    code = _table(made, {0: 18, 3: 18}, {3}, bytes_={0})
    root = _table(
        made, {0: 3, 1: _tables(made, [code]), 2: _tables(made, [graph]), 4: _tables(made, buffers)}, {0}
    )
    made.Finish(root, b"TFL3")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.Output())
    return path


def _table(
    made: flatbuffers.Builder, slots: dict[int, int], ints: Iterable[int] = (), bytes_: Iterable[int] = ()
) -> int:
    made.StartObject(8)
    for slot, value in slots.items():
        if slot in ints:
            made.PrependUint32Slot(slot, value, 0)
        elif slot in bytes_:
            made.PrependInt8Slot(slot, value, 0)
        else:
            made.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(made.EndObject())


def _ints(made: flatbuffers.Builder, values: Sequence[int]) -> int:
    made.StartVector(4, len(values), 4)
    for value in reversed(values):
        made.PrependInt32(value)
    return int(made.EndVector())


def _tables(made: flatbuffers.Builder, tables: Sequence[int]) -> int:
    made.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        made.PrependUOffsetTRelative(table)
    return int(made.EndVector())
