# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import cv2
import numpy as np
import pytest

from septet.errors import DataError
from septet.workloads.imagenet import ImageFolder, ImageNet, MadeUpImages, open_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, the second in a folder of its own."""
    (tmp_path / "more").mkdir()
    for place, name in enumerate(("a.JPEG", "more/b.png", "c.jpg")):
        cv2.imwrite(str(tmp_path / name), np.full((30, 40, 3), 50 * place, np.uint8))
    return tmp_path


def test_the_official_layout(folder: Path) -> None:
    (folder / "val_map.txt").write_text("c.jpg 65\na.JPEG 970\n")
    images = open_images(folder)
    assert isinstance(images, ImageNet)
    assert [images.label(index) for index in range(len(images))] == [65, 970]
    assert images.image(0).mean() == pytest.approx(100, abs=2)


def test_any_folder_of_images(folder: Path) -> None:
    (folder / "notes.txt").write_text("not an image")
    images = open_images(folder)
    assert isinstance(images, ImageFolder)
    assert not images.labelled
    assert [round(float(images.image(index).mean())) for index in range(len(images))] == [0, 100, 50]
    with pytest.raises(DataError, match="has no label"):
        images.label(0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.JPEG", "line 2: not «file class»"),
        ("a.JPEG x", "line 2: not «file class»"),
        ("a.JPEG 1 2", "line 2: not «file class»"),
        ("a.JPEG 1000", "class 1000 is not among 0…999"),
        ("none.JPEG 1", "no such image"),
        ("./c.jpg 66", "c.jpg 2 times"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: str, words: str) -> None:
    (folder / "val_map.txt").write_text(f"c.jpg 65\n{line}\n")
    with pytest.raises(DataError, match=r"val_map\.txt") as caught:
        open_images(folder)
    assert words in str(caught.value)


def test_folders_without_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        open_images(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_images(tmp_path / "none")
    (tmp_path / "val_map.txt").write_text("\n")
    with pytest.raises(DataError, match="names no image"):
        open_images(tmp_path)


def test_made_up_images_are_seeded() -> None:
    images = MadeUpImages(3)
    assert images.image(1).shape == (375, 500, 3)
    assert np.array_equal(images.image(1), MadeUpImages(3).image(1))
    assert not np.array_equal(images.image(1), images.image(2))
