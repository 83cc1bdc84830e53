# SPDX-License-Identifier: Apache-2.0
"""What a client asks for, as it is written."""

from __future__ import annotations

from septet.request import Request
from septet.wire.call import HttpAsks
from septet.wire.shm import Regions


def test_names_do_not_lead_to_other_paths() -> None:
    call = HttpAsks().infer(Request("a/b?c", {}, "1/ready HTTP/1.1\r\nX: y"), {}, Regions())
    assert call.target == "/v2/models/a%2Fb%3Fc/versions/1%2Fready%20HTTP%2F1.1%0D%0AX%3A%20y/infer"
