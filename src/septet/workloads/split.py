# SPDX-License-Identifier: Apache-2.0
"""The four parts of a generated data set, and the random numbers of each of its samples."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Split = Literal["train", "calibration", "search", "test"]

SPLITS: tuple[Split, ...] = get_args(Split)


def draws(split: Split, index: int, *more: int) -> np.random.Generator:
    """The random numbers that sample `index` of `split` is drawn from; `more` tells generators apart."""
    return np.random.default_rng((SPLITS.index(split), index, *more))
