# SPDX-License-Identifier: Apache-2.0
from fractions import Fraction
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.errors import DataError
from septet.pipelines.image import Classifier, centre_crop, decode, resize_shorter
from septet.tensor import Array

PHOTOS = Path(__file__).parents[4] / "shared" / "data" / "imagenet"


def area_weights(source: int, target: int) -> Array:
    """How much of each source pixel each target pixel covers: float64 [target, source], rows sum to 1."""
    step = Fraction(source, target)
    weights = np.zeros((target, source))
    for place in range(target):
        begin, end = place * step, (place + 1) * step
        for pixel in range(int(begin), min(ceil(end), source)):
            weights[place, pixel] = float((min(end, Fraction(pixel + 1)) - max(begin, Fraction(pixel))) / step)
    return weights


def by_hand(image: Array, side: int) -> tuple[Array, Array]:
    """The whole of v0.7's preprocessing, computed from its words alone, and how far each average lies from the
    half at which its rounding turns."""
    height, width = image.shape[:2]
    shorter = int(side / 0.875)
    if height > width:
        new_width, new_height = shorter, int(shorter * height / width)
    else:
        new_width, new_height = int(shorter * width / height), shorter
    rows, columns = area_weights(height, new_height), area_weights(width, new_width)
    averages = np.einsum("ih,hwc,jw->ijc", rows, image.astype(float), columns, optimize=True)
    top, left = (new_height - side) // 2, (new_width - side) // 2
    cropped = averages[top : top + side, left : left + side]
    means = np.array([123.68, 116.78, 103.94], np.float32)
    centred: Array = np.rint(cropped).astype(np.float32) - means
    return centred.transpose(2, 0, 1), np.abs(cropped % 1 - 0.5).transpose(2, 0, 1)


def assert_same(image: Array, side: int) -> None:
    ours, (wanted, from_half) = Classifier(side)(image), by_hand(image, side)
    off = np.abs(ours - wanted)
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    # the resize rounds to whole levels: where the exact average lies within float error of a half, either
    # level is its rounding; nowhere else may a level differ
    assert off[from_half > 1e-4].max() <= 1e-5
    assert off.max() <= 1 + 1e-5


@settings(deadline=None, max_examples=15)
@given(st.integers(64, 300), st.integers(64, 300), st.integers(0, 2**31))
def test_random_images_are_preprocessed_as_the_words_say(height: int, width: int, seed: int) -> None:
    side = 56
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if min(height, width) >= int(side / 0.875):  # a smaller one is enlarged, which is no averaging
        assert_same(image, side)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"needs photos in {PHOTOS.name}, which are not here")
def test_photos_are_preprocessed_as_the_words_say() -> None:
    for path in sorted(PHOTOS.glob("*.jpg"))[:8]:
        assert_same(decode(path), 224)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(375, 500, (256, 341)), (500, 375, (341, 256)), (9, 9, (256, 256))]
)
def test_the_shorter_side_is_256_and_the_longer_is_cut_to_whole_pixels(
    height: int, width: int, size: tuple[int, int]
) -> None:
    assert resize_shorter(np.zeros((height, width, 3), np.uint8), 256).shape[:2] == size


def test_an_odd_margin_leaves_more_below_and_to_the_right() -> None:
    image = np.arange(7 * 9).reshape(7, 9, 1)
    assert centre_crop(image, 4)[0, 0, 0] == 1 * 9 + 2


def test_the_means_are_subtracted_from_red_green_blue() -> None:
    red = np.zeros((300, 300, 3), np.uint8)
    red[..., 0] = 200
    assert Classifier(224)(red)[:, 0, 0] == pytest.approx([200 - 123.68, -116.78, -103.94], abs=1e-5)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    image[..., 2] = 255  # red, as OpenCV orders it
    cv2.imwrite(str(path), image)
    return path


def test_decoding_gives_rgb(photo: Path) -> None:
    image = decode(photo)
    assert image.shape == (60, 80, 3)
    assert image[..., 0].mean() > 200 > image[..., 2].mean()


def test_greyscale_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((5, 6), 77, np.uint8))
    assert decode(path).tolist() == np.full((5, 6, 3), 77).tolist()


@pytest.mark.parametrize("keep", [0, 20, 1_000, -3])
def test_an_image_that_is_cut_short_is_named(photo: Path, keep: int) -> None:
    photo.write_bytes(photo.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"photo\.jpg"):
        decode(photo)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    for name in ("text.jpg", "none.jpg"):
        with pytest.raises(DataError, match=name):
            decode(tmp_path / name)


@pytest.mark.parametrize("kind", ["colour", "grey", "turned", "progressive"])
def test_pixels_are_those_of_opencv(tmp_path: Path, kind: str) -> None:
    scene = np.random.default_rng(3).integers(0, 256, (12, 9, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if kind == "progressive" else []
    image = cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY) if kind == "grey" else scene
    content = cv2.imencode(".jpg", image, options)[1].tobytes()
    if kind == "turned":
        content = noted(content)
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    wanted = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]
    assert decode(path).shape == ((72, 96, 3) if kind == "turned" else (96, 72, 3))
    assert np.array_equal(decode(path), wanted)


def test_what_follows_the_end_of_a_photo_does_not_matter(photo: Path) -> None:
    whole = decode(photo)
    photo.write_bytes(photo.read_bytes() + bytes(200))
    assert np.array_equal(decode(photo), whole)


def noted(content: bytes) -> bytes:
    """A photo with a camera's note (Exif 2.3, section 4.5.4) of one entry: orientation 6, a quarter turn."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    note = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    return content[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + content[2:]


@pytest.mark.parametrize("turned", [False, True])
def test_a_corrupt_photo_is_named(photo: Path, turned: bool) -> None:
    sound = noted(photo.read_bytes()) if turned else photo.read_bytes()
    half = len(sound) // 2
    for corrupt in (sound[:half] + bytes(300) + sound[half + 300 :], sound[:half] + b"\xff\xd9"):
        photo.write_bytes(corrupt)
        with pytest.raises(DataError, match=r"photo\.jpg: the image is corrupt: "):
            decode(photo)


def test_a_photo_that_only_opencv_takes_stays_with_it(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    scene = np.random.default_rng(3).integers(0, 256, (96, 72, 3), np.uint8)
    content = cv2.imencode(".jpg", scene, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x411111])[1].tobytes()
    start = content.index(b"\xff\xc0")  # of the frame, whose first component follows 10 bytes on (T.81, B.2.2)
    assert content[start + 11] == 0x41
    path.write_bytes(content[: start + 11] + b"\x31" + content[start + 12 :])
    with pytest.raises(ValueError, match="Could not determine subsampling"):
        simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
    assert decode(path).shape == (96, 72, 3)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_other_formats_that_are_cut_short_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    assert decode(path).shape == (60, 80, 3)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="cut short"):
        decode(path)
