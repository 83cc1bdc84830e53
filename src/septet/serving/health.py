# SPDX-License-Identifier: Apache-2.0
"""gRPC's own protocol of health, ``grpc.health.v1.Health``, which probes and load balancers ask.

The server answers for itself (the empty name) and for its one service. SERVING is to be ready, as with Triton.
"""

from __future__ import annotations

from enum import IntEnum

from google.protobuf.message import DecodeError

from septet.errors import RequestInvalid, ServiceUnknown
from septet.serving.plane import Plane
from septet.stubs import SERVICE, service_pb2
from septet.tensor import Buffer

HEALTH = "grpc.health.v1.Health"
"""Full name of the service."""

CHECK, WATCH = "Check", "Watch"


class ServingStatus(IntEnum):
    """HealthCheckResponse.ServingStatus."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


def check(plane: Plane, message: Buffer) -> bytes:
    """The answer to Check. Raises ServiceUnknown, RequestInvalid."""
    status = _status(plane, message)
    if status is ServingStatus.SERVICE_UNKNOWN:
        raise ServiceUnknown("no such service is served here")
    return _response(status)


def watched(plane: Plane, message: Buffer) -> bytes:
    """What Watch tells at this moment; a service may be unknown now and known later. Raises RequestInvalid."""
    return _response(_status(plane, message))


def _status(plane: Plane, message: Buffer) -> ServingStatus:
    try:
        # As a HealthCheckRequest, it has one string as its first field
        service = service_pb2.SystemSharedMemoryStatusRequest.FromString(bytes(message)).name
    except DecodeError:
        raise RequestInvalid("the message is no HealthCheckRequest") from None
    if service not in ("", SERVICE):
        return ServingStatus.SERVICE_UNKNOWN
    return ServingStatus.SERVING if plane.ready() else ServingStatus.NOT_SERVING


def _response(status: ServingStatus) -> bytes:
    """A HealthCheckResponse: `status` as its first field."""
    return bytes((0x08, status))
