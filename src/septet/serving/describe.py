# SPDX-License-Identifier: Apache-2.0
"""What is told of a model: metadata, statistics, metrics, by Triton's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import psutil

from septet.metrics import Family, Histogram
from septet.model_config.config import Input, Output
from septet.serving.served import Served
from septet.serving.signature import dtype_of
from septet.serving.statistics import REASONS, BatchCount, Duration, Statistics
from septet.tensor import KSERVE_NAMES


def metadata(served: Served, versions: Sequence[str]) -> dict[str, Any]:
    """Name, versions, platform, inputs and outputs; shapes with the batch's dimension as -1."""
    config = served.config
    lead = [-1] if config.max_batch_size else []
    return {
        "name": config.name,
        "versions": list(versions),
        "platform": config.platform or config.backend,
        "inputs": [_tensor(each, lead) for each in config.input],
        "outputs": [_tensor(each, lead) for each in config.output],
    }


def _tensor(tensor: Input | Output, lead: list[int]) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": KSERVE_NAMES[dtype_of(tensor.data_type)],
        "shape": [*lead, *tensor.dims],
    }


def statistics(served: Served) -> dict[str, Any]:
    """Triton's ModelStatistics."""
    counts, nothing = served.statistics, Duration()
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": counts.last_inference,
        "inference_count": counts.inferences,
        "execution_count": counts.executions,
        "inference_stats": {
            name: _duration(each)
            for name, each in (
                ("success", counts.success),
                ("fail", counts.fail),
                ("queue", counts.queue),
                ("compute_input", counts.compute_input),
                ("compute_infer", counts.compute_infer),
                ("compute_output", counts.compute_output),
                ("cache_hit", nothing),
                ("cache_miss", nothing),
            )
        },
        "batch_stats": [_batch(size, batch) for size, batch in sorted(dict(counts.batches).items())],
        "memory_usage": [],
        "response_stats": {},
    }


def _batch(size: int, batch: BatchCount) -> dict[str, Any]:
    return {
        "batch_size": size,
        "compute_input": _duration(batch.compute_input),
        "compute_infer": _duration(batch.compute_infer),
        "compute_output": _duration(batch.compute_output),
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}


def families(every: Sequence[Served], *, machine: bool = True) -> Iterator[Family]:
    """All metrics: Triton's, then latency histograms and batch sizes, then the `machine`'s."""
    yield _each(
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        every,
        lambda s: s.success.count,
    )
    yield Family(
        "nv_inference_request_failure",
        "counter",
        "Number of failed inference requests, all batch sizes",
        [
            ({**labels(served), "reason": reason}, served.statistics.failures[reason])
            for served in every
            for reason in REASONS
        ],
    )
    yield _each("nv_inference_count", "Number of inferences performed", every, lambda s: s.inferences)
    yield _each("nv_inference_exec_count", "Number of model executions performed", every, lambda s: s.executions)
    for name, help_, get in _DURATIONS:
        yield _each(f"nv_inference_{name}_duration_us", f"Cumulative {help_} duration in microseconds", every, get)
    yield Family(
        "nv_inference_pending_request_count",
        "gauge",
        "Instantaneous number of pending requests awaiting execution per-model",
        [(labels(served), len(served.scheduler)) for served in every],
    )
    yield Family(
        "nv_model_load_duration_secs",
        "gauge",
        "Model load time in seconds",
        [(labels(served), served.load_seconds) for served in every],
    )
    yield from _own(every)
    if machine:
        yield from _machine()


def _own(every: Sequence[Served]) -> Iterator[Family]:
    """What Triton has not: histograms, which add up over servers, and how large batches were."""
    for name, get in (("request", "request_latency"), ("queue", "queue_latency")):
        values: list[tuple[Mapping[str, str], float | Histogram]] = [
            (labels(served), getattr(served.statistics, get)) for served in every
        ]
        yield Family(
            f"septet_{name}_duration_us", "histogram", f"Inference {name} duration in microseconds", values
        )
    yield Family(
        "septet_batch_executions_total",
        "counter",
        "Number of model executions by batch size",
        [
            ({**labels(served), "batch_size": str(size)}, batch.compute_infer.count)
            for served in every
            for size, batch in sorted(dict(served.statistics.batches).items())
        ],
    )
    yield Family(
        "septet_instance_restarts_total",
        "counter",
        "Number of instances that crashed and were started again",
        [(labels(served), sum(each.restarts for each in served.instances)) for served in every],
    )
    yield Family(
        "septet_instances_alive",
        "gauge",
        "Number of instances that can run a batch",
        [(labels(served), sum(each.alive for each in served.instances)) for served in every],
    )


def _machine() -> Iterator[Family]:
    memory = psutil.virtual_memory()
    for name, help_, value in (
        ("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", psutil.cpu_percent() / 100),
        ("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", memory.total),
        ("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", memory.used),
    ):
        yield Family(name, "gauge", help_, [({}, value)])


def labels(served: Served) -> dict[str, str]:
    """Model and version, and the tags that the configuration gives to the model's metrics."""
    return {"model": served.name, "version": served.version, **served.config.metric_tags}


def _each(name: str, help_: str, every: Iterable[Served], get: Callable[[Statistics], float]) -> Family:
    return Family(name, "counter", help_, [(labels(served), get(served.statistics)) for served in every])


_DURATIONS: tuple[tuple[str, str, Callable[[Statistics], float]], ...] = (
    ("request", "inference request", lambda s: s.success.ns // 1_000),
    ("queue", "inference queuing", lambda s: s.queue.ns // 1_000),
    ("compute_input", "compute input", lambda s: s.compute_input.ns // 1_000),
    ("compute_infer", "compute inference", lambda s: s.compute_infer.ns // 1_000),
    ("compute_output", "inference compute output", lambda s: s.compute_output.ns // 1_000),
)
