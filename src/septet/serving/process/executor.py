# SPDX-License-Identifier: Apache-2.0
"""Runs batches in a Python model's process."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns

from septet.errors import InstanceCrashed, LoadFailed
from septet.serving.executor import Executor, Over
from septet.serving.pending import Pending
from septet.serving.process.channel import ChannelClosed
from septet.serving.process.dialogue import Dialogue, Nonsense
from septet.serving.process.ear import Ear
from septet.serving.process.flight import LARGEST, Fitness, Flight, largest_of
from septet.serving.process.messages import (
    Asked,
    Done,
    Execute,
    Failed,
    FromProcess,
    Sent,
    Setup,
)
from septet.serving.process.process import Process
from septet.serving.process.questions import Server
from septet.serving.registry import Share
from septet.serving.signature import Signature
from septet.serving.statistics import Statistics

_LOG = logging.getLogger("septet.serving")


@dataclass(frozen=True)
class Limits:
    """How long, in seconds, a model may take to be initialised, and to execute a batch; how many bytes its process
    may have for itself, where that has a bound."""

    start: float = 600.0
    execute: float = 300.0
    memory: int | None = None


class ProcessExecutor(Executor):
    """A Python model in a process of its own, whose responses are checked before anybody gets them.

    A decoupled model's responses may come at any time, so a thread listens for them; the others answer before
    the next batch. Small batches are sent by the server's loop itself, which listens for their answers besides:
    a thread would have to wait for the interpreter's lock. Raises LoadFailed where the model does not initialise.
    """

    def __init__(
        self,
        setup: Setup,
        cores: Sequence[int],
        signature: Signature,
        server: Server,
        limits: Limits,
        *,
        decoupled: bool,
    ) -> None:
        self._decoupled = decoupled
        self._limits = limits
        self._dead = threading.Event()
        self._changed = threading.Condition()
        self._on_death: Callable[[], None] = lambda: None
        self._share = Share(server.registry)
        self._process = Process(
            cores,
            lambda asked, process: server.asked(asked, process, self._cancelled, self._share),
            self._died,
            limits.memory,
        )
        self._dialogue = Dialogue(signature, self._process.inputs, self._process.outputs, decoupled=decoupled)
        try:
            self._ear = Ear(self._process.channel, self._heard)
        except OSError as error:
            self._process.close()
            raise LoadFailed(f"{setup.instance}: {error.strerror}") from error
        try:
            self._process.set_up(setup, limits.start)
        except BaseException:
            self._ear.end()
            raise
        self._fitness = Fitness()
        self._flight: Flight | None = None
        self._ends: queue.SimpleQueue[Done | Failed | None] = queue.SimpleQueue()
        if decoupled:
            threading.Thread(target=self._listen, name=f"septet-{setup.instance}-responses", daemon=True).start()

    @property
    def alive(self) -> bool:
        return not self._dead.is_set()

    @property
    def side_by_side(self) -> bool:
        return True

    @property
    def brief(self) -> bool:
        return not self._decoupled and bool(self._fitness)

    def is_brief(self, batch: Sequence[Pending]) -> bool:
        return self._fitness.admits(batch)

    @property
    def pid(self) -> int:
        """The number of the model's process."""
        return self._process.pid

    def watch(self, on_death: Callable[[], None]) -> None:
        self._on_death = on_death
        if self._dead.is_set():
            on_death()

    def execute(self, batch: list[Pending], statistics: Statistics) -> None:
        begin = monotonic_ns()
        asked = self._dialogue.ask(batch, statistics, begin)
        sent = monotonic_ns()
        try:
            end = self._run(Execute(asked))
            came = monotonic_ns()
            self._dialogue.finish(end, asked)
            self._fitness.saw(sent - begin + monotonic_ns() - came, len(batch), largest_of(batch))
            self._outstanding(asked)
        except Nonsense:
            raise self._process.nonsense() from None
        finally:
            if not self._decoupled or self._dead.is_set():
                self._dialogue.forget(asked)

    def begin(self, batch: list[Pending], statistics: Statistics, over: Over) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return super().begin(batch, statistics, over)
        begin, rest, gone = monotonic_ns(), b"", False
        try:
            asked = self._dialogue.ask(batch, statistics, begin)
            self._ear.listen(loop)
            rest = self._process.channel.send_at_once(Execute(asked))
        except ChannelClosed:
            gone = True
        except BaseException:
            self._dialogue.forget_all()
            raise
        timer = loop.call_later(self._limits.execute, self._late)
        self._flight = Flight(asked, largest_of(batch), over, loop, timer, monotonic_ns() - begin)
        if gone:
            self._fall(self._process.crashed)
        elif rest:
            self._beside(self._process.channel.send_rest, rest)
        return False

    def close(self) -> None:
        if self._decoupled:  # responses that are still to come are waited for
            with self._changed:
                self._changed.wait_for(lambda: not self._dialogue or self._dead.is_set(), self._limits.execute)
        self._process.close()
        self._ear.end()

    def _run(self, message: Execute) -> Done | Failed:
        """Have the process execute, and take what is sent meanwhile. Raises InstanceCrashed."""
        if not self._decoupled:
            self._process.send(message)
            answer = self._process.receive(self._limits.execute)
            while isinstance(answer, Sent):
                self._dialogue.take(answer)
                answer = self._process.receive(self._limits.execute)
            return _end(answer)
        self._process.send(message)
        try:
            ended = self._ends.get(timeout=self._limits.execute)
        except queue.Empty:
            raise self._process.hung(self._limits.execute) from None
        if ended is None:
            raise self._process.crashed()
        return ended

    def _outstanding(self, asked: Sequence[Asked]) -> None:
        """Of a model that answers every request once, wait for those answers that are still to be sent."""
        while not self._decoupled and self._dialogue.has(asked):
            answer = self._process.receive(self._limits.execute)
            if not isinstance(answer, Sent):
                raise Nonsense
            self._dialogue.take(answer)

    # A flight, on the loop

    def _heard(self) -> None:
        """The process has said something, or is gone."""
        flight = self._flight
        if flight is None:  # what is said is for the instance's thread
            self._ear.rest()
            return
        begin = monotonic_ns()
        try:
            for message in self._process.channel.arrived():
                self._hear(flight, message)
        except ChannelClosed:
            self._fall(self._process.crashed)
        except Exception as error:  # after which nobody knows where the next message begins
            if not isinstance(error, Nonsense):
                _LOG.exception("a model's process was not understood")
            self._fall(self._process.nonsense)
        else:
            flight.work += monotonic_ns() - begin
            self._look(flight)

    def _hear(self, flight: Flight, message: FromProcess) -> None:
        if isinstance(message, Sent):
            self._dialogue.take(message)
        elif flight.ended:
            raise Nonsense
        else:
            flight.ended = True
            end = _end(message)
            if _weight(end) <= LARGEST:
                self._dialogue.finish(end, flight.asked)
            else:
                flight.busy = True
                self._beside(self._finish_long, flight, end)

    def _finish_long(self, flight: Flight, end: Done | Failed) -> None:
        """Beside the loop, answer with tensors that are large."""
        begin = monotonic_ns()
        try:
            self._dialogue.finish(end, flight.asked)
        except Nonsense:
            after = partial(self._fall, self._process.nonsense)
        else:
            flight.work += monotonic_ns() - begin
            after = partial(self._look, flight)
        flight.busy = False
        with suppress(RuntimeError):  # the loop has ended, and so has everybody who waited
            flight.loop.call_soon_threadsafe(after)

    def _look(self, flight: Flight) -> None:
        """Whether that was all."""
        if flight is self._flight and flight.ended and not flight.busy and not self._dialogue:
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        self._flight = None
        flight.timer.cancel()
        self._fitness.saw(flight.work, len(flight.asked), flight.largest)
        # after all else of this turn: what comes with it can share the next batch
        flight.loop.call_soon(flight.over, None)

    def _late(self) -> None:
        """A flight takes too long."""
        self._fall(lambda: self._process.hung(self._limits.execute))

    def _fall(self, why: Callable[[], InstanceCrashed]) -> None:
        """The flight ends with the process: to find out why takes a while, and is done beside the loop."""
        flight, self._flight = self._flight, None
        self._ear.rest()
        if flight is not None:
            flight.timer.cancel()
            self._beside(self._crash, flight, why)

    def _crash(self, flight: Flight, why: Callable[[], InstanceCrashed]) -> None:
        try:
            error = why()
        except Exception:
            _LOG.exception("what a model's process died of is not known")
            error = InstanceCrashed("the model's process died")
        self._dialogue.fail(flight.asked, error)
        flight.over(error)

    def _beside(self, work: Callable[..., None], *given: object) -> None:
        try:
            threading.Thread(target=work, args=given, name=f"septet-beside-{self.pid}", daemon=True).start()
        except RuntimeError:  # no thread is left: better late than never
            work(*given)

    # A decoupled model

    def _listen(self) -> None:
        """Take a decoupled model's messages until its process is gone; then fail what it has not answered."""
        while True:
            try:
                message = self._process.channel.receive()
            except ChannelClosed:
                break
            if isinstance(message, Sent):
                self._dialogue.take(message)
                if message.final:
                    self._notify()
            elif isinstance(message, Done | Failed):
                self._ends.put(message)
        self._dead.set()
        self._notify()
        self._ends.put(None)
        self._dialogue.fail_all(InstanceCrashed("the model's process died"))

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _cancelled(self, number: int) -> bool:
        return self._dialogue.cancelled(number)

    def _died(self) -> None:
        self._share.close()
        self._dead.set()
        self._notify()
        self._on_death()


def _weight(end: Done | Failed) -> int:
    """The bytes of all tensors of the responses."""
    if isinstance(end, Failed):
        return 0
    outputs = [packed for given in end.responses if given is not None for packed in given.outputs]
    return sum([len(packed.data) + packed.size for packed in outputs])


def _end(answer: FromProcess) -> Done | Failed:
    return answer if isinstance(answer, Done | Failed) else Failed("unexpected answer")
