# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from septet.errors import ResultsNotWritten
from septet.whole import require_writable, write_whole


def test_a_full_disk_is_told() -> None:
    with pytest.raises(ResultsNotWritten, match="No space left"):
        write_whole(Path("/dev/full"), b"x" * 100_000)


def test_a_failed_write_leaves_the_earlier_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    write_whole(path, b"earlier")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResultsNotWritten, match="No space left"):
        write_whole(path, b"later")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    require_writable(tmp_path / "new.json")
    with pytest.raises(ResultsNotWritten, match="there is no folder"):
        require_writable(tmp_path / "none" / "new.json")
    with pytest.raises(ResultsNotWritten, match="it is a folder"):
        require_writable(tmp_path)
