# SPDX-License-Identifier: Apache-2.0
"""gRPC from grpcio's client, h2load, curl, and from peers that mean harm."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fake_plane import Running, Start
from septet.request import Request
from septet.serving import grpc as front
from septet.serving.grpc import GrpcLimits
from septet.stubs import SERVICE, service_pb2, service_pb2_grpc
from septet.wire import frames, proto
from septet.wire import head as drafts
from septet.wire.encoding import compress, decompress
from septet.wire.events import ConnectionEnded, DataReceived, HeadersReceived, Limits, StreamEnded
from septet.wire.frames import Code, Setting
from septet.wire.headers import write_headers
from septet.wire.http2 import Connection
from septet.wire.messages import MessageReader, enveloped
from serving_made import until

REST = [(":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")]
ASK = write_headers([(":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/ModelInfer"), *REST])
STREAMS = [(":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/ModelStreamInfer"), *REST]


def infer(model: str = "identity", size: int = 2, **parameters: float) -> bytes:
    return b"".join(
        proto.write_request(Request(model, {"INPUT0": np.zeros(size, np.float32)}, parameters=dict(parameters)))
    )


def raw(channel: grpc.Channel, method: str = "ModelInfer") -> Any:
    return channel.unary_unary(f"/{SERVICE}/{method}")


def status_of(call: Any, message: bytes, **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=10, **options)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.fixture
def channel(running: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.grpc, [("grpc.max_send_message_length", -1)]) as made:
        yield made


def dial(running: Running) -> socket.socket:
    assert running.server.grpc is not None
    return socket.create_connection((running.server.grpc.host, running.server.grpc.port), timeout=10)


def all_of(talk: socket.socket) -> bytes:
    got = b""
    while part := talk.recv(65536):
        got += part
    return got


@pytest.mark.parametrize(
    "message", [b"\xff\xff", b"\x0b", b"\x3a\x7f", b"\x2a\x02\x08\x01", b"\x3a\x04abcd", infer()[:-1]]
)
def test_what_is_no_message_is_refused(channel: grpc.Channel, message: bytes) -> None:
    assert status_of(raw(channel), message) == grpc.StatusCode.INVALID_ARGUMENT
    raw(channel)(infer(), timeout=10)


@pytest.mark.parametrize("name", ["../x", "..", "%2e%2e", "a\\b", "a\x00b", "/etc/passwd"])
def test_names_that_climb(running: Running, channel: grpc.Channel, name: str) -> None:
    stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    messages = {
        "ModelInfer": service_pb2.ModelInferRequest(model_name=name),
        "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name=name),
        "ModelConfig": service_pb2.ModelConfigRequest(name=name),
    }
    for method, message in messages.items():
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, method)(message)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert running.plane.loaded == []


def test_a_message_above_the_limit(start: Start) -> None:
    running = start(grpc_limits=GrpcLimits(message=1 << 20))
    with grpc.insecure_channel(running.grpc) as channel:
        assert status_of(raw(channel), infer(size=1 << 20)) == grpc.StatusCode.RESOURCE_EXHAUSTED
        compression = grpc.Compression.Gzip
        assert (
            status_of(raw(channel), infer(size=1 << 20), compression=compression)
            == grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        raw(channel)(infer(), timeout=10)


def test_a_message_is_inflated_beside_the_loop(
    running: Running, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = threading.Event()

    def slowly(*given: Any) -> bytes:
        assert served.wait(20), "nobody else was served meanwhile"
        return decompress(*given)

    monkeypatch.setattr(front, "decompress", slowly)
    message, gzip = infer(size=1_000_000), grpc.Compression.Gzip  # about 4 KB on the wire
    one = raw(channel).future(message, timeout=30, compression=gzip)
    many = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    # The second message is short and not inflated, and yet it comes after the first.
    stream = many(iter([infer(size=1_000_000), infer(size=3)]), timeout=30, compression=gzip)
    raw(channel)(infer(), timeout=10)
    served.set()
    assert len(service_pb2.ModelInferResponse.FromString(one.result()).raw_output_contents[0]) == 4_000_000
    assert len(list(stream)) == 2


def typed(model: str, count: int, id_: str = "") -> bytes:
    """A request of `count` elements that are not raw."""
    message = service_pb2.ModelInferRequest(model_name=model, id=id_)
    message.inputs.add(name="INPUT0", datatype="INT32", shape=[count]).contents.int_contents.extend([7] * count)
    return bytes(message.SerializeToString())


def test_many_elements_are_read_beside_the_loop_and_in_their_turn(
    running: Running, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, bind = threading.Event(), drafts.bind

    def slowly(head: drafts.Head, *more: Any) -> Request:
        assert head.inputs[0].shape != (100_000,) or served.wait(20), "nobody else was served meanwhile"
        return bind(head, *more)

    monkeypatch.setattr(drafts, "bind", slowly)
    one = raw(channel).future(typed("identity", 100_000), timeout=30)
    sent = [typed("identity", 100_000, "long"), typed("identity", 3, "short")]
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(sent), timeout=30)
    raw(channel)(infer(), timeout=10)
    served.set()
    assert len(service_pb2.ModelInferResponse.FromString(one.result()).raw_output_contents[0]) == 400_000
    assert len(list(stream)) == 2
    assert [request.id for request in running.plane.requests if request.id] == ["long", "short"]


def test_many_texts_are_written_beside_the_loop_and_in_their_turn(
    running: Running, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, write = threading.Event(), proto.write_response

    def slowly(request: Request, *given: Any) -> list[Any]:
        assert request.inputs["INPUT0"].size != 50_000 or served.wait(20), "nobody else was served meanwhile"
        return write(request, *given)

    def texts(count: int, id_: str = "") -> bytes:
        return b"".join(proto.write_request(Request("identity", {"INPUT0": np.full(count, b"", object)}, id=id_)))

    monkeypatch.setattr(proto, "write_response", slowly)
    one = raw(channel).future(texts(50_000), timeout=30)
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([texts(50_000, "long")]), timeout=30)
    until(lambda: len(running.plane.requests) == 2)
    raw(channel)(infer(), timeout=10)
    served.set()
    assert len(service_pb2.ModelInferResponse.FromString(one.result()).raw_output_contents[0]) == 200_000
    [answer] = [service_pb2.ModelStreamInferResponse.FromString(message).infer_response for message in stream]
    assert (answer.id, len(answer.raw_output_contents[0])) == ("long", 200_000)


def test_elements_that_nobody_takes_are_not_read(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start(held=2 << 20)
    with grpc.insecure_channel(running.grpc) as channel:
        monkeypatch.setattr(drafts, "bind", lambda *given: pytest.fail("elements were read"))
        assert status_of(raw(channel), typed("nobody", 100_000)) == grpc.StatusCode.NOT_FOUND
        assert status_of(raw(channel), typed("identity", 600_000)) == grpc.StatusCode.RESOURCE_EXHAUSTED
    until(lambda: running.server.budget.held == 0)


def test_messages_of_a_stream_keep_their_order_however_they_come(running: Running) -> None:
    sizes = [40_000, 1, 300_000, 2, 3, 50_000]
    parts = [infer(size=size) for size in sizes]
    client, seen = Connection(client=True), MessageReader(1 << 24)
    found: list[int] = []
    head = write_headers([*STREAMS, ("grpc-encoding", "gzip")])
    with dial(running) as talk:
        number = client.request(head)
        for index, part in enumerate(parts):
            packed = index % 2 == 0
            client.send_data(
                number, enveloped([compress([part], "gzip") if packed else part], packed), end=part is parts[-1]
            )
        while client.open_streams:
            talk.sendall(b"".join(client.take()))
            for event in client.receive(talk.recv(65536)):
                if isinstance(event, DataReceived):
                    client.acknowledge(event.stream, len(event.data))
                    for _, message in seen.feed(event.data):
                        answer = service_pb2.ModelStreamInferResponse.FromString(bytes(message))
                        found.append(len(answer.infer_response.raw_output_contents[0]) // 4)
    assert [len(request.inputs["INPUT0"]) for request in running.plane.requests] == sizes
    assert sorted(found) == sorted(sizes)


def test_all_messages_together_have_a_limit(start: Start) -> None:
    running = start(held=6 << 20)
    message = infer(size=700_000)
    whole = b"\x00" + len(message).to_bytes(4, "big") + message
    part = [frames.PREFACE, frames.settings({}), frames.frame(frames.HEADERS, 4, 1, ASK)]
    part += [
        frames.frame(frames.DATA, 0, 1, whole[at : at + 16_384]) for at in range(0, len(whole) - 40_000, 16_384)
    ]
    with dial(running) as first, dial(running) as second, grpc.insecure_channel(running.grpc) as channel:
        for talk in (first, second):
            talk.sendall(b"".join(part))
        until(lambda: running.server.budget.held > 5_400_000)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            code = status_of(raw(channel), message, compression=compression)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(iter([message]), timeout=10))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        raw(channel)(infer(), timeout=10)
    until(lambda: running.server.budget.held == 0)
    with grpc.insecure_channel(running.grpc) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        for _ in range(4):
            raw(channel)(message, timeout=10)
            assert len(list(stream(iter([message]), timeout=10))) == 1
            running.plane.requests.clear()  # they hold what they were sent
    until(lambda: running.server.budget.held == 0)


def test_procedures_that_are_not_there(channel: grpc.Channel) -> None:
    assert status_of(raw(channel, "Nothing"), b"") == grpc.StatusCode.UNIMPLEMENTED
    assert status_of(channel.unary_unary("/other/ModelInfer"), b"") == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_above_the_limit_refuse_one_call_alone(running: Running) -> None:
    whole = write_headers([(":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/ModelInfer"), *REST])
    client, seen, body = Connection(client=True), dict[int, str](), enveloped([infer()])
    with dial(running) as talk:
        for block in (whole, whole + write_headers([("x", "y" * 50_000)]), whole):
            client.send_data(client.request(block), body, end=True)
        talk.sendall(b"".join(client.take()))
        while len(seen) < 3:
            for event in client.receive(talk.recv(65536)):
                assert not isinstance(event, ConnectionEnded | StreamEnded)
                if isinstance(event, HeadersReceived) and event.ended:
                    seen[event.stream] = dict(event.headers)["grpc-status"]
    assert seen == {1: "0", 3: str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]), 5: "0"}


def test_messages_that_are_no_inference_are_short(channel: grpc.Channel) -> None:
    long = b"\x0a\x80\x80\x80\x01" + bytes(2 << 20)
    for method in ("ServerLive", "LogSettings", "RepositoryModelUnload"):
        assert status_of(raw(channel, method), long) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_one_message_a_call(channel: grpc.Channel) -> None:
    two = channel.stream_unary(f"/{SERVICE}/ModelInfer")
    for messages in ([], [infer(), infer()]):
        with pytest.raises(grpc.RpcError) as caught:
            two(iter(messages), timeout=10)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_nothing_inside_is_told(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw(channel)(infer("broken"), timeout=10)
    assert caught.value.details() == "internal error"


def test_requests_of_one_id_get_their_own_answers(channel: grpc.Channel) -> None:
    asked = [
        b"".join(proto.write_request(Request("identity", {"INPUT0": np.full(2, value, np.float32)}, id="twice")))
        for value in range(50)
    ]
    calls = [raw(channel).future(message, timeout=10) for message in asked]
    answers = [service_pb2.ModelInferResponse.FromString(call.result()) for call in calls]
    values = [np.frombuffer(answer.raw_output_contents[0], np.float32)[0] for answer in answers]
    assert values == list(range(50))
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(asked), timeout=10)
    streamed = [service_pb2.ModelStreamInferResponse.FromString(message).infer_response for message in stream]
    assert {answer.id for answer in streamed} == {"twice"}
    values = sorted(np.frombuffer(answer.raw_output_contents[0], np.float32)[0] for answer in streamed)
    assert values == list(range(50))


def test_many_calls_at_once_and_large_ones(channel: grpc.Channel) -> None:
    calls = [raw(channel).future(infer(size=number * 1000 + 1), timeout=30) for number in range(300)]
    for number, call in enumerate(calls):
        answer = service_pb2.ModelInferResponse.FromString(call.result())
        assert len(answer.raw_output_contents[0]) == 4 * (number * 1000 + 1)


def test_a_stream_goes_on_for_thousands_of_requests(channel: grpc.Channel) -> None:
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    answers = list(stream(iter([infer(size=5000)] * 3000), timeout=60))
    assert len(answers) == 3000


@pytest.fixture(params=[False, True], ids=["own", "grpcio"])
def either(start: Start, request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """A channel to our own transport, and to grpcio's."""
    with grpc.insecure_channel(start(grpcio=request.param).grpc) as made:
        yield made


@pytest.mark.parametrize("model", ["identity", "nobody"])
@pytest.mark.parametrize("count", [3, 100_000])
def test_a_request_of_a_stream_that_cannot_be_read_is_told_by_its_id(
    either: grpc.Channel, count: int, model: str
) -> None:
    request = service_pb2.ModelInferRequest(model_name=model, id="seven")
    tensor = request.inputs.add(name="INPUT0", datatype="FP32", shape=[count])
    tensor.contents.fp32_contents.extend([0.0] * (count - 1))
    full = service_pb2.ModelInferRequest(model_name="full", id="eight")
    sent = [request.SerializeToString(), full.SerializeToString()]
    stream = either.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(sent), timeout=10)
    answers = list(map(service_pb2.ModelStreamInferResponse.FromString, stream))
    assert all(answer.error_message for answer in answers)
    assert sorted(answer.infer_response.id for answer in answers) == ["eight", "seven"]


@pytest.mark.parametrize(
    ("message", "code"),
    [(infer("full"), grpc.StatusCode.UNAVAILABLE), (b"\xff", grpc.StatusCode.INVALID_ARGUMENT)],
)
def test_a_stream_that_asks_to_end_on_errors_does(
    either: grpc.Channel, message: bytes, code: grpc.StatusCode
) -> None:
    stream = either.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as caught:
        list(stream(iter([message]), timeout=10, metadata=[("triton_grpc_error", "true")]))
    assert caught.value.code() == code


def test_what_follows_the_error_that_ended_a_stream_is_not_run(running: Running) -> None:
    """Also where it came with it in one piece."""
    bad = service_pb2.ModelInferRequest(model_name="identity", raw_input_contents=[bytes(4)])
    bad.inputs.add(name="INPUT0", datatype="FP32", shape=[2])
    sent = (bad.SerializeToString(), infer("slow"))
    messages = b"".join(b"\x00" + len(one).to_bytes(4, "big") + one for one in sent)
    part = [frames.PREFACE, frames.settings({})]
    part.append(frames.frame(frames.HEADERS, 4, 1, write_headers([*STREAMS, ("triton_grpc_error", "true")])))
    part.append(frames.frame(frames.DATA, 0, 1, messages))
    with dial(running) as talk, grpc.insecure_channel(running.grpc) as channel:
        talk.sendall(b"".join(part))
        raw(channel)(infer(), timeout=10)
    assert [request.model for request in running.plane.requests] == ["identity"]


def test_answers_are_compressed_where_asked(start: Start) -> None:
    running = start(grpc_limits=GrpcLimits(compression="low"))
    with grpc.insecure_channel(running.grpc) as channel:
        answer = raw(channel)(infer(size=10_000), timeout=10)
        assert len(service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0]) == 40_000
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        asked = [infer(size=size) for size in (10_000, 3, 200_000, 2, 1)]
        assert len(list(stream(iter(asked), timeout=10))) == 5
        answer = raw(channel)(infer(size=300_000), timeout=10)
        assert len(service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0]) == 1_200_000
    message = infer(size=10_000)
    for accepts, compressed in (("identity,gzip", True), ("identity", False)):
        client, body = Connection(client=True), b""
        with dial(running) as talk:
            number = client.request(ASK + write_headers([("grpc-accept-encoding", accepts)]))
            client.send_data(number, enveloped([message]), end=True)
            talk.sendall(b"".join(client.take()))
            while client.open_streams:
                for event in client.receive(talk.recv(65536)):
                    if isinstance(event, DataReceived):
                        body += event.data
        assert body[0] == compressed
        assert (len(body) < 5000) == compressed


def test_a_client_that_leaves_cancels_its_requests(running: Running) -> None:
    with dial(running) as talk:
        message = infer("slow")
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        talk.sendall(frames.PREFACE + frames.settings({}) + frames.frame(frames.HEADERS, 4, 1, ASK))
        talk.sendall(frames.frame(frames.DATA, frames.END_STREAM, 1, body))
        while not running.plane.requests:
            time.sleep(0.01)
    assert running.plane.cancelled.wait(5)


def test_a_cancelled_stream_cancels_all_its_requests(running: Running, channel: grpc.Channel) -> None:
    def messages() -> Iterator[bytes]:
        yield from [infer("slow")] * 3
        time.sleep(30)

    call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(messages())
    while len(running.plane.requests) < 3:
        time.sleep(0.01)
    call.cancel()
    end = time.monotonic() + 5
    while not all(request.cancelled for request in running.plane.requests):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" + bytes(20), Code.PROTOCOL_ERROR),
        (frames.PREFACE + frames.header(1 << 23, frames.DATA, 0, 1), Code.FRAME_SIZE_ERROR),
        (frames.PREFACE + frames.frame(frames.PING, 0, 0, bytes(8)) * 5000, Code.ENHANCE_YOUR_CALM),
        (
            frames.PREFACE
            + b"".join(
                frames.frame(frames.HEADERS, 4, n, ASK) + frames.rst_stream(n, 8) for n in range(1, 9999, 2)
            ),
            Code.ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_broken_connections_are_told_why_and_ended(running: Running, wire: bytes, code: Code) -> None:
    with dial(running) as talk:
        talk.sendall(wire)
        try:
            got = all_of(talk)
        except ConnectionResetError:
            got = b""
        assert not got or bytes((0, 0, 0, code)) in got
    with grpc.insecure_channel(running.grpc) as channel:
        raw(channel)(infer(), timeout=10)


def test_what_a_cancelled_stream_was_not_granted_is_given_back_to_the_connection(start: Start) -> None:
    window = 128 << 10
    running = start(
        grpc_limits=GrpcLimits(pending=0, http2=Limits(stream_window=window, connection_window=window))
    )
    message = infer("slow", size=10_000)
    with grpc.insecure_channel(running.grpc) as channel:
        for _ in range(5):  # each holds 80 KB
            running.plane.requests.clear()
            stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([message, message]))
            until(lambda: len(running.plane.requests) == 2)
            stream.cancel()
        raw(channel)(infer(size=20_000), timeout=10)


def test_slow_and_stuck_peers_are_hung_up_on(start: Start) -> None:
    limits = GrpcLimits(message_seconds=1.0, preface_seconds=1.0, stuck_seconds=1.0)
    running = start(grpc_limits=limits)
    with dial(running) as silent, dial(running) as half, dial(running) as stuck:
        half.sendall(frames.PREFACE + frames.settings({}) + frames.frame(frames.HEADERS, 4, 1, ASK))
        message = infer(size=100_000)
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        stuck.sendall(frames.PREFACE + frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
        stuck.sendall(frames.frame(frames.HEADERS, 4, 1, ASK) + frames.frame(frames.DATA, 1, 1, body))
        with grpc.insecure_channel(running.grpc) as channel:
            raw(channel)(infer(), timeout=10)
        all_of(silent)
        with suppress(ConnectionResetError):
            all_of(stuck)
        got = b""
        while b"took too long" not in got:
            part = half.recv(65536)
            assert part
            got += part


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_h2load_finds_no_fault(running: Running, tmp_path: Path) -> None:
    message = infer()
    (tmp_path / "body").write_bytes(b"\x00" + len(message).to_bytes(4, "big") + message)
    done = subprocess.run(
        [
            tool("h2load"), "-n", "5000", "-c", "20", "-m", "10", "-d", str(tmp_path / "body"),
            "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://{running.grpc}/{SERVICE}/ModelInfer",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "5000 total, 5000 started, 5000 done, 5000 succeeded, 0 failed, 0 errored" in done.stdout


def test_curl_speaks_to_it(running: Running, tmp_path: Path) -> None:
    message = infer(size=200_000)
    (tmp_path / "body").write_bytes(b"\x00" + len(message).to_bytes(4, "big") + message)
    done = subprocess.run(
        [
            tool("curl"), "-sS", "--http2-prior-knowledge", "--data-binary", f"@{tmp_path / 'body'}",
            "-H", "content-type: application/grpc", "-H", "te: trailers", "-o", str(tmp_path / "answer"),
            "-D", "-", f"http://{running.grpc}/{SERVICE}/ModelInfer",
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "grpc-status: 0" in done.stdout
    answer = (tmp_path / "answer").read_bytes()
    assert len(service_pb2.ModelInferResponse.FromString(answer[5:]).raw_output_contents[0]) == 800_000
    plain = [
        tool("curl"),
        "-sS",
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        f"http://{running.grpc}/",
    ]
    assert subprocess.run(plain, capture_output=True, text=True, timeout=60, check=True).stdout == "415"


def test_many_connections_hang_up_mid_call(running: Running) -> None:
    for size in range(0, 200, 7):
        with dial(running) as talk:
            talk.sendall((frames.PREFACE + frames.settings({}) + frames.frame(frames.HEADERS, 4, 1, ASK))[:size])
    with grpc.insecure_channel(running.grpc) as channel:
        raw(channel)(infer(), timeout=10)
