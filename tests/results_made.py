# SPDX-License-Identifier: Apache-2.0
"""Made-up results for tests: all scenarios, two engines, valid and not, every verdict on accuracy."""

from septet.harness.result import Accuracy, Latency, Loadgen, Machine, Metric, Result


def made_result(**changes: object) -> Result:
    """One plausible result, with `changes`."""
    fields: dict[str, object] = {
        "network": "resnet50",
        "size": "mini",
        "weights": "trained",
        "data": "digit scenes, test split, 5,000 images",
        "scenario": "SingleStream",
        "category": "edge",
        "division": "open",
        "official": False,
        "engine": "openvino",
        "precision": "bf16",
        "threads": 2,
        "streams": 1,
        "batch": 1,
        "metric": Metric("90th percentile latency", 0.412, "ms"),
        "latency": Latency(
            0.31, 0.36, 4.2, {"50.00": 0.35, "90.00": 0.412, "95.00": 0.5, "99.00": 0.9, "99.90": 2.4}
        ),
        "queries": 10_000,
        "samples": 10_000,
        "seconds": 4.01,
        "verdict": "VALID",
        "why": [],
        "accuracy": made_accuracy(),
        "notes": ["unofficial quick run: shorter than v0.7 asks"],
        "loadgen": Loadgen("MLPerf LoadGen", "6.0.17", {"scenario": "SingleStream", "min_query_count": 100}),
        "machine": Machine("AMD EPYC", 2, 23.5, (0.1, 1.2), "Linux x86_64"),
        "versions": {"septet": "0.1.0", "openvino": "2026.4.1"},
        "command": "septet bench resnet50",
        "commit": "0123456789ab",
        "time": "2026-11-24T08:00:00+00:00",
    }
    return Result(**(fields | changes))  # type: ignore[arg-type]


def made_accuracy(verdict: str = "met", ratio: float = 0.9993) -> Accuracy:
    """An accuracy of about 92 %."""
    return Accuracy(
        metric="top-1",
        unit="%",
        value=92.1 * ratio,
        low=91.3 * ratio,
        high=92.8 * ratio,
        reference=92.1,
        ratio=ratio,
        ratio_low=ratio - 0.002,
        ratio_high=ratio + 0.002,
        target=0.99,
        verdict=verdict,  # type: ignore[arg-type]
        why="the whole interval is at or above 99 % of FP32",
        samples=5_000,
    )


def made_results() -> list[Result]:
    """A whole run."""
    slow = {"50.00": 9.0, "90.00": 12.0, "95.00": 13.1, "99.00": 17.3, "99.90": 30.0}
    served = Latency(2.0, 9.5, 41.0, slow, 15.0, 99.0)
    streamed = Latency(20.0, 31.0, 44.0, {**slow, "99.00": 43.0, "99.90": 44.0}, 50.0, 99.0)
    full = {"size": "full", "weights": "synthetic", "data": "1,024 made-up images", "accuracy": None}
    speed_only = ["unofficial quick run: shorter than v0.7 asks", "synthetic weights: speed only"]
    return [
        made_result(),
        made_result(
            scenario="MultiStream",
            metric=Metric("Streams", 141.0, "streams"),
            latency=streamed,
            samples=11_280,
            loadgen=Loadgen("Septet's interval clock", "0.1.0", {"samples_per_query": 141}),
        ),
        made_result(
            scenario="Server",
            category="datacenter",
            metric=Metric("Scheduled rate", 2_714.0, "queries/s"),
            latency=served,
            verdict="INVALID",
            why=["the 99th percentile of latency must be within 15 ms and took 17.3 ms: ask a lower rate"],
        ),
        made_result(
            scenario="Offline",
            category="both",
            metric=Metric("Throughput", 5_210.4, "samples/s"),
            latency=None,
            samples=20_945,
            accuracy=made_accuracy("undecided", 0.991),
        ),
        made_result(
            scenario="Offline",
            precision="int8",
            metric=Metric("Throughput", 9_911.0, "samples/s"),
            latency=None,
            samples=40_000,
            accuracy=made_accuracy("missed", 0.973),
        ),
        made_result(engine="onnx", precision="f32", notes=speed_only, **full),
        made_result(
            engine="onnx",
            precision="f32",
            scenario="Offline",
            metric=Metric("Throughput", 52.3, "samples/s"),
            latency=None,
            samples=210,
            notes=speed_only,
            **full,
        ),
        made_result(
            scenario="Server",
            metric=None,
            latency=None,
            samples=0,
            seconds=0.0,
            queries=0,
            verdict="INVALID",
            why=["no rate is valid: one query alone takes 21 ms"],
            **full,
        ),
    ]
