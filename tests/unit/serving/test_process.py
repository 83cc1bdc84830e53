# SPDX-License-Identifier: Apache-2.0
"""Python models in processes of their own: Triton's interface, and every way of dying."""

import asyncio
import errno
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import uvloop

from septet.errors import (
    InferenceFailed,
    InstanceCrashed,
    LoadFailed,
    ModelFailed,
    ModelNotReady,
    Status,
    Unsupported,
)
from septet.request import Answer, Request, Wanted
from septet.serving.core import Core
from septet.serving.process import messages
from septet.serving.process.arena import Arena
from septet.serving.process.channel import Channel
from septet.serving.process.dialogue import Dialogue
from septet.serving.process.flight import Fitness
from septet.serving.process.responses import Responses
from septet.wire.shm import Regions
from serving_made import Answers, ask, model, onnx_file, row, until

CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""

ONE_LINE = """
import os, time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.args = args

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        BODY
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)])
"""

Open = Callable[..., Core]


def code(body: str) -> str:
    return ONE_LINE.replace("BODY", body)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    """A server's loop, for which every batch is small enough to be sent by it."""
    for method in ("__bool__", "admits"):
        monkeypatch.setattr(Fitness, method, lambda *given: True)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def on(loop: asyncio.AbstractEventLoop, core: Core) -> None:
    """Have what is submitted to `core` be submitted on `loop`, as a server does."""

    def submit(request: Request, answer: Answer) -> None:
        loop.call_soon_threadsafe(core.submit_all, [(request, answer)])

    core.submit = submit  # type: ignore[method-assign]


@pytest.fixture(params=["threads", "loop"])
def open_(root: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    loop = request.getfixturevalue("loop") if request.param == "loop" else None
    me = psutil.Process()
    before = {
        each.pid for each in me.children(recursive=True)
    }  # of other tests, such as Python's resource tracker
    cores: list[Core] = []

    def start(**settings: object) -> Core:
        cores.append(Core([root], regions=Regions(), **settings))  # type: ignore[arg-type]
        cores[-1].start()
        if loop is not None:
            on(loop, cores[-1])
        return cores[-1]

    yield start
    for core in cores:
        core.close(10)
    until(lambda: not [each for each in me.children(recursive=True) if each.pid not in before and _lives(each)])


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def python(root: Path, name: str, source: str, config: str = CONFIG) -> None:
    model(root, name, config, {"1/model.py": source})


def processes() -> list[int]:
    found = []
    for each in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # also of one that has ended and was not waited for yet
            if "child" in " ".join(each.cmdline()):
                found.append(each.pid)
    return found


def test_a_model_answers_in_its_own_process(open_: Open, root: Path) -> None:
    python(root, "twice", code("y = 2 * x + (os.getpid() - os.getpid())"), CONFIG + "dynamic_batching { }")
    core, answers = open_(), Answers()
    for number in range(40):
        core.submit(Request("twice", {"x": row(number, 1 + number % 3)}, id=str(number)), answers)
    for response in answers.wait(40):
        assert response.error is None
        assert np.array_equal(response.outputs["y"], row(2 * int(response.id), 1 + int(response.id) % 3))
    assert core.statistics("twice")[0]["inference_stats"]["success"]["count"] == 40
    assert "triton_python_backend_utils" not in sys.modules


def test_large_tensors_and_text_cross_whole(open_: Open, root: Path) -> None:
    config = """
    backend: "python"
    input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
    input { name: "s" data_type: TYPE_STRING dims: [ -1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
    output { name: "t" data_type: TYPE_STRING dims: [ -1 ] }
    """
    source = code("s = request.inputs()[1].as_numpy(); x += 1; y = x").replace(
        '[pb_utils.Tensor("y", y)]', '[pb_utils.Tensor("y", y), pb_utils.Tensor("t", s[::-1])]'
    )
    python(root, "both", source, config)
    core = open_()
    for count in (0, 1, 1_000, 3_000_000, 10):
        x = np.arange(count, dtype=np.float32)
        s = np.array([b"", "\u00e4".encode(), b"x" * 5_000], object)
        answer = ask(core, "both", {"x": x, "s": s})
        assert answer.error is None
        assert np.array_equal(answer.outputs["y"], x + 1)
        assert answer.outputs["t"].tolist() == s[::-1].tolist()
        assert ask(core, "both", {"x": x, "s": s}, wanted=(Wanted("t"),)).outputs.keys() == {"t"}


def test_a_model_may_keep_what_it_was_given(open_: Open, root: Path) -> None:
    python(root, "last", code("y = getattr(self, 'kept', x * 0); self.kept = x"))
    core = open_()
    for value in (1, 2, 3):
        answer = ask(core, "last", {"x": row(value, 8)}).outputs["y"]
        assert answer[0, 0] == value - 1


def test_a_model_completes_its_configuration(open_: Open, root: Path) -> None:
    source = code("y = x").replace(
        "    def initialize",
        """    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [4]})
        return config

    def initialize""",
    )
    model(root, "auto", None, {"1/model.py": source})
    core = open_()
    config = core.model_config("auto")
    assert (config.max_batch_size, config.backend, config.HasField("dynamic_batching")) == (4, "python", True)
    assert np.array_equal(ask(core, "auto", {"x": row(1)}).outputs["y"], row(1))


def test_arguments_and_module_are_those_of_triton(open_: Open, root: Path) -> None:
    body = """import json
        config = json.loads(self.args["model_config"])
        assert config["max_batch_size"] == 8 and config["parameters"]["k"]["string_value"] == "v"
        assert pb_utils.get_output_config_by_name(config, "y")["data_type"] == "TYPE_FP32"
        assert pb_utils.triton_string_to_numpy("TYPE_FP32") is np.float32
        assert self.args["model_name"] == "m" and self.args["model_version"] == "1"
        assert self.args["model_instance_kind"] == "CPU" and self.args["model_instance_name"] == "m_0"
        assert pb_utils.get_model_dir() == self.args["model_repository"] + "/1"
        assert request.request_id() == "seven" and json.loads(request.parameters()) == {"p": 1}
        assert request.timeout() == 60_000_000 and request.correlation_id() == 3
        assert request.requested_output_names() == ["y"] and not request.is_cancelled()
        assert request.inputs()[0].triton_dtype() == "TYPE_FP32" and request.inputs()[0].is_cpu()
        pb_utils.Logger.log_info("seen")
        y = np.from_dlpack(request.inputs()[0]) * 1"""
    python(root, "m", code(body), CONFIG + 'parameters { key: "k" value { string_value: "v" } }')
    parameters = {"p": 1, "priority": 1, "timeout": 60_000_000, "sequence_id": 3, "sequence_start": True}
    answer = ask(open_(), "m", {"x": row(3)}, id="seven", parameters=parameters)
    assert answer.error is None
    assert np.array_equal(answer.outputs["y"], row(3))


def test_an_error_is_that_requests_alone_and_has_its_own_code(open_: Open, root: Path) -> None:
    body = """if x[0, 0] == 1:
            error = pb_utils.TritonError("none here", pb_utils.TritonError.NOT_FOUND)
            return pb_utils.InferenceResponse(error=error)
        y = x"""
    config = CONFIG + "dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: 3 }"
    python(root, "m", code(body), config)
    core, answers = open_(), Answers()
    for value in (0, 1, 2):
        core.submit(Request("m", {"x": row(value)}, id=str(value)), answers)
    errors = {response.id: response.error for response in answers.wait(3)}
    assert (errors["0"], errors["2"]) == (None, None)
    assert isinstance(errors["1"], ModelFailed)
    assert (str(errors["1"]), errors["1"].status) == ("none here", Status.NOT_FOUND)
    counts = core.statistics("m")[0]["inference_stats"]
    assert (counts["success"]["count"], counts["fail"]["count"]) == (2, 1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("y = {0: x}[int(x[0, 0])]", "KeyError"),
        ("y = x if x[0, 0] == 0 else np.zeros(1 << 60, np.float32)", "MemoryError"),
        ("y = x if x[0, 0] == 0 else (lambda f: f(f))(lambda f: f(f))", "RecursionError"),
    ],
)
def test_an_exception_fails_its_batch_and_the_process_goes_on(
    open_: Open, root: Path, body: str, words: str
) -> None:
    python(root, "m", code(body))
    core = open_()
    [before] = processes()
    answer = ask(core, "m", {"x": row(5)})
    assert isinstance(answer.error, ModelFailed)
    assert words in str(answer.error)
    assert "model.py" not in str(answer.error)
    assert ask(core, "m", {"x": row(0)}).error is None
    assert processes() == [before]


@pytest.mark.parametrize(
    "body",
    [
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
        "import sys; sys.exit(3)",
        "time.sleep(1000)",
        "os.kill(os.getpid(), 36)",
    ],
    ids=["exit", "kill", "segfault", "sys.exit", "hang", "a signal without a name"],
)
def test_whatever_a_process_dies_of_it_is_restarted_and_others_do_not_notice(
    open_: Open, root: Path, body: str
) -> None:
    limit = 'parameters { key: "execution_timeout_seconds" value { string_value: "1" } }'
    python(root, "m", code(f"if x[0, 0] == 9: {body}\n        y = x"), CONFIG + limit)
    python(root, "other", code("y = x"))
    core, others, stop = open_(), Answers(), threading.Event()

    def load() -> None:
        while not stop.is_set():
            others.wait(len(others.responses))
            core.submit(Request("other", {"x": row(1)}), others)
            time.sleep(0.005)

    thread = threading.Thread(target=load)
    thread.start()
    assert isinstance(ask(core, "m", {"x": row(9)}).error, InstanceCrashed)
    assert ask(core, "m", {"x": row(1)}).error is None
    assert core.model_ready("m")
    stop.set()
    thread.join()
    others.wait(len(others.responses))
    assert [each.error for each in others.responses if each.error] == []
    assert 'septet_instance_restarts_total{model="m",version="1"} 1' in core.metrics_text()


def test_a_model_that_leaks_reaches_its_limit_alone_and_starts_afresh(open_: Open, root: Path) -> None:
    limit = 'parameters { key: "memory_limit_mib" value { string_value: "2000" } }'
    leak = code("self.kept = getattr(self, 'kept', []) + [np.ones(1 << 26)]; y = x + len(self.kept)")  # 512 MiB
    python(root, "m", leak, CONFIG + limit)
    python(root, "other", code("y = x"))
    core = open_()
    [before] = {each for each in processes() if psutil.Process(each).rlimit(psutil.RLIMIT_DATA)[0] == 2000 << 20}
    seen = [ask(core, "m", {"x": row(0)}) for _ in range(4)]
    died = [answer.error for answer in seen if answer.error is not None]
    assert isinstance(died[0], InstanceCrashed)
    assert str(died[0]) == "the model's process died (it reached its memory limit)"
    assert len(died) < 4, "it answered before, or after it was started again"
    assert before not in processes()
    until(lambda: core.model_ready("m"))
    assert ask(core, "m", {"x": row(0)}).outputs["y"][0, 0] <= 3
    assert ask(core, "other", {"x": row(1)}).error is None
    assert 'septet_instance_restarts_total{model="m",version="1"} ' in core.metrics_text()
    assert 'septet_instance_restarts_total{model="m",version="1"} 0' not in core.metrics_text()
    assert 'septet_instance_restarts_total{model="other",version="1"} 0' in core.metrics_text()


def test_where_memory_runs_out_a_model_ends_before_its_server(open_: Open, root: Path) -> None:
    python(root, "m", code("y = x"))
    open_()
    [pid] = processes()
    score = Path(f"/proc/{pid}/oom_score_adj")
    assert int(score.read_text()) >= int(Path("/proc/self/oom_score_adj").read_text()) + 100


@pytest.mark.parametrize("text", ["0", "-1", "much", "nan", "1e9"])
def test_a_limit_is_a_positive_number(open_: Open, root: Path, text: str) -> None:
    for name in ("memory_limit_mib", "execution_timeout_seconds"):
        limit = f'parameters {{ key: "{name}" value {{ string_value: "{text}" }} }}'
        python(root, f"{name}{len(text)}", code("y = x"), CONFIG + limit)
        with pytest.raises(LoadFailed, match=name):
            open_(control="explicit", startup=[f"{name}{len(text)}"])


def test_a_process_killed_while_idle_is_noticed_told_and_restarted(open_: Open, root: Path) -> None:
    python(root, "m", code("y = x"))
    core = open_()
    [pid] = processes()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not core.model_ready("m"))
    assert not core.ready()
    assert "1 of 1 instances are down" in core.index(False)[0]["reason"]
    until(lambda: core.model_ready("m"))
    assert core.ready()
    assert ask(core, "m", {"x": row(1)}).error is None


def test_with_another_instance_left_the_model_stays_ready(open_: Open, root: Path) -> None:
    python(root, "m", code("if x[0, 0] == 9: os._exit(1)\n        y = x"), CONFIG + "instance_group { count: 2 }")
    core = open_()
    assert len(processes()) == 2
    assert isinstance(ask(core, "m", {"x": row(9)}).error, InstanceCrashed)
    for _ in range(20):
        assert core.model_ready("m")
        assert ask(core, "m", {"x": row(1)}).error is None


def test_a_model_that_cannot_start_again_refuses_until_it_can(open_: Open, root: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    source = code("if x[0, 0] == 9: os._exit(1)\n        y = x").replace(
        "self.args = args", f"self.args = args\n        assert not os.path.exists({str(flag)!r}), 'not now'"
    )
    python(root, "m", source)
    core = open_()
    flag.touch()
    ask(core, "m", {"x": row(9)})
    until(lambda: isinstance(ask(core, "m", {"x": row(1)}).error, ModelNotReady))
    assert not core.model_ready("m")
    flag.unlink()
    until(lambda: core.model_ready("m"))
    assert ask(core, "m", {"x": row(1)}).error is None


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("[]", "list of 1 responses, not 0"),
        ("3", "list of 1 responses, not int"),
        (
            "[pb_utils.InferenceResponse([pb_utils.Tensor('z', np.zeros((1, 4), np.float32))])]",
            "no output 'y', but 'z', which it is not said to have",
        ),
        ("[pb_utils.InferenceResponse([pb_utils.Tensor('y', np.zeros((1, 4)))])]", "came as FP64"),
        ("[pb_utils.InferenceResponse([pb_utils.Tensor('y', np.zeros((1, 5), np.float32))])]", r"\[5\]"),
        ("[pb_utils.InferenceResponse([pb_utils.Tensor('y', np.zeros((), np.float32))])]", "FP32"),
        ("[object()]", "must be an InferenceResponse, not object"),
        ("None", "must return a list of responses: it gave none to this request"),
        ("[None]", "must return a list of responses: it gave none to this request"),
    ],
)
def test_answers_that_do_not_fit_are_errors(open_: Open, root: Path, answers: str, words: str) -> None:
    source = code("y = x").replace("return [self.answer(request) for request in requests]", f"return {answers}")
    python(root, "m", source)
    core = open_()
    for _ in range(2):
        error = ask(core, "m", {"x": row(1)}).error
        assert isinstance(error, ModelFailed | InferenceFailed)
        assert re.search(words, str(error)), error


def test_outputs_that_nobody_asked_for_are_dropped(open_: Open, root: Path) -> None:
    source = code("y = x").replace('[pb_utils.Tensor("y", y)]', '[pb_utils.Tensor(name, y) for name in "zyx"]')
    python(root, "m", source)
    answer = ask(open_(), "m", {"x": row(1)})
    assert answer.error is None
    assert answer.outputs.keys() == {"y"}


def test_a_response_that_cannot_be_sent_fails_its_request_alone(open_: Open, root: Path) -> None:
    wrong = {
        "parameters={'k': [1]}": "parameters",
        "parameters={'k': None}": "parameters",
        "parameters={1: 'k'}": "parameters",
        "parameters={'k': np.int64(1)}": "int64",
        "parameters={'k': 1 << 70}": "OverflowError",
        "parameters='[1]'": "parameters",
        "error=pb_utils.TritonError('\\ud800')": "UnicodeEncodeError",
        "error=pb_utils.TritonError('no', 5)": "code",
        "[pb_utils.Tensor('y', np.array([['\\ud800']], object))]": "UnicodeEncodeError",
    }
    body = f"""if x[0, 0] < {len(wrong)}:
            wrong = {list(wrong)}[int(x[0, 0])]
            return eval(f"pb_utils.InferenceResponse({{wrong}})", globals(), locals())
        y = x"""
    python(root, "m", code(body), CONFIG + "dynamic_batching { preferred_batch_size: 2 }")
    core = open_()
    [before] = processes()
    for value, words in enumerate(wrong.values()):
        answers = Answers()
        core.submit(Request("m", {"x": row(value)}, id="wrong"), answers)
        core.submit(Request("m", {"x": row(99)}, id="right"), answers)
        errors = {response.id: response.error for response in answers.wait(2)}
        assert errors["right"] is None, words
        assert isinstance(errors["wrong"], ModelFailed), words
        assert words in str(errors["wrong"])
    assert processes() == [before]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no such thing')", "RuntimeError: no such thing"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "TritonPythonModel"),
        ("import os; os._exit(4)", "exit status 4"),
        (
            "class TritonPythonModel:\n    def initialize(self, args): raise ValueError('wrong')",
            "ValueError: wrong",
        ),
    ],
)
def test_a_model_that_does_not_start_is_told(open_: Open, root: Path, source: str, words: str) -> None:
    python(root, "m", source)
    with pytest.raises(LoadFailed, match=words):
        open_()
    assert processes() == []


DECOUPLED = """
import threading
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request,)).start()

    def answer(self, request):
        x = request.inputs()[0].as_numpy()
        sender = request.get_response_sender()
        for index in range(int(x[0])):
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("x", x * 0 + index)]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
REPEAT = """
backend: "python"
input { name: "n" data_type: TYPE_INT32 dims: 1 }
output { name: "x" data_type: TYPE_INT32 dims: 1 }
"""


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_decoupled_model_answers_as_often_as_it_likes(open_: Open, root: Path, count: int) -> None:
    python(root, "repeat", DECOUPLED, REPEAT + "model_transaction_policy { decoupled: true }")
    core, answers = open_(), Answers()
    refused = Answers()
    core.submit(Request("repeat", {"n": np.array([count], np.int32)}, once=True), refused)
    assert isinstance(refused.wait()[0].error, Unsupported)
    core.submit(Request("repeat", {"n": np.array([count], np.int32)}), answers)
    until(lambda: bool(answers.responses) and answers.responses[-1].final)
    assert [each.final for each in answers.responses] == [False] * count + [True]
    assert [int(each.outputs["x"][0]) for each in answers.responses[:-1]] == list(range(count))


def test_a_stream_is_finished_before_its_model_ends(open_: Open, root: Path) -> None:
    source = DECOUPLED.replace("import threading\n", "import threading, time\n").replace(
        "sender.send(pb_utils.Inf", "time.sleep(0.1); sender.send(pb_utils.Inf"
    )
    python(root, "repeat", source, REPEAT + "model_transaction_policy { decoupled: true }")
    core, answers = open_(control="explicit", startup=["repeat"]), Answers()
    core.submit(Request("repeat", {"n": np.array([5], np.int32)}), answers)
    answers.wait(1)
    core.load("repeat", {})
    core.unload("repeat", False)
    until(lambda: answers.responses[-1].final)
    assert [each.error for each in answers.responses] == [None] * 6


def test_a_model_that_answers_once_may_do_it_through_its_sender(open_: Open, root: Path) -> None:
    python(root, "repeat", DECOUPLED, REPEAT)
    answer = ask(open_(), "repeat", {"n": np.array([1], np.int32)})
    assert answer.error is None
    assert answer.outputs["x"].tolist() == [0]


@pytest.mark.parametrize("policy", ["", "model_transaction_policy { decoupled: true }"])
def test_a_sender_that_is_dropped_before_the_final_response_says_so(open_: Open, root: Path, policy: str) -> None:
    source = DECOUPLED.replace("sender.send(pb_utils.Inf", "raise ValueError; sender.send(pb_utils.Inf").replace(
        "args=(request,)", "args=(request, request.get_response_sender())"
    )
    python(root, "repeat", source.replace("(self, request)", "(self, request, sender)"), REPEAT + policy)
    answer = ask(open_(), "repeat", {"n": np.array([1], np.int32)})
    assert answer.final
    assert isinstance(answer.error, ModelFailed)
    assert "dropped the request's response sender" in str(answer.error)


def test_a_decoupled_process_that_dies_fails_what_it_had(open_: Open, root: Path) -> None:
    source = DECOUPLED.replace("import threading\n", "import threading, os, time\n").replace(
        "sender.send(flags", "time.sleep(0.1); os._exit(1); sender.send(flags"
    )
    python(root, "repeat", source, REPEAT + "model_transaction_policy { decoupled: true }")
    core, answers = open_(), Answers()
    core.submit(Request("repeat", {"n": np.array([2], np.int32)}), answers)
    assert isinstance(answers.wait(3)[-1].error, InstanceCrashed)
    until(lambda: core.model_ready("repeat"))


def test_a_model_asks_another_and_knows_who_is_ready(open_: Open, root: Path) -> None:
    onnx_file(root / "scale" / "1" / "model.onnx", 3)
    body = """assert pb_utils.is_model_ready("scale") and not pb_utils.is_model_ready("nobody")
        asked = pb_utils.InferenceRequest(
            model_name=NAMES[int(x[0, 0])], requested_output_names=["y"], inputs=[pb_utils.Tensor("x", x)]
        )
        answer = asked.exec()
        if answer.has_error():
            raise pb_utils.TritonModelException(answer.error().message())
        y = pb_utils.get_output_tensor_by_name(answer, "y").as_numpy() + 1"""
    python(root, "asker", "NAMES = ['nobody', 'scale']\n" + code(body))
    core = open_()
    assert ask(core, "asker", {"x": row(1)}).outputs["y"][0, 0] == 4
    assert "'nobody' is not found" in str(ask(core, "asker", {"x": row(0)}).error)


@pytest.mark.parametrize(("many", "words"), [("True", ""), ("False", "decoupled transaction policy")])
def test_a_model_that_answers_many_times_is_asked_for_many_answers(
    open_: Open, root: Path, many: str, words: str
) -> None:
    python(root, "repeat", DECOUPLED, REPEAT + "model_transaction_policy { decoupled: true }")
    body = f"""asked = pb_utils.InferenceRequest(
            model_name="repeat", requested_output_names=["x"],
            inputs=[pb_utils.Tensor("n", __import__("numpy").array([3], "int32"))],
        )
        answers = asked.exec(decoupled={many})
        for answer in answers if {many} else [answers]:
            if answer.has_error():
                raise pb_utils.TritonModelException(answer.error().message())
        y = x"""
    python(root, "asker", code(body))
    error = ask(open_(), "asker", {"x": row(1)}).error
    assert words in str(error or "")
    assert (error is None) == (not words)


@pytest.mark.parametrize(("count", "outputs"), [(3, [1, 1, 1, 0]), (0, [0])])
def test_the_last_of_many_answers_is_empty_where_the_model_ends_without_one(
    open_: Open, root: Path, count: int, outputs: list[int]
) -> None:
    python(root, "repeat", DECOUPLED, REPEAT + "model_transaction_policy { decoupled: true }")
    onnx_file(root / "scale" / "1" / "model.onnx", 3)
    body = f"""n = __import__("numpy").array([{count}], "int32")
        for name, given, wanted in (("repeat", ("n", n), {outputs}), ("scale", ("x", x), [1])):
            asked = pb_utils.InferenceRequest(model_name=name, inputs=[pb_utils.Tensor(*given)])
            seen = [len(answer.output_tensors()) for answer in asked.exec(decoupled=True)]
            assert seen == wanted, (name, seen)
        y = x"""
    python(root, "asker", code(body))
    assert ask(open_(), "asker", {"x": row(1)}).error is None


@pytest.mark.parametrize("end", ["answers.cancel()", "del answers"])
def test_a_model_that_has_enough_answers_cancels_the_rest(open_: Open, root: Path, end: str) -> None:
    waited_for = "takewhile(lambda index: not request.is_cancelled() and not time.sleep(0.01), count())"
    endless = "import time\nfrom itertools import count, takewhile\n" + DECOUPLED.replace(
        "range(int(x[0]))", waited_for
    )
    python(root, "endless", endless, REPEAT + "model_transaction_policy { decoupled: true }")
    asking = f"""asked = pb_utils.InferenceRequest(
            model_name="endless", requested_output_names=["x"],
            inputs=[pb_utils.Tensor("n", np.array([1], np.int32))],
        )
        answers = asked.exec(decoupled=True)
        seen = [pb_utils.get_output_tensor_by_name(next(answers), "x").as_numpy()[0] for _ in range(3)]
        assert seen == [0, 1, 2]
        {end}
        y = x"""
    python(root, "asker", code(asking))
    core = open_()
    assert ask(core, "asker", {"x": row(1)}).error is None
    until(lambda: core.statistics("endless")[0]["inference_stats"]["success"]["count"] == 1)


def test_a_model_has_others_loaded_and_unloaded(open_: Open, root: Path) -> None:
    onnx_file(root / "scale" / "1" / "model.onnx", 3)
    body = """pb_utils.load_model("scale", config='{"max_batch_size": 2}')
        assert pb_utils.is_model_ready("scale")
        file = open(pb_utils.get_model_dir() + "/../../scale/1/model.onnx", "rb").read()
        pb_utils.load_model("new", '{"backend": "onnxruntime"}', {"file:1/model.onnx": file})
        assert pb_utils.is_model_ready(model_name="new", model_version="1")
        pb_utils.unload_model("new", unload_dependents=True)
        assert not pb_utils.is_model_ready("new")
        try:
            pb_utils.load_model("nobody")
        except pb_utils.TritonModelException as error:
            assert str(error).startswith("Failed to load model: failed to load 'nobody'"), error
            y = 2 * x"""
    python(root, "asker", code(body))
    core = open_(control="explicit", startup=["asker"])
    answer = ask(core, "asker", {"x": row(1)})
    assert answer.error is None
    assert answer.outputs["y"][0, 0] == 2
    assert core.model_config("scale").max_batch_size == 2


def test_a_model_may_load_others_while_it_is_loaded_but_not_itself(open_: Open, root: Path) -> None:
    onnx_file(root / "scale" / "1" / "model.onnx", 3)
    initialize = """pb_utils.load_model("scale")
        pb_utils.load_model("m")"""
    python(root, "m", code("y = x").replace("self.args = args", initialize))
    core = open_(control="explicit")
    with pytest.raises(LoadFailed, match="TritonModelException: Failed to load model: 'm' is being loaded"):
        core.load("m", {})
    assert core.model_ready("scale")


def test_a_model_that_is_served_may_load_and_unload_itself(open_: Open, root: Path) -> None:
    python(
        root, "m", code("[pb_utils.unload_model, pb_utils.load_model][int(x[0, 0])]('m'); y = 0 * x + os.getpid()")
    )
    core = open_(control="explicit", startup=["m"])
    pids = [ask(core, "m", {"x": row(value)}).outputs["y"][0, 0] for value in (1, 1, 0)]
    assert len(set(pids)) == 3
    until(lambda: core.index(False)[0]["reason"] == "unloaded")


def test_a_model_loads_nothing_where_models_are_not_loaded_by_request(open_: Open, root: Path) -> None:
    python(root, "m", code("pb_utils.load_model('m'); y = x"))
    assert "Failed to load model: explicit model load / unload is not allowed" in str(
        ask(open_(), "m", {"x": row(1)}).error
    )


def test_metrics_of_all_instances_of_a_model_are_one_on_the_servers_page(open_: Open, root: Path) -> None:
    source = code("self.seen.increment(int(x[0, 0])); y = x * 0 + self.seen.value()").replace(
        "self.args = args",
        """family = pb_utils.MetricFamily(name="seen", description="Seen", kind=pb_utils.MetricFamily.COUNTER)
        self.seen = family.Metric(labels={"model": "m"})""",
    )
    python(root, "m", source, CONFIG + "instance_group { count: 2 }")
    core = open_(control="explicit", startup=["m"])
    answers = [ask(core, "m", {"x": row(value)}).outputs["y"][0, 0] for value in (1, 2, 3)]
    assert answers == [1, 3, 6]
    assert '# HELP seen Seen\n# TYPE seen counter\nseen{model="m"} 6\n' in core.metrics_text()
    core.unload("m", False)
    until(lambda: "seen" not in core.metrics_text())


def test_a_model_learns_that_nobody_waits_any_more(open_: Open, root: Path, tmp_path: Path) -> None:
    body = f"""open({str(tmp_path / "began")!r}, "w").close()
        while not request.is_cancelled(): time.sleep(0.01)
        open({str(tmp_path / "noticed")!r}, "w").close()
        y = x"""
    python(root, "m", code(body))
    core, request = open_(), Request("m", {"x": row(1)})
    core.submit(request, Answers())
    until((tmp_path / "began").exists)
    request.cancel()
    until((tmp_path / "noticed").exists)


def test_a_loop_and_threads_take_turns_with_a_models_processes(
    loop: asyncio.AbstractEventLoop, root: Path
) -> None:
    python(root, "m", code("y = 2 * x"), CONFIG + "instance_group { count: 2 } dynamic_batching { }")
    core, answers = Core([root], regions=Regions()), Answers()
    core.start()
    for number in range(600):
        request = Request("m", {"x": row(number)}, id=str(number))
        if number % 3:
            loop.call_soon_threadsafe(core.submit_all, [(request, answers)])
        else:
            core.submit(request, answers)
        if number % 50 == 0:
            answers.wait(number + 1)
    got = {int(response.id): response.outputs["y"] for response in answers.wait(600)}
    assert len(answers.responses) == len(got) == 600
    assert all(np.array_equal(y, row(2 * number)) for number, y in got.items())
    assert core.statistics("m")[0]["inference_stats"]["success"]["count"] == 600
    core.close(10)


def test_a_process_that_does_not_read_holds_up_its_requests_alone(
    loop: asyncio.AbstractEventLoop, root: Path
) -> None:
    python(root, "m", code("y = x + len(request.parameters())"))
    core, answers, turned = Core([root], regions=Regions()), Answers(), threading.Event()
    core.start()
    [pid] = processes()
    os.kill(pid, signal.SIGSTOP)
    long = Request("m", {"x": row(0)}, parameters={"text": "x" * 1_000_000})  # more than a socket holds
    loop.call_soon_threadsafe(core.submit_all, [(long, answers)])
    loop.call_soon_threadsafe(turned.set)
    assert turned.wait(20)
    assert answers.responses == []
    os.kill(pid, signal.SIGCONT)
    assert answers.wait()[0].outputs["y"][0, 0] > 1_000_000
    core.close(10)


def test_large_answers_are_read_beside_the_loop(
    loop: asyncio.AbstractEventLoop, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace("max_batch_size: 8", "").replace("dims: 4", "dims: -1")
    python(root, "m", code("y = np.full(int(x[0]), x[1], np.float32)"), config)
    core, threads = Core([root], regions=Regions()), list[int]()
    finish = Dialogue.finish

    def watched(*given: Any) -> None:
        threads.append(threading.get_ident())
        finish(*given)

    monkeypatch.setattr(Dialogue, "finish", watched)
    core.start()
    for count in (10, 1_000_000, 3):
        answers = Answers()
        request = Request("m", {"x": np.array([count, 7], np.float32)})
        loop.call_soon_threadsafe(core.submit_all, [(request, answers)])
        assert np.array_equal(answers.wait()[0].outputs["y"], np.full(count, 7, np.float32))
    assert threads[0] == threads[2] != threads[1]
    core.close(10)


def test_requests_that_cannot_be_sent_fail_alone(open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(root, "m", code("y = x"))
    core, place = open_(), Arena.place

    def full(*given: Any) -> int:
        monkeypatch.setattr(Arena, "place", place)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(Arena, "place", full)
    monkeypatch.setattr(messages, "INLINE", 0)
    assert isinstance(ask(core, "m", {"x": row(1)}).error, InferenceFailed)
    for value in (1, 2):
        assert ask(core, "m", {"x": row(value)}).outputs["y"][0, 0] == value


def test_an_arena_without_room_for_more_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> mmap.mmap:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    arena = Arena.create()
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", full)
        with pytest.raises(OSError, match="memory"):
            arena.place(bytes(4 << 20))
    arena.clear()
    assert arena.copy(arena.place(b"small"), 5) == b"small"
    arena.close()


def test_a_crash_in_flight_is_told_though_something_holds_the_processs_sockets(
    loop: asyncio.AbstractEventLoop, root: Path
) -> None:
    fork = """if x[0, 0] == 9:
            if not os.fork(): os.setsid(); time.sleep(5); os._exit(0)
            os.close(int(__import__('sys').argv[1])); os._exit(1)
        y = x"""
    limit = 'parameters { key: "execution_timeout_seconds" value { string_value: "1" } }'
    python(root, "m", code(fork), CONFIG + limit)
    core, answers = Core([root], regions=Regions()), Answers()
    core.start()
    loop.call_soon_threadsafe(core.submit_all, [(Request("m", {"x": row(9)}), answers)])
    assert isinstance(answers.wait()[0].error, InstanceCrashed)
    until(lambda: core.model_ready("m"), 4)
    core.close(10)


def test_answers_that_cannot_be_read_fail_their_batch_alone(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(root, "m", code("y = x"))
    core, take = open_(), Responses.outputs

    def outputs(*given: Any) -> Any:
        monkeypatch.setattr(Responses, "outputs", take)
        raise MemoryError

    monkeypatch.setattr(Responses, "outputs", outputs)
    [before] = processes()
    assert isinstance(ask(core, "m", {"x": row(1)}).error, InferenceFailed)
    assert ask(core, "m", {"x": row(1)}).error is None
    assert processes() == [before]


@pytest.mark.usefixtures("open_")
def test_without_a_descriptor_left_a_model_does_not_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(channel: Channel[object, object]) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Channel, "duplicate", none_left)
    python(root, "m", code("y = x"))
    with pytest.raises(LoadFailed, match="Too many open files"):
        Core([root], regions=Regions()).start()


def test_nothing_stays_open_of_models_that_a_loop_asked(loop: asyncio.AbstractEventLoop, root: Path) -> None:
    python(root, "m", code("y = x"))
    opened = []
    for _ in range(3):
        core, answers = Core([root], regions=Regions()), Answers()
        core.start()
        loop.call_soon_threadsafe(core.submit_all, [(Request("m", {"x": row(1)}), answers)])
        assert answers.wait()[0].error is None
        core.close(10)
        opened.append(psutil.Process().num_fds())
    until(lambda: psutil.Process().num_fds() <= opened[0])


def test_an_engine_can_be_isolated_in_processes_of_its_own(open_: Open, root: Path) -> None:
    onnx_file(root / "scale" / "1" / "model.onnx", 3)
    (root / "scale" / "config.pbtxt").write_text(
        'instance_group { count: 2 } parameters { key: "isolation" value { string_value: "process" } }'
    )
    core = open_()
    pids = processes()
    assert len(pids) == 2
    cores = [psutil.Process(pid).cpu_affinity() for pid in pids]
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(cores[0]) & set(cores[1])
    for value in range(10):
        assert ask(core, "scale", {"x": row(value)}).outputs["y"][0, 0] == 3 * value
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: len(set(processes()) - set(pids)) == 1)
    answer = ask(core, "scale", {"x": row(2)})
    assert answer.error is None
    assert answer.outputs["y"][0, 0] == 6


@pytest.mark.parametrize("body", ["y = x", "y = sum(range(10**12))"], ids=["idle", "busy"])
def test_processes_end_with_their_server_whatever_it_dies_of(root: Path, body: str) -> None:
    python(root, "m", code(body))
    script = (
        "import sys, time; from pathlib import Path; from septet.serving.core import Core; "
        "from septet.wire.shm import Regions; from septet.request import Request; import numpy as np; "
        f"core = Core([Path({str(root)!r})], regions=Regions()); core.start(); "
        "core.submit(Request('m', {'x': np.zeros((1, 4), np.float32)}), print); time.sleep(0.3); "
        "import psutil; print(psutil.Process().children()[0].pid, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = next(int(line) for line in server.stdout if line.strip().isdigit())
        server.kill()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
