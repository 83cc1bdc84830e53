# SPDX-License-Identifier: Apache-2.0
"""KServe v2 over HTTP with Triton's extensions: which path asks for what, and how it is answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from septet.errors import RequestInvalid
from septet.request import Request, Response
from septet.serving import handlers
from septet.serving.budget import FREE
from septet.serving.exchange import BINARY, JSON, Exchange, opening
from septet.serving.failure import told
from septet.serving.generate import Generation
from septet.serving.handlers import Handler, Names, NotYet, encode, handled, require_brief
from septet.serving.mailbox import Mailbox, Taker
from septet.serving.outputs import classified
from septet.serving.plane import Plane
from septet.serving.threads import Threads
from septet.tensor import made_of_objects, to_raw
from septet.wire import json as wire
from septet.wire.encoding import LONG, accepted, compress, decompress
from septet.wire.form import Form
from septet.wire.head import AT_ONCE, Draft, Head, check_name, held_size
from septet.wire.memory import Memory

LARGE = 64 << 10
"""Above so many bytes, compression leaves the event loop."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path leads: to `infer` (or `generate`, `generate_stream`), or to a handler for each method."""

    names: Names
    special: str = ""
    handlers: dict[str, Handler] | None = None


Server = Callable[[Exchange, Found], None]
Result = TypeVar("Result")


class Routes:
    """The router of all HTTP connections of one server."""

    def __init__(self, plane: Plane, mailbox: Mailbox, threads: Threads, limit: int) -> None:
        self._plane = plane
        self._mailbox = mailbox
        self._executor, self._loads = threads.work, threads.loads
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._known = Memory()

    def __call__(self, exchange: Exchange) -> None:
        """Answer `exchange`, now or later; never raises."""
        try:
            found: Found | None = self._known.get(exchange.url)
            if found is None:
                found = find(exchange.url)
                self._known.keep(exchange.url, found)
            if found.special:
                self._post(exchange, found)
            else:
                self._manage(exchange, found)
        except Exception as error:
            refuse(exchange, error)

    # Inference

    def _post(self, exchange: Exchange, found: Found) -> None:
        if exchange.method != "POST":
            exchange.answer(405, [b'{"error":"Method Not Allowed"}'])
            return
        serve = self._infer if found.special == "infer" else self._generate
        encoding = exchange.header(b"content-encoding") if b"content-encoding" in exchange.headers else None
        if encoding is None or encoding.lower() == "identity":
            serve(exchange, found)
        elif len(exchange.body) <= LONG:
            self._inflated(exchange, decompress(exchange.body, encoding.lower(), self._limit))
            serve(exchange, found)
        else:
            work = partial(decompress, exchange.body, encoding.lower(), self._limit)
            self._beside(exchange, work, partial(self._serve_inflated, found, serve))

    def _serve_inflated(self, found: Found, serve: Server, exchange: Exchange, plain: bytes) -> None:
        self._inflated(exchange, plain)
        serve(exchange, found)

    def _inflated(self, exchange: Exchange, plain: bytes) -> None:
        exchange.hold(len(plain))
        exchange.body = plain

    def _infer(self, exchange: Exchange, found: Found) -> None:
        names, body = found.names, exchange.body
        model, version = names["model"], names["version"]
        length = wire.header_length(exchange.headers.get(b"inference-header-content-length"), len(body))
        form = wire.known_form(model, version, body, length)
        if form is not None:
            if form.head.lent > FREE:
                self._hold_lent(exchange, form.head)
            request = form.request(body, self._plane.regions)
            self._ask(exchange, request, partial(self._answer_form, exchange, request, form))
        elif length == 0 and body:
            spec = self._plane.raw_input(model, version)
            shape = tuple([-1 if dim is None else dim for dim in spec.shape])
            self._drafted(exchange, wire.read_raw(model, version, body, spec.name, spec.dtype, shape))
        elif length <= AT_ONCE:
            self._drafted(exchange, wire.read_request(model, version, body, length))
        else:
            work = partial(wire.read_request, model, version, body, length)
            self._beside(exchange, work, self._drafted)

    def _drafted(self, exchange: Exchange, draft: Draft) -> None:
        self._take(exchange, draft, partial(self._submit, binary=draft.binary))

    def _take(self, exchange: Exchange, draft: Draft, then: Callable[[Exchange, Request], None]) -> None:
        """Read the elements of a request, many beside the loop, and only if the model takes so many."""
        room = draft.room()
        lent = self._hold_lent(exchange, draft.head) if draft.head.lent > FREE else 0
        if room <= AT_ONCE:
            then(exchange, draft.request(self._plane.regions))
            return
        self._plane.admit(draft.outline())
        exchange.hold(len(exchange.body) + lent + room)
        self._beside(exchange, partial(draft.request, self._plane.regions), then)

    def _hold_lent(self, exchange: Exchange, head: Head) -> int:
        """Count what is going to be read from regions, and is large. Raises Overloaded."""
        lent = held_size(head, self._plane.regions)
        exchange.hold(len(exchange.body) + lent)
        return lent

    def _beside(
        self, exchange: Exchange, work: Callable[[], Result], then: Callable[[Exchange, Result], None]
    ) -> None:
        """Do `work` beside the loop, and `then`, on it, what is to be done with the result."""
        task = self._loop.run_in_executor(self._executor, work)
        task.add_done_callback(partial(_go_on, exchange, then))

    def _submit(self, exchange: Exchange, request: Request, *, binary: bool) -> None:
        self._ask(exchange, request, partial(self._answer, exchange, request, binary))

    def _ask(self, exchange: Exchange, request: Request, taker: Taker) -> None:
        request.once = True
        exchange.request = request
        exchange.body = b""
        self._mailbox.ask(request, taker)

    def _answer_form(self, exchange: Exchange, request: Request, form: Form, response: Response) -> None:
        """On the loop, with the model's answer to a request of a known form: what it begins with may be known."""
        if exchange.answered:
            return
        kind = form.kind(response) if exchange.keep and b"accept-encoding" not in exchange.headers else None
        beginning: bytes | None = form.beginnings.get(kind)
        if beginning is not None:
            exchange.request = None
            exchange.answer_known([beginning, *map(to_raw, response.outputs.values())])
            return
        body = self._answer(exchange, request, form.binary, response)
        if kind is not None and body is not None and not any(map(made_of_objects, response.outputs.values())):
            form.beginnings.keep(kind, _beginning(body))

    def _answer(self, exchange: Exchange, request: Request, binary: bool, response: Response) -> wire.Body | None:
        """On the loop, with the model's answer; the body that was sent, if it was at once."""
        if exchange.answered:
            return None
        try:
            if response.error is not None:
                raise response.error
            if request.wanted:
                response = classified(self._plane, request, response)
            if wire.written(request, response, binary) > AT_ONCE:
                work = partial(wire.write_response, request, response, self._plane.regions, binary)
                self._beside(exchange, work, self._send)
                return None
            body = wire.write_response(request, response, self._plane.regions, binary)
        except Exception as error:
            refuse(exchange, error)
            return None
        self._send(exchange, body)
        return body

    def _send(self, exchange: Exchange, body: wire.Body) -> None:
        exchange.request = None
        kind, extra = _about(body)
        accepts = exchange.headers.get(b"accept-encoding")
        encoding = None if accepts is None else accepted(accepts.decode("latin-1"))
        if encoding is None:
            exchange.answer(200, body.chunks, kind, extra)
            return
        extra += f"Content-Encoding: {encoding}\r\n"
        if sum(map(len, body.chunks)) <= LARGE:
            exchange.answer(200, [compress(body.chunks, encoding)], kind, extra)
            return
        task = self._loop.run_in_executor(self._executor, compress, body.chunks, encoding)
        task.add_done_callback(lambda done: exchange.answer(200, [done.result()], kind, extra))

    def _generate(self, exchange: Exchange, found: Found) -> None:
        stream = found.special == "generate_stream"
        generation = Generation(exchange, self._plane, self._mailbox, self._executor, stream=stream)
        work = partial(generation.read, found.names["model"], found.names["version"])
        self._beside(exchange, work, partial(self._take, then=generation.submit))

    # Everything else

    def _manage(self, exchange: Exchange, found: Found) -> None:
        if found.handlers is None:
            exchange.answer(404, [b'{"error":"Not Found"}'])
            return
        handler = found.handlers.get(exchange.method)
        if handler is None:
            exchange.answer(405, [b'{"error":"Method Not Allowed"}'])
            return
        require_brief(handler, exchange.body)
        work = partial(handled, handler, self._plane, found.names, exchange.body)
        if handler in handlers.QUICK:
            _managed(exchange, work)
        else:
            executor = self._loads if handler in handlers.LOADS else self._executor
            task = self._loop.run_in_executor(executor, work)
            task.add_done_callback(lambda done: _managed(exchange, done.result))


def _about(body: wire.Body) -> tuple[str, str]:
    """A body's content type, and a header line about it."""
    if body.length is None:
        return JSON, ""
    return BINARY, f"Inference-Header-Content-Length: {body.length}\r\n"


def _beginning(body: wire.Body) -> bytes:
    """What an answer with `body` begins with, as far as elements of tensors."""
    return opening(200, *_about(body), sum(map(len, body.chunks))) + bytes(body.chunks[0])


def _go_on(exchange: Exchange, then: Callable[[Exchange, Result], None], task: asyncio.Future[Result]) -> None:
    """On the loop, with what was done beside it."""
    error = task.exception()
    if error is not None:
        refuse(exchange, error)
    elif not exchange.answered:
        try:
            then(exchange, task.result())
        except Exception as fault:
            refuse(exchange, fault)


def _managed(exchange: Exchange, result: Callable[[], bytes]) -> None:
    try:
        exchange.answer(200, [result()])
    except NotYet as error:
        exchange.answer(error.http, [encode(error.document)])
    except Exception as error:
        refuse(exchange, error)


def refuse(exchange: Exchange, error: BaseException) -> None:
    """Answer with what went wrong."""
    exchange.request = None
    seen = told(error)
    exchange.answer(seen.status.http, [encode({"error": str(seen)})])


MODEL = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[0-9]+))?"

_TABLE: tuple[tuple[str, str | dict[str, Handler]], ...] = (
    (rf"{MODEL}/(?P<special>infer|generate|generate_stream)", "special"),
    (r"/v2/models/stats", {"GET": handlers.statistics}),
    (rf"{MODEL}/ready", {"GET": handlers.model_ready}),
    (rf"{MODEL}/config", {"GET": handlers.config}),
    (rf"{MODEL}/stats", {"GET": handlers.statistics}),
    (rf"{MODEL}/trace/setting", {"GET": handlers.trace, "POST": handlers.set_trace}),
    (MODEL, {"GET": handlers.metadata}),
    (r"/v2", {"GET": handlers.server}),
    (r"/v2/health/live", {"GET": handlers.live}),
    (r"/v2/health/ready", {"GET": handlers.ready}),
    (r"/v2/repository(?:/[^/]+)?/index", {"POST": handlers.index}),
    (r"/v2/repository(?:/[^/]+)?/models/(?P<model>[^/]+)/load", {"POST": handlers.load}),
    (r"/v2/repository(?:/[^/]+)?/models/(?P<model>[^/]+)/unload", {"POST": handlers.unload}),
    (r"/v2/systemsharedmemory(?:/region/(?P<region>[^/]+))?/status", {"GET": handlers.region_status}),
    (r"/v2/systemsharedmemory/region/(?P<region>[^/]+)/register", {"POST": handlers.register}),
    (r"/v2/systemsharedmemory(?:/region/(?P<region>[^/]+))?/unregister", {"POST": handlers.unregister}),
    (r"/v2/cudasharedmemory(?:/region/[^/]+)?/status", {"GET": handlers.no_regions}),
    (r"/v2/cudasharedmemory/region/[^/]+/register", {"POST": handlers.no_device}),
    (r"/v2/cudasharedmemory(?:/region/[^/]+)?/unregister", {"POST": handlers.nothing}),
    (r"/v2/trace/setting", {"GET": handlers.trace, "POST": handlers.set_trace}),
    (r"/v2/logging", {"GET": handlers.logging, "POST": handlers.set_logging}),
)

ROUTES = [(re.compile(pattern), target) for pattern, target in _TABLE]


AUTHORITY = re.compile(rb"^https?://[^/?]*", re.IGNORECASE)
"""How a target begins that was meant for a proxy (RFC 9112, section 3.2.2)."""


def find(url: bytes) -> Found:
    """Where the target `url` leads; raises `RequestInvalid` for a path that tries to climb."""
    path = AUTHORITY.sub(b"", url, 1).partition(b"?")[0].decode("latin-1") or "/"
    if path.startswith("/v2/") and len(path) > 4:
        for segment in path[4:].split("/"):
            decoded = unquote_to_bytes(segment).decode("utf-8", "replace")
            if not decoded:
                raise RequestInvalid("an empty name in the path")
            check_name(decoded)
    for pattern, target in ROUTES:
        match = pattern.fullmatch(path)
        if match:
            names = {name: _plain(value) for name, value in match.groupdict(default="").items()}
            if target == "special":
                return Found(names, names["special"])
            assert isinstance(target, dict)
            return Found(names, handlers=target)
    return Found({})


def _plain(segment: str) -> str:
    return unquote_to_bytes(segment).decode("utf-8", "replace")
