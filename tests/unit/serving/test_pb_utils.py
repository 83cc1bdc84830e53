# SPDX-License-Identifier: Apache-2.0
"""The parts of Triton's Python interface that need no server."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from septet.serving.process.caller import Caller
from septet.serving.process.channel import Channel, ChannelClosed
from septet.serving.process.completion import ModelConfig
from septet.serving.process.control import load_model, unload_model
from septet.serving.process.messages import (
    Call,
    Cancel,
    FromCaller,
    Load,
    NewMetric,
    ReadMetric,
    ToCaller,
    Told,
    Unload,
    Update,
)
from septet.serving.process.metrics import MetricFamily
from septet.serving.process.requests import InferenceRequest, InferenceResponseSender
from septet.serving.process.tensors import (
    InferenceResponse,
    PreferredMemory,
    Tensor,
    TritonError,
    TritonModelException,
    deserialize_bytes_tensor,
    get_input_config_by_name,
    numpy_to_triton_type,
    serialize_byte_tensor,
    triton_string_to_numpy,
)
from serving_made import until

X = {"name": "x", "data_type": "TYPE_FP32", "dims": [4]}


def test_what_is_missing_is_completed() -> None:
    config = ModelConfig({"input": [{"name": "x", "data_type": "TYPE_INVALID", "dims": []}], "max_batch_size": 0})
    config.add_input({**X, "optional": True})
    config.add_output(X)
    config.set_max_batch_size(8)
    config.set_dynamic_batching()
    config.set_model_transaction_policy({"decoupled": True})
    assert config.as_dict() == {
        "input": [{**X, "optional": True}],
        "output": [X],
        "max_batch_size": 8,
        "dynamic_batching": {},
        "model_transaction_policy": {"decoupled": True},
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.add_input({**X, "dims": [5]}), "dims is"),
        (lambda config: config.add_input({**X, "data_type": "TYPE_INT8"}), "data_type is"),
        (lambda config: config.add_input({"name": "x", "dims": [4]}), "needs data_type"),
        (lambda config: config.add_input({**X, "colour": "red"}), "no colour"),
        (lambda config: config.set_max_batch_size(2), "max_batch_size is 4"),
        (lambda config: config.set_model_transaction_policy({"decoupled": True}), "do not agree"),
        (lambda config: config.set_model_transaction_policy({"coupled": True}), "no coupled"),
    ],
)
def test_what_config_pbtxt_says_is_not_contradicted(change: Callable[[ModelConfig], None], words: str) -> None:
    said = {"input": [dict(X)], "max_batch_size": 4, "model_transaction_policy": {"decoupled": False}}
    with pytest.raises(ValueError, match=words):
        change(ModelConfig(said))


def test_tensors_are_arrays_of_known_types() -> None:
    tensor = Tensor("x", np.zeros((1, 4), np.float32))
    assert (tensor.name(), tensor.shape(), tensor.triton_dtype()) == ("x", (1, 4), "TYPE_FP32")
    assert Tensor.from_numpy("s", np.array([b"a"], object)).triton_dtype() == "TYPE_STRING"
    assert np.array_equal(Tensor.from_dlpack("y", tensor).as_numpy(), tensor.as_numpy())
    for wrong in ([1.0], np.zeros(1, np.complex64)):
        with pytest.raises(TritonModelException):
            Tensor("x", wrong)  # type: ignore[arg-type]
    for name in (None, b"x", "\ud800"):
        with pytest.raises(TritonModelException, match="name of a tensor"):
            Tensor(name, np.zeros(1))  # type: ignore[arg-type]


def test_types_have_their_names_both_ways() -> None:
    for name in ("TYPE_BOOL", "TYPE_INT8", "TYPE_UINT64", "TYPE_FP16", "TYPE_FP64", "TYPE_STRING"):
        kind = triton_string_to_numpy(name)
        assert kind is not None
        assert numpy_to_triton_type(kind) == name
    assert triton_string_to_numpy("TYPE_BF16") is None


def test_text_is_written_with_its_length() -> None:
    array = np.array([b"", b"ab", "ä".encode()], object)
    encoded = serialize_byte_tensor(array).tobytes()
    assert encoded == b"\0\0\0\0\2\0\0\0ab\2\0\0\0\xc3\xa4"
    assert deserialize_bytes_tensor(encoded).tolist() == array.tolist()


def test_elements_that_are_neither_bytes_nor_text_are_written_as_text() -> None:
    array = np.array([3, 2.5, None, memoryview(b"ab")], object)
    assert deserialize_bytes_tensor(serialize_byte_tensor(array).tobytes()).tolist() == [
        b"3",
        b"2.5",
        b"None",
        b"ab",
    ]


def test_a_response_is_tensors_or_an_error() -> None:
    response = InferenceResponse([Tensor("x", np.zeros(1))], parameters={"k": 1})
    assert not response.has_error()
    assert json.loads(response.parameters()) == {"k": 1}
    failed = InferenceResponse(error=TritonError("no", TritonError.UNAVAILABLE))
    assert failed.has_error()
    assert (str(failed.error()), failed.error().code()) == ("no", "UNAVAILABLE")  # type: ignore[union-attr]
    with pytest.raises(TritonModelException):
        InferenceResponse([np.zeros(1)])  # type: ignore[list-item]


def test_a_sender_is_closed_by_its_final_flag() -> None:
    sent: list[tuple[int, bool]] = []
    sender = InferenceResponseSender(
        3, lambda number, response, final: sent.append((number, final)), lambda: False
    )
    sender.send(InferenceResponse())
    sender.send(flags=1)
    assert sent == [(3, False), (3, True)]
    with pytest.raises(TritonModelException, match="closed"):
        sender.send(InferenceResponse())


def test_what_a_model_cannot_have_is_told() -> None:
    sender = InferenceResponseSender(3, lambda number, response, final: None, lambda: False)
    for call in (
        lambda: sender.send(),
        lambda: sender.send(InferenceResponse(), flags=2),
        lambda: InferenceRequest().get_response_sender(),
        lambda: PreferredMemory(2),
    ):
        with pytest.raises(TritonModelException):
            call()


class Asked:
    """A server that answers nothing but what is said here."""

    loading = "m"

    def __init__(self, error: str = "") -> None:
        ours, theirs = socket.socketpair()
        self.caller = Caller(ours)
        self.server: Channel[ToCaller, FromCaller] = Channel(theirs, FromCaller)
        self.sent: list[FromCaller] = []
        threading.Thread(target=self._answer, args=(error,), daemon=True).start()

    def _answer(self, error: str) -> None:
        with suppress(ChannelClosed):
            while True:
                self.sent.append(asked := self.server.receive())
                if isinstance(asked, NewMetric | ReadMetric | Load | Unload):
                    self.server.send(Told(asked.call, 3.0, error))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Asked]]:
    hosts: list[Asked] = []

    def become(error: str = "") -> Asked:
        hosts.append(host := Asked(error))
        monkeypatch.setattr("septet.serving.process.requests.HOST", [host])
        monkeypatch.setattr("septet.serving.process.metrics.HOST", [host])
        monkeypatch.setattr("septet.serving.process.control.HOST", [host])
        return host

    yield become
    for each in hosts:
        each.server.close()
        each.caller.close()


def test_what_takes_longer_than_its_execution_timeout_is_an_error(host: Callable[..., Asked]) -> None:
    asked = host()
    request = InferenceRequest([], ["y"], "slow")
    assert "'slow' did not answer within" in str(request.exec(execution_timeout=1_000_000).error())
    answers = asyncio.run(request.async_exec(decoupled=True, execution_timeout=0))
    assert [answer.error().code() for answer in answers] == ["CANCELLED"]
    until(lambda: len(asked.sent) == 4)
    calls = [each for each in asked.sent if isinstance(each, Call)]
    assert all(each.request.deadline and each.request.deadline < time.monotonic_ns() for each in calls)
    assert [each for each in asked.sent if isinstance(each, Cancel)] == [Cancel(each.call) for each in calls]


def test_a_model_is_asked_at_once_however_many_answers_are_wanted(host: Callable[..., Asked]) -> None:
    asked = host()
    InferenceRequest([], ["y"], "slow").exec(decoupled=True, execution_timeout=0)
    until(lambda: [type(each) for each in asked.sent] == [Call, Cancel])


@pytest.mark.parametrize(
    "wrong",
    [
        {"parameters": {"k": [1]}},
        {"parameters": {"k": 1 << 70}},
        {"parameters": {"k": np.int64(1)}},
        {"model_name": 5},
        {"model_name": "\ud800"},
        {"request_id": 7},
        {"requested_output_names": [1]},
        {"timeout": 0.5},
    ],
)
def test_a_request_that_the_server_could_not_read_is_not_sent(
    host: Callable[..., Asked], wrong: dict[str, Any]
) -> None:
    asked = host()
    with pytest.raises(TritonModelException, match="cannot be sent"):
        InferenceRequest(**wrong).exec(execution_timeout=0)
    assert asked.sent == []


def test_metrics_are_defined_changed_and_read(host: Callable[..., Asked]) -> None:
    asked = host()
    counter = MetricFamily("seen", "What was seen", MetricFamily.COUNTER).Metric(labels={"model": "m"})
    gauge = MetricFamily(name="depth", description="", kind=MetricFamily.GAUGE).Metric()
    sizes = MetricFamily("size", "", MetricFamily.HISTOGRAM).Metric(buckets=[1, 10])
    counter.increment(2)
    gauge.set(-1)
    gauge.increment(-1)
    sizes.observe(4)
    assert counter.value() == 3.0
    new = [each for each in asked.sent if isinstance(each, NewMetric)]
    assert [(each.name, each.kind, each.labels, each.buckets) for each in new] == [
        ("seen", "counter", {"model": "m"}, []),
        ("depth", "gauge", {}, []),
        ("size", "histogram", {}, [1, 10]),
    ]
    first = new[0].metric
    updates = [(each.metric - first, each.value, each.add) for each in asked.sent if isinstance(each, Update)]
    assert updates == [(0, 2, True), (1, -1, False), (1, -1, True), (2, 4, True)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MetricFamily("no name", "", MetricFamily.COUNTER),
        lambda: MetricFamily("seen", "", "summary"),
        lambda: MetricFamily("seen", "", MetricFamily.COUNTER).Metric({"a": 1}),  # type: ignore[dict-item]
        lambda: MetricFamily("seen", "", MetricFamily.COUNTER).Metric({"a b": "1"}),
        lambda: MetricFamily("seen", "", MetricFamily.COUNTER).Metric(buckets=[1]),
        lambda: MetricFamily("seen", "", MetricFamily.HISTOGRAM).Metric(),
        lambda: MetricFamily("seen", "", MetricFamily.HISTOGRAM).Metric(buckets=[2, 1]),
        lambda: MetricFamily("seen", "", MetricFamily.COUNTER).Metric().increment(-1),
        lambda: MetricFamily("seen", "", MetricFamily.COUNTER).Metric().set(1),
        lambda: MetricFamily("seen", "", MetricFamily.GAUGE).Metric().observe(1),
        lambda: MetricFamily("seen", "", MetricFamily.HISTOGRAM).Metric(buckets=[1]).value(),
    ],
)
def test_what_no_metric_can_do_is_told(host: Callable[..., Asked], wrong: Callable[[], object]) -> None:
    host()
    with pytest.raises(TritonModelException):
        wrong()


def test_a_metric_that_the_server_does_not_take_is_told(host: Callable[..., Asked]) -> None:
    host("is a gauge already")
    with pytest.raises(TritonModelException, match="is a gauge already"):
        MetricFamily("seen", "", MetricFamily.COUNTER).Metric()


def test_a_configuration_is_searched_by_name() -> None:
    assert get_input_config_by_name({"input": [X]}, "x") == X
    assert get_input_config_by_name({"input": [X]}, "y") is None


def test_models_are_loaded_and_unloaded_by_the_server(host: Callable[..., Asked]) -> None:
    asked = host()
    load_model("a")
    load_model("b", "{}", {"file:1/model.bin": b"\xff"})
    load_model(model_name="c", files=None, config="{}")
    unload_model("a")
    unload_model("b", unload_dependents=True)
    loads = [(each.model, each.config, each.files) for each in asked.sent if isinstance(each, Load)]
    assert loads == [("a", "", {}), ("b", "{}", {"file:1/model.bin": b"\xff"}), ("c", "{}", {})]
    unloads = [(each.model, each.dependents) for each in asked.sent if isinstance(each, Unload)]
    assert unloads == [("a", False), ("b", True)]


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        (lambda: load_model(3), TypeError, "model_name must be text, not int"),  # type: ignore[arg-type]
        (lambda: load_model("a", {}), TypeError, "config must be text, not dict"),  # type: ignore[arg-type]
        (lambda: load_model("a", files=[1]), TritonModelException, "files should be a dictionary"),  # type: ignore[arg-type]
        (lambda: load_model("a", files={"f": "x"}), TypeError, "'f' must be bytes"),  # type: ignore[dict-item]
        (lambda: load_model("a", files={1: b""}), TypeError, "must be text"),  # type: ignore[dict-item]
        (lambda: load_model("\ud800"), TritonModelException, "Failed to load model: .*surrogates"),
        (lambda: load_model("m"), TritonModelException, "Failed to load model: 'm' is being loaded"),
        (lambda: unload_model("m"), TritonModelException, "Failed to unload model: 'm' is being loaded"),
        (lambda: unload_model(None), TypeError, "model_name must be text"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_loaded_is_told_and_not_sent(
    host: Callable[..., Asked], wrong: Callable[[], object], kind: type[Exception], words: str
) -> None:
    asked = host()
    with pytest.raises(kind, match=words):
        wrong()
    assert asked.sent == []


def test_why_a_model_is_not_loaded_is_told(host: Callable[..., Asked]) -> None:
    host("there is none")
    with pytest.raises(TritonModelException, match="Failed to load model: there is none"):
        load_model("a")
    with pytest.raises(TritonModelException, match="Failed to unload model: there is none"):
        unload_model("a")
