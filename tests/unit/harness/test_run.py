# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from pathlib import Path

import pytest

from septet.harness.ask import Ask
from septet.harness.rules import runs_of
from septet.harness.run import Session
from septet.workloads.null import SAMPLES, NullWorkload


def test_the_answers_of_an_accuracy_run_are_kept_in_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[Path, int] = {}

    def keep(self: NullWorkload, responses: Mapping[int, bytes], folder: Path) -> None:
        kept[folder] = len(responses)

    monkeypatch.setattr(NullWorkload, "keep", keep)
    ask = Ask("null", tmp_path, engine="null", precision="f32", mode="accuracy", threads=1)
    session = Session(ask, lambda words, progress: None)
    [run] = runs_of("null", None, None, ("Offline",))
    result = session.run(run)
    assert result.accuracy is not None
    assert kept == {tmp_path / "null-mini-null-f32" / "Offline" / "answers": SAMPLES}
