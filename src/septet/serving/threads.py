# SPDX-License-Identifier: Apache-2.0
"""The threads beside the event loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

WORKERS, LOADERS = 16, 16


class Threads:
    """What would hold up the loop is done here: `work` of requests, and apart from it `loads`, which take as long
    as models do. However many of these wait, texts are read, bodies inflated and metadata told."""

    def __init__(self) -> None:
        self.work = ThreadPoolExecutor(WORKERS, "septet-door")
        self.loads = ThreadPoolExecutor(LOADERS, "septet-door-loads")

    def close(self) -> None:
        """Begin nothing more; what has begun is not waited for."""
        for executor in (self.work, self.loads):
            executor.shutdown(wait=False, cancel_futures=True)
