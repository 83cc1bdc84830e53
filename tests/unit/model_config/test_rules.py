# SPDX-License-Identifier: Apache-2.0
import pytest

from septet.errors import ConfigInvalid
from septet.model_config.config import All, Latest, ModelConfig, Specific, VersionPolicy
from septet.model_config.platform import backend_of, files_of
from septet.model_config.rules import faults, require
from septet.model_config.text import parse

GOOD = """
name: "m"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""


def test_a_good_configuration_has_no_faults() -> None:
    assert list(faults(parse(GOOD))) == []


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ('backend: "tensorrt"', "backend", "no backend is called 'tensorrt'"),
        ("max_batch_size: -1", "max_batch_size", "less than 0"),
        ("version_policy { latest { num_versions: 0 } }", "version_policy.latest.num_versions", "1 or more"),
        ("version_policy { specific { } }", "version_policy.specific.versions", "no version"),
        ("input { data_type: TYPE_FP32 dims: 1 }", "input[1].name", "needs a name"),
        ('input { name: "z" dims: 1 }', "input[1].data_type", "not said"),
        ('input { name: "z" data_type: TYPE_FP32 }', "input[1].dims", "needs dims"),
        ('input { name: "z" data_type: TYPE_FP32 dims: 0 }', "input[1].dims", "0 is neither"),
        ('input { name: "z" data_type: TYPE_FP32 dims: -2 }', "input[1].dims", "-2 is neither"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 1 }', "input[1].name", "said twice"),
        (
            'input { name: "z" data_type: TYPE_FP32 dims: 4 reshape { shape: [2, 3] } }',
            "input[1].reshape",
            "elements",
        ),
        ('input { name: "z" data_type: TYPE_FP32 dims: -1 reshape { shape: 4 } }', "input[1].reshape", "free"),
        ('input { name: "z" data_type: TYPE_FP32 dims: 4 format: FORMAT_NHWC }', "input[1].format", "3 dims"),
        ('input { name: "z" data_type: TYPE_FP32 dims: 4 is_shape_tensor: true }', "input[1]", "TensorRT"),
        ("dynamic_batching { preferred_batch_size: 9 }", "dynamic_batching.preferred_batch_size", "exceeds"),
        ("dynamic_batching { preferred_batch_size: 0 }", "dynamic_batching.preferred_batch_size", "less than 1"),
        ("dynamic_batching { priority_levels: 2 }", "dynamic_batching.default_priority_level", "between 1 and 2"),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 preserve_ordering: true }",
            "dynamic_batching.preserve_ordering",
            "one level",
        ),
        (
            "dynamic_batching { priority_queue_policy { key: 3 value { } } }",
            "dynamic_batching.priority_queue_policy",
            "level 3",
        ),
        ("instance_group { count: 1 kind: KIND_GPU }", "instance_group[0].kind", "GPU"),
        (
            "dynamic_batching { priority_levels: 1000000000000 default_priority_level: 1 }",
            "dynamic_batching.priority_levels",
            "more than 1000",
        ),
        ("instance_group { count: 0 }", "instance_group[0].count", "less than 1"),
        ("instance_group { count: 1000000 }", "instance_group[0].count", "more than 1000"),
        ("instance_group { count: 1 passive: true }", "instance_group", "passive"),
        ("sequence_batching { }", "sequence_batching", "does not serve sequences"),
        ("ensemble_scheduling { }", "ensemble_scheduling", "belongs to platform"),
        ("response_cache { enable: true }", "response_cache", "no response cache"),
        (
            'batch_input { data_type: TYPE_INT64 source_input: "x" target_name: "t" }',
            "batch_input[0].data_type",
            "INT32",
        ),
        (
            'batch_input { data_type: TYPE_INT32 source_input: "q" target_name: "t" }',
            "batch_input[0].source_input",
            "one",
        ),
        ('batch_output { target_name: "q" source_input: "x" }', "batch_output[0].target_name", "has not"),
        ("model_warmup { batch_size: 9 }", "model_warmup[0].batch_size", "between 1 and 8"),
        ("model_warmup { batch_size: 1 }", "model_warmup[0].inputs", "'x' is missing"),
    ],
)
def test_every_rule_is_told_with_its_field(more: str, field: str, words: str) -> None:
    said = more.partition(" ")[0]  # a plain field is said once
    kept = "".join(line for line in GOOD.splitlines(True) if not (said.endswith(":") and line.startswith(said)))
    found = list(faults(parse(kept + more)))
    assert any(fault.field == field and words in fault.text for fault in found), found


def test_what_needs_a_batch_dimension_says_so() -> None:
    text = GOOD.replace("max_batch_size: 8", "")
    assert "dynamic_batching" in [fault.field for fault in faults(parse(text + "dynamic_batching { }"))]
    ragged = 'input { name: "z" data_type: TYPE_FP32 dims: 4 allow_ragged_batch: true }'
    assert "input[1].allow_ragged_batch" in [fault.field for fault in faults(parse(text + ragged))]


def test_a_fault_is_raised_with_file_and_line() -> None:
    text = GOOD + "dynamic_batching {\n  preferred_batch_size: 9\n}\n"
    with pytest.raises(
        ConfigInvalid, match=r"config\.pbtxt, line 8: dynamic_batching\.preferred_batch_size: 9 exceeds"
    ):
        require(parse(text), text)


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), [7]),
        (VersionPolicy(latest=Latest(2)), [3, 7]),
        (VersionPolicy(latest=Latest(9)), [1, 3, 7]),
        (VersionPolicy(all=All()), [1, 3, 7]),
        (VersionPolicy(specific=Specific((1, 7, 8))), [1, 7]),
    ],
)
def test_versions_are_chosen_by_policy(policy: VersionPolicy, chosen: list[int]) -> None:
    assert policy.choose([7, 1, 3]) == chosen


@pytest.mark.parametrize(
    ("config", "backend", "file"),
    [
        (ModelConfig(platform="onnxruntime_onnx"), "onnxruntime", "model.onnx"),
        (ModelConfig(platform="tensorflow_savedmodel"), "openvino", "model.savedmodel"),
        (ModelConfig(platform="tensorflow_graphdef"), "openvino", "model.graphdef"),
        (ModelConfig(backend="tensorflow"), "tensorflow", "model.savedmodel"),
        (ModelConfig(platform="pytorch_libtorch"), "pytorch", "model.pt"),
        (ModelConfig(backend="python"), "python", "model.py"),
        (ModelConfig(backend="onnxruntime", default_model_filename="net.onnx"), "onnxruntime", "net.onnx"),
    ],
)
def test_platforms_of_triton_have_their_backend_and_file(config: ModelConfig, backend: str, file: str) -> None:
    assert backend_of(config) == backend
    assert files_of(config)[0] == file
