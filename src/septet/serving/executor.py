# SPDX-License-Identifier: Apache-2.0
"""The promise of what runs a batch for one instance, and the member that runs an engine in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from time import monotonic_ns

from septet.engines.engine import Engine
from septet.errors import InstanceCrashed, RequestCancelled, SeptetError, TensorMismatch
from septet.serving.brevity import Brevity
from septet.serving.gather import Gather
from septet.serving.pending import Pending
from septet.serving.statistics import Phases, Statistics

Over = Callable[[InstanceCrashed | None], None]


class Executor(ABC):
    """Runs batches, one at a time, and answers every request of each."""

    @abstractmethod
    def execute(self, batch: list[Pending], statistics: Statistics) -> None:
        """Run `batch`, see that each request in it is answered, now or later, and count it in `statistics`.

        Raises InstanceCrashed, when nothing can be run any more; the caller answers whoever has no answer then.
        """

    def begin(self, batch: list[Pending], statistics: Statistics, over: Over) -> bool:
        """The same on a thread that has other work to do: whether it is over already. If not, `over` is called
        when it is, and everybody has an answer: on the same thread, or after a crash, that it is told, on any.
        """
        self.execute(batch, statistics)
        return True

    @property
    def side_by_side(self) -> bool:
        """Whether the work is done elsewhere, so that several get more of it done than one."""
        return False

    @property
    def alive(self) -> bool:
        """Whether it can run a batch."""
        return True

    @property
    def brief(self) -> bool:
        """Whether there are batches that are run sooner than another thread is woken."""
        return False

    def is_brief(self, batch: Sequence[Pending]) -> bool:
        """Whether `batch` is one of them."""
        return False

    @abstractmethod
    def watch(self, on_death: Callable[[], None]) -> None:
        """Have `on_death` called, on any thread, when it dies by itself."""

    @abstractmethod
    def close(self) -> None:
        """Free everything. Closing twice is harmless."""


class EngineExecutor(Executor):
    """An engine in this process: the batch's tensors are fetched, joined, run at once, and cut again."""

    def __init__(self, engine: Engine, gather: Gather) -> None:
        self._engine = engine
        self._gather = gather
        self._brevity = Brevity()
        # an array of texts does not say how long they are
        self._sized = not any(spec.dtype.hasobject for spec in engine.inputs)

    @property
    def brief(self) -> bool:
        return self._sized and bool(self._brevity)

    def is_brief(self, batch: Sequence[Pending]) -> bool:
        return self._sized and self._brevity.admits(_size(batch))

    def execute(self, batch: list[Pending], statistics: Statistics) -> None:
        begin = monotonic_ns()
        batch = fetched(batch, statistics)
        if not batch:
            return
        try:
            inputs = self._gather.join(batch)
            infer = monotonic_ns()
            outputs = self._engine.infer(inputs)
            output = monotonic_ns()
            self._brevity.saw(output - begin, _size(batch))
            self._gather.answer(batch, outputs)
        except TensorMismatch as error:
            if len(batch) == 1:
                fail(batch, error, statistics)
                return
            for pending in batch:  # what one of them brings is no fault of the others
                self.execute([pending], statistics)
        except SeptetError as error:
            fail(batch, error, statistics)
        else:
            statistics.executed(batch, Phases(begin, infer, output, monotonic_ns()))

    def watch(self, on_death: Callable[[], None]) -> None:
        """An engine lives as long as this process."""

    def close(self) -> None:
        self._engine.close()


def _size(batch: Sequence[Pending]) -> int:
    """The bytes of all inputs."""
    return sum([array.nbytes for pending in batch for array in pending.request.inputs.values()])


def fail(batch: list[Pending], error: SeptetError, statistics: Statistics) -> None:
    """Answer whatever in `batch` has no answer with `error`."""
    for pending in batch:
        if not pending.answered:
            statistics.failed(pending, error)
            pending.fail(error)


def fetched(batch: list[Pending], statistics: Statistics) -> list[Pending]:
    """`batch` with all inputs read that still lay in shared memory; whose are not there any more is answered."""
    lying = [pending for pending in batch if pending.request.lying]
    for pending in lying:
        try:
            pending.request.fetch()
        except SeptetError as error:
            fail([pending], error, statistics)
    return [pending for pending in batch if not pending.answered] if lying else batch


def drop_cancelled(batch: list[Pending], statistics: Statistics) -> list[Pending]:
    """`batch` without the requests that nobody waits for any more."""
    gone = [pending for pending in batch if pending.request.cancelled]
    fail(gone, RequestCancelled("the request was cancelled"), statistics)
    return [pending for pending in batch if not pending.answered] if gone else batch
