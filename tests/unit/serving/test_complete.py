# SPDX-License-Identifier: Apache-2.0
"""What a model's file says for its configuration."""

from __future__ import annotations

import numpy as np
import pytest

from septet.model_config.config import ModelConfig
from septet.serving.complete import from_file
from septet.tensor import TensorSpec

X, Y = (TensorSpec(name, np.dtype(np.float32), (None, 4)) for name in "xy")


@pytest.mark.parametrize("backend", ["tensorflow", "openvino"])
def test_a_backend_is_called_as_here_or_as_in_triton(backend: str) -> None:
    config = ModelConfig(name="m", platform="tensorflow_savedmodel")
    assert from_file(config, [X], [Y], {backend: 9, "": 5}).max_batch_size == 9
    assert from_file(config, [X], [Y], {"onnxruntime": 9}).max_batch_size == 4
