# SPDX-License-Identifier: Apache-2.0
import shutil
from pathlib import Path

import nibabel
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import DataError, ModelInvalid
from septet.pipelines.volume import place_of, prepare
from septet.tensor import Array
from septet.workloads import unet3d
from septet.workloads.brats import MODALITIES, Brats, as_classes, as_labels, dice
from septet.workloads.graph import flops, parameters
from septet.workloads.tumours import COUNTS, Heads
from septet.workloads.unet import UNET_3D, UNET_3D_MINI, UNet, build, shapes, synthetic
from septet.workloads.unet3d import MadeUpVolumes, UNet3D
from septet.workloads.workload import Asked, open_workload

SMALL = UNet(channels=4, widths=(3, 4, 5), classes=4, volume=(8, 8, 8))


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


def test_full_size_counts() -> None:
    model = build(UNET_3D, synthetic(UNET_3D, 0))
    assert parameters(model) == UNet3D.card.full.parameters == 29_695_520  # between 29.7 and 31.2 M
    assert flops(model) == pytest.approx(3.26e12, rel=1e-3)  # between 3.26 and 3.70 T
    assert UNet3D.card.full.flops == pytest.approx(flops(model), rel=1e-3)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("ConvTranspose") == 5
    assert kinds.count("InstanceNormalization") == kinds.count("LeakyRelu") == 2 * 6 + 2 * 5


def test_a_network_is_valid_and_answers_for_each_voxel() -> None:
    weights = synthetic(SMALL, 1)
    model = build(SMALL, weights)
    onnx.checker.check_model(model, full_check=True)
    assert {name: array.shape for name, array in weights.items()} == shapes(SMALL)
    volume = np.random.default_rng(0).standard_normal((2, 4, 8, 8, 8)).astype(np.float32)
    [logits] = ort.InferenceSession(model.SerializeToString()).run(None, {"volume": volume})
    assert logits.shape == (2, 4, 8, 8, 8)
    assert 0.1 < logits.std() < 10


def plain_dice(ours: Array, theirs: Array) -> float:
    both = total = 0
    for one, other in zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True):
        both += one and other
        total += int(one) + int(other)
    return 2 * both / total if total else float("nan")


def test_dice_is_that_of_plain_counting() -> None:
    draw = np.random.default_rng(0)
    for _ in range(10):
        ours, truth = draw.integers(0, 4, (2, 4, 5, 3))
        wanted = [
            plain_dice(ours > 0, truth > 0),
            plain_dice(ours > 1, truth > 1),
            plain_dice(ours > 2, truth > 2),
        ]
        np.testing.assert_allclose(dice(ours, truth), wanted)
    empty, one = np.zeros((2, 2, 2), np.uint8), np.ones((2, 2, 2), np.uint8)
    assert dice(one, one)[0] == 1
    assert np.isnan(dice(one, one)[1:]).all()
    assert dice(one * 3, empty).tolist() == [0, 0, 0]


def test_the_score_averages_volumes_and_then_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COUNTS, "test", 60)
    mini = open_workload("3d-unet", "mini", Asked())
    assert isinstance(mini, UNet3D)
    heads, draw = Heads("test"), np.random.default_rng(0)
    responses, scores = {}, []
    for index in range(len(mini)):
        place = mini.place(index)
        answer = np.zeros(UNET_3D_MINI.volume, np.uint8)
        answer[place.inside] = heads.labels(index)[place.box]
        answer[draw.random(answer.shape) < 0.01] = 0
        responses[index] = answer.tobytes()
        scores.append(dice(place.restored(answer), heads.labels(index)))
    score = mini.score(responses)
    assert score.value == pytest.approx(np.nanmean(np.array(scores), axis=0).mean())
    assert score.samples == len(mini)
    with pytest.raises(DataError, match="made-up head 2: its answer has 0 bytes"):
        mini.score({index: row for index, row in responses.items() if index != 2})


def test_where_a_head_lies_is_known_without_its_modalities() -> None:
    heads = Heads("test")
    for index in range(20):
        volume = heads.volume(index)
        assert np.array_equal(heads.seen(index), (volume != 0).any(axis=0))
        prepared = prepare(volume, (32, 32, 32), "head")
        place = place_of(heads.seen(index), (32, 32, 32), "head")
        assert (place.source, place.box, place.offset) == (prepared.source, prepared.box, prepared.offset)


def test_the_miniature_finds_most_of_a_tumour() -> None:
    mini, found = open_workload("3d-unet", "mini", Asked()), []
    assert isinstance(mini, UNet3D)
    with mini.predictor(lambda path: load("onnx", path, EngineConfig(), Cpu.detect().partition())) as predict:
        for index in range(40):
            [answer] = predict(mini.collate([mini.sample(index)]))
            found.append(dice(mini.place(index).restored(answer), Heads("test").labels(index)))
    assert (np.nanmean(np.array(found), axis=0) > (0.75, 0.6, 0.5)).all()


def test_heads_are_drawn_from_split_and_index_and_their_regions_are_nested() -> None:
    heads = Heads("test")
    assert np.array_equal(heads.volume(4), heads.volume(4))
    assert not np.array_equal(heads.volume(4), Heads("train").volume(4))
    counts = np.array([np.bincount(heads.labels(index).ravel(), minlength=4) for index in range(60)])
    assert (counts[:, 1] > 0).all()
    assert 0.7 < (counts[:, 3] > 0).mean() < 0.99
    assert (heads.volume(0)[:, heads.labels(0) > 0] > 0).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cases in the official layout."""
    for name in ("A", "B"):
        place = tmp_path / "HGG" / name
        place.mkdir(parents=True)
        for modality in (*MODALITIES, "seg"):
            voxels = np.zeros((9, 9, 9), np.float32)
            voxels[2:7, 2:7, 2:7] = [[[0, 1, 2, 4, 1]]] if modality == "seg" else 5
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), place / f"{name}_{modality}.nii.gz")
    return tmp_path


def test_the_official_layout_is_read(folder: Path) -> None:
    cases = Brats(folder)
    assert len(cases) == 2
    assert cases.labelled
    assert cases.volume(0).shape == (4, 9, 9, 9)
    assert set(np.unique(cases.labels(1))) == {0, 1, 2, 3}
    (folder / "fold1_validation.txt").write_text("B\n")
    assert Brats(folder).name(0).endswith("B")


def test_labels_become_classes_and_come_back() -> None:
    labels = np.array([0, 1, 2, 4], np.uint8)
    assert as_classes(labels).tolist() == [0, 2, 1, 3]
    assert as_labels(as_classes(labels)).tolist() == labels.tolist()


def test_bad_folders_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        Brats(tmp_path / "nowhere")
    (folder / "fold1_validation.txt").write_text("B\nC\n")
    with pytest.raises(DataError, match="line 2: no case is called C"):
        Brats(folder)
    (folder / "fold1_validation.txt").unlink()
    seg = folder / "HGG" / "A" / "A_seg.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((9, 9, 9), 3, np.float32), np.eye(4)), seg)
    with pytest.raises(DataError, match=r"A_seg\.nii\.gz: label 3 is not among 0, 1, 2, 4"):
        Brats(folder).labels(0)
    seg.unlink()
    with pytest.raises(DataError, match=r"A_seg\.nii\.gz: missing, though 1 other cases have labels"):
        Brats(folder)
    next(folder.rglob("B_seg.nii.gz")).unlink()
    assert not Brats(folder).labelled
    (folder / "HGG" / "A" / "A_t2.nii.gz").unlink()
    with pytest.raises(DataError, match=r"lacks A_t2\.nii\.gz"):
        Brats(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no case"):
        Brats(tmp_path / "empty")


def test_files_that_do_not_lie_on_each_other_are_told_on_opening(folder: Path) -> None:
    seg = folder / "HGG" / "A" / "A_seg.nii.gz"
    for sides, affine, says in (
        ((1, 9, 9), np.eye(4), "1×9×9 voxels, but A_flair.nii.gz has 9×9×9"),
        ((9, 9, 9), np.diag([-1, 1, 1, 1]), "its voxels lie elsewhere"),
    ):
        nibabel.save(nibabel.Nifti1Image(np.zeros(sides, np.uint8), affine), seg)
        with pytest.raises(DataError, match=rf"A_seg\.nii\.gz: {says}"):
            Brats(folder)


def test_a_case_that_is_there_or_listed_twice_is_told(folder: Path) -> None:
    fold = folder / "fold1_validation.txt"
    fold.write_text("A\nB\nA\n")
    with pytest.raises(DataError, match=r"fold1_validation\.txt, line 3: A is listed twice"):
        Brats(folder)
    fold.write_bytes(b"A\n\xff\n")
    with pytest.raises(DataError, match=r"fold1_validation\.txt: not text in UTF-8 \(byte 2\)"):
        Brats(folder)
    fold.unlink()
    fold.mkdir()
    with pytest.raises(DataError, match=r"fold1_validation\.txt: Is a directory"):
        Brats(folder)
    shutil.copytree(folder / "HGG" / "A", folder / "other" / "A")
    with pytest.raises(DataError, match=r"other/A: case A is in .*HGG/A too"):
        Brats(folder)


def test_full_size_takes_brats_and_a_users_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet3d, "UNET_3D", SMALL)
    path = tmp_path / "mine.onnx"
    onnx.save(build(SMALL, synthetic(SMALL, 0)), path)
    mine = open_workload("3d-unet", "full", Asked(weights=str(path), data=folder))
    assert (mine.origin, mine.scored, len(mine)) == ("user", True, 2)
    assert mine.sample(0)["volume"].shape == (4, 8, 8, 8)
    answer = np.random.default_rng(1).integers(0, 4, SMALL.volume).astype(np.uint8)
    mine.keep({0: answer.tobytes(), 1: answer.tobytes()}, tmp_path / "run" / "answers")
    kept = nibabel.load(tmp_path / "run" / "answers" / "B.nii.gz")
    assert isinstance(mine, UNet3D)
    assert np.array_equal(kept.dataobj, as_labels(mine.place(1).restored(answer)))
    assert np.array_equal(kept.affine, nibabel.load(folder / "HGG" / "B" / "B_flair.nii.gz").affine)
    monkeypatch.setattr(unet3d, "UNET_3D", UNET_3D)
    with pytest.raises(ModelInvalid, match=r"not float32 \[\?, 4, 224, 224, 160\] in"):
        open_workload("3d-unet", "full", Asked(weights=str(path)))


def test_made_up_volumes_fit() -> None:
    made_up = MadeUpVolumes()
    assert prepare(made_up.volume(1), UNET_3D.volume, made_up.name(1)).tensor.shape == (4, 224, 224, 160)
    with pytest.raises(DataError, match="no labels"):
        made_up.labels(0)
