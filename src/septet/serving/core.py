# SPDX-License-Identifier: Apache-2.0
"""The server without its doors: everything that HTTP and gRPC ask of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import septet
from septet.errors import (
    ControlDisabled,
    LoadFailed,
    ModelNotReady,
    RequestInvalid,
    SeptetError,
    ServingError,
    Stopping,
    UsageError,
)
from septet.metrics import page
from septet.model_config.convert import to_proto, with_defaults
from septet.request import Answer, Parameter, Request, Response
from septet.serving import describe
from septet.serving.complete import NO_OTHER, MaxBatches
from septet.serving.composition import Composition
from septet.serving.expiry import Expiry
from septet.serving.loader import Loader
from septet.serving.override import Override
from septet.serving.process.questions import Server
from septet.serving.repository import Repository
from septet.serving.served import Served
from septet.serving.settings import LogSettings, TraceSettings
from septet.serving.signature import Slot
from septet.serving.storage import LocalStorage
from septet.tensor import TensorSpec
from septet.wire.shm import Regions

_LOG = logging.getLogger("septet.serving")

EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)

CONTROLS = ("none", "poll", "explicit")


class Core:
    """Serves the models of some repositories, once it has been started, until it is closed."""

    def __init__(
        self,
        repositories: Sequence[Path],
        *,
        regions: Regions,
        control: str = "none",
        startup: Sequence[str] = (),
        poll_seconds: float = 15.0,
        strict_readiness: bool = True,
        auto_complete: bool = True,
        largest: MaxBatches = NO_OTHER,
        exit_on_error: bool = True,
        load_threads: int = 4,
        load_retries: int = 0,
        name: str = "septet",
        log: LogSettings | None = None,
        cpu_metrics: bool = True,
    ) -> None:
        if control not in CONTROLS:
            raise UsageError(f"model control is one of {', '.join(CONTROLS)}, not {control!r}")
        if startup and control != "explicit":
            raise UsageError("models to load are named only with model control 'explicit'")
        self.regions = regions
        self._expiry = Expiry()
        self._server = Server(self.submit, self._find, self.load, self.unload)
        self._loader = Loader(
            self._expiry, self._server, auto_complete=auto_complete, largest=largest, retries=load_retries
        )
        self._repository = Repository([LocalStorage(path) for path in repositories], self._loader)
        self._composition = Composition(self._repository)
        self._control = control
        self._startup = startup
        self._poll_seconds = poll_seconds
        self._strict = strict_readiness
        self._exit_on_error = exit_on_error
        self._load_threads = load_threads
        self._name = name
        self._trace, self._log = TraceSettings(), log or LogSettings()
        self._cpu_metrics = cpu_metrics
        self._started, self._retired, self._closing = False, False, threading.Event()

    def start(self) -> None:
        """Load the models that are served from the beginning. Raises LoadFailed where that ends the server."""
        failures = self._load_all(self._first())
        if failures and self._exit_on_error:
            self.close(0)
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise LoadFailed(f"{failures[0]}{more}")
        self._started = True
        if self._control == "poll":
            threading.Thread(target=self._poll, name="septet-poll", daemon=True).start()

    def submit(self, request: Request, answer: Answer) -> None:
        """Take `request`; never blocks or raises. `answer` is called from any thread, at last with ``final``."""
        self._take(request, answer, attend=True)

    def admit(self, request: Request) -> None:
        """Raise what `submit` would answer `request` with for its model, its tensors' names, dtypes and shapes."""
        self._repository.find(request.model, request.version).signature.check(request)

    def submit_all(self, asked: Sequence[tuple[Request, Answer]]) -> None:
        """Take requests that came together, as `submit` does each; batches that are short are run at once."""
        taken = {self._take(request, answer, attend=False) for request, answer in asked}
        for served in taken:
            if served is not None:
                served.attend()

    def _take(self, request: Request, answer: Answer, *, attend: bool) -> Served | None:
        """Have a model take `request`; which one did."""
        try:
            return self._submit(request, answer, attend)
        except SeptetError as error:
            answer(Response(request.model, request.version, request.id, error=error))
        except Exception:
            _LOG.exception("a request to %r was not taken", request.model)
            answer(Response(request.model, request.version, request.id, error=ServingError("internal error")))
        return None

    def _submit(self, request: Request, answer: Answer, attend: bool) -> Served:
        found = self._repository.find(request.model, request.version)
        while True:
            try:
                found.submit(request, answer, attend=attend)
                return found
            except Stopping:
                # Replaced between finding and queueing: its successor takes the request
                successor = self._repository.find(request.model, request.version)
                if successor is found:
                    raise
                found = successor

    def _find(self, model: str, version: str) -> Served:
        return self._repository.find(model, version)

    def live(self) -> bool:
        """Whether the server runs at all."""
        return not self._closing.is_set()

    def ready(self) -> bool:
        """Whether requests should come here: all models are ready, where readiness is strict."""
        if not self._started or self._retired or self._closing.is_set():
            return False
        return not self._strict or self._repository.ready()

    def retire(self) -> None:
        """Have `ready` say no from now on; requests are still taken."""
        self._retired = True

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether it can answer at this moment. Raises ModelUnknown, VersionUnknown, RequestInvalid."""
        try:
            return self._repository.find(model, version).ready
        except ModelNotReady:
            return False

    def server_metadata(self) -> dict[str, Any]:
        """``name``, ``version``, ``extensions``."""
        return {"name": self._name, "version": septet.__version__, "extensions": list(EXTENSIONS)}

    def model_metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """``name``, ``versions``, ``platform``, ``inputs``, ``outputs``."""
        found = self._repository.find(model, version)
        versions = [version] if version else [each.version for each in self._repository.versions(model)]
        return describe.metadata(found, versions)

    def model_config(self, model: str, version: str = "") -> Any:
        """The filled ``ModelConfig`` message."""
        return with_defaults(to_proto(self._repository.find(model, version).config))

    def statistics(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        """Triton's ModelStatistics of one version, one model, or all."""
        if not model:
            every: Sequence[Served] = self._repository.every()
        elif version:
            every = [self._repository.find(model, version)]
        else:
            self._repository.find(model)
            every = self._repository.versions(model)
        return [describe.statistics(served) for served in every]

    def index(self, ready_only: bool) -> list[dict[str, Any]]:
        """``name``, ``version``, ``state``, ``reason`` of what the repositories hold."""
        return [
            {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}
            for each in self._repository.index(ready_only)
        ]

    def load(self, model: str, parameters: Mapping[str, Parameter | bytes]) -> None:
        """Load or reload a model; of an ensemble first the models that are not served.

        Raises ControlDisabled, Stopping, LoadFailed, RequestInvalid, ConfigInvalid.
        """
        self._require_control()
        override = Override(parameters)
        self._composition.load(model, None if override.empty else override)

    def unload(self, model: str, dependents: bool) -> None:
        """Let a model end; for `dependents` also the models of an ensemble that are part of no other.

        Raises ControlDisabled, Stopping, RequestInvalid.
        """
        self._require_control()
        unload = self._composition.unload if dependents else self._repository.unload
        unload(model)

    def trace_settings(
        self, model: str = "", updates: Mapping[str, list[str] | None] | None = None
    ) -> dict[str, Any]:
        """The settings of tracing, of all models or of one. Raises as `TraceSettings.change` and `find` do."""
        if model:
            self._repository.find(model)
        return self._trace.change(updates)

    def log_settings(self, updates: Mapping[str, Parameter] | None = None) -> dict[str, Any]:
        """The settings of the log, after `updates`. Raises as `LogSettings.change` does."""
        return self._log.change(updates)

    def labels(self, model: str, version: str, output: str) -> tuple[str, ...]:
        """The labels of an output's classes; empty where it has none."""
        return self._repository.find(model, version).labels.get(output, ())

    def raw_input(self, model: str, version: str) -> TensorSpec:
        """The one input of a model. Raises RequestInvalid where it has another number of them."""
        signature = self._repository.find(model, version).signature
        if len(signature.inputs) != 1:
            raise RequestInvalid(f"a raw request needs a model of 1 input; '{model}' has {len(signature.inputs)}")
        [slot] = signature.inputs.values()
        return _spec(slot, signature.max_batch > 0)

    def metrics_text(self) -> str:
        """Metrics in Prometheus' text format."""
        families = describe.families(self._repository.every(), machine=self._cpu_metrics)
        return page([*families, *self._server.registry.families()])

    def close(self, seconds: float) -> None:
        """Take no more work, finish what is queued within `seconds`, put the instances away.

        What is being loaded is not waited for.
        """
        self._retired = True
        self._closing.set()
        self._repository.close(seconds)
        self._expiry.close()

    @property
    def at_work(self) -> bool:
        """After `close`: whether threads still load a model or put one away."""
        return self._repository.at_work

    def _first(self) -> Sequence[str]:
        if self._control != "explicit" or "*" in self._startup:
            return self._repository.names()
        return self._startup

    def _load_all(self, names: Sequence[str]) -> list[SeptetError]:
        ensure = self._composition.ensure if self._control == "explicit" else self._repository.ensure

        def load(name: str) -> SeptetError | None:
            try:
                ensure(name)
            except SeptetError as error:
                _LOG.error("%s", error)
                return error
            return None

        pool = ThreadPoolExecutor(self._load_threads, "septet-load")
        try:
            return [error for error in pool.map(load, names) if error is not None]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after a signal, what still loads is not waited for

    def _poll(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            try:
                self._repository.poll()
            except Stopping:
                return
            except OSError as error:  # it is away, or being moved: the next look may find it
                _LOG.error("the repositories could not be looked at: %s", error)
            except Exception:
                _LOG.exception("the repositories could not be looked at")

    def _require_control(self) -> None:
        if self._closing.is_set():
            raise Stopping("the server is about to end")
        if self._control != "explicit":
            raise ControlDisabled("explicit model load / unload is not allowed: model control is not 'explicit'")


def _spec(slot: Slot, batched: bool) -> TensorSpec:
    dims = tuple(None if dim == -1 else dim for dim in slot.dims)
    batch = (1 if None in dims else None,) if batched else ()  # a raw request tells one free dimension at most
    return TensorSpec(slot.name, slot.dtype, (*batch, *dims))
