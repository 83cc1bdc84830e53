# SPDX-License-Identifier: Apache-2.0
"""What becomes of a model that is asked three times as much as it can do.

A network on ONNX Runtime behind the queue, without sockets. In turn: as much as it can do, in a closed loop; then
three times that rate, whoever answers. Refusals must come at once, accepted requests must not wait longer than a
full queue takes, and throughput and memory must stay what they were.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import psutil

from ledger import Row, report
from septet.errors import QueueFull
from septet.request import Request, Response
from septet.serving.core import Core
from septet.wire.shm import Regions

ROUNDS, SECONDS = 5, 4.0
WAITING, BATCH, SIZE = 64, 8, 1_024
TIMES = 3.0
CONFIG = f"""
max_batch_size: {BATCH}
dynamic_batching {{ default_queue_policy {{ max_queue_size: {WAITING} }} }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""
"""One thread, so that who asks has a core for itself: three times as many requests cost it three times as much."""


@dataclass
class Seen:
    """One round: latencies in ms, and how many samples a second were answered."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    rate: float = 0.0


def write_model(folder: Path) -> None:
    """``x`` float32 [N, SIZE], multiplied eight times by a matrix."""
    draw = np.random.default_rng(0)
    names = ["x", *(f"h{layer}" for layer in range(7)), "y"]
    weights = [
        onnx.numpy_helper.from_array(draw.standard_normal((SIZE, SIZE)).astype(np.float32) / 32, f"w{layer}")
        for layer in range(8)
    ]
    nodes = [
        onnx.helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(8)
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["N", SIZE]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "layers", [x], [y], weights)
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "1" / "model.onnx")


class Asker:
    """Sends requests to a core and notes what comes back."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._input = np.zeros((1, SIZE), np.float32)
        self._room = threading.Semaphore(4 * BATCH)

    def closed(self) -> Seen:
        """As much as the model can do: a fixed number of requests is always on its way."""
        seen, begin = Seen(), time.perf_counter()
        while time.perf_counter() < begin + SECONDS:
            self._room.acquire()
            self._ask(seen, self._room.release)
        return self._rated(seen, begin)

    def open(self, rate: float) -> Seen:
        """`rate` requests a second, evenly, whoever answers."""
        seen, begin = Seen(), time.perf_counter()
        for number in range(int(rate * SECONDS)):
            wait = begin + number / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            self._ask(seen, lambda: None)
        return self._rated(seen, begin)

    def _ask(self, seen: Seen, done: Callable[[], None]) -> None:
        begin = time.perf_counter()

        def answer(response: Response) -> None:
            took = 1_000 * (time.perf_counter() - begin)
            if response.error is None:
                seen.accepted.append(took)
            elif isinstance(response.error, QueueFull):
                seen.refused.append(took)
            else:
                raise response.error
            done()

        self._core.submit(Request("layers", {"x": self._input}), answer)

    def _rated(self, seen: Seen, begin: float) -> Seen:
        """`seen`, once nothing is on its way any more."""
        seen.rate = len(seen.accepted) / (time.perf_counter() - begin)
        before = -1
        while before < len(seen.accepted):
            before = len(seen.accepted)
            time.sleep(0.2)
        return seen


def measure() -> list[Row]:
    """Both in turn, medians."""
    with tempfile.TemporaryDirectory() as place:
        write_model(Path(place, "layers"))
        core = Core([Path(place)], regions=Regions())
        core.start()
        try:
            return rounds(Asker(core))
        finally:
            core.close(10)


def rounds(asker: Asker) -> list[Row]:
    """Capacity and overload in turn, compared within each round."""
    asker.closed()
    resident = psutil.Process().memory_info().rss
    usual, flooded = [], []
    for _ in range(ROUNDS):
        usual.append(asker.closed())
        flooded.append(asker.open(TIMES * usual[-1].rate))
    full = [1_000 * (WAITING + 2 * BATCH) / seen.rate for seen in usual]
    p99 = [float(np.percentile(seen.accepted, 99)) for seen in flooded]
    kept = [after.rate / before.rate for before, after in zip(usual, flooded, strict=True)]
    ratios = [each / most for each, most in zip(p99, full, strict=True)]
    growth = (psutil.Process().memory_info().rss - resident) / 2**20
    return [
        Row("as much as it can do", statistics.median(seen.rate for seen in usual), "requests/s"),
        Row("a full queue and two batches take", statistics.median(full), "ms"),
        Row("three times as much: accepted, p99", statistics.median(p99), "ms"),
        Row("p99 of accepted ÷ a full queue", statistics.median(ratios), "×", ceiling=1.5),
        Row("refused", statistics.median(len(seen.refused) for seen in flooded), "requests a round", floor=1),
        Row(
            "refusal, p99",
            statistics.median(float(np.percentile(seen.refused or [1e9], 99)) for seen in flooded),
            "ms",
            ceiling=1.0,
        ),
        Row("throughput ÷ as much as it can do", statistics.median(kept), "×", floor=0.85),
        Row("resident memory, growth", growth, "MiB", ceiling=20.0),
    ]


if __name__ == "__main__":
    report(measure, title=f"A model asked {TIMES:g} times what it can do")
