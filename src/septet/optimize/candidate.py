# SPDX-License-Identifier: Apache-2.0
"""Candidate: an engine, what it computes in, and how its file is made."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Quantiser = Literal["none", "static", "dynamic", "nncf"]


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a file is made of the FP32 model.

    `calibrator` is said where the quantiser has several; `outputs` says that what layers give is quantised too,
    not only what they take; `kept` names the layers that stay in floating point.
    """

    quantiser: Quantiser = "none"
    calibrator: str = ""
    outputs: bool = False
    kept: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name of its folder: the same recipe always has the same."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    @property
    def words(self) -> str:
        """It in a few words, such as «static, minmax, 3 layers kept»."""
        parts = [self.quantiser, self.calibrator, f"{len(self.kept)} layers kept" if self.kept else ""]
        return "" if self.quantiser == "none" else ", ".join(part for part in parts if part)


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to run the network."""

    engine: str
    precision: str
    recipe: Recipe = Recipe()

    @property
    def words(self) -> str:
        """It in a few words, such as «openvino int8 (static, minmax)»."""
        how = self.recipe.words
        return f"{self.engine} {self.precision}{f' ({how})' if how else ''}"


REFERENCE = Candidate("onnx", "f32")
"""What every candidate is held against: FP32 in ONNX Runtime."""
