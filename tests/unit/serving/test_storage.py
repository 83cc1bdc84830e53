# SPDX-License-Identifier: Apache-2.0
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from septet.errors import ModelUnknown, RequestInvalid, UsageError
from septet.model_config.name import require_name
from septet.serving.storage import LocalStorage, inside, relative

ROOT = Path("/repository/model")


@given(st.text(alphabet=st.sampled_from("./\\%2ea\0"), max_size=12))
@example("1/../../x")
@example("/etc/passwd")
@example("1//x")
def test_no_path_from_outside_leads_out(text: str) -> None:
    try:
        path = relative(text)
    except RequestInvalid:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert PurePosixPath(ROOT, path).is_relative_to(ROOT)
    assert "\\" not in str(path)


@pytest.mark.parametrize("text", ["1/model.onnx", "config.pbtxt", "warmup/a b", "1/ä"])
def test_a_plain_path_is_taken(text: str) -> None:
    assert str(relative(text)) == text


@given(st.text(max_size=20))
def test_a_name_is_one_folder_or_nothing(name: str) -> None:
    try:
        require_name(name)
    except RequestInvalid:
        return
    assert (ROOT / name).parent == ROOT


def test_only_folders_in_the_root_are_models(tmp_path: Path) -> None:
    for name in ("a", ".git", "_hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    storage = LocalStorage(tmp_path)
    assert storage.names() == ["a"]
    with pytest.raises(ModelUnknown):
        storage.folder("b")
    with pytest.raises(UsageError):
        LocalStorage(tmp_path / "file")


@pytest.mark.parametrize("address", ["s3://bucket/models", "gs://bucket/models", "as://account/container"])
def test_an_address_elsewhere_is_told_what_is_read_instead(address: str) -> None:
    scheme = address.partition(":")[0]
    with pytest.raises(UsageError, match=f"{address}: .* folders of this machine, not over {scheme}://; mount"):
        LocalStorage(Path(address))


def test_a_folder_named_like_an_address_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3:" / "bucket" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert LocalStorage(Path("s3://bucket")).names() == ["a"]


def test_a_stamp_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "1").mkdir(parents=True)
    storage = LocalStorage(tmp_path)
    stamps = [storage.stamp("a")]
    (tmp_path / "a" / "1" / "x").write_text("1")
    stamps.append(storage.stamp("a"))
    (tmp_path / "a" / "1" / "x").write_text("22")
    stamps.append(storage.stamp("a"))
    (tmp_path / "a" / "config.pbtxt").touch()
    stamps.append(storage.stamp("a"))
    assert len(set(stamps)) == 4
    assert storage.stamp("a") == stamps[-1]


def test_a_link_is_followed_only_inside(tmp_path: Path) -> None:
    (tmp_path / "root" / "real").mkdir(parents=True)
    (tmp_path / "root" / "near").symlink_to("real")
    (tmp_path / "root" / "far").symlink_to(tmp_path)
    storage = LocalStorage(tmp_path / "root")
    assert storage.folder("near") == storage.folder("real")
    with pytest.raises(RequestInvalid, match="'far' leads out"):
        storage.folder("far")
    with pytest.raises(RequestInvalid):
        inside(tmp_path / "root" / ".." / "x", tmp_path / "root")
