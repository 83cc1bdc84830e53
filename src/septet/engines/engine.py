# SPDX-License-Identifier: Apache-2.0
"""The promise that every engine keeps, and the one table of engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from types import TracebackType
from typing import ClassVar, Self

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.errors import EngineUnavailable, PrecisionUnsupported, TensorMismatch, UnknownEngine, UsageError
from septet.tensor import Tensors, TensorSpec

ENGINES: dict[str, str] = {
    "null": "septet.engines.null:NullEngine",
    "onnx": "septet.engines.onnx:OnnxEngine",
    "openvino": "septet.engines.openvino:OpenVinoEngine",
}
"""Engine name -> dotted name of its class, imported only when asked for."""

REMOTE = "septet.engines.remote:RemoteEngine"
"""The class for a name that is an address, with ``://`` in it."""

SERVED_ONLY: dict[str, str] = {
    "torch": "septet.engines.torch:TorchEngine",
}
"""Engines that read no ONNX file, and so run none of the networks; models are served with them."""


class Engine(ABC):
    """A loaded network.

    `infer` may be called from many threads at once; up to ``config.streams`` calls run side by side,
    the others wait their turn. Inputs are read where they lie (C-contiguous arrays are never copied) and
    must not change until the call returns. Outputs belong to the caller and stay valid after `close`.
    """

    precisions: ClassVar[tuple[str, ...]]
    """The precisions that `EngineConfig` may ask of it, on a CPU that has them."""

    remote: ClassVar[bool] = False
    """Whether it computes elsewhere, and so takes none of this machine's threads."""

    names_tensors: ClassVar[bool] = True
    """Whether its files say what goes in and out; if not, `EngineConfig` must, and shapes are not checked."""

    batched: bool = True
    """Whether the first dimension of every tensor is the number of samples; if not, outputs come as they are."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The version of the library beneath it; empty where there is none."""

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


def engine_class(name: str) -> type[Engine]:
    """The class of the engine called `name`. Raises UnknownEngine, EngineUnavailable (package not installed)."""
    if is_address(name):
        return _resolved(name, REMOTE)
    where = ENGINES.get(name) or SERVED_ONLY.get(name)
    if where is None:
        raise UnknownEngine(f"no engine is called {name!r}; there are: {', '.join(ENGINES)}")
    return _resolved(name, where)


def is_address(name: str) -> bool:
    """Whether an engine's name is the address of a model on a server."""
    return "://" in name


def _resolved(name: str, dotted: str) -> type[Engine]:
    try:
        found: type[Engine] = resolve_name(dotted)
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            f"engine {name!r} needs the package {error.name!r}: pip install {error.name}"
        ) from error
    return found


LoadEngine = Callable[[Path | None], Engine]
"""Loads a model file in the engine, precision and threads that were asked for."""


def load(name: str, path: Path | None, config: EngineConfig, partition: Partition) -> Engine:
    """Load `path` in the engine called `name`.

    Raises UnknownEngine, EngineUnavailable, PrecisionUnsupported, UsageError (threads and streams that do
    not fit together) and whatever `Engine.load` raises.
    """
    found = engine_class(name)
    if config.precision not in found.precisions:
        raise PrecisionUnsupported(
            f"engine {name!r} does not run {config.precision}; it runs: {', '.join(found.precisions)}"
        )
    if found.remote:
        return found.load(path, replace(config, url=name), partition)
    threads = thread_count(config, partition)
    if config.streams < 1 or threads < config.streams:
        raise UsageError(f"{config.streams} streams do not fit on {threads} threads: each needs one at least")
    return found.load(path, config, partition)


def thread_count(config: EngineConfig, partition: Partition) -> int:
    """How many threads all streams have together. Raises UsageError for less than one."""
    threads = len(partition.cores) if config.threads is None else config.threads
    if threads < 1:
        raise UsageError(f"an engine needs at least 1 thread, not {threads}")
    return threads
