# SPDX-License-Identifier: Apache-2.0
"""How many samples each pipeline makes in a second of CPU time, on one thread, and what RNN-T's decoder costs.

Photos are made up: noise of all sizes, as JPEG of 500×375 and about the bytes that ImageNet's have. So is speech.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from ledger import Row, report
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.pipelines import table
from septet.pipelines.audio import RATE, features, log_mel
from septet.pipelines.image import Classifier, centre_crop, decode, resize_shorter
from septet.pipelines.text import WordPieces
from septet.pipelines.volume import prepare
from septet.tensor import Array
from septet.workloads import ssd_mobilenet, ssd_resnet34
from septet.workloads.clicks import ClickLog
from septet.workloads.digits import DigitScenes
from septet.workloads.mobilenet import SSD_MOBILENET
from septet.workloads.recommender import DLRM
from septet.workloads.resnet import RESNET_MINI
from septet.workloads.resnet34 import SSD_RESNET34
from septet.workloads.rnnt import MadeUpSpeech, TransducerPredictor
from septet.workloads.squad import SquadWindows
from septet.workloads.tales import Tales, vocabulary
from septet.workloads.unet3d import MadeUpVolumes
from septet.workloads.workload import Asked, open_workload

PHOTOS = 40
UTTERANCES = 20
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


def each(work: Callable[[Any], object], samples: Iterable[object]) -> None:
    """``work(sample)`` of all `samples`, whose answers are not kept, as in a pipeline that runs on."""
    for sample in samples:
        work(sample)


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
        return per_cpu_second(lambda: each(lambda file: prepare(decode(file)), files), PHOTOS)

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


def audio_rows() -> list[Row]:
    """Seconds of speech a CPU second, from the waveform on."""
    waves = [MadeUpSpeech().wave(index) for index in range(UTTERANCES)]
    seconds = sum(map(len, waves)) / RATE
    return [
        Row("speech: log-mel", per_cpu_second(lambda: each(log_mel, waves), seconds),
            "× real time/CPU", floor=4_000),
        Row("speech: log-mel, spliced, normalised", per_cpu_second(lambda: each(features, waves), seconds),
            "× real time/CPU"),
    ]  # fmt: skip


def detector_rows() -> list[Row]:
    """Decoded photos a CPU second through both detectors' preprocessing, and pictures through their suppression,
    whose made-up scores spread as a detector's do: few above 0.05, about a percent above 0.01."""
    photos, draw, rows = [photo(seed) for seed in range(8)], np.random.default_rng(0), []
    for name, workload, net in (
        ("ssd-mobilenet", ssd_mobilenet, SSD_MOBILENET),
        ("ssd-resnet34", ssd_resnet34, SSD_RESNET34),
    ):
        means = workload.net_of(net)
        rate = per_cpu_second(lambda: each(means.prepare, photos), len(photos))  # noqa: B023
        rows.append(Row(f"{name}: stretch to {means.side}×{means.side}, float32", rate, "photos/CPU-s"))
        logits = draw.normal(-9.5, 2, (len(means.priors), means.classes))
        scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
        codes = draw.standard_normal((len(means.priors), 4), np.float32)
        rate = per_cpu_second(lambda: means.choose(scores, codes, means.priors), 1)  # noqa: B023
        rows.append(Row(f"{name}: suppression of {scores.size:,} scores", rate, "pictures/CPU-s"))
    return rows


def text_rows() -> list[Row]:
    """Questions a CPU second, from the text on: pieces of words, windows."""
    file, pieces = Tales("search").file(), WordPieces(vocabulary())
    questions = len(SquadWindows(file, pieces, "tales").truths())
    rate = per_cpu_second(lambda: SquadWindows(file, pieces, "tales"), questions)
    return [Row("bert: pieces of words, windows of 384", rate, "questions/CPU-s")]


def decoder_rows() -> list[Row]:
    """What RNN-T's features and decoder take of a whole call at full size, one thread for all."""
    workload = open_workload("rnnt", "full", Asked(weights="synthetic"))
    partition, config = Cpu.detect().partition(), EngineConfig("f32", 1, 1)
    predict = workload.predictor(lambda path: load("onnx", path, config, partition))
    assert isinstance(predict, TransducerPredictor)
    rows = []
    for batch in (1, 8):
        samples = workload.collate([workload.sample(index) for index in range(batch)])
        seconds = predict.timed(samples)
        for part in ("features", "decoder"):
            share = 100 * seconds[part] / sum(seconds.values())
            rows.append(Row(f"rnnt full (synthetic), onnx f32, batch {batch}: {part}", share, "% of a call"))
    predict.close()
    return rows


def other_rows() -> list[Row]:
    """Samples a CPU second of the pipelines whose work is arithmetic on arrays."""
    head, pairs = MadeUpVolumes().volume(0), ClickLog("test").pairs(0)
    scenes = [DigitScenes("test").image(index) for index in range(PHOTOS)]
    return [
        Row("resnet50 mini: scene to float32, 64×64",
            per_cpu_second(lambda: each(Classifier(RESNET_MINI.image), scenes), PHOTOS), "scenes/CPU-s"),
        Row("3d-unet: crop, normalise, pad to 4×224×224×160",
            per_cpu_second(lambda: prepare(head, (224, 224, 160), "made-up"), 1), "volumes/CPU-s"),
        Row("dlrm: logarithms and rows of tables",
            per_cpu_second(lambda: [(table.dense(pairs.counts), table.indices(pairs.categories, DLRM.rows))
                                    for _ in range(200)], 200 * len(pairs.clicks)), "pairs/CPU-s"),
    ]  # fmt: skip


def main() -> None:
    """Measure, print, and where asked write and judge."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        report(
            lambda: [
                *image_rows(Path(folder)),
                *detector_rows(),
                *text_rows(),
                *audio_rows(),
                *other_rows(),
                *decoder_rows(),
            ],
            title="Pipelines",
        )


if __name__ == "__main__":
    main()
