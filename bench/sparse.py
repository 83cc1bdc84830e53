# SPDX-License-Identifier: Apache-2.0
"""What structured sparsity gains on BERT's miniature: pruned INT8 over dense INT8 on the same engine.

Both files are quantised in the same way, on tales of the calibration split, and run windows of the test split at
their own length, one thread, in turn. What the pruned one keeps of FP32's F1 is measured on the whole test split,
pair by pair. In MLPerf this is the Open division: the network is not the reference's.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ledger import Row, report
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.harness.library import Library
from septet.pipelines.text import WordPieces
from septet.score import Score, compare
from septet.tensor import Tensors
from septet.workloads.bert import SPARSE
from septet.workloads.squad import SquadWindows
from septet.workloads.tales import Tales, vocabulary
from septet.workloads.transformer import INPUTS
from septet.workloads.workload import Asked, Workload, open_workload

ENGINES = ("openvino", "onnx")
CALIBRATION, WINDOWS, ROUNDS = 100, 200, 7
BATCH = 16
TARGET = 0.99


class Windows(CalibrationDataReader):  # type: ignore[misc]
    """Windows of the calibration split, each at its own length."""

    def __init__(self) -> None:
        tales = SquadWindows(Tales("calibration", CALIBRATION).file(), WordPieces(vocabulary()), "calibration")
        self._batches: Iterator[Tensors] = (
            {
                name: array[None, : tales.length(index)]
                for name, array in zip(INPUTS, tales.tensors(index), strict=True)
            }
            for index in range(len(tales))
        )

    def get_next(self) -> Tensors | None:
        return next(self._batches, None)


def quantised(workload: Workload, to: Path) -> Path:
    """The workload's network with its matrix products in INT8: U8 activations, S8 weights a channel."""
    quantize_static(
        workload.model, to, Windows(), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["MatMul"], activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return to


def engine_for(name: str, path: Path | None, precision: str) -> Engine:
    return load(name, path, EngineConfig(precision, 1, 1), Cpu.detect().partition())


def scored(workload: Workload, engine: Engine) -> Score:
    """F1 over the whole test split."""
    library = Library(workload)
    library.load(range(len(workload)))
    answers: dict[int, bytes] = {}
    with workload.predictor(lambda _: engine) as predict:
        order = library.by_length()
        for begin in range(0, len(order), BATCH):
            indices = order[begin : begin + BATCH]
            rows = predict(library.gather(indices))
            answers |= {index: row.tobytes() for index, row in zip(indices, rows, strict=True)}
    return workload.score(answers)


def rows_of(name: str, files: dict[str, Path], workloads: dict[str, Workload]) -> list[Row]:
    """CPU time a window on one engine, dense and pruned in turn, and what the pruned one keeps."""
    batches = {
        kind: [workload.collate([workload.sample(index)]) for index in range(WINDOWS)]
        for kind, workload in workloads.items()
    }
    engines = {kind: engine_for(name, file, "int8") for kind, file in files.items()}
    times: dict[str, list[float]] = {kind: [] for kind in engines}
    for _ in range(ROUNDS + 1):  # the first is to warm up
        for kind, engine in engines.items():
            start = time.process_time()
            for batch in batches[kind]:
                engine.infer(batch)
            times[kind].append(1e3 * (time.process_time() - start) / WINDOWS)
    dense, pruned = (statistics.median(times[kind][1:]) for kind in ("dense", "pruned"))
    reference = scored(workloads["dense"], engine_for("onnx", workloads["dense"].model, "f32"))
    kept = compare(scored(workloads["pruned"], engines["pruned"]), reference, TARGET)
    title = f"BERT's miniature (trained), {name} int8, 1 thread, own lengths, batch 1, Open division"
    return [
        Row(f"{title}: dense", dense, "CPU ms a window"),
        Row(f"{title}: pruned", pruned, "CPU ms a window"),
        Row(f"{title}: dense ÷ pruned", dense / pruned, "×", floor=1.21),
        Row(f"{title}: F1 of FP32 dense", reference.value, "%"),
        Row(f"{title}: pruned keeps", 100 * kept.ratio, "% of FP32's F1"),
        Row(f"{title}: pruned keeps at least (95 %)", 100 * kept.ratio_low, "% of FP32's F1", floor=100 * TARGET),
    ]


def sparse_rows() -> list[Row]:
    """All engines."""
    workloads = {"dense": open_workload("bert", "mini", Asked()),
                 "pruned": open_workload("bert", "mini", Asked(SPARSE))}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: quantised(workload, Path(folder) / f"{kind}.onnx") for kind, workload in workloads.items()}
        return [row for name in ENGINES for row in rows_of(name, files, workloads)]


def main() -> None:
    """Measure, print, and where asked write and judge."""
    report(sparse_rows, title="Structured sparsity")


if __name__ == "__main__":
    main()
