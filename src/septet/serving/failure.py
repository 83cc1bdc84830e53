# SPDX-License-Identifier: Apache-2.0
"""What a client is told when something went wrong."""

from __future__ import annotations

import logging

from septet.errors import SeptetError, ServingError

log = logging.getLogger("septet.serving")


def told(error: BaseException) -> SeptetError:
    """`error` as a client may see it: one of Septet's own as it is, anything else without a word of its inside.

    Its traceback is over with that: the frames in it hold whole bodies, and most tracebacks are part of a circle,
    which only a rare collection would free.
    """
    if not isinstance(error, SeptetError):
        log.error("a request failed in an unforeseen way", exc_info=error)
    _forget_traceback(error)
    return error if isinstance(error, SeptetError) else ServingError("internal error")


def _forget_traceback(error: BaseException) -> None:
    """Of `error`, and of what it came from."""
    rest: list[BaseException | None] = [error]
    while rest:
        each = rest.pop()
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            rest += each.__cause__, each.__context__
