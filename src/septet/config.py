# SPDX-License-Identifier: Apache-2.0
"""How an engine is to run a model."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("f32", "bf16", "int8", "int8-bf16")
"""``f32`` and ``bf16`` say what the engine computes in; ``int8`` says that the file is quantised and that
whatever the file leaves in floating point is computed in f32; ``int8-bf16`` that the rest is computed in bf16."""


@dataclass(frozen=True)
class EngineConfig:
    """Settings of one engine.

    `precision` is always explicit: left alone, OpenVINO computes in bf16 wherever the CPU can, and a
    reference taken like that compares bf16 with itself.
    `threads` is the number of cores that all streams together use; ``None`` means every core of the
    partition.
    `url` names the model on a server, for the engine that is none of this machine's:
    ``http://HOST:PORT/MODEL``, ``grpc://…``, and ``http+shm://…`` or ``grpc+shm://…`` through shared memory.
    `streams` is how many calls of `infer` run side by side; the threads are divided among them. One
    stream of all threads answers soonest, several streams isolate better at the same throughput.
    `pinned` lets an engine tie its threads to cores. It is for an engine that has the machine for itself: each
    OpenVINO model ties its first thread to the first core, so that two of them share that one.
    `inputs` and `outputs` are what the tensors are to be called, in order, where the file has several
    names for one, or none.
    """

    precision: str = "f32"
    threads: int | None = None
    streams: int = 1
    pinned: bool = True
    url: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
