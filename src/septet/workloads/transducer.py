# SPDX-License-Identifier: Apache-2.0
"""RNN-T: an encoder of sound, a predictor of text, and a joint network that weighs them.

Graves, «Sequence Transduction with Recurrent Neural Networks», 2012; layers as in mlcommons/inference v0.7.1,
speech_recognition/rnnt. Weights carry torch's names. The engine runs the encoder and the encoder's half of the
joint's first layer; the rest is small, runs in `septet.workloads.greedy`, and travels in the same file as
initialisers that no node takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from septet.pipelines.audio import FEATURES
from septet.tensor import Array
from septet.workloads.graph import BATCH, Graph, value

FRAMES = "T"
"""The name of the free dimension of time; it must be even."""

LABELS = " abcdefghijklmnopqrstuvwxyz'"
BLANK = len(LABELS)

BEFORE, AFTER = 2, 3
"""Encoder layers before and after two frames become one."""

PREDICTING = 2
"""Layers of the predictor."""


@dataclass(frozen=True)
class Transducer:
    """Widths: of the encoder's layers, of the predictor's, of the joint network."""

    hidden: int
    predict: int
    joint: int


RNNT = Transducer(hidden=1_024, predict=320, joint=512)
RNNT_MINI = Transducer(hidden=128, predict=64, joint=96)


def build(net: Transducer, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The encoder as ONNX: ``features`` float32 [N, T, 240] and ``lengths`` int32 [N] -> ``encoded`` float32
    [N, T ÷ 2, joint], of which ⌈length ÷ 2⌉ frames count."""
    graph = Graph("rnnt", weights)
    x = graph.transpose("by_time", "features", (1, 0, 2))
    for layer in range(BEFORE):
        x = graph.lstm("encoder.pre_rnn", layer, x, "lengths")
    x = graph.reshape("stacked", graph.transpose("by_sample", x, (1, 0, 2)), (0, -1, 2 * net.hidden))
    x = graph.transpose("stacked_by_time", x, (1, 0, 2))
    for layer in range(AFTER):
        x = graph.lstm("encoder.post_rnn", layer, x, _halved(graph) if layer == 0 else "halved.out")
    x = graph.dense("joint.encoder", graph.transpose("back", x, (1, 0, 2)))
    for name in shapes(net):
        if name.startswith(("prediction", "joint.prediction", "joint.out")):
            graph.weight(name)
    inputs = [value("features", np.float32, (BATCH, FRAMES, FEATURES)), value("lengths", np.int32, (BATCH,))]
    return graph.model(inputs, {x: value("encoded", np.float32, (BATCH, "T2", net.joint))})


def _halved(graph: Graph) -> str:
    """⌈length ÷ 2⌉."""
    one, two = (graph.constant(f"halved.{number}", number, np.int32) for number in (1, 2))
    return graph.node("Div", "halved", [graph.add("halved.more", "lengths", one), two])


def shapes(net: Transducer) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of `net`, by name.

    The joint's first layer, [joint, hidden + predict] with one bias, stands here as its two halves.
    """
    found: dict[str, tuple[int, ...]] = {}

    def lstm(name: str, incoming: int, hidden: int, layers: int) -> None:
        for layer in range(layers):
            found[f"{name}.weight_ih_l{layer}"] = (4 * hidden, hidden if layer else incoming)
            found[f"{name}.weight_hh_l{layer}"] = (4 * hidden, hidden)
            found[f"{name}.bias_ih_l{layer}"] = found[f"{name}.bias_hh_l{layer}"] = (4 * hidden,)

    lstm("encoder.pre_rnn", FEATURES, net.hidden, BEFORE)
    lstm("encoder.post_rnn", 2 * net.hidden, net.hidden, AFTER)
    found["prediction.embed.weight"] = (BLANK, net.predict)
    lstm("prediction.rnn", net.predict, net.predict, PREDICTING)
    found["joint.encoder.weight"], found["joint.encoder.bias"] = (net.joint, net.hidden), (net.joint,)
    found["joint.prediction.weight"] = (net.joint, net.predict)
    found["joint.out.weight"], found["joint.out.bias"] = (BLANK + 1, net.joint), (BLANK + 1,)
    return found


def synthetic(net: Transducer, seed: int) -> dict[str, Array]:
    """Seeded weights; they know nothing.

    The joint network's parts are scaled, and the blank's bias is set, so that about a symbol is emitted each
    frame of 60 ms, as in read speech (LibriSpeech: 93 characters in 6.25 s), on which the decoder's time depends.
    """
    draw = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes(net).items():
        if len(shape) == 2:
            weights[name] = draw.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)
        else:
            weights[name] = np.zeros(shape, np.float32)
    for name, factor in _SPEAKING.items():
        weights[name] *= np.float32(factor)
    weights["joint.out.bias"][BLANK] = _BLANK_BIAS
    return weights


_SPEAKING = {"joint.encoder.weight": 60, "joint.prediction.weight": 12, "joint.out.weight": 4}
_BLANK_BIAS = 7.0
