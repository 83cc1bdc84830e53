# SPDX-License-Identifier: Apache-2.0
"""Card: what is known of a network before anything of it is opened."""

from __future__ import annotations

from dataclasses import dataclass

from septet.workloads.weights import Official


@dataclass(frozen=True)
class Counts:
    """Trained `parameters`, and floating-point operations of one sample, 2 for each multiply-accumulate.

    A sample is what v0.7 counts as one; where its length varies, `sample` says in words which is meant.
    """

    parameters: int
    flops: float
    sample: str


@dataclass(frozen=True)
class Card:
    """Sizes, published files, and the data that a person must bring.

    `bring` says in words what data goes where, file by file, for ``--data FOLDER`` or the network's own
    folder in the cache. `official` holds the published files: the first is the model. Where the published model
    cannot be fetched and checked, `weights` says why, and what a person must bring.
    """

    full: Counts
    mini: Counts
    official: tuple[Official, ...]
    bring: str
    weights: str = ""
