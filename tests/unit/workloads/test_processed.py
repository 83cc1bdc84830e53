# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from septet.errors import DataError
from septet.tensor import Array
from septet.workloads.criteo import PROCESSED, Criteo
from septet.workloads.processed import blocks
from septet.workloads.recommender import ROWS


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(tmp_path / "cache"))


def day(count: int = 7, dtype: Any = np.float64) -> dict[str, Array]:
    """Arrays as the reference saves them: whole numbers in float64."""
    draw = np.random.default_rng(0)
    return {
        "y": draw.integers(0, 2, count).astype(dtype),
        "X_int": draw.integers(0, 1_000, (count, 13)).astype(dtype),
        "X_cat": draw.integers(0, ROWS, (count, 26)).astype(dtype),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_blocks_hold_what_was_saved(tmp_path: Path, dtype: Any) -> None:
    saved = day(dtype=dtype)
    np.savez_compressed(tmp_path / PROCESSED, allow_pickle=False, **saved)
    found = list(blocks(tmp_path / PROCESSED, most=6, size=4))
    assert [len(clicks) for clicks, _, _ in found] == [4, 2]
    for name, parts in zip(("y", "X_int", "X_cat"), zip(*found, strict=True), strict=True):
        assert np.array_equal(np.concatenate(parts), saved[name][:6])


def test_the_processed_day_is_taken_before_the_raw_one(tmp_path: Path) -> None:
    saved = day()
    np.savez(tmp_path / PROCESSED, allow_pickle=False, **saved)
    (tmp_path / "day_23").write_text("not looked at")
    rows = Criteo(tmp_path)
    assert rows.mapped
    assert np.array_equal(rows.categories(2, 7), saved["X_cat"][2:7])
    assert np.array_equal(rows.counts(0, 7), saved["X_int"])
    assert np.array_equal(rows.clicks(0, 7), saved["y"] == 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"X_cat": np.full((7, 26), 3)}, "category 3 is beyond table 5, of 3 rows"),
        ({"X_cat": np.full((7, 26), -1)}, "category -1 is beyond table 0"),
        ({"X_cat": np.zeros((7, 26), order="F")}, "X_cat is float64"),
        ({"X_int": np.full((7, 13), 0.5)}, "X_int holds what is no whole number"),
        ({"X_int": np.full((7, 13), np.nan)}, "X_int holds what is no whole number"),
        ({"X_int": np.full((7, 13), 2.0**31)}, "a count does not fit into 32 bits"),
        ({"X_int": np.zeros((6, 13))}, "not of one length"),
        ({"X_int": np.zeros((7, 12))}, r"X_int is float64 \[7, 12\], not numbers \[rows, 13\]"),
        ({"y": np.full(7, 2)}, "a click is not 0 or 1"),
    ],
)
def test_another_form_is_refused(tmp_path: Path, change: dict[str, Array], says: str) -> None:
    np.savez(tmp_path / PROCESSED, allow_pickle=False, **day() | change)
    with pytest.raises(DataError, match=rf"day_23_reordered\.npz: not the reference's processed day: .*{says}"):
        Criteo(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / PROCESSED
    saved = day(5_000)
    np.savez_compressed(path, allow_pickle=False, **saved)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    del saved["y"]
    np.savez(tmp_path / "lacking.npz", allow_pickle=False, **saved)
    for content in (
        whole[: len(whole) // 2],
        bytes(damaged),
        b"no archive",
        (tmp_path / "lacking.npz").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"day_23_reordered\.npz: not the reference's processed day"):
            Criteo(tmp_path)
    assert not list((tmp_path / "cache").rglob("*.npy"))
