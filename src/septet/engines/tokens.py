# SPDX-License-Identifier: Apache-2.0
"""Tell from a model file which of its dimensions is that of tokens."""

from __future__ import annotations

import numpy as np

from septet.engines.model import Dims, OnnxFile
from septet.errors import NotSequences
from septet.pipelines.sequence import Sequences

_WHOLE = (np.dtype(np.int64), np.dtype(np.int32))


def sequences_of(file: OnnxFile, mask: str | None = None) -> Sequences:
    """The inputs of whole numbers in [N, L], the mask among them, and the outputs that have L too.

    The mask is told by its name, unless the caller knows it. Raises NotSequences, with the reason.
    """
    inputs = [spec.name for spec in file.inputs if spec.dtype in _WHOLE and len(spec.shape) == 2]
    masks = [name for name in inputs if (name == mask if mask else "mask" in name.lower())]
    if len(masks) != 1:
        have = "; ".join(map(str, file.inputs))
        raise NotSequences(f"no input, or more than one, is a mask of whole numbers [N, L]: it takes ({have})")
    tokens = {file.dims[name][1] for name in inputs}
    if len(tokens) != 1:
        raise NotSequences(f"its inputs {', '.join(inputs)} do not share one dimension of tokens")
    axes = {spec.name: _axis(file.dims[spec.name], *tokens) for spec in file.outputs}
    longest = next((dim for dim in tokens if isinstance(dim, int)), None)
    return Sequences(
        tuple(inputs), masks[0], {name: axis for name, axis in axes.items() if axis is not None}, longest
    )


def _axis(dims: Dims, tokens: int | str | None) -> int | None:
    """Which of an output's dimensions is that of `tokens`: the one so called, else the only free one."""
    rest = range(1, len(dims))
    called = [place for place in rest if dims[place] == tokens and tokens is not None]
    free = [place for place in rest if not isinstance(dims[place], int)]
    found = called or free
    if len(found) > 1:
        raise NotSequences(f"an output of {list(dims)} has more than one dimension that may be that of tokens")
    return found[0] if found else None
