# SPDX-License-Identifier: Apache-2.0
"""NNCF's static INT8 for OpenVINO, where it is installed: pip install 'septet[nncf]'.

On transformers it quantises more than ONNX Runtime's tool does, and its files ran faster.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

from septet.errors import EngineUnavailable
from septet.tensor import Tensors

# it reports its use to its maker unless it is told not to
_SILENT = {"NNCF_CI": "1"}


def available() -> bool:
    """Whether NNCF is installed."""
    return find_spec("nncf") is not None


def quantise(path: Path, feeds: Sequence[Tensors], kept: Collection[str], transformer: bool, to: Path) -> None:
    """Write an IR of the FP32 ONNX file at `path`, in INT8 but for the layers whose names are `kept`, to `to`.

    Raises EngineUnavailable where NNCF is not installed.
    """
    if not available():
        raise EngineUnavailable("NNCF is not installed: pip install 'septet[nncf]'")
    os.environ |= _SILENT
    import nncf
    import openvino as ov

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = nncf.quantize(
            ov.Core().read_model(path),
            nncf.Dataset(list(feeds)),
            subset_size=len(feeds),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(names=list(kept), validate=False) if kept else None,
        )
    ov.save_model(found, to, compress_to_fp16=False)
