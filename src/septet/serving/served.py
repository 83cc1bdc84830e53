# SPDX-License-Identifier: Apache-2.0
"""One version of a model, loaded: its queue, its instances, its statistics."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from septet.errors import ModelNotReady, QueueFull, SeptetError, Unsupported
from septet.model_config.config import ModelConfig
from septet.request import Answer, Request
from septet.serving.expiry import Expiry
from septet.serving.instance import Instance
from septet.serving.pending import Pending
from septet.serving.scheduler import Scheduler
from septet.serving.signature import Signature
from septet.serving.statistics import Statistics
from septet.wire.memory import Memory

DECOUPLED = "has a decoupled transaction policy: ask it over ModelStreamInfer or generate_stream"


class Served:
    """Answers requests from `start` on until `close`. `platform` is Triton's word for what runs it."""

    def __init__(self, config: ModelConfig, version: str, signature: Signature, expiry: Expiry) -> None:
        self.name, self.version = config.name, version
        self.config = config
        self.signature = signature
        self.statistics = Statistics()
        self.scheduler = Scheduler(config, expiry, self._drop)
        self.instances: Sequence[Instance] = ()
        self.labels: dict[str, tuple[str, ...]] = {}
        self.load_seconds = 0.0
        self._broken = ""
        self.fetches = False
        """Whether what runs its batches fetches by itself what still lies in shared memory."""
        self._checked = Memory()
        self._keyed = config.dynamic_batching is not None and not signature.uniform

    def submit(self, request: Request, answer: Answer, *, attend: bool = True) -> None:
        """Check and queue a request; without `attend`, which is to follow, nobody is told. `answer` is called, or
        there is raised RequestInvalid, QueueFull, Stopping, ModelNotReady (no instance can be started),
        Unsupported (a decoupled model, and a client that takes one answer)."""
        if self._broken:
            if not self.ready:
                # a new error each time: one kept for all would keep, in its traceback, every request it refused
                raise ModelNotReady(self._broken)
            self._broken = ""
        if request.once and self.config.decoupled:
            raise Unsupported(f"'{self.name}' {DECOUPLED}")
        about: tuple[int, Hashable] | None = self._checked.get(request.likeness)
        size, key = about or self._check(request)
        if not self.fetches:
            request.fetch()
        pending = Pending(request, answer, self.version, size, key)
        try:
            self.scheduler.enqueue(pending, rouse=attend)
        except QueueFull as error:
            self.statistics.failed(pending, error)
            raise

    def _check(self, request: Request) -> tuple[int, Hashable]:
        """How many samples `request` brings, and what others must have alike to share its batch; raises
        RequestInvalid."""
        about = self.signature.check(request), self.signature.key(request) if self._keyed else None
        if request.likeness is not None:
            self._checked.keep(request.likeness, about)
        return about

    def attend(self) -> None:
        """See to what was submitted: on this thread, where an instance that is idle would be woken for less."""
        free = [instance for instance in self.instances if instance.brief]
        if free and not free[0].side_by_side:
            del free[1:]
        for place, instance in enumerate(free):
            instance.run_in_stead(len(free) - place)
        if len(self.scheduler) and not all(instance.away for instance in self.instances):
            self.scheduler.rouse()

    def start(self) -> None:
        """Let the instances take requests."""
        for instance in self.instances:
            instance.start()

    @property
    def ready(self) -> bool:
        """Whether at least one instance can run a batch."""
        return any(instance.alive for instance in self.instances)

    @property
    def reason(self) -> str:
        """What is wrong with instances that cannot run, or empty."""
        reasons = [instance.reason for instance in self.instances if not instance.alive]
        return f"{len(reasons)} of {len(self.instances)} instances are down: {reasons[0]}" if reasons else ""

    def close(self, timeout: float | None = None) -> None:
        """Take nothing new, run what waits (for at most `timeout` seconds), and free everything."""
        self.scheduler.stop()
        for instance in self.instances:
            instance.close(timeout)

    def instance_failed(self, error: SeptetError) -> None:
        """An instance does not start again: where no other is left, nobody is to wait for it."""
        if not self.ready:
            self._broken = str(error)
            self.scheduler.abandon(error)

    def _drop(self, pending: Pending, error: SeptetError) -> None:
        self.statistics.failed(pending, error)
        pending.fail(error)
