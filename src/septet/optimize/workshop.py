# SPDX-License-Identifier: Apache-2.0
"""Workshop: makes a candidate's file of the prepared FP32 model, each file once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization.calibrate import TensorsData

from septet.errors import CandidateImpossible, ResultsNotWritten
from septet.optimize import calibrator, dynamic, graph, nncf, static
from septet.optimize.calibrator import Calibrator
from septet.optimize.candidate import Recipe
from septet.optimize.folder import whole_folder
from septet.tensor import Tensors

LOWEST_OPSET = 13
"""From here on ONNX knows scales for each channel."""


class Workshop:
    """Makes files in `folder` of the model at `path`, which passes have prepared; `feeds` are what its engine gets
    on calibration samples, asked for when first needed."""

    def __init__(self, path: Path, feeds: Callable[[], Sequence[Tensors]], folder: Path) -> None:
        self.path = path
        self._ask = feeds
        self._folder = folder
        self._feeds: Sequence[Tensors] | None = None
        self._ranges: dict[Calibrator, TensorsData] = {}
        self.layers = layers(graph.read(path), static.LAYERS)
        """The names of the layers that static quantisation takes, in the graph's order."""

    @property
    def feeds(self) -> Sequence[Tensors]:
        """The calibration data."""
        if self._feeds is None:
            self._feeds = self._ask()
        return self._feeds

    def file(self, recipe: Recipe) -> Path:
        """The file that `recipe` makes, made unless it is there. Raises CandidateImpossible, EngineUnavailable."""
        if recipe.quantiser == "none":
            return self.path
        folder = self._folder / recipe.key
        name = "model.xml" if recipe.quantiser == "nncf" else "model.onnx"
        if not folder.exists():
            with whole_folder(folder) as beside:
                self._make(recipe, beside / name)
        return folder / name

    def drop(self, recipe: Recipe) -> None:
        """Remove the file of a recipe that nobody needs any more."""
        if recipe.quantiser != "none":
            shutil.rmtree(self._folder / recipe.key, ignore_errors=True)

    def _make(self, recipe: Recipe, to: Path) -> None:
        try:
            if recipe.quantiser == "nncf":
                nncf.quantise(self.path, self.feeds, recipe.kept, _attends(graph.read(self.path)), to)
                return
            model = self._model()
            if recipe.quantiser == "dynamic":
                made = dynamic.quantise(model, recipe.kept)
            else:
                made = static.quantise(model, self._found(recipe, model), recipe.kept, outputs=recipe.outputs)
            graph.write(made, to, self.path)
        except (ValueError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
            if shutil.disk_usage(to.parent).free < sum(part.stat().st_size for part in graph.files(self.path)):
                raise ResultsNotWritten(f"{to}: not written: the disk is full") from error  # it may say anything
            raise CandidateImpossible(f"{recipe.words}: the file cannot be made: {error}") from error

    def _model(self) -> onnx.ModelProto:
        """The prepared model as quantisers want it."""
        model = graph.read(self.path)
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        if opset < LOWEST_OPSET:
            model = onnx.version_converter.convert_version(model, LOWEST_OPSET)
        graph.know_shapes(model)
        return model

    def _found(self, recipe: Recipe, model: onnx.ModelProto) -> TensorsData:
        kind: Calibrator = recipe.calibrator  # type: ignore[assignment]
        if kind not in self._ranges:
            tensors = calibrator.quantisable(model, static.KINDS)
            self._ranges[kind] = calibrator.ranges(self.path, tensors, self.feeds, kind)
        return self._ranges[kind]


def layers(model: onnx.ModelProto, kinds: Sequence[str]) -> list[str]:
    """The names of the nodes of these kinds, in the graph's order."""
    return [node.name for node in model.graph.node if node.op_type in kinds]


def _attends(model: onnx.ModelProto) -> bool:
    """Whether the network attends: a product of two things, neither of them weights, after a softmax."""
    makers, known = graph.producers(model), graph.constants(model)
    products = (node for node in model.graph.node if node.op_type == "MatMul")
    return any(
        makers[name].op_type == "Softmax"
        for node in products
        for name in node.input
        if name in makers and known.keys().isdisjoint(node.input)
    )
