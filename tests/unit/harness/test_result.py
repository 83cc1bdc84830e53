# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from results_made import made_results
from septet.errors import ResultsNewer, ResultsUnreadable
from septet.harness.result import SCHEMA, load_results, save_results


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results = made_results()
    save_results(path, results)
    assert load_results(path) == results
    assert json.loads(path.read_text())["schema"] == SCHEMA


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema": SCHEMA + 1, "results": [{"what": "not known yet"}]}))
    with pytest.raises(ResultsNewer, match="upgrade Septet"):
        load_results(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": "1"}', '{"schema": 1, "results": [{"network": "resnet50"}]}']
)
def test_what_is_not_a_results_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsUnreadable, match=r"results\.json"):
        load_results(path)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsUnreadable, match="No such file"):
        load_results(tmp_path / "none.json")
