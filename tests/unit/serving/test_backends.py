# SPDX-License-Identifier: Apache-2.0
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from models_made import conv_model
from septet.devices.cpu import Cpu
from septet.model_config.config import ModelConfig
from septet.serving.backends import open_engine


@pytest.mark.skipif(len(Cpu.detect().cores) < 2, reason="one core leaves no choice")
def test_engines_of_several_instances_do_not_share_a_core(tmp_path: Path) -> None:
    """OpenVINO ties the first thread of each model that it has compiled to the same core, unless told not to."""
    config = ModelConfig("conv", backend="openvino", max_batch_size=512)
    model, image = conv_model(tmp_path / "model.onnx"), np.zeros((512, 3, 8, 8), np.float32)
    with open_engine(config, model, Cpu.detect().partition()) as engine:
        ended = threading.Event()

        def call() -> None:
            while not ended.is_set():
                engine.infer({"image": image})

        calling = threading.Thread(target=call)
        calling.start()
        assert calling.native_id is not None
        try:
            seen = {len(os.sched_getaffinity(calling.native_id)) for _ in range(2_000)}
        finally:
            ended.set()
            calling.join()
    assert seen == {len(os.sched_getaffinity(0))}
