# SPDX-License-Identifier: Apache-2.0
"""BERT's encoder with a head for answer spans.

Devlin et al., «BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding», 2018, §3 and
§4.2; Vaswani et al., «Attention Is All You Need», 2017, §3. Weights carry the names that Google's checkpoints
have in Hugging Face's form, so that the state of a ``BertForQuestionAnswering`` fits as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from septet.tensor import Array
from septet.workloads.graph import BATCH, Graph, value

EPSILON = 1e-12
"""Added to the variance in layer normalisation."""

INPUTS = ("input_ids", "input_mask", "segment_ids")
OUTPUTS = ("output_start_logits", "output_end_logits")
SEQUENCE = "L"
"""The name of the free dimension of tokens."""

_NO = -10_000.0
"""Added to the scores of padding, as BERT does it: their share of attention is nothing."""

_DAMPING = 0.1


@dataclass(frozen=True)
class Bert:
    """An encoder: sizes of the hidden state and between, layers, heads, vocabulary and positions."""

    hidden: int
    layers: int
    heads: int
    between: int
    vocabulary: int
    positions: int = 512
    segments: int = 2

    @property
    def head(self) -> int:
        """The size of one head."""
        return self.hidden // self.heads


BERT_LARGE = Bert(hidden=1_024, layers=24, heads=16, between=4_096, vocabulary=30_522)
BERT_MINI = Bert(hidden=128, layers=3, heads=4, between=512, vocabulary=426)


def build(net: Bert, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The network as ONNX: ``input_ids``, ``input_mask`` and ``segment_ids``, int64 [N, L], to
    ``output_start_logits`` and ``output_end_logits``, float32 [N, L].

    Any L up to the number of positions may come; v0.7 pads all to 384. A layer may have fewer heads, or less
    between, than `net` has: its weights say.
    """
    graph = Graph("bert", weights)
    ids, mask, segments = INPUTS
    x = _embeddings(graph, ids, segments)
    hidden = _mask(graph, mask)
    for layer in range(net.layers):
        x = _layer(graph, net, f"bert.encoder.layer.{layer}", x, hidden)
    pair = graph.nodes("Split", "split", [graph.dense("qa_outputs", x)], 2, axis=-1)
    last = graph.constant("squeeze", [-1])
    logits = [graph.node("Squeeze", name, [side, last]) for name, side in zip(("start", "end"), pair, strict=True)]
    inputs = [value(name, np.int64, (BATCH, SEQUENCE)) for name in INPUTS]
    outputs = [value(name, np.float32, (BATCH, SEQUENCE)) for name in OUTPUTS]
    return graph.model(inputs, dict(zip(logits, outputs, strict=True)))


def _embeddings(graph: Graph, ids: str, segments: str) -> str:
    """Words, positions and segments, added and normalised: float32 [N, L, hidden]."""
    name = "bert.embeddings"
    length = graph.node("Shape", f"{name}.length", [ids], start=1, end=2)
    zero = graph.constant(f"{name}.zero", [0])
    table = graph.weight(f"{name}.position_embeddings.weight")
    places = graph.node("Slice", f"{name}.position_embeddings", [table, zero, length, zero])
    x = graph.add(
        f"{name}.add",
        graph.embedding(f"{name}.word_embeddings", ids),
        graph.embedding(f"{name}.token_type_embeddings", segments),
    )
    return graph.layer_norm(f"{name}.LayerNorm", graph.add(f"{name}.place", x, places), epsilon=EPSILON)


def _mask(graph: Graph, mask: str) -> str:
    """What is added to the scores of each token: float32 [N, 1, 1, L]."""
    wide = graph.node("Unsqueeze", "mask.unsqueeze", [mask, graph.constant("mask.axes", [1, 2])])
    number = graph.node("Cast", "mask.cast", [wide], to=onnx.TensorProto.FLOAT)
    absent = graph.node("Sub", "mask.sub", [graph.constant("mask.one", 1.0, np.float32), number])
    return graph.node("Mul", "mask.mul", [absent, graph.constant("mask.no", _NO, np.float32)])


def _layer(graph: Graph, net: Bert, name: str, source: str, hidden: str) -> str:
    x = _attention(graph, net, f"{name}.attention", source, hidden)
    y = graph.gelu(f"{name}.gelu", graph.dense(f"{name}.intermediate.dense", x))
    y = graph.dense(f"{name}.output.dense", y)
    return graph.layer_norm(f"{name}.output.LayerNorm", graph.add(f"{name}.output.add", y, x), epsilon=EPSILON)


def _attention(graph: Graph, net: Bert, name: str, source: str, hidden: str) -> str:
    width = graph.shape(f"{name}.self.query.bias")[0]

    def heads(part: str, order: tuple[int, ...]) -> str:
        x = graph.dense(f"{name}.self.{part}", source)
        x = graph.reshape(f"{name}.self.{part}.split", x, [0, 0, width // net.head, net.head])
        return graph.transpose(f"{name}.self.{part}.turn", x, order)

    query, key, content = heads("query", (0, 2, 1, 3)), heads("key", (0, 2, 3, 1)), heads("value", (0, 2, 1, 3))
    scores = graph.node("MatMul", f"{name}.scores", [query, key])
    root = graph.constant(f"{name}.root", net.head**0.5, np.float32)
    scores = graph.node("Div", f"{name}.scale", [scores, root])
    shares = graph.softmax(f"{name}.softmax", graph.add(f"{name}.mask", scores, hidden))
    x = graph.node("MatMul", f"{name}.context", [shares, content])
    x = graph.reshape(f"{name}.join", graph.transpose(f"{name}.turn", x, (0, 2, 1, 3)), [0, 0, width])
    x = graph.dense(f"{name}.output.dense", x)
    return graph.layer_norm(
        f"{name}.output.LayerNorm", graph.add(f"{name}.output.add", x, source), epsilon=EPSILON
    )


def shapes(net: Bert) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of `net`, by name."""
    return dict(_shapes(net))


def _shapes(net: Bert) -> Iterator[tuple[str, tuple[int, ...]]]:
    def dense(name: str, source: int, target: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (target, source)
        yield f"{name}.bias", (target,)

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (net.hidden,)
        yield f"{name}.bias", (net.hidden,)

    yield "bert.embeddings.word_embeddings.weight", (net.vocabulary, net.hidden)
    yield "bert.embeddings.position_embeddings.weight", (net.positions, net.hidden)
    yield "bert.embeddings.token_type_embeddings.weight", (net.segments, net.hidden)
    yield from norm("bert.embeddings.LayerNorm")
    for layer in range(net.layers):
        name = f"bert.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            yield from dense(f"{name}.attention.self.{part}", net.hidden, net.hidden)
        yield from dense(f"{name}.attention.output.dense", net.hidden, net.hidden)
        yield from norm(f"{name}.attention.output.LayerNorm")
        yield from dense(f"{name}.intermediate.dense", net.hidden, net.between)
        yield from dense(f"{name}.output.dense", net.between, net.hidden)
        yield from norm(f"{name}.output.LayerNorm")
    yield from dense("qa_outputs", net.hidden, 2)


class Synthetic(Mapping[str, Array]):
    """Seeded weights of `net` under which activations keep a sane range; they know nothing.

    Each is drawn when it is asked for and not kept, so that all of them are never in memory. Matrices are
    drawn so that they keep the second moment, embeddings as BERT begins them; normalisation does the rest.
    What attention adds is damped: it averages tokens, which would otherwise grow alike layer by layer.
    """

    def __init__(self, net: Bert, seed: int) -> None:
        self._shapes = shapes(net)
        self._places = {name: place for place, name in enumerate(self._shapes)}
        self._seed = seed

    def __getitem__(self, name: str) -> Array:
        shape = self._shapes[name]
        if len(shape) == 1:
            return np.full(shape, 1.0 if name.endswith("LayerNorm.weight") else 0.0, np.float32)
        draw = np.random.default_rng((self._seed, self._places[name]))
        spread = 0.02 if "embeddings" in name else shape[1] ** -0.5
        if name.endswith("attention.output.dense.weight"):
            spread *= _DAMPING
        weights: Array = draw.standard_normal(shape, np.float32) * np.float32(spread)
        return weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
