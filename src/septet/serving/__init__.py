# SPDX-License-Identifier: Apache-2.0
"""Triton-compatible serving: models behind HTTP and gRPC."""
