# SPDX-License-Identifier: Apache-2.0
"""A request on its way through the server, and its one answer."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from septet.errors import SeptetError
from septet.request import Answer, Request, Response
from septet.tensor import Array

_LOG = logging.getLogger("septet.serving")


class Pending:
    """A checked request: `size` samples, that may share a batch with those of the same `key`.

    `queued` and `expires` are ns of the monotonic clock; `expires` 0 is never. Answering a second time is
    without effect, so that nobody is answered twice whatever crashes.
    """

    __slots__ = ("answer", "answered", "expires", "key", "late", "level", "queued", "request", "size", "version")

    def __init__(self, request: Request, answer: Answer, version: str, size: int, key: Hashable = None) -> None:
        self.request = request
        self.answer = answer
        self.version = version
        self.size = size
        self.key = key
        self.level = 0
        self.late = False
        self.queued = 0
        self.expires = 0
        self.answered = False

    def succeed(self, outputs: dict[str, Array]) -> None:
        """Answer with `outputs`, once and for all."""
        if not self.answered:
            self.answered = True
            request = self.request
            self._give(Response(request.model, self.version, request.id, outputs))

    def fail(self, error: SeptetError) -> None:
        """Answer with `error`, once and for all."""
        if not self.answered:
            self.answered = True
            self._give(Response(self.request.model, self.version, self.request.id, error=error))

    def send(self, response: Response) -> None:
        """Give one of several responses; the final one ends it."""
        if not self.answered:
            self.answered = response.final
            self._give(response)

    def _give(self, response: Response) -> None:
        try:
            self.answer(response)
        except Exception:
            _LOG.exception("an answer to model %r was not taken", self.request.model)
