# SPDX-License-Identifier: Apache-2.0
"""Click logs, drawn without end from a hidden model: DLRM's miniature data set.

A sample is one user and the items that are shown to them. Categories follow Zipf's law; whether an item is clicked
depends on taste for each category, on how the categories of some tables fit each other, and on the numbers. A
sample is drawn from its split and index alone; the hidden model is one and the same in all splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from septet.tensor import Array
from septet.workloads.recommender import DENSE, DLRM_MINI
from septet.workloads.split import Split, draws

COUNTS: dict[Split, int] = {"train": 40_000, "calibration": 200, "search": 1_000, "test": 2_000}

QUANTILES = (100, 100, *(200,) * 12, 300, 300, 400, 500, 600, 700)
"""Pairs of a sample: twenty values, each as likely, as v0.7 draws them (mlcommons/inference v0.7.1,
recommendation/dlrm/pytorch/tools)."""

USER = range(10)
"""The tables that describe the user, the same for all pairs of a sample; the others describe the item."""

ZIPF = 1.05
LATENT = 3
BASE = -1.1


@dataclass(frozen=True)
class Pairs:
    """Pairs of one sample: counts int64 [q, 13], categories int64 [q, 26], clicks bool [q], and the log-odds that
    the clicks were drawn by, float64 [q]."""

    counts: Array
    categories: Array
    clicks: Array
    odds: Array


class ClickLog:
    """The samples of one split, `count` of them (by default as many as `COUNTS` says)."""

    def __init__(self, split: Split, count: int | None = None) -> None:
        self.split = split
        self._count = COUNTS[split] if count is None else count

    def __len__(self) -> int:
        return self._count

    def pairs(self, index: int) -> Pairs:
        """Sample `index`; any index may be asked for."""
        hidden = _hidden()
        draw = draws(self.split, index)
        count = int(draw.choice(QUANTILES))
        chances = draw.random((count, len(hidden.tables)))
        chances[:, USER.start : USER.stop] = chances[0, USER.start : USER.stop]
        categories = np.stack(
            [table.drawn(chances[:, place]) for place, table in enumerate(hidden.tables)], axis=1
        )
        levels = draw.standard_normal((count, DENSE))
        odds = hidden.odds(categories, levels)
        clicks = draw.random(count) < 1 / (1 + np.exp(-odds))
        return Pairs(np.exp(1.2 * levels + 1).astype(np.int64), categories, clicks, odds)


@dataclass(frozen=True)
class Table:
    """What is hidden behind one categorical column: how likely each category is, what it is liked, what it is."""

    cumulated: Array
    order: Array
    taste: Array
    latent: Array

    def drawn(self, chances: Array) -> Array:
        """Categories by the chances, 0…1, that pick them."""
        found: Array = self.order[np.searchsorted(self.cumulated, chances)]
        return found


@dataclass(frozen=True)
class Hidden:
    """The model that decides about clicks."""

    tables: tuple[Table, ...]
    fits: tuple[tuple[int, int], ...]
    slopes: Array

    def odds(self, categories: Array, levels: Array) -> Array:
        """Log-odds of a click, float64 [q]."""
        total = BASE + np.tanh(levels) @ self.slopes
        for place, table in enumerate(self.tables):
            total = total + table.taste[categories[:, place]]
        for one, other in self.fits:
            ours, theirs = self.tables[one], self.tables[other]
            total = total + (ours.latent[categories[:, one]] * theirs.latent[categories[:, other]]).sum(axis=1)
        return np.asarray(total)


@cache
def _hidden() -> Hidden:
    draw = np.random.default_rng(26)
    tables = tuple(_table(draw, rows) for rows in DLRM_MINI.rows)
    items = range(USER.stop, len(tables))
    fits = tuple((int(draw.choice(USER)), int(item)) for item in items)
    return Hidden(tables, fits, 0.25 * draw.standard_normal(DENSE))


def _table(draw: np.random.Generator, rows: int) -> Table:
    chances = np.arange(1, rows + 1) ** -ZIPF
    cumulated = np.cumsum(chances / chances.sum())
    cumulated[-1] = 1.0
    return Table(
        cumulated=cumulated,
        order=draw.permutation(rows),
        taste=0.22 * draw.standard_normal(rows),
        latent=0.42 * draw.standard_normal((rows, LATENT)),
    )
