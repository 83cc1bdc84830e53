# SPDX-License-Identifier: Apache-2.0
"""The last step before a response is written: classes instead of tensors, where a request wants them."""

from __future__ import annotations

from septet.request import Request, Response
from septet.serving.plane import Plane
from septet.wire.classes import top_classes


def classified(plane: Plane, request: Request, response: Response) -> Response:
    """`response`, in which the outputs that `request` wants as classes have become BYTES."""
    for wanted in request.wanted:
        if wanted.classes and wanted.name in response.outputs:
            labels = plane.labels(response.model, response.version, wanted.name)
            array = response.outputs[wanted.name]
            response.outputs[wanted.name] = top_classes(array, wanted.classes, labels, wanted.name)
    return response
