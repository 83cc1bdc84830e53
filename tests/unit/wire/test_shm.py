# SPDX-License-Identifier: Apache-2.0
"""Shared memory: what clients may register, and that what they do to it harms nobody else."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from septet.errors import Overloaded, RegionExists, RegionInvalid, RegionUnknown, SeptetError
from septet.request import Region
from septet.wire.shm import FOLDER, OWN, Regions

KEY = f"test-{os.getpid()}"


@pytest.fixture
def file() -> Iterator[Path]:
    """100 bytes of shared memory."""
    path = FOLDER / KEY
    path.write_bytes(bytes(range(100)))
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def regions(file: Path) -> Regions:
    made = Regions()
    made.register("r", f"/{KEY}", 10, 80)
    return made


def test_reading_and_writing(regions: Regions, file: Path) -> None:
    assert bytes(regions.read(Region("r", 5, 3))) == bytes((15, 16, 17))
    regions.write(Region("r", 70, 10), b"0123456789")
    assert file.read_bytes()[80:90] == b"0123456789"


@pytest.mark.parametrize(("offset", "size"), [(0, 81), (80, 1), (-1, 1), (1, -1), (2**63, 1), (1, 2**63)])
def test_ranges_end_where_the_region_ends(regions: Regions, offset: int, size: int) -> None:
    with pytest.raises(RegionInvalid):
        regions.read(Region("r", offset, size))
    with pytest.raises(RegionInvalid):
        regions.hold(Region("r", offset, size))


def test_an_output_fits_its_place(regions: Regions, file: Path) -> None:
    with pytest.raises(RegionInvalid):
        regions.write(Region("r", 0, 3), b"1234")
    assert file.read_bytes() == bytes(range(100))


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 101), (100, 1), (-1, 10), (2**63, 1), (0, 0), (0, -1), (1, 2**63 - 1)]
)
def test_regions_lie_in_their_memory(file: Path, offset: int, size: int) -> None:
    with pytest.raises(RegionInvalid):
        Regions().register("r", KEY, offset, size)


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "/..", "../shm/" + KEY, "/dev/shm/" + KEY, "/dev/shm/../shm/" + KEY, "a/b", "\x00",
     KEY + "\x00", "." + KEY, OWN + "x", "/" + OWN + "x", "nothing-there", "//" + KEY, "x" * 300],
)  # fmt: skip
def test_keys_that_may_not_be(file: Path, key: str) -> None:
    for name in (OWN + "x", "." + KEY):
        (FOLDER / name).write_bytes(bytes(100))
    try:
        with pytest.raises(RegionInvalid) as caught:
            Regions().register("mine", key, 0, 10)
        assert "/dev/shm" not in str(caught.value)
        assert OWN not in str(caught.value)
    finally:
        for name in (OWN + "x", "." + KEY):
            (FOLDER / name).unlink()


def test_links_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(100))
    (tmp_path / "link").symlink_to(secret)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for key in ("link", "folder", "pipe"):
        with pytest.raises(RegionInvalid):
            Regions(folder=tmp_path).register("r", key, 0, 10)


def test_only_the_prefix_may_be_registered(file: Path) -> None:
    Regions(prefix="/test-").register("r", KEY, 0, 10)
    with pytest.raises(RegionInvalid):
        Regions(prefix="/other").register("r", KEY, 0, 10)


def test_a_name_is_registered_once_until_it_is_given_back(regions: Regions) -> None:
    with pytest.raises(RegionExists):
        regions.register("r", KEY, 0, 10)
    assert [one.size for one in regions.status()] == [80]
    regions.unregister("r")
    regions.unregister("r")
    with pytest.raises(RegionUnknown):
        regions.read(Region("r", 0, 1))
    with pytest.raises(RegionUnknown):
        regions.status("r")
    regions.register("r", KEY, 0, 10)
    regions.unregister()
    assert regions.status() == []


def test_a_truncated_region_fails_its_request_alone(regions: Regions, file: Path) -> None:
    os.truncate(file, 20)
    with pytest.raises(RegionInvalid, match="truncated"):
        regions.read(Region("r", 0, 80))
    with pytest.raises(RegionInvalid, match="truncated"):
        regions.write(Region("r", 0, 80), bytes(80))
    assert file.stat().st_size == 20
    assert bytes(regions.read(Region("r", 0, 5))) == bytes(range(10, 15))


def test_an_unlinked_region_lives_while_it_is_registered(regions: Regions, file: Path) -> None:
    file.unlink()
    assert bytes(regions.read(Region("r", 0, 1))) == bytes((10,))


def test_what_is_held_is_written_whatever_becomes_of_its_name(regions: Regions, file: Path) -> None:
    held, other = regions.hold(Region("r", 0, 4)), FOLDER / f"{KEY}-other"
    other.write_bytes(bytes(100))
    try:
        regions.unregister("r")
        regions.register("r", other.name, 10, 80)
        regions.write(held, b"mine")
        assert file.read_bytes()[10:14] == b"mine"
        assert other.read_bytes() == bytes(100)
        os.truncate(file, 12)
        with pytest.raises(RegionInvalid, match="truncated"):
            regions.write(held, b"mine")
    finally:
        other.unlink()


def test_descriptors_are_given_back(file: Path) -> None:
    regions = Regions()
    before = descriptors()
    for number in range(300):
        regions.register(f"r{number}", KEY, 0, 10)
        with pytest.raises(SeptetError):
            regions.register("wrong", KEY, 0, 1000)
    held = regions.hold(Region("r7", 0, 1))
    regions.unregister()
    assert descriptors() == before + 1
    del held
    assert descriptors() == before


def test_names_of_the_same_memory_share_a_descriptor(file: Path) -> None:
    regions, before = Regions(), descriptors()
    for number in range(300):
        regions.register(f"r{number}", KEY, 0, 10)
    assert descriptors() == before + 1
    file.rename(file.with_name(f"{KEY}-moved"))
    file.write_bytes(bytes(100))
    try:
        regions.register("new", KEY, 0, 10)  # the same key, other memory
        assert descriptors() == before + 2
        assert bytes(regions.read(Region("new", 0, 3))) == bytes(3)
        assert bytes(regions.read(Region("r0", 0, 3))) == bytes((0, 1, 2))
    finally:
        file.with_name(f"{KEY}-moved").unlink()


def test_clients_may_not_take_all_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (12, 12))
    regions = Regions(folder=tmp_path)
    for number in range(4):
        (tmp_path / f"m{number}").write_bytes(bytes(10))
    for number in range(3):
        regions.register(f"r{number}", f"m{number}", 0, 10)
    before = descriptors()
    with pytest.raises(Overloaded, match="at most 3 pieces"):
        regions.register("r3", "m3", 0, 10)
    assert descriptors() == before
    regions.register("again", "m0", 0, 10)
    regions.unregister("r1")
    regions.register("r3", "m3", 0, 10)


def test_regions_are_counted(file: Path) -> None:
    regions = Regions(most=2)
    for name in ("a", "b"):
        regions.register(name, KEY, 0, 10)
    with pytest.raises(Overloaded, match="at most 2 regions"):
        regions.register("c", KEY, 0, 10)
    regions.unregister("a")
    regions.register("c", KEY, 0, 10)
    with pytest.raises(RegionInvalid, match="name"):
        regions.register("n" * 2000, KEY, 0, 10)


def test_descriptors_that_ran_out_are_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(Overloaded, match="descriptor"):
        Regions().register("r", KEY, 0, 10)


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_region_for_which_there_is_no_memory_is_refused(
    regions: Regions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", none)
    with pytest.raises(Overloaded, match="no memory for 80 bytes"):
        regions.read(Region("r", 0, 80))
