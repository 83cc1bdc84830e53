# SPDX-License-Identifier: Apache-2.0
"""What ends a connection of HTTP/2."""

from __future__ import annotations

from septet.wire.frames import Code


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


def require(condition: bool, code: Code, why: str) -> None:
    """Raise ConnectionFault unless `condition` holds."""
    if not condition:
        raise ConnectionFault(code, why)
