# SPDX-License-Identifier: Apache-2.0
"""Greedy decoding of a transducer, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from septet.tensor import Array
from septet.workloads.transducer import BLANK, PREDICTING

MOST = 30
"""Symbols at one frame, at most (v0.7: ``max_symbols_per_step``)."""

AHEAD = 4
"""Frames that are weighed at once: until a symbol is emitted, the predictor's part is the same for all of them."""


class Greedy:
    """Decodes with the weights of `septet.workloads.transducer.shapes` but the encoder's."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        first = weights["prediction.rnn.bias_ih_l0"] + weights["prediction.rnn.bias_hh_l0"]
        symbols = weights["prediction.embed.weight"] @ weights["prediction.rnn.weight_ih_l0"].T + first
        # what the first layer gets of each symbol, and last of none: decoding starts from a vector of zeros
        self._first = np.concatenate([symbols, first[None]])
        self._deeper = [
            (
                np.ascontiguousarray(weights[f"prediction.rnn.weight_ih_l{layer}"].T),
                weights[f"prediction.rnn.bias_ih_l{layer}"] + weights[f"prediction.rnn.bias_hh_l{layer}"],
            )
            for layer in range(1, PREDICTING)
        ]
        self._recurrent = [
            np.ascontiguousarray(weights[f"prediction.rnn.weight_hh_l{layer}"].T) for layer in range(PREDICTING)
        ]
        self._joint = np.ascontiguousarray(weights["joint.prediction.weight"].T)
        self._out = np.ascontiguousarray(weights["joint.out.weight"].T)
        self._bias = weights["joint.out.bias"]

    def __call__(self, encoded: Array, lengths: Array) -> list[Array]:
        """The symbols of each utterance, uint8; `encoded` is float32 [N, T, joint], `lengths` int [N]."""
        count = len(encoded)
        padded = np.pad(encoded, ((0, 0), (0, AHEAD), (0, 0)))
        texts: list[list[int]] = [[] for _ in range(count)]
        width = self._recurrent[0].shape[0]
        hidden, cell = (np.zeros((PREDICTING, count, width), np.float32) for _ in range(2))
        predicted = np.empty((count, encoded.shape[2]), np.float32)
        everyone = np.arange(count)
        predicted[:] = self._advance(np.full(count, BLANK), everyone, hidden, cell)
        place, here = np.zeros(count, np.int64), np.zeros(count, np.int64)
        going = everyone[lengths > 0]
        while len(going):
            window = padded[going[:, None], place[going, None] + np.arange(AHEAD)] + predicted[going, None]
            scores = np.maximum(window, 0) @ self._out + self._bias
            best = scores.argmax(axis=2)
            best[place[going, None] + np.arange(AHEAD) >= lengths[going, None]] = BLANK
            symbol = best != BLANK
            emits = symbol.any(axis=1)
            skipped = np.where(emits, symbol.argmax(axis=1), AHEAD)
            here[going[skipped > 0]] = 0
            place[going] += skipped
            rows = going[emits]
            if len(rows):
                chosen = best[emits, skipped[emits]]
                for row, one in zip(rows.tolist(), chosen.tolist(), strict=True):
                    texts[row].append(one)
                predicted[rows] = self._advance(chosen, rows, hidden, cell)
                here[rows] += 1
                full = rows[here[rows] >= MOST]
                place[full] += 1
                here[full] = 0
            going = going[place[going] < lengths[going]]
        return [np.array(text, np.uint8) for text in texts]

    def _advance(self, symbols: Array, rows: Array, hidden: Array, cell: Array) -> Array:
        """Feed one symbol to each of `rows`; gives the predictor's half of the joint's first layer."""
        x = self._first[symbols]
        for layer, recurrent in enumerate(self._recurrent):
            if layer:
                weight, bias = self._deeper[layer - 1]
                x = x @ weight + bias
            i, f, g, o = np.split(x + hidden[layer, rows] @ recurrent, 4, axis=1)
            state = _sigmoid(f) * cell[layer, rows] + _sigmoid(i) * np.tanh(g)
            x = _sigmoid(o) * np.tanh(state)
            cell[layer, rows], hidden[layer, rows] = state, x
        half: Array = x @ self._joint
        return half


def _sigmoid(x: Array) -> Array:
    # by tanh, which does not overflow
    return np.asarray(np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5))
