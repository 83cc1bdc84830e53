# SPDX-License-Identifier: Apache-2.0
"""Triton's protobuf messages and gRPC service, as its own client package ships them.

The one file that imports ``tritonclient``: a second copy of these messages under the same file names would clash
in protobuf's descriptor pool.
"""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

SERVICE = "inference.GRPCInferenceService"
"""Full name of the gRPC service; a method's path is ``/SERVICE/METHOD``."""

__all__ = ["SERVICE", "model_config_pb2", "service_pb2", "service_pb2_grpc"]
