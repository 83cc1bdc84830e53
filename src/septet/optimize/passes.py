# SPDX-License-Identifier: Apache-2.0
"""Passes: changes to the graph that leave what it computes as it is. Each proves that on samples, or is undone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import EngineError, ModelError
from septet.optimize import folding, graph, trimming
from septet.tensor import Array, Tensors

TOLERANCE = 1e-3
"""By how much of an output's length rounding may change it: folded weights are rounded once instead of twice."""

Change = Callable[[onnx.ModelProto], int]
"""Changes a model in place; gives the number of nodes that went, or of what it takes away."""


@dataclass(frozen=True)
class Pass:
    """A named change; `order_only` says that it keeps only which entry of the second dimension is the largest."""

    name: str
    change: Change
    order_only: bool = False


class Applied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pass over one model: how many nodes went, the largest relative change of an output on samples, and
    whether the pass stayed."""

    name: str
    count: int
    change: float
    stays: bool


def passes(reads: Collection[str] | None, largest_only: bool) -> list[Pass]:
    """The passes, in order, for a task that `reads` these outputs (all where None), of which perhaps only the
    largest entry counts."""
    found = [
        Pass("constants", folding.fold_constants),
        Pass("identities", folding.drop_identities),
        Pass("batch normalisation", folding.fold_normalisation),
    ]
    if reads is not None:
        found.insert(0, Pass("outputs that nobody reads", partial(trimming.drop_outputs, read=reads)))
    if largest_only:
        found.append(Pass("softmax before the largest", trimming.drop_softmax, order_only=True))
    return found


def apply(source: Path, to: Path, feeds: Sequence[Tensors], todo: Sequence[Pass]) -> list[Applied]:
    """Write to `to` what all passes that hold on `feeds` make of the model at `source`.

    A pass whose outputs differ, or that makes a file which cannot be run, is undone and said not to stay.
    """
    want = outputs(source, feeds)
    model = graph.read(source)
    done: list[Applied] = []
    for one in todo:
        tried = onnx.ModelProto()
        tried.CopyFrom(model)
        count = one.change(tried)
        if not count:
            continue
        have = _run(tried, to.with_suffix(".tried.onnx"), source, feeds)
        apart = _distance(have, want, one.order_only)
        done.append(Applied(one.name, count, apart, apart <= TOLERANCE))
        if done[-1].stays:
            model = tried
            want = have if one.order_only else want
    graph.know_shapes(model)
    graph.write(model, to, source)
    return done


def outputs(path: Path, feeds: Sequence[Tensors]) -> list[Tensors]:
    """What ONNX Runtime gives for `feeds` in FP32."""
    with load("onnx", path, EngineConfig(), Cpu.detect().partition()) as engine:
        return [engine.infer(feed) for feed in feeds]


def _run(model: onnx.ModelProto, beside: Path, source: Path, feeds: Sequence[Tensors]) -> list[Tensors]:
    """What the changed model gives; nothing where it does not run."""
    try:
        graph.write(model, beside, source)
        return outputs(beside, feeds)
    except (ModelError, EngineError):
        return []
    finally:
        beside.unlink(missing_ok=True)


def _distance(have: Sequence[Tensors], want: Sequence[Tensors], order_only: bool) -> float:
    """The largest distance of an output on any sample; endless where there is none."""
    apart = _places_apart if order_only else _apart
    pairs = [(mine[name], theirs[name]) for mine, theirs in zip(have, want, strict=False) for name in mine]
    return max((apart(*pair) for pair in pairs), default=float("inf"))


def _places_apart(mine: Array, theirs: Array) -> float:
    """At which share of places another entry is the largest."""
    if mine.shape != theirs.shape:
        return float("inf")
    return float(np.mean(mine.argmax(axis=1) != theirs.argmax(axis=1)))


def _apart(mine: Array, theirs: Array) -> float:
    """The relative distance of two outputs; of whole numbers, the share that differs."""
    if mine.shape != theirs.shape:
        return float("inf")
    if mine.dtype.kind not in "fV":
        return float(np.mean(mine != theirs))
    one, other = mine.astype(np.float64), theirs.astype(np.float64)
    length, distance = float(np.linalg.norm(other)), float(np.linalg.norm(one - other))
    return distance / length if length else distance
