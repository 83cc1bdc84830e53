# SPDX-License-Identifier: Apache-2.0
"""A version of a model that cannot run."""

import gc
import weakref

import numpy as np
import pytest

from septet.errors import ModelNotReady
from septet.model_config.config import ModelConfig
from septet.request import Request
from septet.serving.expiry import Expiry
from septet.serving.served import Served
from septet.serving.signature import Signature
from septet.tensor import Array
from serving_made import Answers


def refused(served: Served) -> weakref.ref[Array]:
    """A tensor that `served` refused to take."""
    array = np.zeros(8, np.float32)
    with pytest.raises(ModelNotReady, match="its process died"):
        served.submit(Request("m", {"x": array}), Answers())
    return weakref.ref(array)


def test_requests_that_a_broken_model_refused_are_not_kept() -> None:
    config = ModelConfig(name="m")
    served = Served(config, "1", Signature(config), Expiry())
    served.instance_failed(ModelNotReady("m_0 does not start: its process died"))
    tensors = [refused(served) for _ in range(3)]
    gc.collect()
    assert [tensor() for tensor in tensors] == [None] * 3
