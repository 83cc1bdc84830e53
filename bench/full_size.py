# SPDX-License-Identifier: Apache-2.0
"""The six largest runs at full size, one after the other, and the memory that each takes at most.

Memory is what the run and all its processes have resident, added up and looked at five times a second: what two
of them share counts twice, so the figure is rather too high than too low.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ledger import Row, report
from septet.devices.cpu import Cpu
from septet.harness.ask import Ask
from septet.harness.job import Progress
from septet.harness.rules import Scenario, runs_of
from septet.harness.run import Session

RUNS: tuple[tuple[str, Scenario], ...] = (
    ("bert", "SingleStream"),
    ("ssd-resnet34", "SingleStream"),
    ("3d-unet", "SingleStream"),
    ("rnnt", "Offline"),
    ("ssd-mobilenet", "Offline"),
    ("dlrm", "Offline"),
)
MOST_GIB = 20.0
EVERY_SECONDS = 0.2
GIB = 2**30


@dataclass
class Peak:
    """The most memory seen so far, in bytes."""

    value: int = 0


@contextmanager
def watched() -> Iterator[Peak]:
    """The peak of this process and all that it starts, until the block ends."""
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_SECONDS):
            peak.value = max(peak.value, _held())

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield peak
    finally:
        ended.set()
        watching.join()


def _held() -> int:
    here, total = psutil.Process(), 0
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_info().rss
    return total


def rows_of(network: str, scenario: Scenario, precision: str, folder: Path) -> list[Row]:
    """One run in quick mode with seeded weights: its figure, whether it is VALID, and its memory."""
    ask = Ask(network, folder, size="full", weights="synthetic", engine="openvino", precision=precision,
              mode="performance")  # fmt: skip
    with watched() as peak:
        result = Session(ask, silent).run(runs_of(network, wanted=(scenario,))[0])
    name = f"{network} full (synthetic), openvino {precision}, {scenario}"
    metric = result.metric
    return [
        Row(name, metric.value if metric else 0.0, metric.unit if metric else "no figure"),
        Row(f"{name}: VALID", float(result.verdict == "VALID"), "1 is yes", floor=1),
        Row(f"{name}: memory at most", peak.value / GIB, "GiB", ceiling=MOST_GIB),
    ]


def silent(words: str, progress: Progress) -> None:
    """Progress that nobody watches."""


def main() -> None:
    """Measure, print, and where asked write and judge."""
    precision = "bf16" if Cpu.detect().bf16 else "f32"
    with tempfile.TemporaryDirectory() as folder:
        report(
            lambda: [
                row for network, scenario in RUNS for row in rows_of(network, scenario, precision, Path(folder))
            ],
            title="Full size",
        )


if __name__ == "__main__":
    main()
