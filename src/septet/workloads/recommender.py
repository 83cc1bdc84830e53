# SPDX-License-Identifier: Apache-2.0
"""DLRM: two multilayer perceptrons, tables of embeddings, and the dot products between all of their vectors.

Naumov et al., «Deep Learning Recommendation Model for Personalization and Recommendation Systems», 2019; sizes
as in MLPerf Inference v0.7 (mlcommons/inference v0.7.1, recommendation/dlrm). Weights carry the reference's names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import DTypeLike

from septet.tensor import Array
from septet.workloads.graph import Graph, Outside, value

PAIRS = "P"
"""The name of the free dimension: user–item pairs, those of all samples of a batch one after the other."""

DENSE = 13

ROWS = (
    39_884_406, 39_043, 17_289, 7_420, 20_263, 3, 7_120, 1_543, 63, 38_532_951, 2_953_546, 403_346, 10, 2_208,
    11_938, 155, 4, 976, 14, 39_979_771, 25_641_295, 39_664_984, 585_935, 12_972, 108, 36,
)  # fmt: skip
"""Rows of the official tables: 187,767,399."""

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Recommender:
    """A DLRM: widths of the bottom and top perceptrons, and rows of each table."""

    bottom: tuple[int, ...]
    top: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def dim(self) -> int:
        """The width of an embedding, which is that of the bottom's answer."""
        return self.bottom[-1]

    @property
    def vectors(self) -> int:
        """How many vectors interact: one a table, and the bottom's."""
        return len(self.rows) + 1

    @property
    def interacted(self) -> int:
        """The width of the top's input: the bottom's answer and each vector's product with each other one."""
        return self.dim + self.vectors * (self.vectors - 1) // 2

    def capped(self, rows: int) -> Recommender:
        """This network with at most `rows` rows a table."""
        return replace(self, rows=tuple(min(rows, mine) for mine in self.rows))


DLRM = Recommender(bottom=(512, 256, 128), top=(1_024, 1_024, 512, 256, 1), rows=ROWS)
DLRM_MINI = Recommender(bottom=(64, 32, 16), top=(64, 32, 1), rows=ROWS).capped(400)


def build(net: Recommender, weights: Mapping[str, Any]) -> onnx.ModelProto:
    """The network as ONNX: ``dense`` float32 [P, 13] and ``indices`` int64 [P, tables] -> ``click``, the
    probability of one, float32 [P, 1].

    A table ``emb_l.0.weight`` is float32, or int8 with a float32 factor for each row in ``emb_l.0.scale``.
    """
    graph = Graph("dlrm", weights)
    bottom = _perceptron(graph, "bot_l", "dense", len(net.bottom))
    axes = graph.constant("axes", [1])
    vectors = [graph.node("Unsqueeze", "bottom.vector", [bottom, axes])]
    columns = graph.nodes("Split", "columns", ["indices"], len(net.rows), axis=1)
    for place, column in enumerate(columns):
        vectors.append(_rows(graph, f"emb_l.{place}", column, f"emb_l.{place}.scale" in weights))
    products = _interact(graph, graph.concat("vectors", vectors, axis=1), net.vectors)
    top = _perceptron(
        graph, "top_l", graph.concat("interacted", [bottom, products], axis=1), len(net.top), last=False
    )
    inputs = [value("dense", np.float32, (PAIRS, DENSE)), value("indices", np.int64, (PAIRS, len(net.rows)))]
    return graph.model(inputs, {graph.sigmoid("click", top): value("probability", np.float32, (PAIRS, 1))})


def _perceptron(graph: Graph, name: str, source: str, layers: int, *, last: bool = True) -> str:
    """Linear layers with ReLU between, and after the `last` one too where it says so."""
    for place in range(layers):
        source = graph.linear(f"{name}.{2 * place}", source)
        if last or place + 1 < layers:
            source = graph.relu(f"{name}.{2 * place + 1}", source)
    return source


def _rows(graph: Graph, name: str, column: str, scaled: bool) -> str:
    """The rows of one table at the indices of `column`, float32 [P, 1, dim]."""
    rows = graph.embedding(name, column)
    if not scaled:
        return rows
    floats = graph.node("Cast", f"{name}.cast", [rows], to=onnx.TensorProto.FLOAT)
    scales = graph.node("Gather", f"{name}.scales", [graph.weight(f"{name}.scale"), column], axis=0)
    return graph.node("Mul", f"{name}.product", [floats, scales])


def _interact(graph: Graph, vectors: str, count: int) -> str:
    """The dot products of each vector with those before it: [P, count, dim] -> [P, count · (count − 1) ÷ 2]."""
    products = graph.node("MatMul", "products", [vectors, graph.transpose("turned", vectors, (0, 2, 1))])
    flat = graph.reshape("flat", products, (0, count * count))
    below = [row * count + column for row in range(count) for column in range(row)]
    return graph.node("Gather", "below", [flat, graph.constant("below", below)], axis=1)


def shapes(net: Recommender) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of `net`, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for name, widths in (("bot_l", (DENSE, *net.bottom)), ("top_l", (net.interacted, *net.top))):
        for place, (incoming, outgoing) in enumerate(pairwise(widths)):
            found[f"{name}.{2 * place}.weight"] = (outgoing, incoming)
            found[f"{name}.{2 * place}.bias"] = (outgoing,)
    for place, rows in enumerate(net.rows):
        found[f"emb_l.{place}.weight"] = (rows, net.dim)
    return found


def rows_as_int8(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The same weights with the rows of all tables as int8, each row with the factor that undoes it."""
    found = dict(weights)
    for name in [name for name in weights if name.startswith("emb_l.")]:
        found[name], found[_scale(name)] = as_int8(weights[name])
    return found


def as_int8(table: Array) -> tuple[Array, Array]:
    """Rows as int8 [rows, dim], and the float32 [rows, 1] factors that undo it.

    A row is scaled so that its largest element becomes ±127; a row of zeros keeps the factor 1.
    """
    largest = np.abs(table).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale


def _scale(name: str) -> str:
    return name.replace(".weight", ".scale")


def synthetic(net: Recommender, seed: int) -> dict[str, Array]:
    """Seeded weights under which activations keep a sane range; they know nothing."""
    return dict(_synthetic(shapes(net), np.random.default_rng(seed)))


def write_synthetic(net: Recommender, seed: int, path: Path, *, int8: bool = False) -> None:
    """Write the network with seeded weights to `path`, its tables, their rows as `int8` where asked, into a file
    beside it, a chunk at a time."""
    wanted = shapes(net)
    tables = {name: shape for name, shape in wanted.items() if name.startswith("emb_l.")}
    rest = {name: shape for name, shape in wanted.items() if name not in tables}
    draw = np.random.default_rng(seed)
    weights: dict[str, Any] = dict(_synthetic(rest, draw))
    with path.with_name("tables.bin").open("wb") as file:
        for name, shape in tables.items():
            chunks = (
                _table(draw, (min(_CHUNK, shape[0] - begin), shape[1])) for begin in range(0, shape[0], _CHUNK)
            )
            if not int8:
                weights[name] = _outside(file, chunks, np.float32, shape)
                continue
            scales: list[Array] = []
            weights[name] = _outside(file, _rows_and_scales(chunks, scales), np.int8, shape)
            weights[_scale(name)] = _outside(file, scales, np.float32, (shape[0], 1))
    onnx.save(build(net, weights), path)


def _rows_and_scales(chunks: Iterable[Array], scales: list[Array]) -> Iterator[Array]:
    """The rows of `chunks` as int8; their factors are added to `scales`."""
    for chunk in chunks:
        rows, scale = as_int8(chunk)
        scales.append(scale)
        yield rows


def _outside(file: BinaryIO, chunks: Iterable[Array], dtype: DTypeLike, shape: tuple[int, ...]) -> Outside:
    """Append `chunks` to `file`, from a whole page on: engines map whole pages."""
    file.write(bytes(-file.tell() % 4_096))
    stored = Outside(Path(file.name).name, file.tell(), np.dtype(dtype), shape)
    for chunk in chunks:
        file.write(chunk.tobytes())
    return stored


def _synthetic(wanted: Mapping[str, Sequence[int]], draw: np.random.Generator) -> Iterator[tuple[str, Array]]:
    for name, shape in wanted.items():
        if name.startswith("emb_l."):
            yield name, _table(draw, shape)
        elif name.endswith(".bias"):
            yield name, np.zeros(shape, np.float32)
        else:
            yield name, draw.standard_normal(shape, np.float32) * np.float32((2 / shape[1]) ** 0.5)


def _table(draw: np.random.Generator, shape: Sequence[int]) -> Array:
    """Rows of length about 1, so that products of two stay small."""
    half = np.float32((3 / shape[1]) ** 0.5)
    table: Array = draw.random(tuple(shape), np.float32) * (2 * half) - half
    return table
