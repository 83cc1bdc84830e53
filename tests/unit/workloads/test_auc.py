# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from septet.errors import DataError
from septet.workloads.auc import auc

CRITEO = Path(__file__).parents[4] / "shared" / "data" / "criteo" / "criteo_sample.txt"


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
def test_the_area_is_scikit_learns_ties_included(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    if labels.all() or not labels.any():
        with pytest.raises(DataError, match="labels of both kinds"):
            auc(scores, labels)
    else:
        area, parts = auc(scores, labels)
        assert area == pytest.approx(roc_auc_score(labels, scores))
        assert parts.mean() == pytest.approx(area)


def test_pseudo_values_give_the_spread_of_the_area() -> None:
    draw = np.random.default_rng(0)
    areas, guesses = [], []
    for _ in range(300):
        labels = draw.random(400) < 0.3
        scores = draw.standard_normal(400) + labels
        area, parts = auc(scores, labels)
        areas.append(area)
        guesses.append(parts.std() / 20)
    assert np.mean(guesses) == pytest.approx(np.std(areas), rel=0.15)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="score 1 is not a number"):
        auc(np.array([0.1, np.nan]), np.array([True, False]))


@pytest.mark.skipif(not CRITEO.is_file(), reason="needs Criteo's rows, which are not here")
def test_the_area_on_real_clicks_is_scikit_learns() -> None:
    rows = [line.split(",") for line in CRITEO.read_text().splitlines()[1:]]
    labels = np.array([row[0] == "1" for row in rows])
    counts = np.array([float(row[1 + 5] or 0) for row in rows])
    assert auc(counts, labels)[0] == pytest.approx(roc_auc_score(labels, counts))
