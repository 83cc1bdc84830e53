# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from results_made import made_results
from septet.errors import ResultsExist, ResultsNotWritten
from septet.harness.folder import ResultsFolder
from septet.harness.result import load_results


def test_each_result_is_saved_at_once(tmp_path: Path) -> None:
    first, second, *_ = made_results()
    with ResultsFolder(tmp_path / "run") as folder:
        folder.add(first)
        assert load_results(folder.file) == [first]
        folder.add(second)
    assert load_results(folder.file) == [first, second]


def test_earlier_results_are_not_touched(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as folder:
        folder.add(made_results()[0])
    before = folder.file.read_bytes()
    with pytest.raises(ResultsExist, match="earlier run"), ResultsFolder(tmp_path):
        pass
    assert folder.file.read_bytes() == before


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as folder:
        with pytest.raises(ResultsExist, match="another run"), ResultsFolder(tmp_path):
            pass
        folder.add(made_results()[0])
    assert len(load_results(folder.file)) == 1


def test_a_run_without_results_leaves_no_folder(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsNotWritten, match="file"), ResultsFolder(tmp_path / "file" / "run"):
        pass
