# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from septet.errors import ModelError, ModelInvalid
from septet.workloads.weights import Found, built


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(tmp_path))


def test_a_model_is_built_once_with_the_files_beside_it() -> None:
    def write(path: Path) -> None:
        path.write_text("graph")
        path.with_name("tables.data").write_text("tables")

    path = built(write, "made")
    assert path.with_name("tables.data").read_text() == "tables"
    assert built(lambda _: pytest.fail("built again"), "made") == path


def test_a_build_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="cannot be built: No space left on device"):
        built(write, "made")
    assert list((tmp_path / "built").iterdir()) == []


def test_a_damaged_file_of_the_cache_is_told_from_the_users(tmp_path: Path) -> None:
    def write(to: Path) -> None:
        to.write_text("no model")

    path = built(write, "made")
    with pytest.raises(ModelInvalid, match=r"corrupt or truncated\): a file of the cache: delete .*made and run"):
        Found(path, "synthetic").read()
    with pytest.raises(ModelInvalid, match=r"corrupt or truncated\)$"):
        Found(path, "user").read()


def test_of_two_builders_at_once_either_one_counts() -> None:
    def first(path: Path) -> None:
        path.write_text("first")

    def write(path: Path) -> None:
        built(first, "made")
        path.write_text("second")

    assert built(write, "made").read_text() == "first"
