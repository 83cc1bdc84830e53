# SPDX-License-Identifier: Apache-2.0
"""Recorder: an engine that notes what it is given, so that a network's own predictor makes calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine, LoadEngine
from septet.tensor import Array, Tensors


class _Noted(dict[str, Array]):
    """Outputs that note in `read` which of them are asked for."""

    def __init__(self, outputs: Tensors, read: set[str]) -> None:
        super().__init__(outputs)
        self._read = read

    def __getitem__(self, name: str) -> Array:
        self._read.add(name)
        return super().__getitem__(name)


class Recorder(Engine):
    """Answers as `inner` does, and keeps in `feeds` what each call got, in `answers` what it gave, and in `read`
    the outputs that were asked for by name."""

    precisions = ()

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.feeds: list[Tensors] = []
        self.answers: list[Tensors] = []
        self.read: set[str] = set()

    @classmethod
    def version(cls) -> str:
        return ""

    @classmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        raise NotImplementedError("a recorder is put around an engine that is loaded")

    def infer(self, batch: Tensors) -> Tensors:
        answer = self._inner.infer(batch)
        self.feeds.append({name: array.copy() for name, array in batch.items()})
        self.answers.append(answer)
        return _Noted(answer, self.read)

    def close(self) -> None:
        self._inner.close()


class Recording:
    """Loads engines as `load` does, and has the first of them recorded: `recorder` is there once it is loaded."""

    def __init__(self, load: LoadEngine) -> None:
        self._load = load
        self._recorders: list[Recorder] = []

    def __call__(self, path: Path | None) -> Recorder:
        self._recorders.append(Recorder(self._load(path)))
        return self._recorders[-1]

    @property
    def recorder(self) -> Recorder:
        return self._recorders[0]
