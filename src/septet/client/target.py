# SPDX-License-Identifier: Apache-2.0
"""Where a server is."""

from __future__ import annotations

from urllib.parse import urlsplit

from septet.errors import UsageError
from septet.wire.call import Asks, GrpcAsks, HttpAsks
from septet.wire.session import GrpcSession, HttpSession, Session

PORTS = {"http": 8000, "grpc": 8001}


class Target:
    """Where a server is, and in which protocol it is spoken to."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UsageError(f"{url!r} is no address: {error}") from None
        more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
        if parts.scheme not in PORTS or not parts.hostname or more:
            raise UsageError(f"a server's address is http://HOST:PORT or grpc://HOST:PORT, not {url!r}")
        self.scheme = parts.scheme
        self.host = parts.hostname
        try:
            self.port = PORTS[parts.scheme] if parts.port is None else parts.port
            self.host.encode("idna")
        except ValueError:
            raise UsageError(f"{url!r} has no host or port that could be") from None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def asks(self) -> Asks:
        """What can be asked."""
        return HttpAsks() if self.scheme == "http" else GrpcAsks()

    def session(self) -> Session:
        """A new connection's machine."""
        return HttpSession(self.address) if self.scheme == "http" else GrpcSession(self.address)
