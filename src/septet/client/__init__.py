# SPDX-License-Identifier: Apache-2.0
"""`Client` and `AsyncClient`: ask any server that speaks KServe v2 (ours, Triton's, others).

Over HTTP, gRPC, and either with shared memory; both over `septet.wire.call` and `septet.wire.session`::

    with Client("grpc://localhost:8001") as client:
        outputs = client.infer("identity", {"INPUT0": array})
"""

from septet.client.asynchronous import AsyncClient as AsyncClient
from septet.client.client import Client as Client
