# SPDX-License-Identifier: Apache-2.0
"""A model behind a server as an engine: what is asked of it goes over the wire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from septet.client import Client
from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine
from septet.engines.pool import Pool
from septet.errors import EngineUnavailable, FetchError, InferenceFailed, Refused, UsageError
from septet.request import Response, Wanted
from septet.tensor import Array, Tensors, TensorSpec
from septet.wire.call import Call, Document
from septet.wire.head import Placed, dtype_of
from septet.wire.memory import Memory
from septet.wire.shared import Shared

SHARED = "+shm"
"""How the scheme of an address ends where tensors go through shared memory."""

SMALL = 1 << 16
"""Bytes of an output up to which sending it is cheaper than two more trips into shared memory. One of a size that
is not known beforehand is sent, too."""

Specs = tuple[TensorSpec, ...]


class RemoteEngine(Engine):
    """One connection a stream; a call of `infer` is one request, or several where batches are too large for one.

    `inputs` and `outputs` have the shapes of the model's file, also where clients must send others. What the
    server computes in, and on how many cores, is its own affair.
    """

    precisions = ("served",)
    remote = True

    def __init__(self, lines: list[Line], inputs: Specs, outputs: Specs, settings: Document) -> None:
        self._lines = lines
        self._pool = Pool(lines)
        self._largest = int(settings.get("max_batch_size", 0))
        self._taken, self._given = inputs, outputs
        lead = 1 if self._largest else 0
        self.inputs = _reshaped(inputs, settings.get("input", []), lead)
        self.outputs = _reshaped(outputs, settings.get("output", []), lead)

    @classmethod
    def version(cls) -> str:
        return ""

    @classmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        """Reach the model that `config.url` names; the model file at `path` is not looked at.

        Raises EngineUnavailable where the server or the model cannot be reached, UsageError for no address.
        """
        parts = urlsplit(config.url)
        model = parts.path.strip("/")
        scheme, shared = parts.scheme.removesuffix(SHARED), parts.scheme.endswith(SHARED)
        if not model:
            raise UsageError(f"{config.url!r} does not name a model")
        lines: list[Line] = []
        try:
            for _ in range(config.streams):
                lines.append(Line(Client(f"{scheme}://{parts.netloc}"), model, shared))
            found, settings = lines[0].client.metadata(model), lines[0].client.config(model)
        except (Refused, FetchError) as error:
            for line in lines:
                line.close()
            raise EngineUnavailable(f"{config.url}: {error}") from error
        inputs, outputs = (tuple(map(_spec, found[kind])) for kind in ("inputs", "outputs"))
        return cls(lines, inputs, outputs, settings)

    def infer(self, batch: Tensors) -> Tensors:
        return self.begin(batch).finish()

    def begin(self, batch: Tensors) -> Asked:
        """Send a batch, once a connection is free; any thread may finish it, and one must. Raises as `infer`."""
        self.check(batch)
        size = len(next(iter(batch.values())))
        most = self._largest or max(size, 1)
        sent = {
            own.name: _as(batch[own.name], own, wire) for own, wire in zip(self.inputs, self._taken, strict=True)
        }
        parts: list[Tensors] = [
            {name: array[begin : begin + most] for name, array in sent.items()}
            for begin in range(0, size or 1, most)
        ]
        line = self._pool.take()
        try:
            line.begin(parts[0], self._given)
        except BaseException:
            self._pool.give(line)
            raise
        return Asked(self, line, parts[1:])

    def _finish(self, line: Line, further: list[Tensors]) -> Tensors:
        """The outputs of what `line` has begun and of what is `further` to be asked."""
        try:
            parts = [line.finish()]
            for part in further:
                line.begin(part, self._given)
                parts.append(line.finish())
        finally:
            self._pool.give(line)
        found = parts[0]
        if further:
            found = {name: np.concatenate([part[name] for part in parts]) for name in found}
        return {
            own.name: _as(found[own.name], wire, own) for own, wire in zip(self.outputs, self._given, strict=True)
        }

    def close(self) -> None:
        self._pool.close()
        for line in self._lines:
            line.close()


class Asked:
    """An inference under way, on one connection; of a batch too large for one request, the first."""

    def __init__(self, engine: RemoteEngine, line: Line, further: list[Tensors]) -> None:
        self._engine = engine
        self._line = line
        self._further = further

    def fileno(self) -> int:
        """What becomes readable when it is answered."""
        return self._line.client.fileno()

    @property
    def overdue(self) -> bool:
        """Whether the client has waited long enough: finishing it raises."""
        return self._line.client.overdue

    def finish(self) -> Tensors:
        """The outputs, waited for. Raises InferenceFailed."""
        return self._engine._finish(self._line, self._further)


class Line:
    """A connection to one model, and the memory that it shares with the server, if it does."""

    def __init__(self, client: Client, model: str, shares: bool) -> None:
        self.client = client
        self._model = model
        self._shares = shares
        self._shared: Shared | None = None
        self._calls = Memory()
        self._call: Call[Response] | None = None

    def begin(self, batch: Tensors, outputs: Specs) -> None:
        """Send one request. Raises InferenceFailed."""
        with self._told():
            self._call = (
                self._prepared(batch, outputs) if self._shares else self.client.prepare(self._model, batch)
            )
            self.client.begin(self._call)

    def finish(self) -> Tensors:
        """The answer, waited for. Raises InferenceFailed."""
        assert self._call is not None
        with self._told():
            return self.client.finish(self._call)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (Refused, FetchError) as error:
            raise InferenceFailed(f"{self._model}: {error}") from error

    def _prepared(self, batch: Tensors, outputs: Specs) -> Call[Response]:
        """Inputs go through shared memory, and outputs which are large and whose size is known beforehand."""
        size = len(next(iter(batch.values())))
        room = {spec.name: spec.empty(size).nbytes for spec in outputs if spec.batched}
        room = {name: nbytes for name, nbytes in room.items() if nbytes > SMALL}
        shared = self._memory(
            sum(_whole(array.nbytes) for array in batch.values()) + sum(map(_whole, room.values()))
        )
        shared.clear()
        placed: dict[str, Placed] = {name: shared.put(array) for name, array in batch.items()}
        wanted = [shared.leave(spec.name, room[spec.name]) if spec.name in room else Wanted(spec.name)
                  for spec in outputs]  # fmt: skip
        asked = (*placed.values(), *wanted)
        call: Call[Response] | None = self._calls.get(asked)
        if call is None:
            call = self.client.prepare(self._model, {}, outputs=wanted, placed=placed, shared=shared)
            self._calls.keep(asked, call)
        return call

    def _memory(self, size: int) -> Shared:
        if self._shared is None or self._shared.size < size:
            self._forget()
            self._calls.clear()
            self._shared = self.client.share(1 << max(size - 1, 4_095).bit_length())
        return self._shared

    def _forget(self) -> None:
        if self._shared is not None:
            shared, self._shared = self._shared, None
            self.client.unshare(shared)

    def close(self) -> None:
        """Give memory and connection back; a server that is gone has forgotten both."""
        try:
            self._forget()
        except (Refused, FetchError):
            pass
        finally:
            self.client.close()


def _whole(size: int) -> int:
    """`size` in whole lines of 64 bytes, at which tensors begin."""
    return -(-size // 64) * 64


def _spec(tensor: Any) -> TensorSpec:
    dtype: np.dtype[Any] = dtype_of(tensor["datatype"], tensor["name"])
    return TensorSpec(tensor["name"], dtype, _shape(tensor["shape"]))


def _shape(dims: Any) -> tuple[int | None, ...]:
    return tuple(None if int(dim) < 0 else int(dim) for dim in dims)


def _reshaped(specs: Specs, said: Sequence[Document], lead: int) -> Specs:
    """The tensors as the model's file has them, where the configuration gives them another shape for clients."""
    own = {
        each["name"]: _shape(each["reshape"].get("shape", ())) for each in said if each.get("reshape") is not None
    }
    return tuple(
        TensorSpec(spec.name, spec.dtype, spec.shape[:lead] + own[spec.name]) if spec.name in own else spec
        for spec in specs
    )


def _as(array: Array, now: TensorSpec, then: TensorSpec) -> Array:
    """`array`, which is of the shape of `now`, in that of `then`, whose free dimensions are the same."""
    if now.shape == then.shape:
        return array
    free = iter([have for dim, have in zip(now.shape, array.shape, strict=True) if dim is None])
    return array.reshape([next(free) if dim is None else dim for dim in then.shape])
