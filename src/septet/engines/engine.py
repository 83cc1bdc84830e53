# SPDX-License-Identifier: Apache-2.0
"""The promise that every engine keeps, and the one table of engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.errors import EngineUnavailable, TensorMismatch, UnknownEngine
from septet.tensor import Tensors, TensorSpec

ENGINES: dict[str, str] = {
    "null": "septet.engines.null:NullEngine",
    "onnx": "septet.engines.onnx:OnnxEngine",
    "openvino": "septet.engines.openvino:OpenVinoEngine",
}
"""Engine name -> dotted name of its class, imported only when asked for."""


class Engine(ABC):
    """A loaded network.

    `infer` may be called from many threads at once; up to ``config.streams`` calls run side by side,
    the others wait their turn. Inputs are read where they lie (C-contiguous arrays are never copied) and
    must not change until the call returns. Outputs belong to the caller and stay valid after `close`.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    @abstractmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        """Load the model file at `path` on the cores of `partition`.

        Raises ModelNotFound, ModelInvalid (corrupt, truncated, unreadable), PrecisionUnsupported.
        """

    @abstractmethod
    def infer(self, batch: Tensors) -> Tensors:
        """Run the network once on `batch`, whose first dimension is the number of samples.

        Raises TensorMismatch (name, dtype or shape), InferenceFailed, EngineClosed.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the network; a call in progress finishes first. Closing twice is harmless."""

    def check(self, batch: Tensors) -> None:
        """Raise TensorMismatch unless `batch` has exactly the inputs that `self.inputs` describes."""
        if len(batch) != len(self.inputs):
            raise TensorMismatch(self._expected(batch))
        for spec in self.inputs:
            array = batch.get(spec.name)
            if array is None or not spec.admits(array):
                raise TensorMismatch(self._expected(batch))

    def _expected(self, batch: Tensors) -> str:
        want = "; ".join(str(spec) for spec in self.inputs)
        have = "; ".join(f"{name}: {array.dtype.name}{list(array.shape)}" for name, array in batch.items())
        return f"the network takes ({want}), not ({have})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(name: str, path: Path | None, config: EngineConfig, partition: Partition) -> Engine:
    """Load `path` in the engine called `name`.

    Raises UnknownEngine, EngineUnavailable (its package is not installed) and whatever `Engine.load` raises.
    """
    if name not in ENGINES:
        raise UnknownEngine(f"no engine is called {name!r}; there are: {', '.join(ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    try:
        kind: type[Engine] = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            f"engine {name!r} needs the package {error.name!r}: pip install {error.name}"
        ) from error
    return kind.load(path, config, partition)
