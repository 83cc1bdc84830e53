# SPDX-License-Identifier: Apache-2.0
"""Job and Outcome: what is handed to the process that runs one test, and what comes back.

They cross the process border as JSON, never as pickle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from septet.harness.scenario import Bounds

Mode = Literal["calibrate", "performance", "accuracy"]


class Job(msgspec.Struct, frozen=True):
    """One test: which network on which engine, and what is asked of it.

    `rate` is what LoadGen is told to expect or to issue, in its scenario's own unit: queries a second in
    Server, samples a second in Offline, queries a second in SingleStream, samples a query in MultiStream.
    `file` is loaded in the place of the network's own. `give_up` ends a test as soon as it can no longer be valid.
    `padded` pads sequences to the longest. `batch` is how many samples a call takes, in a calibration at most.
    """

    network: str
    size: Literal["full", "mini"]
    weights: str
    data: str | None
    engine: str
    precision: str
    threads: int
    streams: int
    mode: Mode
    bounds: Bounds
    folder: str
    batch: int = 1
    rate: float = 1.0
    give_up: bool = False
    padded: bool = False
    file: str | None = None


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far a job is: `fraction` in 0…1, `seconds_left` an estimate."""

    step: str
    fraction: float
    seconds_left: float


class Calibration(msgspec.Struct, frozen=True, tag=True):
    """Speeds seen before any test: `seconds` of one call by batch size, with `streams` calls side by side."""

    streams: int
    seconds: dict[int, float]

    def rate(self, batch: int) -> float:
        """Samples per second at a batch size that was timed."""
        return self.streams * batch / self.seconds[batch]

    def rate_near(self, batch: int) -> float:
        """Samples per second at the largest timed batch size that is not above `batch`."""
        return self.rate(max(size for size in self.seconds if size <= batch))

    def fastest_batch(self) -> int:
        """The batch of the best rate: right where nobody waits for the first answer."""
        return max(self.seconds, key=self.rate)

    def soonest_batch(self) -> int:
        """The smallest batch that reaches 97 % of the best rate: a larger one only adds latency."""
        best = self.rate(self.fastest_batch())
        return min(batch for batch in self.seconds if self.rate(batch) >= 0.97 * best)


class Outcome(msgspec.Struct, frozen=True, tag=True):
    """How a test ended.

    `figures` are numbers by LoadGen's own names (nanoseconds, queries per second); `settings` is what
    LoadGen was told. `hopeless` says that the test was ended early because it could not become valid.
    """

    valid: bool
    reasons: list[str]
    figures: dict[str, float]
    settings: dict[str, int | float | bool | str]
    issuer: str
    version: str
    hopeless: bool = False


class Failure(msgspec.Struct, frozen=True, tag=True):
    """An error that ended the job: `kind` is the name of a SeptetError, or of any other exception."""

    kind: str
    text: str


Event = Progress | Calibration | Outcome | Failure
