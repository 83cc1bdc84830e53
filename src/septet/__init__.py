# SPDX-License-Identifier: Apache-2.0
"""Septet: from a trained network to a fast, accuracy-checked, latency-tested, deployed service."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from septet.client import AsyncClient as AsyncClient
    from septet.client import Client as Client
    from septet.workloads.optimizing import optimize as optimize
else:
    from septet import optimize  # noqa: F401

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The clients, imported when asked for: the command line does without them."""
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module 'septet' has no attribute {name!r}")
    from septet import client

    return getattr(client, name)
