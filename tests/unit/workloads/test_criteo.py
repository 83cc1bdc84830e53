# SPDX-License-Identifier: Apache-2.0
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from septet.errors import DataError
from septet.pipelines import table
from septet.workloads.criteo import Criteo
from septet.workloads.recommender import DLRM

REAL = Path(__file__).parents[4] / "shared" / "data" / "criteo" / "criteo_sample.txt"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(tmp_path / "cache"))


def line(click: str = "1", counts: list[str] | None = None, categories: list[str] | None = None) -> str:
    return "\t".join([click, *(counts or ["3"] * 13), *(categories or ["0000000f"] * 26)]) + "\n"


def day(tmp_path: Path, *lines: str, packed: bool = False) -> Path:
    content = "".join(lines).encode()
    name = "day_23.gz" if packed else "day_23"
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    return tmp_path


@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_read_and_empty_fields_are_zero(tmp_path: Path, packed: bool) -> None:
    sparse = line("0", ["", "-2", *["7"] * 11], ["", "ffffffff", *["a0"] * 24])
    rows = Criteo(day(tmp_path, line(), sparse, packed=packed))
    assert len(rows) == 2
    assert rows.clicks(0, 2).tolist() == [True, False]
    assert rows.counts(1, 2)[0, :3].tolist() == [0, -2, 7]
    assert rows.categories(1, 2)[0, :3].tolist() == [0, 2**32 - 1, 160]


def test_no_more_rows_are_read_than_asked_for(tmp_path: Path) -> None:
    assert len(Criteo(day(tmp_path, *[line()] * 5, "broken\n"), most=5)) == 5


def test_many_rows_cross_blocks(tmp_path: Path) -> None:
    folder = day(tmp_path, *(line(counts=[str(number)] * 13) for number in range(70_000)))
    rows = Criteo(folder)
    assert rows.counts(65_530, 65_545)[:, 0].tolist() == list(range(65_530, 65_545))
    assert len(Criteo(folder)) == len(rows) == 70_000


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("1\t2\n", "2 fields, not 40"),
        (line("2"), "the click is '2'"),
        (line(counts=["x"] * 13), "the count 'x' is no whole number"),
        (line(counts=["1_0"] * 13), "the count '1_0' is no whole number"),
        (line(counts=["1.5"] * 13), "the count '1.5' is no whole number"),
        (line(categories=["zz"] * 26), "the category 'zz' is not of at most 8 hexadecimal digits"),
        (line(categories=["0x1f"] * 26), "the category '0x1f' is not of"),
        (line(categories=["-1"] * 26), "the category '-1' is not of"),
        (line(categories=["123456789"] * 26), "the category '123456789' is not of at most 8"),
        (line()[:-3], "the last row is cut short"),
        (line(counts=["99999999999"] * 13), "does not fit into 32 bits"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: str, says: str) -> None:
    with pytest.raises(DataError, match=f"day_23, line 2: .*{says}"):
        Criteo(day(tmp_path, line(), bad))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_cut_file_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of day_23_reordered\.npz, day_23, day_23\.gz"):
        Criteo(tmp_path)
    day(tmp_path, *(line(counts=[str(n)] * 13) for n in range(3_000)), packed=True)
    whole = (tmp_path / "day_23.gz").read_bytes()
    (tmp_path / "day_23.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short"):
        Criteo(tmp_path)


def test_a_last_row_may_lack_its_end_of_line(tmp_path: Path) -> None:
    assert len(Criteo(day(tmp_path, line(), line()[:-1]))) == 2


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    day(tmp_path, *(line(counts=[str(n * n)] * 13) for n in range(3_000)), packed=True)
    path = tmp_path / "day_23.gz"
    whole = path.read_bytes()
    no_such_block = whole[:10] + b"\x07" + whole[11:]
    other_checksum = whole[:-8] + bytes(4) + whole[-4:]
    for damaged in (no_such_block, other_checksum):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"day_23\.gz: the gzip file is cut short or damaged"):
            Criteo(tmp_path)


def test_two_files_of_one_size_and_time_are_told_apart(tmp_path: Path) -> None:
    for name, count in (("one", "3"), ("other", "4")):
        (tmp_path / name).mkdir()
        path = day(tmp_path / name, line(counts=[count] * 13)) / "day_23"
        os.utime(path, ns=(1, 1))
    assert [Criteo(tmp_path / name).counts(0, 1)[0, 0] for name in ("one", "other")] == [3, 4]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="day_23: cannot be read into"):
        Criteo(day(tmp_path, line()))


def test_numbers_and_rows_of_tables() -> None:
    assert table.dense(np.array([[-5, 0, 6]])).tolist() == [[0, 0, pytest.approx(np.log(7))]]
    assert table.indices(np.array([[7, 2**32 - 1]]), [5, 3]).tolist() == [[2, (2**32 - 1) % 3]]


@pytest.mark.skipif(not REAL.is_file(), reason="needs Criteo's rows, which are not here")
def test_real_rows_go_through(tmp_path: Path) -> None:
    source = [text.split(",") for text in REAL.read_text().splitlines()[1:]]
    whole = [[row[0], *(count.removesuffix(".0") for count in row[1:14]), *row[14:]] for row in source]
    rows = Criteo(day(tmp_path, *("\t".join(row) + "\n" for row in whole)))
    assert len(rows) == len(source) == 200
    dense, found = table.dense(rows.counts(0, 200)), table.indices(rows.categories(0, 200), DLRM.rows)
    assert np.isfinite(dense).all()
    assert dense.min() >= 0
    assert (found < np.array(DLRM.rows)).all()
