# SPDX-License-Identifier: Apache-2.0
"""Tell from a model file which of its dimensions is that of tokens."""

from __future__ import annotations

import numpy as np

from septet.engines.model import Dims, OnnxFile
from septet.errors import NotSequences
from septet.pipelines.sequence import Sequences

_WHOLE = (np.dtype(np.int64), np.dtype(np.int32))


def sequences_of(file: OnnxFile, mask: str | None = None) -> Sequences:
    """The mask, [N, L]; the inputs [N, L, …] that share its dimension of tokens; the outputs that have it too.

    The mask is told by its name, unless the caller knows it. Raises NotSequences, with the reason.
    """
    flat = [spec for spec in file.inputs if len(spec.shape) == 2]
    masks = [spec.name for spec in flat if (spec.name == mask if mask else called_mask(spec.name))]
    if len(masks) != 1:
        have = "; ".join(map(str, file.inputs))
        raise NotSequences(f"no input, or more than one, is a mask [N, L]: it takes ({have})")
    tokens = file.dims[masks[0]][1]
    inputs = [spec.name for spec in file.inputs if file.dims[spec.name][1:2] == (tokens,)]
    others = [spec.name for spec in flat if spec.dtype in _WHOLE and spec.name not in inputs]
    if others or len(inputs) < 2:
        names = ", ".join((*inputs, *others))
        raise NotSequences(f"its inputs {names} do not share one dimension of tokens")
    axes = {spec.name: _axis(file.dims[spec.name], tokens) for spec in file.outputs}
    longest = tokens if isinstance(tokens, int) else None
    return Sequences(
        tuple(inputs), masks[0], {name: axis for name, axis in axes.items() if axis is not None}, longest
    )


def called_mask(name: str) -> bool:
    """Whether an input is a mask by its name."""
    return "mask" in name.lower()


def _axis(dims: Dims, tokens: int | str | None) -> int | None:
    """Which of an output's dimensions is that of `tokens`: the one so called, else the only free one. Of several
    that are the same number, the first: what else has that number is no length, or the proof on samples fails."""
    rest = range(1, len(dims))
    called = [place for place in rest if dims[place] == tokens and tokens is not None]
    free = [place for place in rest if not isinstance(dims[place], int)]
    found = (called[:1] if isinstance(tokens, int) else called) or free
    if len(found) > 1:
        raise NotSequences(f"an output of {list(dims)} has more than one dimension that may be that of tokens")
    return found[0] if found else None
