# SPDX-License-Identifier: Apache-2.0
"""Ensembles: a request runs through several models, each of which begins as soon as its inputs are there."""

from __future__ import annotations

import threading
from time import monotonic_ns

from septet.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotReady,
    RequestCancelled,
    SeptetError,
    Stopping,
    Unsupported,
)
from septet.model_config.config import Ensembling, ModelConfig, Step
from septet.model_config.ensemble import misfits
from septet.request import Answer, Request, Response, Wanted
from septet.serving.expiry import Expiry
from septet.serving.pending import Pending
from septet.serving.process.questions import Server
from septet.serving.served import Served
from septet.serving.signature import Signature
from septet.serving.statistics import Phases
from septet.tensor import Array


def version_of(step: Step) -> str:
    """The version that a step asks for; empty leaves the choice to the server."""
    return str(step.model_version) if step.model_version > 0 else ""


class Ensemble(Served):
    """One version of an ensemble. It has no queue: its models have, which `server` knows."""

    def __init__(
        self,
        config: ModelConfig,
        version: str,
        signature: Signature,
        expiry: Expiry,
        server: Server,
    ) -> None:
        super().__init__(config, version, signature, expiry)
        self.ensemble = config.ensemble_scheduling or Ensembling()
        self.server = server
        self._models: list[ModelConfig | None] = []
        self._misfit = ""
        self._running = 0
        self._changed = threading.Condition()
        self._stopping = False

    @property
    def ready(self) -> bool:
        return not self.reason

    @property
    def reason(self) -> str:
        steps = self.ensemble.step
        missing = [
            step.model_name for step in steps if not self.server.is_ready(step.model_name, version_of(step))
        ]
        return f"models that are not ready: {', '.join(missing)}" if missing else self.misfit

    @property
    def misfit(self) -> str:
        """Where the models that are there now, some of which may be newer than this, do not fit; or empty."""
        models = [self._config_of(step) for step in self.ensemble.step]
        if models != self._models:
            found = misfits(self.config, self.ensemble, self._config_of)
            self._misfit = next((f"{fault.field}: {fault.text}" for fault in found), "")
            self._models = models
        return self._misfit

    def submit(self, request: Request, answer: Answer, *, attend: bool = True) -> None:
        if misfit := self.misfit:
            raise ModelNotReady(f"ensemble '{self.name}' does not fit its models: {misfit}")
        size = self.signature.check(request)
        request.fetch()
        with self._changed:
            if self._stopping:
                raise Stopping(f"model '{self.name}' takes no more requests")
            self._running += 1
        pending = Pending(request, answer, self.version, size)
        pending.queued = monotonic_ns()
        Flow(self, pending).begin()

    def ended(self, pending: Pending, error: SeptetError | None) -> None:
        """A request has been answered."""
        if error is not None:
            self.statistics.failed(pending, error)
        else:
            now = monotonic_ns()
            self.statistics.executed([pending], Phases(pending.queued, pending.queued, now, now))
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def close(self, timeout: float | None = None) -> None:
        with self._changed:
            self._stopping = True
            self._changed.wait_for(lambda: not self._running, timeout)

    def _config_of(self, step: Step) -> ModelConfig | None:
        try:
            return self.server.find(step.model_name, version_of(step)).config
        except SeptetError:
            return None


class Flow:
    """One request on its way through the steps."""

    def __init__(self, ensemble: Ensemble, pending: Pending) -> None:
        self._ensemble = ensemble
        self._pending = pending
        self._tensors: dict[str, Array] = dict(pending.request.inputs)
        self._waiting = list(ensemble.ensemble.step)
        self._running = 0
        self._asked: list[Request] = []
        self._over = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start every step that can run now; answer when there is nothing left to run."""
        if (gone := self._gone()) is not None:
            self._end(gone)
            return
        with self._lock:
            if self._over:
                return
            ready = [step for step in self._waiting if self._tensors.keys() >= set(step.input_map.values())]
            self._waiting = [step for step in self._waiting if step not in ready]
            self._running += len(ready)
            done = not self._running
        for step in ready:
            self._start(step)
        if done:
            self._answer()

    def _gone(self) -> SeptetError | None:
        """Why nobody waits for the answer any more."""
        asked = self._pending.request
        if asked.cancelled:
            return RequestCancelled(f"the request to '{asked.model}' was cancelled")
        if asked.deadline is not None and asked.deadline <= monotonic_ns():
            return DeadlineExceeded(f"the deadline passed before '{asked.model}' had run all its steps")
        return None

    def _start(self, step: Step) -> None:
        asked = self._pending.request
        request = Request(
            step.model_name,
            {name: self._tensors[tensor] for name, tensor in step.input_map.items()},
            version_of(step),
            asked.id,
            tuple(map(Wanted, step.output_map)),
            asked.parameters,
            deadline=asked.deadline,
            part_of=asked,
        )
        self._asked.append(request)
        if self._over:  # another step has failed meanwhile
            return
        self._ensemble.server.submit(request, lambda response: self._came(step, response))

    def _came(self, step: Step, response: Response) -> None:
        if response.error is not None:
            self._end(response.error)
        elif not response.final:
            self._end(Unsupported(f"'{step.model_name}' answers more than once, which no ensemble can use"))
        elif missing := step.output_map.keys() - response.outputs.keys():
            self._end(InferenceFailed(f"'{step.model_name}' gave no output '{min(missing)}'"))
        else:
            with self._lock:
                self._tensors.update((step.output_map[name], response.outputs[name]) for name in step.output_map)
                self._running -= 1
            self.begin()

    def _answer(self) -> None:
        wanted = [each.name for each in self._pending.request.wanted] or list(self._ensemble.signature.outputs)
        missing = [name for name in wanted if name not in self._tensors]
        self._end(
            InferenceFailed(f"no step gave '{missing[0]}'") if missing else None,
            {} if missing else {name: self._tensors[name] for name in wanted},
        )

    def _end(self, error: SeptetError | None, outputs: dict[str, Array] | None = None) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        if error is not None:
            for request in list(self._asked):  # nobody waits for the other steps any more
                request.cancel()
            self._pending.fail(error)
        else:
            self._pending.succeed(outputs or {})
        self._ensemble.ended(self._pending, error)
