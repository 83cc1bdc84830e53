# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from dataclasses import replace
from math import erf, prod, sqrt

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from septet.tensor import Array
from septet.workloads.graph import flops, parameters
from septet.workloads.squad import MadeUpWindows
from septet.workloads.transformer import BERT_LARGE, BERT_MINI, INPUTS, Bert, Synthetic, build, shapes

SMALL = Bert(hidden=32, layers=2, heads=4, between=64, vocabulary=2_100)


WORDS = 10
"""How many words the graphs that are counted know: the others cost nothing but room."""


def large(layers: int) -> onnx.ModelProto:
    net = replace(BERT_LARGE, layers=layers, vocabulary=WORDS)
    return build(net, Synthetic(net, 0))


def test_full_size_counts() -> None:
    assert sum(map(prod, shapes(BERT_LARGE).values())) == 334_094_338  # 334.1 M
    one, two = large(1), large(2)
    layers = BERT_LARGE.layers
    # each layer adds the same: all 24 of them need not be built to count them
    words = (BERT_LARGE.vocabulary - WORDS) * BERT_LARGE.hidden
    assert parameters(one) + (layers - 1) * (parameters(two) - parameters(one)) + words == 334_094_338
    for length, wanted in ((384, 246.4e9), (178, 110.6e9), (128, 78.9e9)):
        first, second = flops(one, L=length), flops(two, L=length)
        assert first + (layers - 1) * (second - first) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("net", [SMALL, BERT_MINI])
def test_a_built_network_is_valid_and_has_the_weights_of_its_shapes(net: Bert) -> None:
    model = build(net, Synthetic(net, 1))
    onnx.checker.check_model(model, full_check=True)
    have = {
        tensor.name: sorted(tensor.dims) for tensor in model.graph.initializer if "constant" not in tensor.name
    }
    assert have == {name: sorted(shape) for name, shape in shapes(net).items()}
    assert parameters(model) == sum(map(prod, shapes(net).values()))


def test_synthetic_weights_are_seeded() -> None:
    first, again, other = Synthetic(SMALL, 1), Synthetic(SMALL, 1), Synthetic(SMALL, 2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert len(first) == len(shapes(SMALL))
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert not np.array_equal(first[name], other[name])
    assert not np.array_equal(first[name], first[name.replace("query", "key")])


def plain(net: Bert, weights: Mapping[str, Array], ids: Array, mask: Array, segments: Array) -> Array:
    """The network from the papers' formulas, one sample [L] at a time, in float64: [L, 2]."""

    def dense(name: str, x: Array) -> Array:
        found: Array = x @ weights[f"{name}.weight"].astype(float).T + weights[f"{name}.bias"]
        return found

    def norm(name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        found: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return found * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    gelu = np.vectorize(lambda x: x * (1 + erf(x / sqrt(2))) / 2)
    parts = {"word": ids, "position": np.arange(len(ids)), "token_type": segments}
    tables = {part: weights[f"bert.embeddings.{part}_embeddings.weight"].astype(float) for part in parts}
    x = norm("bert.embeddings.LayerNorm", sum(tables[part][places] for part, places in parts.items()))
    for layer in range(net.layers):
        name = f"bert.encoder.layer.{layer}"
        q, k, v = (dense(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for head in range(net.heads):
            mine = slice(head * net.head, (head + 1) * net.head)
            scores = q[:, mine] @ k[:, mine].T / sqrt(net.head)
            shares = np.exp(scores - scores.max(-1, keepdims=True)) * mask
            heads.append(shares / shares.sum(-1, keepdims=True) @ v[:, mine])
        attended = dense(f"{name}.attention.output.dense", np.concatenate(heads, -1))
        x = norm(f"{name}.attention.output.LayerNorm", x + attended)
        y = dense(f"{name}.output.dense", gelu(dense(f"{name}.intermediate.dense", x)))
        x = norm(f"{name}.output.LayerNorm", x + y)
    return dense("qa_outputs", x)


@pytest.mark.parametrize("length", [7, 384])
def test_the_graph_computes_what_the_papers_say(length: int) -> None:
    draw = np.random.default_rng(0)
    weights = {
        name: draw.standard_normal(shape).astype(np.float32) * np.float32(0.3)
        for name, shape in shapes(SMALL).items()
    }
    ids = draw.integers(0, SMALL.vocabulary, (3, length))
    segments = draw.integers(0, 2, (3, length))
    mask = (np.arange(length) < np.array([[length], [length // 2 + 1], [3]])).astype(np.int64)
    start, end = run(build(SMALL, weights), ids, mask, segments)
    for row in range(3):
        used = mask[row].sum()
        wanted = plain(SMALL, weights, ids[row], mask[row], segments[row])[:used]
        ours = np.stack([start[row], end[row]], -1)[:used]
        assert np.abs(ours - wanted).max() < 1e-3


def test_padding_changes_nothing() -> None:
    model = build(SMALL, Synthetic(SMALL, 0))
    ids, mask, segments = (part[None] for part in MadeUpWindows(1, SMALL.vocabulary).tensors(0))
    used = int(mask.sum())
    assert used < 384
    whole, short = run(model, ids, mask, segments), run(model, *(part[:, :used] for part in (ids, mask, segments)))
    for one, other in zip(whole, short, strict=True):
        assert np.abs(one[:, :used] - other).max() < 1e-4


def test_synthetic_activations_stay_sane() -> None:
    net = replace(BERT_LARGE, hidden=256, heads=4, between=1_024, vocabulary=3_000)
    model = build(net, Synthetic(net, 0))
    names = [
        f"bert.encoder.layer.{layer}.output.{part}.out" for layer in range(24) for part in ("add", "LayerNorm")
    ]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    tensors = (
        np.stack(parts) for parts in zip(*(MadeUpWindows(2, 3_000).tensors(i) for i in range(2)), strict=True)
    )
    start, end, *activations = run(model, *tensors)
    for activation in (start, end, *activations):
        assert 0.1 < activation.std() < 100
        assert np.isfinite(activation.astype(ml_dtypes.bfloat16).astype(np.float32)).all()
    assert np.abs(start[0] - start[1]).max() > 0.1


def run(model: onnx.ModelProto, *tensors: Array) -> list[Array]:
    session = ort.InferenceSession(model.SerializeToString())
    outputs: list[Array] = session.run(None, dict(zip(INPUTS, tensors, strict=True)))
    return outputs
