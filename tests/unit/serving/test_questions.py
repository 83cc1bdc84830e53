# SPDX-License-Identifier: Apache-2.0
"""What a model asks its server."""

import socket
import threading
from types import SimpleNamespace

import numpy as np

from septet.errors import ModelUnknown
from septet.request import Answer, Request, Response
from septet.serving.process.channel import Channel
from septet.serving.process.messages import Asked, Call, Called, ToCaller
from septet.serving.process.outbox import Outbox
from septet.serving.process.questions import Found, Server
from septet.serving.registry import Registry, Share

COUNT = 20


def nobody(model: str, version: str) -> Found:
    raise ModelUnknown(model)


def test_a_model_that_does_not_read_its_answers_holds_up_nobody() -> None:
    def submit(request: Request, answer: Answer) -> None:
        answer(Response("m", id=request.id, outputs={"y": np.zeros(1_000_000, np.uint8)}))

    def ask() -> None:
        for number in range(COUNT):
            call = Call(number, Asked(-1, "m", "", str(number), [], [], {}))
            Server(submit, nobody).asked(call, process, lambda number: False, share)  # type: ignore[arg-type]

    share = Share(Registry())
    ours, theirs = socket.socketpair()
    channel: Channel[ToCaller, object] = Channel(ours, object)
    process = SimpleNamespace(answers=Outbox(channel, "answers"), calls={})
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(20)
    assert not asking.is_alive()
    reader: Channel[object, Called] = Channel(theirs, Called)
    assert [reader.receive(20).call for _ in range(COUNT)] == list(range(COUNT))
    channel.close()
    reader.close()
