# SPDX-License-Identifier: Apache-2.0
"""A Python model that runs an engine: what an isolated instance executes in its process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from septet.devices.cpu import Cpu
from septet.errors import SeptetError
from septet.model_config.text import parse_json
from septet.request import Request, Response, Wanted
from septet.serving.backends import find_file, has_batches, open_engine
from septet.serving.gather import Gather
from septet.serving.pending import Pending
from septet.serving.process.requests import InferenceRequest
from septet.serving.process.tensors import InferenceResponse, Tensor, TritonError
from septet.serving.signature import Signature


class TritonPythonModel:
    """Joins the requests it is given, runs them at once on the cores of its process, and cuts the answers."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine. Raises SeptetError."""
        config = parse_json(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        self._engine = open_engine(config, find_file(config, folder, folder.parent), Cpu.detect().partition())
        self._engine.batched = has_batches(config)
        self._batched = config.max_batch_size > 0
        self._gather = Gather(config, Signature(config))

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        """One response a request, all of them the same error where the engine fails."""
        answers: list[Response] = []
        batch = [self._pending(each, answers) for each in requests]
        try:
            self._gather.answer(batch, self._engine.infer(self._gather.join(batch)))
        except SeptetError as error:
            failed = InferenceResponse(error=TritonError(str(error), error.status.code))
            return [failed] * len(batch)
        return [InferenceResponse([Tensor(*each) for each in answer.outputs.items()]) for answer in answers]

    def finalize(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _pending(self, request: InferenceRequest, answers: list[Response]) -> Pending:
        inputs = {each.name(): each.as_numpy() for each in request.inputs()}
        wanted = tuple(Wanted(name) for name in request.requested_output_names())
        size = len(next(iter(inputs.values()))) if self._batched else 1
        return Pending(Request(request.model_name(), inputs, wanted=wanted), answers.append, "", size)
