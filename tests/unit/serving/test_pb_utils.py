# SPDX-License-Identifier: Apache-2.0
"""The parts of Triton's Python interface that need no server."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from septet.serving.process.completion import ModelConfig
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


def test_a_configuration_is_searched_by_name() -> None:
    assert get_input_config_by_name({"input": [X]}, "x") == X
    assert get_input_config_by_name({"input": [X]}, "y") is None
