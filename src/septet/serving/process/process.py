# SPDX-License-Identifier: Apache-2.0
"""The server's end of a model's process: start it, talk to it, notice its death, end it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from septet.errors import InstanceCrashed, LoadFailed
from septet.request import Request
from septet.serving.process.arena import Arena
from septet.serving.process.channel import Channel, ChannelClosed
from septet.serving.process.messages import (
    OUT_OF_MEMORY,
    Failed,
    Finish,
    FromCaller,
    FromProcess,
    Ready,
    Setup,
    ToCaller,
    ToProcess,
)
from septet.serving.process.outbox import Outbox

_MODULE = "septet.serving.process.child"
_PYTHON = ("-P", "-u")
"""Import nothing from the folder that the server happens to run in; lose nothing that a model prints."""

_FINISH_SECONDS = 5.0

OnQuestion = Callable[[FromCaller, "Process"], None]


class Process:
    """A running process, pinned to `cores`, with at most `memory` bytes of its own (RLIMIT_DATA).

    `on_question` is called, on a thread of this process, with whatever the model asks; `on_death`, on the same
    thread, when the process has ended in any way.
    """

    def __init__(
        self,
        cores: Sequence[int],
        on_question: OnQuestion,
        on_death: Callable[[], None],
        memory: int | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        our_calls, their_calls = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self.inputs, self.outputs = Arena.create(), Arena.create()
        passed = (theirs.fileno(), their_calls.fileno(), self.inputs.descriptor, self.outputs.descriptor, lifeline)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, *_PYTHON, "-m", _MODULE, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C reaches only the server, which then ends its models
            )
        except OSError as error:
            for end in (ours, our_calls, self.inputs, self.outputs):
                end.close()
            os.close(self._lifeline)
            raise LoadFailed(f"no process could be started: {error.strerror}") from error
        finally:
            for theirs_alone in (theirs, their_calls):
                theirs_alone.close()
            os.close(lifeline)
        with suppress(OSError):  # it may be gone already: the first message tells
            os.sched_setaffinity(self._popen.pid, cores)
            if memory is not None:
                resource.prlimit(self._popen.pid, resource.RLIMIT_DATA, (memory, memory))
        self.channel: Channel[ToProcess, FromProcess] = Channel(ours, FromProcess)
        self._calls: Channel[ToCaller, FromCaller] = Channel(our_calls, FromCaller)
        self.answers = Outbox(self._calls, f"septet-answers-{self.pid}")
        self.calls: dict[int, Request] = {}
        """What the model has asked others, and has no last answer to."""
        self._closing = threading.Lock()
        self._closed = False
        self._listener = threading.Thread(
            target=self._listen, args=(on_question, on_death), name=f"septet-calls-{self.pid}", daemon=True
        )
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    def set_up(self, setup: Setup, seconds: float) -> Ready:
        """Have the model initialised. Raises LoadFailed, after which the process is closed."""
        try:
            self.channel.send(setup)
            answer = self.channel.receive(seconds)
        except TimeoutError as error:
            self.kill()
            raise LoadFailed(f"{setup.instance}: not initialised within {seconds:g} s") from error
        except ChannelClosed as error:
            raise LoadFailed(f"{setup.instance}: the process died while it started ({self.death()})") from error
        finally:
            if self._popen.poll() is not None:
                self.close()
        if isinstance(answer, Ready):
            return answer
        self.close()
        raise LoadFailed(f"{setup.instance}: {answer.text if isinstance(answer, Failed) else 'unexpected answer'}")

    def send(self, message: ToProcess) -> None:
        """Send a message. Raises InstanceCrashed."""
        try:
            self.channel.send(message)
        except ChannelClosed as error:
            raise self.crashed() from error

    def receive(self, seconds: float) -> FromProcess:
        """Wait for a message. Raises InstanceCrashed when the process dies, hangs or talks nonsense."""
        try:
            return self.channel.receive(seconds)
        except TimeoutError:
            raise self.hung(seconds) from None
        except ChannelClosed as error:
            raise self.crashed() from error

    def hung(self, seconds: float) -> InstanceCrashed:
        """End the process, which did not answer in time; the error to be raised."""
        self.kill()
        return InstanceCrashed(f"the model did not answer within {seconds:g} s, and its process was ended")

    def crashed(self) -> InstanceCrashed:
        """See that the process is gone; the error to be raised."""
        died = self.death()
        self.kill()
        return InstanceCrashed(f"the model's process died ({died})")

    def nonsense(self) -> InstanceCrashed:
        """End the process, whose answer fits no question; the error to be raised."""
        self.kill()
        return InstanceCrashed("the model's process gave an answer that fits no question, and was ended")

    def death(self) -> str:
        """What the process died of, in words; waits for it a moment."""
        try:
            status = self._popen.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            return "still running"
        if status == OUT_OF_MEMORY:
            return "it reached its memory limit"
        return f"signal {_signal(-status)}" if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """End the process, and whatever it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def close(self) -> None:
        """Let the model finalise, end the process, free everything. Closing twice is harmless."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        with suppress(ChannelClosed):
            self.channel.send(Finish())
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_FINISH_SECONDS)
        self.kill()
        os.close(self._lifeline)
        self.channel.close()
        self.answers.close()
        self._calls.close()
        if threading.current_thread() is not self._listener:
            self._listener.join()
        self.inputs.close()
        self.outputs.close()

    def _listen(self, on_question: OnQuestion, on_death: Callable[[], None]) -> None:
        try:
            while True:
                on_question(self._calls.receive(), self)
        except ChannelClosed:
            for request in list(self.calls.values()):
                request.cancel()  # nobody waits for the answers any more
            on_death()


def _signal(number: int) -> str:
    """A signal's name; those of real time have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)
