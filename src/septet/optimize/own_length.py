# SPDX-License-Identifier: Apache-2.0
"""Own length: the form of a user's network that takes each sequence at its own, where padding changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from septet.engines.freeing import free, prove
from septet.optimize import graph
from septet.optimize.folder import whole_folder
from septet.pipelines.sequence import Sequences
from septet.tensor import Tensors


def at_own_length(
    path: Path, sequences: Sequences, longest: int, samples: Sequence[Tensors], folder: Path
) -> tuple[Path, Sequences]:
    """A model file that answers `samples` without their padding as the one at `path` does padded to `longest`, and
    its sequences, which are no longer.

    That is `path` itself where its length is free; else what is made of it in `folder`, once. Raises NotSequences,
    with the reason, where there is none.
    """
    made = path if sequences.longest is None else folder / f"free-{graph.digest(path)}" / path.name
    if made.exists():
        proven = prove(path, made, sequences, longest, samples)
    else:
        with whole_folder(made.parent) as beside:
            proven = free(path, beside / made.name, sequences, samples)
    return made, replace(proven, longest=longest)
