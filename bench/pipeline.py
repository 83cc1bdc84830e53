# SPDX-License-Identifier: Apache-2.0
"""How many samples each pipeline makes in a second of CPU time, on one thread.

Photos are made up: noise of all sizes, as JPEG of 500×375 and about the bytes that ImageNet's have.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ledger import Row, report
from septet.pipelines.image import Classifier, centre_crop, decode, resize_shorter
from septet.tensor import Array

PHOTOS = 40
ROUNDS = 5
QUALITY = 90
HEIGHT, WIDTH = 375, 500


def per_cpu_second(work: Callable[[], object], samples: float) -> float:
    """The median over rounds of `samples` ÷ the CPU seconds of ``work()``."""
    work()
    rates = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        rates.append(samples / (time.process_time() - start))
    return statistics.median(rates)


def photo(seed: int) -> Array:
    """Noise whose coarse parts are strong and whose fine parts are weak, uint8 [375, 500, 3]."""
    draw = np.random.default_rng(seed)
    scene = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
    for octave in range(8):
        cells = draw.standard_normal((3 * 2**octave, 4 * 2**octave, 3), np.float32)
        scene += cv2.resize(cells, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * np.float32(36 * 0.72**octave)
    return np.clip(scene, 0, 255).astype(np.uint8)


def image_rows(folder: Path) -> list[Row]:
    """Photos a CPU second, from the file on."""
    files = [folder / f"{seed}.jpg" for seed in range(PHOTOS)]
    for seed, file in enumerate(files):
        cv2.imwrite(str(file), photo(seed), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    size = statistics.mean(file.stat().st_size for file in files) / 1e3

    def rate(prepare: Callable[[Array], object]) -> float:
        return per_cpu_second(lambda: [prepare(decode(file)) for file in files], PHOTOS)

    def lean(image: Array) -> Array:
        return centre_crop(resize_shorter(image, 256, cv2.INTER_LINEAR), 224)

    def exact(image: Array) -> Array:
        return centre_crop(resize_shorter(image, 256), 224)

    name = f"photo {WIDTH}×{HEIGHT}, {size:.0f} kB"
    return [
        Row(f"{name}: decode", rate(lambda image: image), "photos/CPU-s"),
        Row(f"{name}: decode, resize (linear), crop to uint8", rate(lean), "photos/CPU-s", floor=1_000),
        Row(f"{name}: decode, resize (area), crop to uint8", rate(exact), "photos/CPU-s"),
        Row(f"{name}: the same to float32, means subtracted: v0.7's", rate(Classifier(224)), "photos/CPU-s"),
    ]


def main() -> None:
    """Measure, print, and where asked write and judge."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        report(lambda: image_rows(Path(folder)), title="Pipelines")


if __name__ == "__main__":
    main()
