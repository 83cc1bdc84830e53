# SPDX-License-Identifier: Apache-2.0
"""The null engine: answers without computing, at any precision, to show what everything else costs."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import numpy as np

from septet.config import PRECISIONS, EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine
from septet.engines.model import read_onnx
from septet.errors import EngineClosed
from septet.tensor import Array, Tensors, TensorSpec


class NullEngine(Engine):
    """Without a model file: hands its input ``x`` (int64 [N, 1]) back as ``y``, or whatever other inputs it is
    made with. With one: answers zeros of the file's output shapes, free dimensions other than the first
    being 1."""

    precisions = PRECISIONS

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], echo: bool) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._echo = echo
        self._closed = False

    @classmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        if path is None:
            shape = (None, 1)
            return cls((TensorSpec("x", _INT64, shape),), (TensorSpec("y", _INT64, shape),), echo=True)
        model = read_onnx(path)
        return cls(model.inputs, model.outputs, echo=False)

    @classmethod
    def version(cls) -> str:
        return ""

    def infer(self, batch: Tensors) -> Tensors:
        if self._closed:
            raise EngineClosed("the engine is closed")
        self.check(batch)
        if self._echo:
            return self._echoed(batch)
        size = len(next(iter(batch.values())))
        return {spec.name: np.zeros_like(spec.empty(size)) for spec in self.outputs}

    def _echoed(self, batch: Tensors) -> Tensors:
        """Each output as the input of the same place where dtype and shape allow it, else zeros."""
        size = len(next(iter(batch.values())))
        answers: dict[str, Array] = {}
        for taken, given in zip_longest(self.inputs, self.outputs):
            if given is not None:
                same = taken is not None and given.admits(batch[taken.name])
                answers[given.name] = batch[taken.name] if same else np.zeros_like(given.empty(size))
        return answers

    def close(self) -> None:
        self._closed = True


_INT64: np.dtype[Any] = np.dtype(np.int64)
