# SPDX-License-Identifier: Apache-2.0
"""The remote procedures that are no inference: message in, message out, whatever carries them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from septet.errors import ModelUnknown, RequestInvalid, TooLarge, Unsupported, VersionUnknown
from septet.request import Parameter
from septet.serving.health import CHECK, check
from septet.serving.plane import Document, Plane
from septet.stubs import service_pb2
from septet.tensor import Buffer
from septet.wire.head import check_name

LARGEST_MESSAGE = 1 << 20
"""Bytes of a request that is no inference and no load."""

Procedure = Callable[[Plane, Any], Any]


def call(method: str, plane: Plane, message: Buffer) -> bytes:
    """The serialised answer of `method`, of `PROCEDURES` or Check; may block, and raises what the plane raises.

    Raises TooLarge, too, for a message that brings no files with it and is longer than any need be.
    """
    if len(message) > LARGEST_MESSAGE and method != "RepositoryModelLoad":
        raise TooLarge(f"the message has {len(message)} bytes: at most {LARGEST_MESSAGE} are taken")
    if method == CHECK:
        return check(plane, message)
    try:
        request = getattr(service_pb2, f"{method}Request").FromString(bytes(message))
    except DecodeError:
        raise RequestInvalid(f"the message is no {method}Request") from None
    return bytes(PROCEDURES[method](plane, request).SerializeToString())


def _server_live(plane: Plane, request: Any) -> Any:
    return service_pb2.ServerLiveResponse(live=plane.live())


def _server_ready(plane: Plane, request: Any) -> Any:
    return service_pb2.ServerReadyResponse(ready=plane.ready())


def _model_ready(plane: Plane, request: Any) -> Any:
    check_name(request.name)
    try:
        ready = plane.model_ready(request.name, request.version)
    except (ModelUnknown, VersionUnknown):
        ready = False  # as Triton says it, whose clients ask so until a model is there
    return service_pb2.ModelReadyResponse(ready=ready)


def _server_metadata(plane: Plane, request: Any) -> Any:
    return ParseDict(plane.server_metadata(), service_pb2.ServerMetadataResponse())


def _model_metadata(plane: Plane, request: Any) -> Any:
    check_name(request.name)
    return ParseDict(plane.model_metadata(request.name, request.version), service_pb2.ModelMetadataResponse())


def _model_config(plane: Plane, request: Any) -> Any:
    check_name(request.name)
    return service_pb2.ModelConfigResponse(config=plane.model_config(request.name, request.version))


def _model_statistics(plane: Plane, request: Any) -> Any:
    check_name(request.name)
    found = statistics_of(plane, request.name, request.version)
    return ParseDict({"model_stats": found}, service_pb2.ModelStatisticsResponse())


def statistics_of(plane: Plane, model: str, version: str) -> list[Document]:
    """The plane's statistics; an unknown model is an invalid argument here, as with Triton."""
    try:
        return plane.statistics(model, version)
    except (ModelUnknown, VersionUnknown) as error:
        raise RequestInvalid(str(error)) from None


def _index(plane: Plane, request: Any) -> Any:
    return ParseDict({"models": plane.index(request.ready)}, service_pb2.RepositoryIndexResponse())


def _load(plane: Plane, request: Any) -> Any:
    check_name(request.model_name)
    plane.load(request.model_name, _choices(request.parameters))
    return service_pb2.RepositoryModelLoadResponse()


def _unload(plane: Plane, request: Any) -> Any:
    check_name(request.model_name)
    dependents = _choices(request.parameters).get("unload_dependents") is True
    plane.unload(request.model_name, dependents)
    return service_pb2.RepositoryModelUnloadResponse()


def _choices(parameters: Any) -> dict[str, Parameter | bytes]:
    return {
        name: getattr(value, choice)
        for name, value in parameters.items()
        if (choice := value.WhichOneof("parameter_choice"))
    }


def _region_status(plane: Plane, request: Any) -> Any:
    response = service_pb2.SystemSharedMemoryStatusResponse()
    for one in plane.regions.status(request.name):
        status = response.regions[one.name]
        status.name, status.key, status.offset, status.byte_size = one.name, one.key, one.offset, one.size
    return response


def _register(plane: Plane, request: Any) -> Any:
    check_name(request.name)
    plane.regions.register(request.name, request.key, request.offset, request.byte_size)
    return service_pb2.SystemSharedMemoryRegisterResponse()


def _unregister(plane: Plane, request: Any) -> Any:
    plane.regions.unregister(request.name)
    return service_pb2.SystemSharedMemoryUnregisterResponse()


def _device_status(plane: Plane, request: Any) -> Any:
    return service_pb2.CudaSharedMemoryStatusResponse()


def _device_register(plane: Plane, request: Any) -> Any:
    raise Unsupported("shared memory of a GPU needs a GPU")


def _device_unregister(plane: Plane, request: Any) -> Any:
    return service_pb2.CudaSharedMemoryUnregisterResponse()


def _trace(plane: Plane, request: Any) -> Any:
    updates = {name: list(setting.value) or None for name, setting in request.settings.items()}
    settings = plane.trace_settings(request.model_name, updates or None)
    response = service_pb2.TraceSettingResponse()
    for name, value in settings.items():
        response.settings[name].value.extend([value] if isinstance(value, str) else value)
    return response


def _logging(plane: Plane, request: Any) -> Any:
    updates: dict[str, Parameter] = {
        name: getattr(setting, choice)
        for name, setting in request.settings.items()
        if (choice := setting.WhichOneof("parameter_choice"))
    }
    response = service_pb2.LogSettingsResponse()
    for name, value in plane.log_settings(updates or None).items():
        if isinstance(value, bool):
            response.settings[name].bool_param = value
        elif isinstance(value, int):
            response.settings[name].uint32_param = value
        else:
            response.settings[name].string_param = str(value)
    return response


PROCEDURES: dict[str, Procedure] = {
    "ServerLive": _server_live,
    "ServerReady": _server_ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server_metadata,
    "ModelMetadata": _model_metadata,
    "ModelConfig": _model_config,
    "ModelStatistics": _model_statistics,
    "RepositoryIndex": _index,
    "RepositoryModelLoad": _load,
    "RepositoryModelUnload": _unload,
    "SystemSharedMemoryStatus": _region_status,
    "SystemSharedMemoryRegister": _register,
    "SystemSharedMemoryUnregister": _unregister,
    "CudaSharedMemoryStatus": _device_status,
    "CudaSharedMemoryRegister": _device_register,
    "CudaSharedMemoryUnregister": _device_unregister,
    "TraceSetting": _trace,
    "LogSettings": _logging,
}
"""All of the service but ModelInfer and ModelStreamInfer."""

QUICK = {"ServerLive", "ServerReady", "ModelReady", CHECK}
"""Answered at once on the loop: however busy the threads are with loading, health is told."""

LOADS = {"RepositoryModelLoad", "RepositoryModelUnload"}
"""What takes as long as a model does to load or to end."""
