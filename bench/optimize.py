# SPDX-License-Identifier: Apache-2.0
"""How much faster than FP32 ONNX Runtime each network's best optimised form runs at full size.

CPU time a sample, one thread, all forms in turn in one run, medians. Weights are seeded noise: this is about speed
alone. Forms are made as `septet optimize` makes them, once, and kept in the cache; ``--prepare`` only makes them.
Name networks to measure these alone: python bench/optimize.py resnet50 ssd-mobilenet.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from ledger import Row, parser_of, report
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.optimize import graph, nncf
from septet.optimize.candidate import REFERENCE, Candidate, Recipe
from septet.optimize.folder import whole_folder
from septet.optimize.passes import apply, passes
from septet.optimize.recorder import Recording
from septet.optimize.stopwatch import interleaved
from septet.optimize.workshop import Workshop
from septet.tensor import Tensors
from septet.workloads import dlrm, recommender, unet, unet3d
from septet.workloads.fetch import cache_dir
from septet.workloads.weights import Found, built
from septet.workloads.workload import Asked, Workload, open_workload

TITLE = "Optimised networks at full size, synthetic weights, one thread, CPU time"

STATIC = Recipe("static", "minmax")
NNCF = Recipe("nncf")
OPENVINO = (
    Candidate("openvino", "bf16"),
    Candidate("openvino", "int8", STATIC),
    Candidate("openvino", "int8", NNCF),
)
ONNX = Candidate("onnx", "int8", Recipe("static", "minmax", outputs=True))
REST_BF16 = (Candidate("openvino", "int8-bf16", STATIC), Candidate("openvino", "int8-bf16", NNCF))

CROP = 128
"""3D U-Net is measured on a crop of this side: the whole volume takes 26 s a call in FP32."""

ROWS = 200_000
"""Of a table of DLRM, at most: all its forms together must fit into memory. Tables stay far larger than caches."""

CALLS = 2
"""Calls whose inputs are kept: for calibration and for timing."""


@dataclass(frozen=True)
class Network:
    """What is measured of a network: samples a call, these in words, what its best form must reach, and forms."""

    batch: int
    words: str
    floor: float
    candidates: tuple[Candidate, ...]


NETWORKS = {
    "resnet50": Network(1, "one image", 3.4, (*OPENVINO, ONNX)),
    "ssd-mobilenet": Network(1, "one image", 2.8, (*OPENVINO, ONNX)),
    "ssd-resnet34": Network(1, "one image", 3.9, OPENVINO[1:]),
    "bert": Network(1, "one window of 384 tokens", 3.3, (*OPENVINO[1:], *REST_BF16)),
    "3d-unet": Network(1, f"a crop of {CROP}³", 4.6, (*OPENVINO[1:], REST_BF16[0])),
    "rnnt": Network(8, "8 utterances", 3.4, (OPENVINO[0], Candidate("onnx", "int8", Recipe("dynamic")))),
    "dlrm": Network(8, f"2,048 pairs, tables capped at {ROWS:,} rows", 2.2, (*OPENVINO, ONNX, *REST_BF16)),
}


def opened(name: str) -> Workload:
    """The network at full size with seeded weights."""
    if name != "dlrm":
        return open_workload(name, "full", Asked(weights="synthetic"))
    net = recommender.DLRM.capped(ROWS)
    path = built(partial(recommender.write_synthetic, net, dlrm.SEED), f"dlrm-full-synthetic-{dlrm.SEED}-{ROWS}")
    return dlrm.Dlrm("full", Found(path, "synthetic"), dlrm.MadeUpLog(net.rows), net)


def model_of(name: str, workload: Workload) -> Path:
    """The FP32 file that is measured."""
    assert workload.model is not None
    if name != "3d-unet":
        return workload.model
    net = replace(unet.UNET_3D, volume=(CROP,) * 3)

    def write(path: Path) -> None:
        onnx.save(unet.build(net, unet.synthetic(net, unet3d.SEED)), path)

    return built(write, f"3d-unet-crop-{CROP}-synthetic-{unet3d.SEED}")


def feeds_of(name: str, workload: Workload, network: Network) -> list[Tensors]:
    """What the engine gets in a few calls."""
    if name == "3d-unet":
        prepared = [workload.sample(index) for index in range(CALLS)]
        return [
            {key: np.ascontiguousarray(array[None, :, 48:176, 48:176, 16:144]) for key, array in sample.items()}
            for sample in prepared
        ]
    recording = Recording(lambda path: load("onnx", path, EngineConfig(), Cpu.detect().partition()))
    with workload.predictor(recording) as predict:
        for call in range(CALLS):
            begin = call * network.batch
            predict(workload.collate([workload.sample(begin + place) for place in range(network.batch)]))
    if name == "dlrm":
        return [_pairs(recording.recorder.feeds)] * CALLS
    return recording.recorder.feeds


def _pairs(feeds: list[Tensors]) -> Tensors:
    """The first 2,048 pairs of all calls."""
    return {name: np.concatenate([feed[name] for feed in feeds])[:2_048] for name in feeds[0]}


def workshop(name: str, model: Path, feeds: list[Tensors]) -> Workshop:
    """Where the forms of a network are made, its graph folded."""
    folder = cache_dir() / "bench-optimize" / f"{name}-{graph.digest(model)[:12]}"
    prepared = folder / "prepared"
    if not prepared.exists():
        with whole_folder(prepared) as beside:
            apply(model, beside / "model.onnx", feeds[:1], passes(None, largest_only=False))
    return Workshop(prepared / "model.onnx", lambda: feeds, folder / "files")


def measure(name: str, network: Network, *, prepare: bool) -> list[Row]:
    """The rows of one network; none where its forms are only made."""
    workload = opened(name)
    model, feeds = model_of(name, workload), feeds_of(name, workload, network)
    shop = workshop(name, model, feeds)
    candidates = [one for one in network.candidates if one.recipe != NNCF or nncf.available()]
    files = [shop.file(candidate.recipe) for candidate in candidates]
    if prepare:
        return []
    with ExitStack() as stack:
        engines = [
            stack.enter_context(load(one.engine, file, EngineConfig(one.precision, 1), Cpu.detect().partition()))
            for one, file in zip((REFERENCE, *candidates), (model, *files), strict=True)
        ]
        reference, *timings = interleaved(engines, {1: feeds})
    title = f"{name}, {network.words}"
    rows = [Row(f"{title}: {REFERENCE.words}", reference.each, "ms")]
    for candidate, timing in zip(candidates, timings, strict=True):
        rows.append(Row(f"{title}: {candidate.words}", timing.each, "ms"))
    best = min(timings, key=lambda timing: timing.each)
    words = candidates[timings.index(best)].words
    rows.append(Row(f"{title}: FP32 ÷ best ({words})", reference.each / best.each, "×", floor=network.floor))
    return rows


def main() -> None:
    """Measure, print, and where asked write and judge."""
    parser = parser_of(TITLE)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--prepare", action="store_true", help="make the forms and measure nothing")
    asked = parser.parse_args()
    names = asked.networks or list(NETWORKS)
    if unknown := set(names) - set(NETWORKS):
        parser.error(f"no network is called {', '.join(sorted(unknown))}")
    report(
        lambda: [row for name in names for row in measure(name, NETWORKS[name], prepare=asked.prepare)],
        title=TITLE,
        asked=asked,
    )


if __name__ == "__main__":
    main()
