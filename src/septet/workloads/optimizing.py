# SPDX-License-Identifier: Apache-2.0
"""Optimising a network of Septet's, or a user's own model: what ``septet optimize`` and ``septet.optimize`` do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from septet.engines.model import read_onnx
from septet.errors import DataError, NotOptimized, UnknownNetwork, UsageError
from septet.optimize import graph
from septet.optimize.folder import SearchFolder
from septet.optimize.ledger import Ledger
from septet.optimize.own import OwnModel, OwnScore
from septet.optimize.pixels import Normalisation, take_pixels
from septet.optimize.product import Product, is_product, open_product, put, require_place
from septet.optimize.samples import Given, open_samples
from septet.optimize.search import PROOF, Search
from septet.optimize.subject import Subject
from septet.workloads.exam import subject_of
from septet.workloads.workload import WORKLOADS, Asked, Size, networks, open_workload

KEEP = {"99": 0.99, "99.9": 0.999}
"""What can be asked to be kept, in % of FP32: v0.7's two targets."""

SEARCHES = Path("optimized")
REPOSITORY = Path("models")

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Optimized:
    """What came of it: the ledger of all that was tried, the folder of the search, and the product's entry in the
    repository."""

    ledger: Ledger
    folder: Path
    entry: Path


def optimize(
    what: str | Path,
    *,
    keep: float | str = 99.0,
    size: Size = "mini",
    weights: str = "auto",
    data: Given | None = None,
    score: OwnScore | str | None = None,
    pixels: str | None = None,
    minutes: float | None = None,
    output: str | Path | None = None,
    repository: str | Path = REPOSITORY,
    tell: Tell = lambda words, done: None,
) -> Optimized:
    """Find the fastest form of `what`, a network's name or the path of an ONNX file, that keeps `keep` % of FP32.

    A network has its own samples and score; of one at full size `weights` and a folder of `data` may be said. An
    ONNX file needs `data`: an ``.npz``, a folder, ``module:function``, or samples by input name; and should have a
    `score`, a function or ``module:function`` (`septet.optimize.own.OwnScore`), without which it is judged by
    agreement of outputs with FP32. With `pixels`, ``mean,mean,mean/deviation,deviation,deviation``, one that takes
    normalised images takes their bytes, uint8 [H, W, 3], and so are the samples then.

    `minutes` bounds the search. What was finished lies in the folder `output`, and is taken from there when the
    same is asked again. Raises UsageError, ModelError, DataError, SearchElsewhere.
    """
    ratio = _ratio(keep)
    if size not in get_args(Size):
        raise UsageError(f"size can be {' or '.join(get_args(Size))}, not {size}")
    repository, output = Path(repository), None if output is None else Path(output)
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes must be more than 0, not {minutes:g}")
    if pixels is not None:
        what = _of_pixels(Path(what), pixels, data, (output or SEARCHES / Path(what).stem) / "pixels")
    subject = _subject(what, size, weights, data, score, output)
    require_place(repository, subject.name)
    folder = output or SEARCHES / subject.name
    with SearchFolder(folder, subject, ratio) as kept:
        search = Search(subject, ratio, kept, minutes=minutes, tell=tell)
        ledger = search.run()
        entry = put(ledger, search.file, search.feed(), repository, model=subject.model, joins=subject.joins)
    return Optimized(ledger, folder, entry)


def _ratio(keep: float | str) -> float:
    for name, ratio in KEEP.items():
        if str(keep) == name or keep == float(name):
            return ratio
    raise UsageError(f"keep can be {' or '.join(KEEP)} % of FP32, not {keep}")


def _of_pixels(path: Path, pixels: str, data: Given | None, folder: Path) -> Path:
    """The network at `path` made to take bytes. Raises UsageError, ModelInvalid, DataError."""
    normalisation = Normalisation.read(pixels)
    if path.suffix != ".onnx" or data is None:
        raise UsageError(f"{path}: --pixels goes with an ONNX file and --data of images, uint8 [H, W, 3]")
    (spec, *_) = read_onnx(path).inputs
    samples = open_samples(data, [spec])
    images = [np.asarray(samples[index].get(spec.name)) for index in range(min(PROOF, len(samples)))]
    wrong = next((image for image in images if image.dtype != np.uint8 or image.shape[2:] != (3,)), None)
    if wrong is not None:
        raise DataError(f"{samples.words}: {wrong.dtype} {list(wrong.shape)} is no image, uint8 [H, W, 3]")
    folder.mkdir(parents=True, exist_ok=True)
    take_pixels(path, folder / path.name, normalisation, [image[None] for image in images])
    return folder / path.name


def optimized_form(network: str, size: Size, asked: Asked, repository: Path = REPOSITORY) -> tuple[Product, Path]:
    """What was made of a network, and its model file. Raises NotOptimized where there is nothing, or something of
    other weights."""
    name = f"{network}-{size}"
    if not is_product(repository, name):
        raise NotOptimized(f"{repository / name}: not there: septet optimize {network} --size {size} makes it")
    product, file = open_product(repository, name)
    model = open_workload(network, size, asked).model
    if model is None or graph.digest(model) != product.source:
        raise NotOptimized(
            f"{repository / name}: was made of other weights: septet optimize {network} makes it anew"
        )
    return product, file


def _subject(
    what: str | Path,
    size: Size,
    weights: str,
    data: Given | None,
    score: OwnScore | str | None,
    output: Path | None,
) -> Subject:
    path = Path(what)
    if str(what) in WORKLOADS:
        if score is not None:
            raise UsageError(f"{what}: has its own score; --score goes with an ONNX file")
        if not isinstance(data, str | Path | None):
            raise UsageError(f"{what}: its data is a folder")
        return subject_of(str(what), size, Asked(weights, Path(data) if data is not None else None))
    if path.suffix != ".onnx" and not path.exists():
        raise UnknownNetwork(f"{what}: no network is called so, and no file; networks: {', '.join(networks())}")
    if data is None:
        raise UsageError(f"{what}: needs samples: --data samples.npz, a folder, or module:function")
    return OwnModel(path, data, score, output or SEARCHES / path.stem)
