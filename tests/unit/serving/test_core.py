# SPDX-License-Identifier: Apache-2.0
"""The server without its doors: what it serves, what it refuses, and what survives a fault."""

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from models_made import pair_model
from septet.errors import (
    ControlDisabled,
    Forbidden,
    LoadFailed,
    ModelNotReady,
    ModelUnknown,
    QueueFull,
    RegionInvalid,
    RequestInvalid,
    SeptetError,
    Stopping,
    Unsupported,
    UsageError,
    VersionUnknown,
)
from septet.request import Region, Request, Response
from septet.serving import brevity
from septet.serving.backends import open_engine
from septet.serving.core import Core
from septet.serving.loader import Loader, Source
from septet.serving.served import Served
from septet.tensor import Array
from septet.wire.head import Head, Input, bind
from septet.wire.shared import Shared
from septet.wire.shm import FOLDER, Regions
from serving_made import IDENTITY, Answers, ask, model, onnx_file, row, until

Open = Callable[..., Core]


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    """Start a core over ``tmp_path/models``; all are closed at the end."""
    cores: list[Core] = []
    (tmp_path / "models").mkdir()

    def start(*others: Path, **settings: object) -> Core:
        cores.append(Core([tmp_path / "models", *others], regions=Regions(), **settings))  # type: ignore[arg-type]
        cores[-1].start()
        return cores[-1]

    yield start
    for core in cores:
        core.close(10)


@pytest.fixture
def root(tmp_path: Path, open_: Open) -> Path:
    return tmp_path / "models"


def scale(root: Path, factor: float, version: int = 1, name: str = "scale") -> Path:
    return onnx_file(root / name / str(version) / "model.onnx", factor)


def test_a_model_without_configuration_is_served_as_its_file_is(open_: Open, root: Path) -> None:
    scale(root, 3)
    core = open_()
    assert (core.live(), core.ready(), core.model_ready("scale")) == (True, True, True)
    answer = ask(core, "scale", {"x": row(2, 3)}, id="7")
    assert answer.error is None
    assert (answer.model, answer.version, answer.id, answer.final) == ("scale", "1", "7", True)
    assert np.array_equal(answer.outputs["y"], row(6, 3))
    config = core.model_config("scale")
    assert (config.max_batch_size, config.platform, config.backend) == (4, "onnxruntime_onnx", "onnxruntime")
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert list(config.input[0].dims) == [4]
    assert core.model_metadata("scale") == {
        "name": "scale",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }


def test_a_file_of_fixed_batch_is_served_without_a_batch_dimension(open_: Open, root: Path) -> None:
    onnx_file(root / "fixed" / "1" / "model.onnx", batch=2)
    core = open_()
    assert core.model_config("fixed").max_batch_size == 0
    assert core.model_metadata("fixed")["inputs"][0]["shape"] == [2, 4]
    assert np.array_equal(ask(core, "fixed", {"x": row(1, 2)}).outputs["y"], row(2, 2))


def test_a_partial_configuration_is_completed_and_what_it_says_stays(open_: Open, root: Path) -> None:
    model(root, "pair", 'max_batch_size: 16\ninput { name: "ids" } input { name: "mask" dims: 5 }')
    pair_model(root / "pair" / "1" / "model.onnx")
    config = open_().model_config("pair")
    assert config.max_batch_size == 16
    assert [list(each.dims) for each in config.input] == [[-1], [5]]
    assert config.HasField("dynamic_batching"), "as in Triton, where the tensors are completed"


def test_a_configuration_that_says_all_but_the_scheduler_has_none(open_: Open, root: Path) -> None:
    scale(root, 2)
    (root / "scale" / "config.pbtxt").write_text(IDENTITY.replace("null", "onnxruntime"))
    assert not open_().model_config("scale").HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("said", "batch"),
    [
        ({"": 9}, 9),
        ({"": 9, "onnxruntime": 8}, 8),
        ({"python": 9}, 4),
        ({"": 1}, 1),
        ({"onnxruntime": 0}, 0),
    ],
)
def test_the_size_of_batches_that_nothing_says_may_be_said_for_all(
    open_: Open, root: Path, said: dict[str, int], batch: int
) -> None:
    scale(root, 2)
    config = open_(largest=said).model_config("scale")
    assert config.max_batch_size == batch
    assert config.HasField("dynamic_batching") == (batch > 1)
    assert list(config.input[0].dims) == ([4] if batch else [-1, 4])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('input { name: "q" data_type: TYPE_FP32 dims: 4 }', r"input\[0\].*no input 'q'; it has 'x'"),
        ('input { name: "x" data_type: TYPE_INT8 dims: 4 }', r"input\[0\].*TYPE_INT8.*TYPE_FP32"),
        ('max_batch_size: 2 input { name: "x" dims: [4, 4] }', r"input\[0\].*\[-1, 4, 4\]"),
        ('max_batch_size: 2 input { name: "x" dims: 5 }', r"input\[0\].*\[-1, 5\]"),
        ('name: "other"', "not the folder's name"),
        ("max_batch: 3", "line 1: ModelConfig has no field 'max_batch'"),
        ('backend: "tensorrt"', "no backend is called 'tensorrt'"),
        ('backend: "python"', "has no file model.py"),
        ("version_policy { specific { versions: 4 } }", "no version to serve"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "many" } }', "intra_op_thread_count"),
        ('output { name: "y" dims: 4 label_filename: "../x" }', "not a path inside"),
        ('backend: "onnxruntime" default_model_filename: "../../../outside.onnx"', "leads out of its folder"),
    ],
)
def test_a_wrong_configuration_is_told(open_: Open, root: Path, config: str, words: str) -> None:
    scale(root, 2)
    onnx_file(root.parent / "outside.onnx")
    (root / "scale" / "config.pbtxt").write_text(config)
    with pytest.raises(LoadFailed, match=words):
        open_()
    core = open_(exit_on_error=False)
    assert not core.ready()
    [line] = core.index(False)
    assert line["state"] == "UNAVAILABLE"
    assert isinstance(ask(core, "scale", {"x": row(1)}).error, ModelNotReady | ModelUnknown)


def test_concurrent_requests_share_batches_and_each_gets_its_own(open_: Open, root: Path) -> None:
    scale(root, 2)
    (root / "scale" / "config.pbtxt").write_text(
        "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 50000 }"
    )
    core, answers = open_(), Answers()
    for number in range(16):
        core.submit(Request("scale", {"x": row(number)}, id=str(number)), answers)
    for response in answers.wait(16):
        assert np.array_equal(response.outputs["y"], row(2 * int(response.id)))
    [counts] = core.statistics("scale")
    assert counts["inference_count"] == 16
    assert counts["execution_count"] == 2
    assert [(each["batch_size"], each["compute_infer"]["count"]) for each in counts["batch_stats"]] == [(8, 2)]
    assert counts["inference_stats"]["success"]["count"] == 16
    text = core.metrics_text()
    assert 'nv_inference_count{model="scale",version="1"} 16' in text
    assert 'nv_inference_exec_count{model="scale",version="1"} 2' in text
    assert 'septet_batch_executions_total{model="scale",version="1",batch_size="8"} 2' in text
    assert 'septet_request_duration_us_count{model="scale",version="1"} 16' in text


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_outputs_may_have_another_length_than_inputs(open_: Open, root: Path, backend: str) -> None:
    model(root, "positive", f'backend: "{backend}"')
    nodes = [
        onnx.helper.make_node("Greater", ["x", "zero"], ["mask"]),
        onnx.helper.make_node("Compress", ["x", "mask"], ["y"], axis=0),
    ]
    zero = onnx.numpy_helper.from_array(np.array(0, np.float32), "zero")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [dim]) for name, dim in (("x", "N"), ("y", "M")))
    graph = onnx.helper.make_graph(nodes, "positive", [x], [y], [zero])
    path = root / "positive" / "1" / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    core = open_()
    assert core.model_config("positive").max_batch_size == 0
    answer = ask(core, "positive", {"x": np.array([1, -1, 2, -2, -3], np.float32)})
    assert answer.outputs["y"].tolist() == [1, 2]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_requests_of_different_length_run_as_one_batch(open_: Open, root: Path, backend: str) -> None:
    """Sums each request by its place in one row: what a network with variable-length attention does."""
    config = f"""
    backend: "{backend}"
    max_batch_size: 8
    input {{ name: "x" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }}
    output {{ name: "y" data_type: TYPE_FP32 dims: -1 }}
    batch_input {{ kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "cu" data_type: TYPE_INT32
                   source_input: "x" }}
    batch_output {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" }}
    dynamic_batching {{ max_queue_delay_microseconds: 100000 preferred_batch_size: 3 }}
    """
    model(root, "ragged", config)
    nodes = [
        onnx.helper.make_node("Cast", ["cu"], ["f"], to=1),
        onnx.helper.make_node("ReduceMax", ["f"], ["all"], keepdims=0),
        onnx.helper.make_node("Add", ["x", "all"], ["y"]),
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["N"]) for name in "xy")
    cu = onnx.helper.make_tensor_value_info("cu", onnx.TensorProto.INT32, ["B"])
    graph = onnx.helper.make_graph(nodes, "ragged", [x, cu], [y])
    path = root / "ragged" / "1" / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    core, answers = open_(), Answers()
    for count in (1, 5, 3):
        core.submit(Request("ragged", {"x": np.arange(count, dtype=np.float32)[None]}, id=str(count)), answers)
    for response in answers.wait(3):
        assert response.error is None
        assert response.outputs["y"].tolist() == [[value + 9 for value in range(int(response.id))]]
    assert core.statistics("ragged")[0]["execution_count"] == 1


def test_unknown_names_are_refused_and_make_no_series(open_: Open, root: Path) -> None:
    model(root, "identity", IDENTITY)
    core = open_()
    for name, kind in (("nobody", ModelUnknown), ("../identity", RequestInvalid), ("a\\b", RequestInvalid)):
        assert isinstance(ask(core, name, {"x": row(1)}).error, kind)
    assert isinstance(ask(core, "identity", {"x": row(1)}, version="9").error, VersionUnknown)
    for version in ("9x", "-1", "²", "9" * 5_000, " 1"):
        assert isinstance(ask(core, "identity", {"x": row(1)}, version=version).error, RequestInvalid)
    assert ask(core, "identity", {"x": row(1)}, version="001").version == "1"
    text = core.metrics_text()
    assert "nobody" not in text
    assert 'version="9' not in text


@pytest.mark.parametrize("name", ["../x", "%2e%2e", "%252e%252e", "a\\b", "a\0b", "/etc", "", ".", "..", "a/b"])
def test_a_name_that_leads_elsewhere_is_refused_everywhere(open_: Open, root: Path, name: str) -> None:
    core = open_(control="explicit")
    for call in (
        lambda: core.load(name, {}),
        lambda: core.unload(name, False),
        lambda: core.model_metadata(name),
        lambda: core.statistics(name or "."),
    ):
        with pytest.raises(RequestInvalid):
            call()


def test_queue_full_is_told_and_counted(open_: Open, root: Path) -> None:
    held = "dynamic_batching { max_queue_delay_microseconds: 300000 default_queue_policy { max_queue_size: 3 } }"
    model(root, "identity", IDENTITY + held)
    core, answers = open_(), Answers()
    for _ in range(5):
        core.submit(Request("identity", {"x": row(1)}), answers)
    errors = [response.error for response in answers.wait(5) if response.error]
    assert [type(error) for error in errors] == [QueueFull] * 2
    assert 'request_failure{model="identity",version="1",reason="REJECTED"} 2' in core.metrics_text()


def test_the_highest_version_answers_unless_one_is_asked_for(open_: Open, root: Path) -> None:
    scale(root, 2, 1)
    scale(root, 3, 2)
    scale(root, 10, 10)
    (root / "scale" / "config.pbtxt").write_text("version_policy { specific { versions: [1, 2] } }")
    core = open_()
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 3
    assert ask(core, "scale", {"x": row(1)}, version="1").outputs["y"][0, 0] == 2
    assert isinstance(ask(core, "scale", {"x": row(1)}, version="10").error, VersionUnknown)
    assert core.model_metadata("scale")["versions"] == ["1", "2"]


def test_a_failed_reload_leaves_the_old_version_serving(open_: Open, root: Path) -> None:
    path = scale(root, 2)
    core = open_(control="explicit", startup=["scale"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LoadFailed, match=r"scale/1/model\.onnx: .*corrupt or truncated") as caught:
        core.load("scale", {})
    assert str(root) not in str(caught.value)
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 2
    assert core.ready()
    scale(root, 5)
    core.load("scale", {})
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 5


def test_a_reload_of_which_one_version_fails_changes_nothing(open_: Open, root: Path) -> None:
    scale(root, 2, 1)
    (root / "scale" / "config.pbtxt").write_text("version_policy { all { } }")
    core = open_(control="explicit", startup=["scale"])
    scale(root, 5, 1)
    path = scale(root, 7, 2)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LoadFailed, match="version 2"):
        core.load("scale", {})
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 2
    scale(root, 7, 2)
    core.load("scale", {})
    assert ask(core, "scale", {"x": row(1)}, version="1").outputs["y"][0, 0] == 5
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 7


def test_a_request_that_is_overtaken_by_a_reload_goes_to_the_successor(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale(root, 2)
    core = open_(control="explicit", startup=["scale"])
    find, overtaken = core._repository.find, [0]

    def overtake(name: str, version: str = "") -> Served:
        found = find(name, version)
        if not overtaken[0]:
            overtaken[0] += 1
            scale(root, 3)
            core.load("scale", {})
            until(lambda: found.scheduler.stopping)
        return found

    monkeypatch.setattr(core._repository, "find", overtake)
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 3
    assert overtaken == [1]


def test_unloading_refuses_what_is_new_and_loading_again_serves(open_: Open, root: Path) -> None:
    scale(root, 2)
    core = open_(control="explicit", startup=["*"])
    core.unload("scale", False)
    assert isinstance(ask(core, "scale", {"x": row(1)}).error, ModelNotReady)
    assert not core.model_ready("scale")
    until(lambda: core.index(False)[0]["state"] == "UNAVAILABLE")
    assert core.ready()
    core.load("scale", {})
    assert ask(core, "scale", {"x": row(1)}).error is None
    core.unload("never-there", False)
    with pytest.raises(LoadFailed, match="no repository has a model 'never-there'"):
        core.load("never-there", {})


@pytest.mark.parametrize("backend", ["null", "onnxruntime"])
def test_a_hundred_reloads_under_load_drop_nothing_and_leave_nothing(
    open_: Open, root: Path, backend: str
) -> None:
    model(root, "m", IDENTITY.replace("null", backend) + "dynamic_batching { }")
    if backend == "onnxruntime":
        onnx_file(root / "m" / "1" / "model.onnx", 1)
    core = open_(control="explicit", startup=["m"])
    answers, sent, stop, me = Answers(), [0], threading.Event(), psutil.Process()

    def load() -> None:
        while not stop.is_set():
            core.submit(Request("m", {"x": row(sent[0])}, id=str(sent[0])), answers)
            sent[0] += 1
            if sent[0] % 16 == 0:
                answers.wait(sent[0] - 8)

    thread = threading.Thread(target=load)
    thread.start()
    for number in range(110):
        core.load("m", {})
        if number == 9:
            resident, files = me.memory_info().rss, me.num_fds()
    stop.set()
    thread.join()
    responses = answers.wait(sent[0])
    assert [response.error for response in responses if response.error] == []
    assert sorted(int(response.id) for response in responses) == list(range(sent[0])), "each exactly once"
    assert all(response.outputs["y"][0, 0] == int(response.id) for response in responses)
    until(lambda: threading.active_count() < 20)
    assert me.num_fds() <= files + 2
    kept = sys.getsizeof(responses) + 3_000 * len(responses)  # by this test
    assert me.memory_info().rss - resident < 32 * 2**20 + kept


def test_requests_that_came_together_share_a_batch(open_: Open, root: Path) -> None:
    scale(root, 2)
    (root / "scale" / "config.pbtxt").write_text("max_batch_size: 8 dynamic_batching { }")
    core, answers = open_(), Answers()
    core.submit_all([(Request("scale", {"x": row(number)}, id=str(number)), answers) for number in range(16)])
    for response in answers.wait(16):
        assert np.array_equal(response.outputs["y"], row(2 * int(response.id)))
    assert core.statistics("scale")[0]["execution_count"] == 2


def test_each_of_those_that_came_together_is_refused_alone(open_: Open, root: Path) -> None:
    scale(root, 2)
    core, answers = open_(), Answers()
    core.submit_all(
        [
            (Request("scale", {"x": row(1)}, id="good"), answers),
            (Request("nobody", {"x": row(1)}, id="unknown"), answers),
            (Request("scale", {"x": row(1, 99)}, id="large"), answers),
        ]
    )
    errors = {response.id: type(response.error) for response in answers.wait(3)}
    assert errors == {"good": type(None), "unknown": ModelUnknown, "large": RequestInvalid}


@pytest.mark.parametrize("short", [0, 60_000_000_000])
def test_short_batches_run_where_they_came_and_long_ones_never(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    monkeypatch.setattr(brevity, "SHORT", short or 1)
    scale(root, 2)
    core, threads = open_(), list[int]()
    for _ in range(brevity.FIRST + 8):
        served = core._repository.find("scale")
        until(lambda: served.scheduler._leading)  # noqa: B023
        answers = Answers()

        def note(response: Response, answers: Answers = answers) -> None:
            threads.append(threading.get_ident())
            answers(response)

        core.submit_all([(Request("scale", {"x": row(3)}), note)])
        assert answers.wait()[0].outputs["y"][0, 0] == 6
    here = [thread == threading.get_ident() for thread in threads]
    assert here == [False] * brevity.FIRST + [bool(short)] * 8


def test_what_runs_in_an_instances_stead_survives_reloads(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brevity, "FIRST", 0)
    monkeypatch.setattr(brevity, "SHORT", 60_000_000_000)
    scale(root, 2)
    core = open_(control="explicit", startup=["scale"])
    answers, sent, stop = Answers(), [0], threading.Event()

    def load() -> None:
        while not stop.is_set():
            if sent[0] - len(answers.responses) < 1_000:  # fewer than the queue takes
                core.submit_all([(Request("scale", {"x": row(3)}), answers)])
                sent[0] += 1

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(30):
        core.load("scale", {})
    stop.set()
    thread.join()
    responses = answers.wait(sent[0])
    assert [response.error for response in responses if response.error] == []
    assert len(responses) == sent[0], "each exactly once"
    assert all(response.outputs["y"][0, 0] == 6 for response in responses)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way of keeping memory is Linux's")
def test_memory_goes_back_when_a_model_has_ended(open_: Open, root: Path) -> None:
    size = 2_048  # float32 [size, size] is 16 MiB
    weights = onnx.numpy_helper.from_array(np.zeros((size, size), np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["N", size]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    path = root / "large" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    core = open_(control="explicit")
    for _ in range(4):
        core.load("large", {})
        assert ask(core, "large", {"x": np.zeros((1, size), np.float32)}).error is None
        loaded = psutil.Process().memory_info().rss
        core.unload("large", False)
        until(lambda: core.index(False)[0]["state"] == "UNAVAILABLE")
        assert loaded - psutil.Process().memory_info().rss > 8 * 2**20


def test_an_instance_that_waits_keeps_nothing_of_its_last_request(open_: Open, root: Path) -> None:
    scale(root, 2)
    core = open_()
    array = row(1)
    gone = weakref.ref(array)
    assert ask(core, "scale", {"x": array}).error is None
    del array
    until(lambda: gone() is None)


def test_a_model_can_come_with_the_request_that_loads_it(open_: Open, root: Path, tmp_path: Path) -> None:
    scale(root, 2)
    core = open_(control="explicit", startup=["scale"])
    content = onnx_file(tmp_path / "other.onnx", 7).read_bytes()
    config = '{"backend": "onnxruntime", "max_batch_size": 2}'
    core.load("scale", {"config": config, "file:1/model.onnx": content})
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 7
    assert core.model_config("scale").max_batch_size == 2
    core.load("scale", {"config": '{"max_batch_size": 3}'})
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 2
    assert core.model_config("scale").max_batch_size == 3


@pytest.mark.parametrize(
    "parameters",
    [
        {"config": "{}", "file:1/../../x": b""},
        {"config": "{}", "file:/etc/x": b""},
        {"config": "{}", "file:..\\x": b""},
        {"config": "{}", "file:%2e%2e/x": b""},
        {"config": "{}", "file:": b""},
        {"config": "{}", "file:1/a\0b": b""},
        {"file:1/model.onnx": b""},
        {"config": "{}", "file:1/model.onnx": 3},
        {"config": 3},
        {"config": '{"nope": 1}'},
    ],
)
def test_a_load_that_leads_elsewhere_or_is_nonsense_is_refused(
    open_: Open, root: Path, parameters: dict[str, str | bytes | int]
) -> None:
    scale(root, 2)
    core = open_(control="explicit", startup=["scale"])
    with pytest.raises(SeptetError) as caught:
        core.load("scale", parameters)
    assert caught.value.status.http == 400
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 2


def test_links_that_lead_out_of_the_repository_are_not_followed(open_: Open, root: Path, tmp_path: Path) -> None:
    outside = onnx_file(tmp_path / "outside" / "1" / "model.onnx")
    (root / "whole").symlink_to(outside.parent.parent)
    (root / "version").mkdir()
    (root / "version" / "1").symlink_to(outside.parent)
    (root / "file" / "1").mkdir(parents=True)
    (root / "file" / "1" / "model.onnx").symlink_to(outside)
    core = open_(exit_on_error=False)
    for name in ("whole", "version", "file"):
        assert ask(core, name, {"x": row(1)}).error is not None
        assert not core.model_ready(name) if name != "whole" else True
    assert str(tmp_path) not in str(core.index(False))


def test_two_repositories_serve_as_one_and_a_name_twice_is_an_error(
    open_: Open, root: Path, tmp_path: Path
) -> None:
    scale(root, 2)
    other = tmp_path / "other"
    scale(other, 3, name="second")
    core = Core([root, other], regions=Regions())
    core.start()
    assert ask(core, "second", {"x": row(1)}).outputs["y"][0, 0] == 3
    core.close(5)
    scale(other, 3)
    with pytest.raises(LoadFailed, match="2 repositories have a model 'scale'"):
        Core([root, other], regions=Regions()).start()


def test_polling_loads_what_is_new_and_changed_and_unloads_what_is_gone(open_: Open, root: Path) -> None:
    scale(root, 2)
    core = open_(control="poll", poll_seconds=0.05)
    model(root, "identity", IDENTITY)
    until(lambda: core.model_ready("identity") if "identity" in str(core.index(True)) else False)
    scale(root, 9)
    until(lambda: ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 9)
    (root / "identity").rename(root.parent / "gone")
    until(lambda: isinstance(ask(core, "identity", {"x": row(1)}).error, ModelNotReady))
    with pytest.raises(ControlDisabled):
        core.load("scale", {})


def test_one_bad_entry_does_not_end_polling(open_: Open, root: Path) -> None:
    scale(root, 2)
    core = open_(control="poll", poll_seconds=0.05)
    (root / "a%b").mkdir()
    (root / "away").symlink_to("/usr")
    model(root, "identity", IDENTITY)
    until(lambda: core.model_ready("identity") if "identity" in str(core.index(True)) else False)


def test_a_repository_that_is_away_for_a_while_is_said_so_and_looked_at_again(
    open_: Open, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scale(root, 2)
    core = open_(control="poll", poll_seconds=0.02)
    root.rename(root.parent / "away")
    until(lambda: "the repositories could not be looked at: " in caplog.text)
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 2
    (root.parent / "away").rename(root)
    scale(root, 9)
    until(lambda: ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 9)
    assert not any(record.exc_info for record in caplog.records)


def test_of_two_repositories_one_may_be_away(open_: Open, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    model(other, "identity", IDENTITY)
    core = open_(other, control="explicit")
    scale(root, 2)
    other.rename(tmp_path / "away")
    core.load("scale", {})
    assert ask(core, "scale", {"x": row(1)}).outputs["y"][0, 0] == 2
    with pytest.raises(LoadFailed, match=r"a repository cannot be read: .*other"):
        core.load("identity", {})


def test_polling_goes_on_where_one_of_two_repositories_is_away(open_: Open, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    model(other, "identity", IDENTITY)
    core = open_(other, control="poll", poll_seconds=0.02)
    other.rename(tmp_path / "away")
    scale(root, 2)
    until(lambda: core.model_ready("scale") if "scale" in str(core.index(True)) else False)
    assert ask(core, "identity", {"x": row(1)}).error is None, "nobody said that it is gone"


def test_a_load_of_what_never_was_does_not_make_the_server_unready(open_: Open, root: Path) -> None:
    scale(root, 2)
    core = open_(control="explicit", startup=["scale"])
    assert core.ready()
    with pytest.raises(LoadFailed, match="failed to load 'nosuch'"):
        core.load("nosuch", {})
    assert core.ready()


def test_models_are_loaded_and_unloaded_by_request_only_where_that_is_said(open_: Open, root: Path) -> None:
    core = open_()
    with pytest.raises(ControlDisabled):
        core.load("x", {})
    with pytest.raises(ControlDisabled):
        core.unload("x", True)
    with pytest.raises(UsageError):
        Core([root], regions=Regions(), control="sometimes")
    with pytest.raises(UsageError):
        Core([root], regions=Regions(), startup=["x"])


def test_warm_up_runs_before_a_model_is_ready_and_is_not_counted(open_: Open, root: Path) -> None:
    scale(root, 2)
    warm = """
    max_batch_size: 4
    model_warmup { name: "z" batch_size: 4
      inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }
    model_warmup { name: "r" batch_size: 1 count: 3
      inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 random_data: true } } }
    model_warmup { name: "f" batch_size: 1
      inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 input_data_file: "x.bin" } } }
    """
    (root / "scale" / "config.pbtxt").write_text(warm)
    with pytest.raises(LoadFailed, match=r"x\.bin"):
        open_()
    (root / "scale" / "warmup").mkdir()
    (root / "scale" / "warmup" / "x.bin").write_bytes(row(1).tobytes())
    assert open_().statistics("scale")[0]["execution_count"] == 0


def test_several_instances_share_the_work_and_answers_stay_right(open_: Open, root: Path) -> None:
    scale(root, 2)
    (root / "scale" / "config.pbtxt").write_text(
        "max_batch_size: 2 instance_group { count: 3 } dynamic_batching { }"
    )
    core, answers = open_(), Answers()
    for number in range(200):
        core.submit(Request("scale", {"x": row(number)}, id=str(number)), answers)
    for response in answers.wait(200):
        assert np.array_equal(response.outputs["y"], row(2 * int(response.id)))


def test_labels_and_the_one_input_of_a_raw_request(open_: Open, root: Path) -> None:
    labels = 'output { name: "y" data_type: TYPE_FP32 dims: 4 label_filename: "labels.txt" }'
    text = IDENTITY.replace('output { name: "y" data_type: TYPE_FP32 dims: 4 }', labels)
    model(root, "identity", text, {"labels.txt": "cat\ndog\n\nowl\n"})
    model(root, "pair", None)
    pair_model(root / "pair" / "1" / "model.onnx")
    core = open_()
    assert core.labels("identity", "", "y") == ("cat", "dog", "owl")
    assert core.labels("identity", "1", "other") == ()
    assert core.raw_input("identity", "").shape == (None, 4)
    with pytest.raises(RequestInvalid, match="has 2"):
        core.raw_input("pair", "")


def test_a_raw_request_tells_the_one_dimension_that_is_free(open_: Open, root: Path) -> None:
    model(root, "identity", IDENTITY.replace("dims: 4", "dims: [ -1, 2 ]"))
    core = open_()
    assert core.raw_input("identity", "").shape == (1, None, 2)


def test_a_request_is_admitted_by_names_dtypes_and_shapes_alone(open_: Open, root: Path) -> None:
    model(root, "identity", IDENTITY)
    core = open_()

    def hollow(dtype: type, *shape: int) -> Array:
        return np.broadcast_to(np.empty((), dtype), shape)

    core.admit(Request("identity", {"x": hollow(np.float32, 2, 4)}))
    for wrong in (hollow(np.int32, 2, 4), hollow(np.float32, 2, 5), hollow(np.float32, 10**6, 4)):
        with pytest.raises(RequestInvalid):
            core.admit(Request("identity", {"x": wrong}))
    with pytest.raises(RequestInvalid):
        core.admit(Request("identity", {"z": hollow(np.float32, 2, 4)}))
    with pytest.raises(ModelUnknown):
        core.admit(Request("nobody", {"x": hollow(np.float32, 2, 4)}))


def test_nothing_is_written_where_the_network_says(open_: Open, root: Path) -> None:
    core = open_()
    with pytest.raises(Forbidden):
        core.log_settings({"log_file": "/tmp/x"})
    with pytest.raises(Forbidden):
        core.trace_settings("", {"trace_file": ["/tmp/x"]})
    with pytest.raises(Unsupported):
        core.trace_settings("", {"trace_level": ["TIMESTAMPS"]})
    with pytest.raises(RequestInvalid):
        core.log_settings({"log_info": "yes"})
    assert core.trace_settings()["trace_level"] == ["OFF"]
    assert core.log_settings({"log_verbose_level": 0})["log_info"] is True


def test_log_settings_that_are_not_known_are_ignored_as_with_triton(open_: Open, root: Path) -> None:
    core = open_()
    settings = core.log_settings({"log_colour": "red", "log_verbose_level": 0})
    assert settings["log_verbose_level"] == 0
    assert "log_colour" not in settings


def test_closing_finishes_what_waits_and_refuses_what_comes(open_: Open, root: Path) -> None:
    model(root, "identity", IDENTITY + "dynamic_batching { max_queue_delay_microseconds: 200000 }")
    core, answers = open_(), Answers()
    core.submit(Request("identity", {"x": row(1)}), answers)
    core.retire()
    assert not core.ready()
    core.submit(Request("identity", {"x": row(1)}), answers)
    core.close(10)
    assert [response.error for response in answers.wait(2)] == [None, None]
    assert ask(core, "identity", {"x": row(1)}).error is not None
    assert not core.live()


@pytest.mark.parametrize("control", ["explicit", "poll"])
def test_closing_does_not_wait_for_what_is_being_loaded(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    begun, go_on, loaded, load = threading.Event(), threading.Event(), list[Served](), Loader.load

    def slowly(self: Loader, source: Source, version: int) -> Served:
        begun.set()
        assert go_on.wait(20)
        loaded.append(load(self, source, version))
        return loaded[-1]

    core = open_(control=control, poll_seconds=0.01)
    monkeypatch.setattr(Loader, "load", slowly)
    model(root, "identity", IDENTITY)
    loader, refused = threading.Thread(), list[SeptetError]()
    if control == "explicit":
        loader = threading.Thread(target=lambda: refused.append(refusal(lambda: core.load("identity", {}))))
        loader.start()
    assert begun.wait(10)
    closer = threading.Thread(target=core.close, args=(15,))
    closer.start()
    closer.join(5)
    waited, at_work = closer.is_alive(), core.at_work
    go_on.set()
    closer.join(10)
    assert not waited
    assert at_work
    until(lambda: not core.at_work)
    with pytest.raises(Stopping):
        loaded[0].submit(Request("identity", {"x": row(1)}), Answers())
    assert core.statistics() == []
    if control == "explicit":
        loader.join(10)
        assert isinstance(refused[0], Stopping)


def test_a_signal_while_models_are_loaded_does_not_wait_for_them(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, main = threading.Event(), threading.get_ident()
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)  # SIGINT itself may be ignored

    def slowly(self: Loader, source: Source, version: int) -> Served:
        signal.pthread_kill(main, signal.SIGUSR1)
        go_on.wait(5)
        raise LoadFailed("too late")

    monkeypatch.setattr(Loader, "load", slowly)
    model(root, "identity", IDENTITY)
    core = Core([root], regions=Regions())
    try:
        with pytest.raises(KeyboardInterrupt):
            core.start()
    finally:
        signal.signal(signal.SIGUSR1, before)
    core.close(0)
    assert core.at_work
    go_on.set()
    until(lambda: not core.at_work)


def refusal(call: Callable[[], None]) -> SeptetError:
    with pytest.raises(SeptetError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(("retries", "loaded"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_load_that_fails_is_tried_again_as_often_as_is_said(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch, retries: int, loaded: bool
) -> None:
    tried: list[int] = []

    def fail_twice(*given: object) -> object:
        tried.append(len(tried))
        if len(tried) <= 2:
            raise LoadFailed("not yet")
        return open_engine(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("septet.serving.loader.open_engine", fail_twice)
    scale(root, 3)
    core = open_(exit_on_error=False, load_retries=retries)
    assert core.index(True) == (
        [{"name": "scale", "version": "1", "state": "READY", "reason": ""}] if loaded else []
    )
    assert len(tried) == min(retries, 2) + 1


def test_nothing_is_loaded_or_unloaded_once_the_server_ends(open_: Open, root: Path) -> None:
    scale(root, 3)
    core = open_(control="explicit")
    core.close(0)
    with pytest.raises(Stopping):
        core.load("scale", {})
    with pytest.raises(Stopping):
        core.unload("scale", False)
    assert core.index(True) == []


ROWS = 8192
"""Of four float32 each: what is so large is not read from shared memory before it is needed."""

DOUBLE = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        xs = [utils.get_input_tensor_by_name(each, "x").as_numpy() for each in requests]
        return [utils.InferenceResponse([utils.Tensor("y", 2 * x)]) for x in xs]
"""

ISOLATED = 'parameters { key: "isolation" value { string_value: "process" } }'

ENSEMBLE = f"""
platform: "ensemble"
max_batch_size: {ROWS}
input {{ name: "x" data_type: TYPE_FP32 dims: 4 }}
output {{ name: "y" data_type: TYPE_FP32 dims: 4 }}
ensemble_scheduling {{
  step {{ model_name: "engine" input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }} }}
}}
"""


def doublers(root: Path) -> None:
    """Models of every kind that double ``x``."""
    batched = f"max_batch_size: {2 * ROWS} "
    tensors = IDENTITY[IDENTITY.index("input") :]
    for name, more in (("engine", "dynamic_batching { }"), ("apart", ISOLATED)):
        model(root, name, batched + more)
        onnx_file(root / name / "1" / "model.onnx")
    model(root, "python", f'backend: "python" {batched} {tensors}', {"1/model.py": DOUBLE})
    model(root, "ensemble", ENSEMBLE)


def lying(shared: Shared, name: str) -> Request:
    """A request to `name` whose ``x`` is at the begin of `shared`, and not read yet."""
    tensor = Input("x", np.dtype(np.float32), (ROWS, 4), region=Region(shared.name, 0, 16 * ROWS))
    request = bind(Head(name, "", "", [tensor]), [], shared.regions)
    assert request.lying
    return request


@pytest.mark.parametrize("name", ["engine", "apart", "python", "ensemble"])
def test_what_lies_in_shared_memory_is_fetched_whatever_runs_it(open_: Open, root: Path, name: str) -> None:
    doublers(root)
    core, shared = open_(), Shared(16 * ROWS)
    try:
        for number in range(3):
            shared.clear()
            shared.put(row(number, ROWS))
            answers = Answers()
            core.submit(lying(shared, name), answers)
            np.testing.assert_array_equal(answers.wait()[0].outputs["y"], row(2 * number, ROWS))
    finally:
        shared.close()


@pytest.mark.parametrize("name", ["engine", "apart", "python", "ensemble"])
def test_of_a_batch_only_who_took_their_memory_away_fails(open_: Open, root: Path, name: str) -> None:
    doublers(root)
    core, kept, gone = open_(), Shared(16 * ROWS), Shared(16 * ROWS)
    try:
        kept.put(row(3, ROWS))
        requests = [lying(kept, name), lying(gone, name), lying(kept, name)]
        kept.regions.unregister()  # who is under way has it still
        os.truncate(FOLDER / gone.name, 10)
        answers = [Answers() for _ in requests]
        core.submit_all(list(zip(requests, answers, strict=True)))
        first, second, third = [answer.wait()[0] for answer in answers]
        assert isinstance(second.error, RegionInvalid)
        for response in (first, third):
            np.testing.assert_array_equal(response.outputs["y"], row(6, ROWS))
        stats = core.statistics(name)[0]["inference_stats"]
        assert int(stats["success"]["count"]) == 2
    finally:
        kept.close()
        gone.close()
