# SPDX-License-Identifier: Apache-2.0
"""A server of models: repository, queues, instances, and the fronts over HTTP and gRPC."""
