# SPDX-License-Identifier: Apache-2.0
"""The product: a model-repository entry, in the layout of Triton's repositories.

``NAME/config.pbtxt``, ``NAME/1/model.onnx`` (or ``model.xml`` and ``model.bin``), and beside them
``product.json``: the recipe, the ledger's row, and on what terms it was found.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import ResultsNotWritten, ResultsUnreadable
from septet.model_config.name import require_name
from septet.optimize import graph
from septet.optimize.batching import Batching, batching_of
from septet.optimize.candidate import Candidate
from septet.optimize.folder import remove_unfinished, whole_folder
from septet.optimize.ledger import Ledger, Row
from septet.optimize.passes import Applied
from septet.tensor import Tensors, TensorSpec

PRODUCT = "product.json"
VERSION = "1"

LARGEST_CALL = 4 << 20
"""Where the model's batch is free, a server takes as many samples at once as make inputs of so many bytes, or as
are worth a batch: joining more of them costs more than the engine gains."""

MAX_BATCH = 16_384

_PLATFORMS = {"onnx": 'platform: "onnxruntime_onnx"', "openvino": 'backend: "openvino"'}


class Product(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An optimised network: what was chosen, and all that must be said of it. `source` tells which FP32 model it
    was made of, as `septet.optimize.graph.digest` does."""

    name: str
    source: str
    file: str
    row: Row
    keep: float
    judged: str
    data: str
    notes: list[str]
    passes: list[Applied]
    speedup: float | None
    cpu: str
    versions: dict[str, str]

    @property
    def candidate(self) -> Candidate:
        """Engine, precision and recipe."""
        return self.row.candidate


def put(ledger: Ledger, file: Path, feed: Tensors, repository: Path, *, model: Path, joins: bool = True) -> Path:
    """Put the chosen row of `ledger`, whose model file is `file`, into `repository`; the folder of the entry.

    `feed` is what the engine gets for one sample; `model` and `joins` as in `Subject`. An earlier entry of that
    name is replaced, if it is one of Septet's. Raises ResultsNotWritten.
    """
    row = ledger.product
    assert row is not None
    entry = require_place(repository, ledger.name)
    new, old = (repository / f".{ledger.name}.{age}" for age in ("new", "old"))
    try:
        for left in (new, old):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        remove_unfinished(repository, new.name)
        with whole_folder(new) as beside:
            _place(file, model, beside / VERSION)
            _fill(ledger, row, file, feed, joins, beside)
        if entry.exists():
            entry.rename(old)
        new.rename(entry)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ResultsNotWritten(f"{entry}: not written: {error.strerror or error}") from error
    return entry


def require_place(repository: Path, name: str) -> Path:
    """Where the entry called `name` goes. Raises ResultsNotWritten where it plainly cannot: better before a search
    than after it. Raises RequestInvalid too, where no model can be called so."""
    require_name(name)
    entry = repository / name
    try:
        repository.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsNotWritten(f"{repository}: {error.strerror or error}") from error
    if entry.exists() and not (entry / PRODUCT).exists():
        raise ResultsNotWritten(f"{entry}: not replaced: it holds something that septet optimize did not make")
    if not os.access(repository, os.W_OK | os.X_OK):
        raise ResultsNotWritten(f"{repository}: no permission to write there")
    return entry


def is_product(repository: Path, name: str) -> bool:
    """Whether the repository has an entry called `name` that Septet made."""
    return (repository / name / PRODUCT).is_file()


def open_product(repository: Path, name: str) -> tuple[Product, Path]:
    """The product called `name` and the path of its model file. Raises ResultsUnreadable."""
    entry = repository / name
    path = entry / PRODUCT
    try:
        product = msgspec.json.decode(path.read_bytes(), type=Product)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsUnreadable(f"{path}: not a product of septet optimize: {error}") from error
    return product, entry / VERSION / product.file


def _place(file: Path, model: Path, folder: Path) -> None:
    """Have all that belongs to `file` in `folder`. What is `model`'s too, such as a table, is the user's, who may
    change it; the rest is the search's, which does not."""
    theirs = graph.files(model)
    for part in graph.files(file):
        place = graph.copy if any(part.samefile(other) for other in theirs) else graph.link
        place(part, folder / part.relative_to(file.parent))


def _fill(ledger: Ledger, row: Row, file: Path, feed: Tensors, joins: bool, entry: Path) -> None:
    product = Product(
        name=ledger.name,
        source=ledger.source,
        file=file.name,
        row=row,
        keep=ledger.keep,
        judged=ledger.judged,
        data=ledger.data,
        notes=ledger.notes,
        passes=ledger.passes,
        speedup=ledger.speedup(row),
        cpu=ledger.cpu,
        versions=ledger.versions,
    )
    (entry / PRODUCT).write_bytes(msgspec.json.format(msgspec.json.encode(product), indent=2) + b"\n")
    (entry / "config.pbtxt").write_text(config(ledger.name, row.candidate, file, feed, joins=joins))


def config(name: str, candidate: Candidate, file: Path, feed: Tensors, *, joins: bool = True) -> str:
    """The entry's ``config.pbtxt``, as Triton's model_config.proto spells it; the engine takes `feed` for one
    sample, and how it is laid out is found by timing that."""
    partition = Cpu.detect().partition()
    with load(candidate.engine, file, EngineConfig(candidate.precision, 1), partition) as engine:
        inputs, outputs = engine.inputs, engine.outputs
        batched = joins and all(spec.shape[:1] == (None,) for spec in (*inputs, *outputs))
        given = {spec.name: feed[spec.name] for spec in inputs}
        found = batching_of(engine, given, len(partition.cores), single=not batched)
        most = max(found.size, _most(given)) if batched else 0
    lines = [
        f"name: {json.dumps(name)}",
        _PLATFORMS[candidate.engine],
        f"default_model_filename: {json.dumps(file.name)}",
        f"max_batch_size: {most}",
        *_tensors("input", inputs, batched),
        *_tensors("output", outputs, batched),
        f"instance_group [ {{ kind: KIND_CPU count: {found.instances} }} ]",
        *(_batches(found, most) if batched else []),
        *_warmups(found, inputs, batched),
    ]
    if candidate.engine == "openvino":
        hint = "bf16" if "bf16" in candidate.precision else "f32"
        lines.append(f'parameters {{ key: "INFERENCE_PRECISION_HINT" value {{ string_value: "{hint}" }} }}')
    return "\n".join(lines) + "\n"


def _batches(found: Batching, most: int) -> list[str]:
    """Batches of single samples no larger than is worth it; of any number of rows where samples have several."""
    if found.size in (0, most):
        return ["dynamic_batching { }"]
    return [f"dynamic_batching {{ preferred_batch_size: [ {', '.join(map(str, range(1, found.size + 1)))} ] }}"]


def _warmups(found: Batching, inputs: Sequence[TensorSpec], batched: bool) -> list[str]:
    """Every size of batch that will be formed, since engines compile for each; none where lengths are free too."""
    shapes = [_dims(spec, batched) for spec in inputs]
    if any(None in shape for shape in shapes):
        return []
    tensors = " ".join(
        f"inputs {{ key: {json.dumps(spec.name)} value {{ data_type: {_type(spec.dtype)} "
        f"dims: [ {_written(shape)} ] zero_data: true }} }}"
        for spec, shape in zip(inputs, shapes, strict=True)
    )
    return [
        f'model_warmup [ {{ name: "batch of {size}" batch_size: {size} {tensors} }} ]'
        for size in range(1, found.size + 1)
    ]


def _most(feed: Tensors) -> int:
    """The largest batch of a call."""
    bytes_each = sum(array.nbytes / len(array) for array in feed.values())
    return max(1, min(MAX_BATCH, int(LARGEST_CALL / bytes_each)))


def _tensors(kind: str, specs: Sequence[TensorSpec], batched: bool) -> list[str]:
    """A block a tensor; where batches are free, their dimension goes without saying."""
    return [
        f"{kind} [ {{ name: {json.dumps(spec.name)} data_type: {_type(spec.dtype)} "
        f"dims: [ {_written(_dims(spec, batched))} ] {'reshape { shape: [ ] } ' * _scalar(spec, batched)}}} ]"
        for spec in specs
    ]


def _dims(spec: TensorSpec, batched: bool) -> tuple[int | None, ...]:
    """A tensor's dimensions as clients see them: that of the batch apart, and one where none is left."""
    return (1,) if _scalar(spec, batched) else spec.shape[batched:]


def _scalar(spec: TensorSpec, batched: bool) -> bool:
    """Whether a sample has one number of it, without a dimension, which Triton's configurations cannot say."""
    return len(spec.shape) == batched


def _written(dims: Sequence[int | None]) -> str:
    return ", ".join(str(-1 if dim is None else dim) for dim in dims)


def _type(dtype: np.dtype[np.generic]) -> str:
    """model_config.proto's name of a dtype."""
    names = {"bool": "BOOL", "bfloat16": "BF16", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    return f"TYPE_{names.get(dtype.name) or dtype.name.upper()}"
