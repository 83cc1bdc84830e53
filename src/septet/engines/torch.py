# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU: TorchScript (``.pt``) and exported programs (``.pt2``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
import torch

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine, thread_count
from septet.engines.model import require
from septet.engines.pool import Pool
from septet.errors import InferenceFailed, ModelInvalid, ModelNotFound, TensorMismatch
from septet.tensor import Array, Tensors

_BY_PLACE = re.compile(r".*__(\d+)")


class TorchEngine(Engine):
    """One module for all streams; threads are torch's own, which the whole process shares.

    Inputs find their place as Triton has it: by the names of ``forward``'s arguments, by a number at the end
    (``INPUT__0``), or else in the order of `EngineConfig.inputs`; outputs by number or in order.
    """

    precisions = ("f32",)
    names_tensors = False

    def __init__(self, module: Any, arguments: tuple[str, ...], config: EngineConfig) -> None:
        self.inputs = ()
        self.outputs = ()
        self._module = module
        self._places = _places(config.inputs, arguments)
        self._names = _in_place(config.outputs)
        self._pool = Pool(range(config.streams))

    @classmethod
    def version(cls) -> str:
        return str(torch.__version__)

    @classmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        if path is None:
            raise ModelNotFound("engine 'torch' needs a model file")
        require(path)
        torch.set_num_threads(thread_count(config, partition))
        try:
            if path.suffix == ".pt2":
                module = torch.export.load(path).module()
                return cls(module, (), config)
            module = torch.jit.load(str(path), map_location="cpu").eval()
            arguments = tuple(each.debugName().split(".")[0] for each in module.graph.inputs())
            return cls(module, arguments[1:], config)
        except Exception as error:
            raise ModelInvalid(
                f"{path}: PyTorch cannot load it (corrupt, truncated, or another format)"
            ) from error

    def check(self, batch: Tensors) -> None:
        if self._places and batch.keys() != self._places.keys():
            raise TensorMismatch(f"the network takes {', '.join(self._places)}, not {', '.join(batch)}")

    def infer(self, batch: Tensors) -> Tensors:
        self.check(batch)
        order = sorted(batch, key=lambda name: self._places.get(name, 0))
        with self._pool.slot(), torch.inference_mode():
            try:
                given = self._module(*(_tensor(batch[name]) for name in order))
            except Exception as error:
                raise InferenceFailed(f"PyTorch failed: {_last_line(error)}") from error
        return self._named(given)

    def _named(self, given: Any) -> Tensors:
        """Outputs by name; a module may give a tensor, several, or a dict of them."""
        if isinstance(given, dict):
            return {name: _array(tensor) for name, tensor in given.items()}
        tensors = list(given) if isinstance(given, list | tuple) else [given]
        names = self._names or tuple(f"OUTPUT__{place}" for place in range(len(tensors)))
        if len(names) > len(tensors):
            raise InferenceFailed(f"the network gave {len(tensors)} outputs, not {', '.join(names)}")
        return {name: _array(tensor) for name, tensor in zip(names, tensors, strict=False)}

    def close(self) -> None:
        self._pool.close()
        self._module = None


def _places(names: tuple[str, ...], arguments: tuple[str, ...]) -> dict[str, int]:
    """Input -> its place among the arguments."""
    if names and set(names) <= set(arguments):
        return {name: arguments.index(name) for name in names}
    numbered = [_BY_PLACE.fullmatch(name) for name in names]
    if all(numbered):
        return {name: int(match[1]) for name, match in zip(names, numbered, strict=True) if match}
    return {name: place for place, name in enumerate(names)}


def _in_place(names: tuple[str, ...]) -> tuple[str, ...]:
    places = _places(names, ())
    return tuple(sorted(names, key=lambda name: places[name]))


def _tensor(array: Array) -> Any:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
    contiguous = np.ascontiguousarray(array)
    return torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())


def _array(tensor: Any) -> Array:
    if not isinstance(tensor, torch.Tensor):
        raise InferenceFailed(f"the network gave a {type(tensor).__name__} where a tensor was expected")
    if tensor.dtype == torch.bfloat16:
        viewed: Array = tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return viewed
    array: Array = tensor.contiguous().numpy()
    return array


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
