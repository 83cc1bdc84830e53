# SPDX-License-Identifier: Apache-2.0
"""COCO: pictures with labelled boxes, in its official layout or made by the same rules.

The layout is ``annotations/instances_val2017.json`` and the photos in ``val2017/``. Every photo that the
annotations name must be there, and every box must belong to one of them; photos without any box stay, as in the
reference's ``coco-300`` and ``coco-1200-onnx``, and count as pictures on which nothing is to be found.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from septet.errors import DataError
from septet.pipelines.image import decode
from septet.tensor import Array
from septet.workloads.imagenet import Images
from septet.workloads.scenes import CATEGORIES, BoxScenes, Scene
from septet.workloads.split import Split

ANNOTATIONS = Path("annotations") / "instances_val2017.json"
PHOTOS = "val2017"

_SLACK = 1.0
"""Boxes may reach over the image's edge by a pixel: COCO's own do, by rounding."""


class Photo(msgspec.Struct, frozen=True):
    """One picture: its number, its file's name, and its size in pixels."""

    id: int
    file_name: str
    height: int
    width: int


class Thing(msgspec.Struct, frozen=True):
    """One labelled thing; `bbox` is left, top, width and height in pixels, `iscrowd` marks a group as a whole."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int = 0


class Category(msgspec.Struct, frozen=True):
    """A category's number, 1…90 in COCO with gaps, and its name."""

    id: int
    name: str


class Truth(msgspec.Struct, frozen=True):
    """What is to be found: pictures in the order of the data set, things on them, categories in their order."""

    images: tuple[Photo, ...]
    annotations: tuple[Thing, ...]
    categories: tuple[Category, ...]

    def numbers(self) -> list[int]:
        """The categories' numbers: what the contiguous classes 1, 2, … of SSD-ResNet-34 stand for."""
        return [category.id for category in self.categories]


class Pictures(ABC):
    """Pictures by index, with what is on them where they are `labelled`; `words` say in words what they are."""

    words: str
    labelled: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, index: int) -> Array:
        """Picture `index`, uint8 [H, W, 3] RGB. Raises DataError, naming the file."""

    @property
    @abstractmethod
    def truth(self) -> Truth:
        """What is on them. Raises DataError where they are not labelled."""


class Coco(Pictures):
    """A folder in the official layout. Raises DataError, naming file and entry, for whatever is wrong in it."""

    labelled = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PHOTOS
        self._truth = read_truth(folder / ANNOTATIONS)
        self._require_photos(folder / ANNOTATIONS)
        self.words = f"{folder.name}: {len(self):,} pictures with {len(self.truth.annotations):,} labelled boxes"

    def __len__(self) -> int:
        return len(self._truth.images)

    @property
    def truth(self) -> Truth:
        return self._truth

    def image(self, index: int) -> Array:
        photo = self.truth.images[index]
        path = self._folder / photo.file_name
        image = decode(path)
        if image.shape[:2] != (photo.height, photo.width):
            seen = f"{image.shape[1]} × {image.shape[0]}"
            raise DataError(f"{path}: is {seen} pixels, annotated as {photo.width} × {photo.height}")
        return image

    def _require_photos(self, annotations: Path) -> None:
        missing = [photo for photo in self.truth.images if not (self._folder / photo.file_name).is_file()]
        if missing:
            raise DataError(
                f"{annotations}: {len(missing):,} of {len(self):,} photos are missing, the first is "
                f"{self._folder / missing[0].file_name}"
            )


class ScenePictures(Pictures):
    """Box scenes as a data set of labelled pictures."""

    labelled = True

    def __init__(self, split: Split, count: int | None = None) -> None:
        self._scenes = BoxScenes(split, count)
        self.words = f"box scenes, {split} split, {len(self):,} images"

    def __len__(self) -> int:
        return len(self._scenes)

    @property
    def truth(self) -> Truth:
        return _drawn_truth(self._scenes.split, len(self))

    def image(self, index: int) -> Array:
        return self._scenes.scene(index).image


class PlainPictures(Pictures):
    """Images of which nothing is known: for speed."""

    labelled = False

    def __init__(self, images: Images) -> None:
        self._images = images
        self.words = images.words

    def __len__(self) -> int:
        return len(self._images)

    @property
    def truth(self) -> Truth:
        raise DataError(f"{self.words}: nothing is known of what they show")

    def image(self, index: int) -> Array:
        return self._images.image(index)


@cache
def _drawn_truth(split: Split, count: int) -> Truth:
    """What is on the first `count` scenes; drawing them takes seconds, and only scoring asks for it."""
    scenes = BoxScenes(split)
    return scene_truth([scenes.scene(index) for index in range(count)])


def scene_truth(scenes: Sequence[Scene]) -> Truth:
    """What COCO's annotations would say of `scenes`."""
    photos = [Photo(number, f"{number:012}.png", *scene.image.shape[:2]) for number, scene in enumerate(scenes, 1)]
    things: list[Thing] = []
    for photo, scene in zip(photos, scenes, strict=True):
        for box, category in zip(scene.boxes.tolist(), scene.categories.tolist(), strict=True):
            things.append(Thing(len(things) + 1, photo.id, category, tuple(box), box[2] * box[3]))
    categories = [Category(number, name) for number, name in CATEGORIES.items()]
    return Truth(tuple(photos), tuple(things), tuple(categories))


def read_truth(path: Path) -> Truth:
    """COCO's annotations of instances. Raises DataError, naming the file, where they are not sound."""
    try:
        truth = msgspec.json.decode(path.read_bytes(), type=Truth)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not COCO's annotations: {error}") from error
    fault = _fault(truth)
    if fault:
        raise DataError(f"{path}: {fault}")
    return truth


def _fault(truth: Truth) -> str:
    """What is wrong with `truth`, in words; empty where nothing is."""
    if len(truth.images) < 2 or not truth.annotations or not truth.categories:
        return "names no two images, no box or no category"
    for kind, entries in (
        ("image", truth.images),
        ("annotation", truth.annotations),
        ("category", truth.categories),
    ):
        numbers, counts = np.unique([entry.id for entry in entries], return_counts=True)
        if counts.max() > 1:
            return f"{kind} {numbers[counts > 1][0]} is there {counts.max()} times"
    name, times = Counter(Path(photo.file_name) for photo in truth.images).most_common(1)[0]
    if times > 1:
        return f"{name} is the photo of {times} images"
    photos = {photo.id: photo for photo in truth.images}
    categories = set(truth.numbers())
    for thing in truth.annotations:
        if thing.image_id not in photos:
            return f"annotation {thing.id} is of image {thing.image_id}, which is not there"
        if thing.category_id not in categories:
            return f"annotation {thing.id} is of category {thing.category_id}, which is not there"
        if words := _misplaced(thing, photos[thing.image_id]):
            return f"annotation {thing.id}: its box {list(thing.bbox)} {words}"
    return ""


def _misplaced(thing: Thing, photo: Photo) -> str:
    left, top, width, height = thing.bbox
    if width < 0 or height < 0 or thing.area < 0:
        return "has a negative size"
    right, bottom = left + width, top + height
    if min(left, top) < -_SLACK or right > photo.width + _SLACK or bottom > photo.height + _SLACK:
        return f"reaches out of {photo.file_name}, which is {photo.width} × {photo.height}"
    return ""
