# SPDX-License-Identifier: Apache-2.0
import inspect
import re
from time import monotonic_ns

import numpy as np
import pytest

from septet import errors
from septet.errors import ModelFailed, QueueFull, SeptetError, ServingError, Status
from septet.request import Request, Response


def test_a_request_knows_when_it_arrived_and_shares_nothing() -> None:
    before = monotonic_ns()
    first, second = (Request("m", {"x": np.zeros(1, np.float32)}) for _ in range(2))
    assert before <= first.arrived <= second.arrived <= monotonic_ns()
    first.parameters["priority"] = 1
    first.cancel()
    assert (second.parameters, second.cancelled, first.cancelled) == ({}, False, True)


def test_a_response_is_the_last_one_unless_it_says_otherwise() -> None:
    assert Response("m").final
    assert Response("m").error is None


@pytest.mark.parametrize(
    ("code", "http", "grpc"),
    [
        ("UNKNOWN", 400, 2),
        ("INTERNAL", 500, 13),
        ("NOT_FOUND", 404, 5),
        ("INVALID_ARG", 400, 3),
        ("UNAVAILABLE", 503, 14),
        ("UNSUPPORTED", 501, 12),
        ("ALREADY_EXISTS", 400, 6),
        ("CANCELLED", 400, 1),
        ("FORBIDDEN", 403, 7),
        ("TOO_LARGE", 413, 8),
        ("DEADLINE", 504, 4),
    ],
)
def test_codes_are_those_of_triton(code: str, http: int, grpc: int) -> None:
    status = Status[code]
    assert (status.code, status.http, status.grpc) == (code, http, grpc)


def test_every_error_is_in_the_tree_of_its_module() -> None:
    tree = inspect.getdoc(errors) or ""
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, SeptetError):
            assert re.search(rf"\b{name}\b", tree), name


def test_errors_carry_their_status_and_a_model_says_its_own() -> None:
    assert QueueFull("full").status is Status.UNAVAILABLE
    assert ServingError("?").status is Status.INTERNAL
    assert ModelFailed("no", Status.NOT_FOUND).status is Status.NOT_FOUND
    assert ModelFailed("no").status is Status.INTERNAL
