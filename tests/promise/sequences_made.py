# SPDX-License-Identifier: Apache-2.0
"""A small network of sequences that is not BERT: one head of masked attention over embedded words."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from septet.tensor import Array, Tensors

WORDS, WIDTH, LONGEST = 50, 16, 64
_DRAW = np.random.default_rng(8)
_WEIGHTS = {
    "words": _DRAW.standard_normal((WORDS, WIDTH)),
    "places": _DRAW.standard_normal((1, LONGEST, WIDTH)),
    "query": _DRAW.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5,
    "mix": _DRAW.standard_normal((WIDTH, 3)) / WIDTH**0.5,
}


def tagger(
    path: Path, length: int | str, batch: int | str = "B", *, heeds: bool = True, whole: int = TensorProto.INT64
) -> Path:
    """``tokens`` and ``token_mask``, `whole` numbers [B, `length`] -> ``tags``, float32 [B, `length`, 3], and
    ``topic``, float32 [B, 3], the answer at the first token.

    As exporters write it where `length` is a number, that number stands in the shapes of reshapes and in the
    table of places. Unless it `heeds` its mask, all tokens are averaged, padding too.
    """
    free = isinstance(length, str)
    nodes, constants = [], {name: array.astype(np.float32) for name, array in _WEIGHTS.items()}
    shapes: dict[str, Array] = {
        "flat": np.array([-1, WIDTH]),
        "apart": np.array([0, 0, WIDTH] if free else [-1, length, WIDTH]),
        "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
    }  # fmt: skip

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}.node", **attributes))
        return output

    x = node("Gather", ["words", "tokens"], "embedded")
    if free:
        size = node("Shape", ["tokens"], "size", start=1, end=2)
        places = node("Slice", ["places", "zero", size, "one"], "placed")
    else:
        constants["places"] = constants["places"][:, :length]
        places = "places"
    x = node("Add", [x, places], "x")
    turned = node("MatMul", [x, "query"], "turned")
    if not free:  # there and back, as exporters do it for heads
        rows = node("Reshape", [turned, "flat"], "rows")
        turned = node("Reshape", [rows, "apart"], "unrolled")
    scores = node("MatMul", [turned, node("Transpose", [x], "across", perm=[0, 2, 1])], "scores")
    number = node("Cast", ["token_mask"], "number", to=TensorProto.FLOAT)
    absent = node("Sub", [node("Unsqueeze", [number, "one"], "wide"), "full"], "absent")
    constants |= {"full": np.float32(1), "much": np.float32(1e4), "little": np.float32(1e-3)}
    hidden = node("Mul", [absent, "much" if heeds else "little"], "hidden")
    shares = node("Softmax", [node("Add", [scores, hidden], "masked")], "shares", axis=-1)
    tags = node("MatMul", [node("MatMul", [shares, x], "seen"), "mix"], "tags")
    node("Squeeze", [node("Slice", [tags, "zero", "one", "one"], "first"), "one"], "topic")
    takes = [helper.make_tensor_value_info(n, whole, [batch, length]) for n in ("tokens", "token_mask")]
    gives = [
        helper.make_tensor_value_info("tags", TensorProto.FLOAT, [batch, length, 3]),
        helper.make_tensor_value_info("topic", TensorProto.FLOAT, [batch, 3]),
    ]
    used = {name for made in nodes for name in made.input}
    weights = [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants | shapes).items() if n in used]
    model = helper.make_model(
        helper.make_graph(nodes, "tagger", takes, gives, weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def texts(count: int, *, padded: bool, seed: int = 1) -> list[Tensors]:
    """`count` samples of 3 to 64 tokens, the first of all 64, `padded` to 64 with what is no zero, or not."""
    draw = np.random.default_rng(seed)
    found: list[Tensors] = []
    for size in [LONGEST, *draw.integers(3, LONGEST + 1, count - 1).tolist()]:
        more = (0, (LONGEST - size) * padded)
        tokens = np.pad(draw.integers(0, WORDS, size), more, constant_values=7)
        found.append({"tokens": tokens, "token_mask": np.pad(np.ones(size, np.int64), more)})
    return found
