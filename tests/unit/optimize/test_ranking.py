# SPDX-License-Identifier: Apache-2.0
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from septet.optimize import ranking


@pytest.mark.parametrize(
    ("harms", "order"),
    [([0.1, 0.3, 0.2, 0.0], [1, 2, 0, 3]), ([0.1, np.nan, 0.2, np.inf], [1, 3, 2, 0])],
)
def test_the_most_harmful_come_first_and_what_is_no_number_before_all(
    monkeypatch: pytest.MonkeyPatch, harms: list[float], order: list[int]
) -> None:
    said = iter(harms)
    engine = SimpleNamespace(infer=lambda feed: feed)
    monkeypatch.setattr(ranking, "load", lambda *_: nullcontext(engine))
    monkeypatch.setattr(ranking, "outputs", lambda path, feeds: feeds)
    monkeypatch.setattr(ranking, "_harm", lambda have, want: next(said))
    layers = ["a", "b", "c", "d"]
    found = ranking.rank(Path("model"), layers, [{}], lambda kept: Path("file"), lambda done: None)
    assert found == [(layers[place],) for place in order]
