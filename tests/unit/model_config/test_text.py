# SPDX-License-Identifier: Apache-2.0
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.errors import ConfigInvalid
from septet.model_config.config import ModelConfig
from septet.model_config.convert import from_proto, to_proto
from septet.model_config.text import line_of, parse, parse_json, write
from septet.stubs import model_config_pb2

WHOLE = """
name: "m"
platform: "onnxruntime_onnx"
max_batch_size: 8
version_policy { specific { versions: [1, 3] } }
input [
  { name: "a" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 8, -1] },
  {
    name: "b"
    data_type: TYPE_STRING
    dims: [ 1 ]
    reshape { shape: [ ] }
    optional: true
  }
]
output { name: "o" data_type: TYPE_BF16 dims: 5 label_filename: "labels.txt" }
batch_input { kind: BATCH_ITEM_SHAPE target_name: "i" data_type: TYPE_INT32 source_input: "a" }
instance_group [ { count: 2 kind: KIND_CPU host_policy: "h" secondary_devices { device_id: 3 } } ]
dynamic_batching {
  preferred_batch_size: [4, 8]
  max_queue_delay_microseconds: 100
  priority_levels: 2
  default_priority_level: 2
  priority_queue_policy { key: 1 value { timeout_action: DELAY max_queue_size: 4 } }
}
parameters { key: "k" value { string_value: "v" } }
metric_tags { key: "t" value: "u" }
model_warmup { batch_size: 2 inputs { key: "a" value { data_type: TYPE_FP32 dims: [3] zero_data: true } } }
model_transaction_policy { decoupled: true }
optimization { graph { level: 1 } cuda { graphs: true } }
"""


def test_every_field_comes_back_from_writing() -> None:
    config = parse(WHOLE)
    assert config.input[1].reshape is not None
    assert config.input[1].reshape.shape == ()
    assert config.dynamic_batching is not None
    assert config.dynamic_batching.priority_queue_policy[1].timeout_action == "DELAY"
    assert config.model_warmup[0].inputs["a"].zero_data
    assert (config.parameter("k"), config.decoupled) == ("v", True)
    assert parse(write(config)) == config
    assert to_proto(parse(write(config))) == to_proto(config)


def test_what_septet_does_not_act_on_is_kept() -> None:
    assert to_proto(parse(WHOLE)).optimization.cuda.graphs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name: "m"\nmax_batch: 8', "line 2: ModelConfig has no field 'max_batch'"),
        ('name: "m"\n\ninput {\n  dimensions: 1\n}', "line 4: ModelInput has no field 'dimensions'"),
        ('max_batch_size: "x"', "line 1: .*integer"),
        ("input { data_type: TYPE_FLOAT }", "line 1: .*TYPE_FLOAT"),
        ('name: "m', "line 1: "),
        ("input {", "config.pbtxt, line 1: "),
        ("max_batch_size: 99999999999", "line 1: "),
    ],
)
def test_a_fault_is_told_with_its_line(text: str, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        parse(text)


@pytest.mark.parametrize("text", ["{", '{"max_batch": 1}', '{"max_batch_size": "x"}', "[" * 5_000, "[]", "null"])
def test_bad_json_is_told(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse_json(text)


def test_json_is_the_same_configuration() -> None:
    text = '{"max_batch_size": 4, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]}'
    assert parse_json(text) == parse('max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: 3 }')


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("max_batch_size", 4),
        ("input[0].dims", 7),
        ("input[1].dims", 11),
        ("input[1].data_type", 10),
        ("output[0].name", 16),
        ("dynamic_batching.preferred_batch_size", 20),
        ("dynamic_batching.max_queue_delay_microseconds", 21),
        ("input[0].reshape", 7),
        ("nowhere", None),
    ],
)
def test_a_field_is_found_at_its_line(field: str, line: int | None) -> None:
    assert line_of(WHOLE, field) == line


def test_the_first_of_several_is_found_in_what_stands_once() -> None:
    text = "ensemble_scheduling {\n step {\n model_name: 'a'\n }\n step {\n model_name: 'b'\n }\n}"
    lines = [line_of(text, f"ensemble_scheduling.step[{index}].model_name") for index in (0, 1)]
    assert lines == [3, 6]


@given(st.text(max_size=200))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with suppress(ConfigInvalid):
        assert isinstance(parse(text), ModelConfig)
    line_of(text, "input[0].dims")


def test_an_empty_message_is_an_empty_configuration() -> None:
    assert from_proto(model_config_pb2.ModelConfig()) == ModelConfig()
