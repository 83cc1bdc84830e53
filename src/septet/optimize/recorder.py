# SPDX-License-Identifier: Apache-2.0
"""Recorder: an engine that notes what it is given, so that a network's own predictor makes calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine
from septet.tensor import Tensors


class Recorder(Engine):
    """Answers as `inner` does, and keeps in `feeds` what each call got and in `answers` what it gave."""

    precisions = ()

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.feeds: list[Tensors] = []
        self.answers: list[Tensors] = []

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
        return answer

    def close(self) -> None:
        self._inner.close()
