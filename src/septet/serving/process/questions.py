# SPDX-License-Identifier: Apache-2.0
"""What a model in a process may ask its server: other models, metrics, and whether somebody still waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from septet.errors import ControlDisabled, ModelUnknown, RequestInvalid, SeptetError
from septet.model_config.config import ModelConfig
from septet.request import Answer, Request, Response, Wanted
from septet.serving.process.messages import (
    Asked,
    Call,
    Called,
    Cancel,
    FromCaller,
    Given,
    Load,
    NewMetric,
    Question,
    ReadMetric,
    Reply,
    Told,
    Unload,
    Update,
    pack,
    unpack,
)
from septet.serving.process.process import Process
from septet.serving.registry import Registry, Share

_LOG = logging.getLogger("septet.serving")


class Found(Protocol):
    """A version of a model that is served."""

    config: ModelConfig

    @property
    def ready(self) -> bool:
        """Whether it can answer at this moment."""
        ...


def _uncontrolled(model: str, choice: object) -> None:
    raise ControlDisabled(f"'{model}' cannot be loaded or unloaded from here")


@dataclass(frozen=True)
class Server:
    """The server's ways in: `submit` takes a request; `find` knows a version of a model, or raises SeptetError;
    `load`, with its parameters, and `unload`, perhaps with what a model is made of, raise SeptetError."""

    submit: Callable[[Request, Answer], None]
    find: Callable[[str, str], Found]
    load: Callable[[str, Mapping[str, str | bytes]], None] = _uncontrolled
    unload: Callable[[str, bool], None] = _uncontrolled
    registry: Registry = field(default_factory=Registry)
    """The metrics that models define."""

    def is_ready(self, model: str, version: str) -> bool:
        """Whether a version is there, and can answer at this moment."""
        try:
            return self.find(model, version).ready
        except SeptetError:
            return False

    def asked(self, asked: FromCaller, process: Process, cancelled: Callable[[int], bool], share: Share) -> None:
        """Answer a question, now or when the other model does; `share` are the metrics of the process."""
        if isinstance(asked, Call):
            self._call(asked, process)
        elif isinstance(asked, Cancel):
            if (request := process.calls.get(asked.call)) is not None:
                request.cancel()
        elif isinstance(asked, Question):
            yes = self.is_ready(asked.model, asked.version) if asked.model else cancelled(asked.number)
            process.answers.send(Reply(asked.call, yes))
        elif isinstance(asked, Load | Unload):
            name = f"septet-control-{asked.model}"  # a thread: meanwhile the process may be asked, and ask, more
            threading.Thread(target=self._control, args=(asked, process), name=name, daemon=True).start()
        elif isinstance(asked, Update):
            share.update(asked.metric, asked.value, add=asked.add)
        elif isinstance(asked, ReadMetric):
            process.answers.send(Told(asked.call, share.read(asked.metric)))
        else:
            process.answers.send(Told(asked.call, error=_define(asked, share)))

    def _call(self, call: Call, process: Process) -> None:
        def answer(response: Response) -> None:
            if response.final:
                process.calls.pop(call.call, None)
            process.answers.send(Called(call.call, _given(response), response.final))

        try:
            request = _request(call.request)
        except SeptetError as error:
            answer(Response(call.request.model, error=error))
        else:
            process.calls[call.call] = request
            self.submit(request, answer)

    def _control(self, asked: Load | Unload, process: Process) -> None:
        error = ""
        try:
            if isinstance(asked, Load):
                config = {"config": asked.config} if asked.config else {}
                self.load(asked.model, {**asked.files, **config})
            else:
                self.unload(asked.model, asked.dependents)
        except SeptetError as raised:
            error = str(raised)
        except Exception:
            _LOG.exception("a model had '%s' loaded or unloaded", asked.model)
            error = "internal error"
        process.answers.send(Told(asked.call, error=error))


def _refuse(request: Request, answer: Answer) -> None:
    answer(Response(request.model, error=ModelUnknown(f"'{request.model}' is not served")))


def _nobody(model: str, version: str) -> Found:
    raise ModelUnknown(f"'{model}' is not served")


ALONE = Server(_refuse, _nobody)
"""Of a model that is looked at and not served: there are no others."""


def _define(new: NewMetric, share: Share) -> str:
    """Why a model cannot have a metric, or empty."""
    try:
        share.hold(new.metric, new.name, new.kind, new.help, new.labels, new.buckets)
    except RequestInvalid as error:
        return str(error)
    return ""


def _request(asked: Asked) -> Request:
    try:
        inputs = {each.name: unpack(each, None) for each in asked.inputs}
    except ValueError as error:
        raise RequestInvalid(f"a tensor is not readable: {error}") from error
    parameters = dict(asked.parameters)
    if asked.timeout:
        parameters["timeout"] = asked.timeout
    wanted = tuple(Wanted(name) for name in asked.wanted)
    return Request(
        asked.model, inputs, asked.version, asked.id, wanted, parameters, deadline=asked.deadline, once=asked.once
    )


def _given(response: Response) -> Given:
    if response.error is not None:
        return Given([], {}, str(response.error), response.error.status.code)
    outputs = [pack(name, array, None) for name, array in response.outputs.items()]
    return Given(outputs, response.parameters)
