# SPDX-License-Identifier: Apache-2.0
"""Triton-compatible serving: models behind HTTP and gRPC.

Where Septet differs from Triton (2.51) on purpose, over HTTP unless said otherwise:

==========================================  ===========================  ==============================
what                                        Triton                       Septet
==========================================  ===========================  ==============================
JSON integer that its datatype cannot hold  wraps silently, 200          400
NaN or infinity in a JSON request           taken, 200                   400
NaN or infinity in a JSON response          written bare (no JSON), 200  400: ask for ``binary_data``
body that is no JSON, or of a wrong type    500                          400
number of JSON elements is not the shape's  500                          400
output in shared memory does not fit        500                          400
region that is not there to register        500                          400
an output asked for twice                   200                          400
``Inference-Header-Content-Length: abc``    taken for 0                  400
body above the limit                        read, then refused           413 before it is read
above 1 MiB beside tensors and files        taken                        400, 413
path with ``..``, ``%``, a backslash, NUL   404, or a file is sought     400
client hangs up                             its work runs on             its work is cancelled
client truncates its shared memory          the server may die           400, that request alone
regions of shared memory without end        descriptors run out          503, RESOURCE_EXHAUSTED
``generate`` of several responses           error text with 200          400
live and ready                              empty body                   JSON, which KServe's client reads
log and trace files over the network        any file is written          refused
shutdown                                    refuses what still comes     not ready first, then drains
a message above the limit, gRPC             2 GB                         64 MiB, RESOURCE_EXHAUSTED
health of a service not there, gRPC         the server's                 NOT_FOUND
refusals because a queue is full            in no counter                REJECTED
queue without ``max_queue_size``            grows without bound          16,384 requests
a Python model's process dies               ready, and stays dead        not ready, restarted
memory of an unloaded model                 kept by the process          returned to the system
text for an ONNX model that is no UTF-8     taken                        400, that request alone
ONNX model with bfloat16 in or out          taken                        refused when it is loaded
==========================================  ===========================  ==============================
"""
