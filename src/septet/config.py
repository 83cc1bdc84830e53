# SPDX-License-Identifier: Apache-2.0
"""How an engine is to run a model."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("f32", "bf16", "int8")
"""``f32`` and ``bf16`` say what the engine computes in; ``int8`` says that the file is quantised and that
whatever the file leaves in floating point is computed in f32."""


@dataclass(frozen=True)
class EngineConfig:
    """Settings of one engine.

    `precision` is always explicit: left alone, OpenVINO computes in bf16 wherever the CPU can, and a
    reference taken like that compares bf16 with itself.
    `threads` is the number of cores that all streams together use; ``None`` means every core of the
    partition.
    `streams` is how many calls of `infer` run side by side; the threads are divided among them. One
    stream of all threads answers soonest, several streams isolate better at the same throughput.
    `inputs` and `outputs` are what the tensors are to be called, in order, where the file has several
    names for one, or none.
    """

    precision: str = "f32"
    threads: int | None = None
    streams: int = 1
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
