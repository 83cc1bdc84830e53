# SPDX-License-Identifier: Apache-2.0
"""The process of one instance of a Python model: ``python -m septet.serving.process.child DESCRIPTORS``."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import inspect
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from septet.request import SCHEDULING
from septet.serving.process import pb_utils
from septet.serving.process.arena import Arena
from septet.serving.process.caller import Caller
from septet.serving.process.channel import Channel, ChannelClosed
from septet.serving.process.messages import (
    OUT_OF_MEMORY,
    Asked,
    Done,
    Execute,
    Failed,
    FromProcess,
    Given,
    Ready,
    Sent,
    Setup,
    ToProcess,
    pack,
    sendable,
    unpack,
)
from septet.serving.process.requests import HOST, InferenceRequest
from septet.serving.process.tensors import InferenceResponse, Tensor, TritonError

MODULE = "triton_python_backend_utils"

OOM_SCORE = 500
"""As if it used half of the machine's memory besides what it uses (Linux, proc_pid_oom_score_adj(5))."""

_UNANSWERED = Given(
    [], {}, "execute must return a list of responses: it gave none to this request, nor took its response sender"
)


class Child:
    """One model, asked by its server over `channel`, until that says so or is gone."""

    def __init__(
        self, channel: Channel[FromProcess, ToProcess], caller: Caller, inputs: Arena, outputs: Arena
    ) -> None:
        self.caller = caller
        self.loading = ""
        self._channel = channel
        self._inputs, self._outputs = inputs, outputs
        self._model: Any = None
        self._decoupled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Answer everything. Returns when there is no more."""
        setup = self._channel.receive()
        if not isinstance(setup, Setup) or not self._initialise(setup):
            return
        while isinstance(message := self._channel.receive(), Execute):
            self._channel.send(self._execute(message.requests))
        if hasattr(self._model, "finalize"):
            self._model.finalize()

    def _initialise(self, setup: Setup) -> bool:
        """Whether the model can be asked now."""
        pb_utils.MODEL_DIR.append(setup.folder)
        config = json.loads(setup.config)
        self.loading = setup.name
        try:
            kind = _import(Path(setup.file)).TritonPythonModel
            if setup.complete:
                self._channel.send(Ready(json.dumps(_complete(kind, config))))
                return False
            self._decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
            self._model = kind()
            if hasattr(self._model, "initialize"):
                self._model.initialize(_arguments(setup))
            if inspect.iscoroutinefunction(self._model.execute):
                self._loop = _running_loop()
        except BaseException as error:
            self._channel.send(Failed(_told(error)))
            return False
        self.loading = ""
        self._channel.send(Ready())
        return True

    def _execute(self, asked: Sequence[Asked]) -> FromProcess:
        requests = [self._request(each) for each in asked]
        try:
            responses = self._model.execute(requests)
            if inspect.isawaitable(responses):
                assert self._loop is not None
                responses = asyncio.run_coroutine_threadsafe(_awaited(responses), self._loop).result()
            return self._done(requests, responses)
        except MemoryError as error:
            if resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
                return _failed(requests, _told(error))
            traceback.print_exception(error)
            os._exit(OUT_OF_MEMORY)  # what the model has leaked goes with its process
        except Exception as error:
            return _failed(requests, _told(error))

    def _done(self, requests: Sequence[InferenceRequest], responses: Any) -> FromProcess:
        if responses is None:
            responses = [None] * len(requests)
        elif self._decoupled:
            return _failed(requests, "execute of a decoupled model must return None")
        if not isinstance(responses, list | tuple) or len(responses) != len(requests):
            have = len(responses) if isinstance(responses, list | tuple) else type(responses).__name__
            return _failed(requests, f"execute must return a list of {len(requests)} responses, not {have}")
        self._outputs.clear()
        return Done([self._returned(*each) for each in zip(requests, responses, strict=True)])

    def _returned(self, request: InferenceRequest, response: Any) -> Given | None:
        """What ``execute`` returned for a request; ``None`` where that is answered by its response sender."""
        if response is not None:
            request.returned()
            return given_of(response, self._outputs)
        return None if self._decoupled or request.has_sender else _UNANSWERED

    def _request(self, asked: Asked) -> InferenceRequest:
        parameters = {name: value for name, value in asked.parameters.items() if name not in SCHEDULING}
        request = InferenceRequest(
            [Tensor(each.name, unpack(each, self._inputs)) for each in asked.inputs],
            asked.wanted,
            asked.model,
            int(asked.version or -1),
            asked.id,
            _correlation(parameters.pop("sequence_id", 0)),
            bool(parameters.pop("sequence_start", False)) + 2 * bool(parameters.pop("sequence_end", False)),
            asked.timeout,
            None,
            None,
            parameters,
        )
        request.came(asked.number, self._send)
        if self._decoupled:
            request.get_response_sender()  # which says so where the model drops the request
        return request

    def _send(self, number: int, response: InferenceResponse | None, final: bool) -> None:
        given = None if response is None else given_of(response, None)
        self._channel.send(Sent(number, given, final))


def _failed(requests: Sequence[InferenceRequest], text: str) -> Failed:
    """``execute`` as a whole failed: that is the answer to all of `requests`."""
    for request in requests:
        request.returned()
    return Failed(text)


def _correlation(value: object) -> int | str:
    return value if isinstance(value, int | str) else 0


def given_of(response: Any, arena: Arena | None) -> Given:
    """A response as it is sent; an error where a model's response is none, or cannot be sent."""
    try:
        if not isinstance(response, InferenceResponse):
            raise TypeError(f"a response must be an InferenceResponse, not {type(response).__name__}")
        return sendable(_given(response, arena))
    except MemoryError:
        raise
    except Exception as error:
        return Given([], {}, _told(error))


def _given(response: InferenceResponse, arena: Arena | None) -> Given:
    error = response.error()
    if error is not None:
        code = error.code() if isinstance(error, TritonError) else TritonError.INTERNAL
        return Given([], {}, str(error), code)
    outputs = [pack(each.name(), each.as_numpy(), arena) for each in response.output_tensors()]
    return Given(outputs, response.given_parameters)


def _import(file: Path) -> ModuleType:
    """The model's file as a module; files beside it can be imported from it."""
    sys.modules[MODULE] = pb_utils
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location("model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    spec.loader.exec_module(module)
    return module


def _complete(kind: Any, config: dict[str, Any]) -> dict[str, Any]:
    if not hasattr(kind, "auto_complete_config"):
        return config
    completed = kind.auto_complete_config(pb_utils.ModelConfig(config))
    if not isinstance(completed, pb_utils.ModelConfig):
        raise TypeError("auto_complete_config must return the configuration that it is given")
    return completed.as_dict()


def _arguments(setup: Setup) -> dict[str, str]:
    return {
        "model_config": setup.config,
        "model_name": setup.name,
        "model_version": setup.version,
        "model_repository": str(Path(setup.folder).parent),
        "model_instance_name": setup.instance,
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }


def _running_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="septet-coroutines", daemon=True).start()
    return loop


async def _awaited(responses: Any) -> Any:
    return await responses


def _told(error: BaseException) -> str:
    """One line for the client; where it came from is for the log."""
    traceback.print_exception(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())[:1_000]
    return text.encode(errors="backslashreplace").decode()


def _end_with_parent(lifeline: int) -> None:
    """Wait until the other end of a pipe is closed: the server has ended, whatever it died of."""
    os.read(lifeline, 1)
    os._exit(1)


def _be_killed_with_parent(lifeline: int) -> None:
    """Have the kernel see to that (Linux, fcntl(2), F_SETSIG): a model may keep all threads from running."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _die_first() -> None:
    """Have the kernel, where memory runs out, end this process rather than the server, which starts it again."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def main(descriptors: Sequence[int]) -> None:
    """Serve the model that the server names over the first of its `descriptors`."""
    _die_first()
    channel, calls, inputs, outputs, lifeline = descriptors
    _be_killed_with_parent(lifeline)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    child = Child(
        Channel(socket.socket(fileno=channel), ToProcess),
        Caller(socket.socket(fileno=calls)),
        Arena(inputs),
        Arena(outputs),
    )
    HOST.append(child)
    with suppress(ChannelClosed):  # the server hung up
        child.run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the model must not keep its process


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
