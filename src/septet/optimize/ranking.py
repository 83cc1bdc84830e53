# SPDX-License-Identifier: Apache-2.0
"""Ranking: which layers lose most by INT8, each alone.

The measure is what comes out at the end, not at the layer: one that is noisy itself may not matter, and one whose
rounding is amplified on its way does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.optimize.passes import outputs
from septet.tensor import Tensors

MOST_GROUPS = 64
"""Neighbouring layers are ranked together where there are more than this many."""

SAMPLES = 8
"""Calls of calibration data that are run for each group."""

Names = Sequence[str]

Quantised = Callable[[Names], Path]
"""The file in which all layers but those named are in INT8."""


def groups(layers: Sequence[str]) -> list[tuple[str, ...]]:
    """`layers` in at most `MOST_GROUPS` groups of neighbours."""
    return [tuple(part) for part in np.array_split(np.array(layers, object), min(len(layers), MOST_GROUPS))]


def rank(
    path: Path,
    layers: Sequence[str],
    feeds: Sequence[Tensors],
    quantised: Quantised,
    tell: Callable[[float], None],
) -> list[tuple[str, ...]]:
    """Groups of `layers`, the one that does most harm in INT8 first; `path` is the FP32 file."""
    some = list(islice(feeds, SAMPLES))
    want = outputs(path, some)
    harms: list[float] = []
    found = groups(layers)
    for group in found:
        others = [name for name in layers if name not in group]
        file = quantised(others)
        with load("onnx", file, EngineConfig("int8"), Cpu.detect().partition()) as engine:
            harms.append(_harm([engine.infer(feed) for feed in some], want))
        tell(len(harms) / len(found))
    worst_first = -np.nan_to_num(np.array(harms), nan=np.inf)  # what is no number any more could not be worse
    order = np.argsort(worst_first, kind="stable")
    return [found[place] for place in order]


def _harm(have: Sequence[Tensors], want: Sequence[Tensors]) -> float:
    """The mean relative distance of all outputs."""
    apart = [
        float(np.linalg.norm(mine[name].astype(float) - theirs[name].astype(float)))
        / max(float(np.linalg.norm(theirs[name].astype(float))), 1e-12)
        for mine, theirs in zip(have, want, strict=True)
        for name in theirs
    ]
    return float(np.mean(apart))
