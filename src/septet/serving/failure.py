# SPDX-License-Identifier: Apache-2.0
"""What a client is told when something went wrong."""

from __future__ import annotations

import logging

from septet.errors import SeptetError, ServingError

log = logging.getLogger("septet.serving")


def told(error: BaseException) -> SeptetError:
    """`error` as a client may see it: one of Septet's own as it is, anything else without a word of its inside."""
    if isinstance(error, SeptetError):
        return error
    log.error("a request failed in an unforeseen way", exc_info=error)
    return ServingError("internal error")
