# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from septet.errors import DataError
from septet.pipelines.volume import prepare, read, read_all, require_alike, write
from septet.tensor import Array

MRI = Path(__file__).parents[4] / "shared" / "data" / "mri"
SHAPE = (16, 16, 12)


def head(seed: int = 0, sides: tuple[int, ...] = (18, 20, 14)) -> Array:
    """Two modalities of a block of positive voxels with zeros around, and a hole in it."""
    volume = np.zeros((2, *sides), np.float32)
    volume[:, 3:14, 5:17, 2:11] = np.random.default_rng(seed).uniform(1, 9, (2, 11, 12, 9))
    volume[:, 7, 9, 5] = 0
    return volume


def saved(path: Path, voxels: Array) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return path


def test_each_modality_is_normalised_within_the_head_and_padded_around_the_middle() -> None:
    volume = head()
    prepared = prepare(volume, SHAPE, "head")
    assert prepared.tensor.shape == (2, *SHAPE)
    assert prepared.tensor.dtype == np.float32
    assert prepared.box == (slice(3, 14), slice(5, 17), slice(2, 11))
    assert prepared.offset == (2, 2, 1)
    kept = volume[:, 3:14, 5:17, 2:11].astype(float)  # the hole is inside: it counts
    wanted = (kept - kept.mean((1, 2, 3), keepdims=True)) / kept.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(prepared.tensor[:, *prepared.inside], wanted, atol=1e-5)
    outside = prepared.tensor.copy()
    outside[:, *prepared.inside] = 0
    assert not outside.any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.tuples(*(st.integers(1, 12),) * 3))
def test_labels_come_back_to_where_they_were(seed: int, sides: tuple[int, int, int]) -> None:
    draw = np.random.default_rng(seed)
    volume = (draw.random((1, *sides)) < 0.3).astype(np.float32)
    if not volume.any():
        return
    labels = draw.integers(0, 4, sides).astype(np.uint8)
    prepared = prepare(volume, SHAPE, "noise")
    padded = np.zeros(SHAPE, np.uint8)
    padded[prepared.inside] = labels[prepared.box]
    back = prepared.restored(padded)
    assert back.shape == sides
    assert np.array_equal(back[prepared.box], labels[prepared.box])
    assert back.sum() == labels[prepared.box].sum()


def test_volumes_that_cannot_be_prepared_are_named() -> None:
    broken = head()
    broken[1, 5, 6, 7] = np.nan
    with pytest.raises(DataError, match="case 7: 1 voxels are not finite"):
        prepare(broken, SHAPE, "case 7")
    with pytest.raises(DataError, match="case 7: the volume is empty"):
        prepare(np.zeros((2, 4, 4, 4), np.float32), SHAPE, "case 7")
    with pytest.raises(DataError, match="case 7: 11×12×9 voxels are not zero, more than the 8×8×8 that fit"):
        prepare(head(), (8, 8, 8), "case 7")


def test_files_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    volume = head()[0]
    path = saved(tmp_path / "one.nii.gz", volume)
    assert np.array_equal(read(path), volume)
    both = read_all([path, saved(tmp_path / "two.nii.gz", volume * 2)])
    assert np.array_equal(both[1], volume * 2)
    with pytest.raises(DataError, match=r"three\.nii\.gz: 4×4×4 voxels, but one\.nii\.gz has 18×20×14"):
        read_all([path, saved(tmp_path / "three.nii.gz", np.ones((4, 4, 4), np.float32))])
    with pytest.raises(DataError, match=r"flat\.nii\.gz: has 2 dimensions"):
        read(saved(tmp_path / "flat.nii.gz", np.ones((4, 4), np.float32)))
    with pytest.raises(DataError, match=r"nan\.nii\.gz: 1 voxels are not finite"):
        read(saved(tmp_path / "nan.nii.gz", np.where(volume == volume.max(), np.nan, volume)))
    whole = path.read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"not a volume")):
        bad = tmp_path / f"{name}.nii.gz"
        bad.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.nii\.gz: not a readable NIfTI volume"):
            read(bad)
    with pytest.raises(DataError, match=r"none\.nii\.gz"):
        read(tmp_path / "none.nii.gz")


def test_a_failed_checksum_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "one.nii.gz", head()[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    with pytest.raises(DataError, match=r"one\.nii\.gz: not a readable NIfTI volume: CRC check failed"):
        read(path)


@pytest.mark.parametrize("dtype", [np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), np.complex64])
def test_voxels_that_are_not_numbers_are_named(tmp_path: Path, dtype: DTypeLike) -> None:
    with pytest.raises(DataError, match=r"odd\.nii\.gz: its voxels are .*, not numbers"):
        read(saved(tmp_path / "odd.nii.gz", np.zeros((4, 4, 4), dtype)))


def test_volumes_must_lie_on_each_other(tmp_path: Path) -> None:
    one = saved(tmp_path / "one.nii.gz", np.ones((4, 5, 6), np.float32))
    require_alike([one, saved(tmp_path / "two.nii.gz", np.ones((4, 5, 6, 1), np.uint8))])
    with pytest.raises(DataError, match=r"three\.nii\.gz: 1×5×6 voxels, but one\.nii\.gz has 4×5×6"):
        require_alike([one, saved(tmp_path / "three.nii.gz", np.ones((1, 5, 6), np.float32))])
    nibabel.save(
        nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([-1.0, 2, 3, 1])), tmp_path / "four.nii"
    )
    with pytest.raises(DataError, match=r"four\.nii: its voxels lie elsewhere than those of one\.nii\.gz"):
        require_alike([one, tmp_path / "four.nii"])
    (tmp_path / "five.nii.gz").write_text("no volume")
    with pytest.raises(DataError, match=r"five\.nii\.gz: not a readable NIfTI volume"):
        require_alike([one, tmp_path / "five.nii.gz"])


def test_labels_are_written_where_the_source_lies(tmp_path: Path) -> None:
    source = saved(tmp_path / "source.nii.gz", head()[0])
    labels = (head()[0] > 5).astype(np.uint8)
    write(labels, source, tmp_path / "labels.nii.gz")
    back = nibabel.load(tmp_path / "labels.nii.gz")
    assert np.array_equal(np.asarray(back.dataobj), labels)
    assert np.array_equal(back.affine, nibabel.load(source).affine)
    with pytest.raises(DataError, match="not written"):
        write(labels, source, tmp_path / "nowhere" / "labels.nii.gz")


@pytest.mark.skipif(not MRI.is_dir(), reason="needs the T1 volume, which is not here")
def test_a_real_head_goes_through_and_comes_back(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t1_brats_space.*more than the 224×224×160 that fit"):  # it has its skull
        prepare(read(MRI / "t1_brats_space.nii.gz")[None], (224, 224, 160), "t1_brats_space")
    for path in sorted(MRI.rglob("*skull*.nii.gz")):
        voxels = read(path)
        prepared = prepare(np.stack([voxels] * 4), (224, 224, 160), path.name)
        assert prepared.tensor.shape == (4, 224, 224, 160)
        inside = prepared.tensor[0][prepared.inside]
        assert abs(float(inside[inside != 0].mean())) < 0.05
        labels = np.zeros((224, 224, 160), np.uint8)
        labels[prepared.inside] = voxels[prepared.box] > voxels.mean()
        write(prepared.restored(labels), path, tmp_path / "labels.nii.gz")
        back = nibabel.load(tmp_path / "labels.nii.gz")
        assert back.shape == voxels.shape
        assert np.array_equal(np.asarray(back.dataobj)[prepared.box], (voxels > voxels.mean())[prepared.box])
