"""`transport.server.ServerConnection` under the corpus: a handler that remembers, and what came of the bytes."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from core.tasks import Tasks
from tests.conformance.http1.corpus import RequestCase, Seen
from tests.conformance.http1.wire import Answer, Malformed, MemoryTransport, read_answers
from transport.server import ServerConnection, ServerLimits, WireHeaders

PROBE = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"
_PROBED = Seen("GET", "/probe", b"")
# Turns of the loop in which no handler works and nothing but the connection's own steps can be under way.
_QUIET_TURNS = 40


@dataclass(slots=True)
class Exchange:
    """One request while it comes in."""

    method: str
    target: str
    headers: WireHeaders
    body: bytes = b""
    whole: bool = False
    cut: bool = False
    """Whether the handler was told that the connection has gone."""

    @property
    def seen(self) -> Seen:
        return Seen(self.method, self.target, self.body if self.whole else None)


class Recorder(HTTPServerConnectionDelegate):
    """Answers every whole request and remembers all of them. Its target chooses the way of the answer."""

    def __init__(self, *, later: Tasks | None = None) -> None:
        """``later`` runs the answers after the request's end has been told; None: they come at once."""
        self.later = later
        self.exchanges: list[Exchange] = []
        self.closed: list[object] = []

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        assert isinstance(request_conn, ServerConnection)
        return _Handler(self, request_conn)

    def on_close(self, server_conn: object) -> None:
        self.closed.append(server_conn)


class _Handler(HTTPMessageDelegate):
    def __init__(self, recorder: Recorder, connection: ServerConnection) -> None:
        self._recorder = recorder
        self._connection = connection
        self._exchange: Exchange | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert self._exchange is None, "a head twice"
        assert isinstance(start_line, RequestStartLine)
        assert isinstance(headers, WireHeaders)
        self._exchange = Exchange(start_line.method, start_line.path, headers)
        self._recorder.exchanges.append(self._exchange)
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        assert self._exchange is not None, "a body before its head"
        assert not self._exchange.whole, "a body after its end"
        assert isinstance(chunk, bytes)
        self._exchange.body += chunk
        return None

    def finish(self) -> None:
        assert self._exchange is not None, "an end before its head"
        assert not self._exchange.whole, "an end twice"
        assert self._exchange is self._recorder.exchanges[-1], "the next request began before this one was answered"
        self._exchange.whole = True
        if self._recorder.later is None:
            answer(self._connection, self._exchange)
        else:
            self._recorder.later.spawn(self._answer_later(self._exchange), "answer")

    async def _answer_later(self, exchange: Exchange) -> None:
        await asyncio.sleep(0)
        if not exchange.cut:
            answer(self._connection, exchange)

    def on_connection_close(self) -> None:
        if self._exchange is not None:
            self._exchange.cut = True


def answer(connection: ServerConnection, exchange: Exchange) -> None:
    """Answer by the interface and in the form that the target names; the body says what was asked."""
    body = f"{exchange.method} {len(exchange.body)}".encode()
    match exchange.target:
        case "/204":
            connection.start_answer(204, (), complete=True)
        case "/304":
            connection.start_answer(304, (("etag", '"x"'),), complete=True)
        case "/stream":
            connection.start_answer(200, (("content-type", "text/plain"),), body[:2], complete=False)
            connection.send(body[2:])
            connection.finish()
        case "/tornado":
            headers = HTTPHeaders({"content-length": str(len(body))})
            connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, body[:3])
            connection.write(body[3:])
            connection.finish()
        case _:
            connection.start_answer(200, (("content-type", "text/plain"),), body, complete=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the bytes of a case."""

    answers: tuple[Answer, ...]
    fate: str
    seen: tuple[Seen, ...]
    first: WireHeaders | None
    """The fields of the first request."""

    def statuses(self, *, interim: bool) -> tuple[int, ...]:
        return tuple(each.status for each in self.answers if interim or each.status >= 200)


async def serve(pieces: Iterable[bytes], *, later: bool = False, limits: ServerLimits | None = None) -> Outcome:
    """Feed ``pieces`` to a connection, then a further request that tells whether it is still served.

    ``later``: the handler answers in turns of the loop of its own, and the loop gets one after each piece.
    """
    tasks = Tasks()
    recorder = Recorder(later=tasks if later else None)
    connection = ServerConnection(recorder, limits or ServerLimits())
    transport = MemoryTransport(connection)
    try:
        for piece in pieces:
            transport.feed(piece)
            if later:
                await asyncio.sleep(0)
        await settled(tasks)
        written, exchanges, ended = bytes(transport.written), list(recorder.exchanges), transport.ended
        seen = tuple(each.seen for each in exchanges)
        if not ended:
            transport.feed(PROBE)
            await settled(tasks)
        further = [each.seen for each in recorder.exchanges[len(exchanges) :]]
        if ended:
            fate = "closed"
        elif [_PROBED] == further and not transport.ended:
            fate = "kept"
        else:
            # The probe went into the message: as its rest, or as what broke it.
            fate = "waiting"
        if fate != "kept":
            assert _PROBED not in further, "a request was served behind one that was not whole or not to be followed"
        answers = read_answers_to(seen, written, ended=ended)
        return Outcome(tuple(answers), fate, seen, exchanges[0].headers if exchanges else None)
    finally:
        transport.abort()
        await tasks.cancel()
        await asyncio.sleep(0)


def read_answers_to(seen: Sequence[Seen], written: bytes, *, ended: bool) -> list[Answer]:
    """The answers in ``written``: to the requests in ``seen``, and maybe a refusal of one that the handler never saw.

    Raises:
        Malformed: see :func:`read_answers`.
    """
    methods = [each.method for each in seen]
    try:
        return read_answers(written, [*methods, "GET"], ended=ended)
    except Malformed:
        # What looked like HEAD is refused without a body.
        return read_answers(written, [*methods, "HEAD"], ended=ended)


async def settled(tasks: Tasks) -> None:
    """Let what is under way come to its end."""
    quiet = 0
    while quiet < _QUIET_TURNS:
        await asyncio.sleep(0)
        quiet = 0 if len(tasks) else quiet + 1


def differences(case: RequestCase, outcome: Outcome) -> list[str]:
    """In what ``outcome`` is not what its case says."""
    found: list[str] = []

    def hold(what: str, expected: object, got: object) -> None:
        if expected != got:
            found.append(f"{what}: {_short(expected)} was expected, {_short(got)} came")

    hold("statuses", case.answers, outcome.statuses(interim=100 in case.answers))
    hold("the connection", case.fate, outcome.fate)
    hold("requests", case.seen, outcome.seen)
    for name, values in case.fields.items():
        got = outcome.first
        hold(name, list(values), None if got is None else got.fields.get_all(name))
        hold(f"{name} for Tornado", list(values), None if got is None else got.get_list(name))
    finals = [each for each in outcome.answers if each.status >= 200]
    for number, each in enumerate(finals):
        # RFC 9112 section 9.6: a server that is about to close says so.
        hold("close", case.fate == "closed" and number == len(finals) - 1, each.closes)
        if each.status >= 400:
            hold("the error", b"" if case.sent.startswith(b"HEAD ") else b'{"error":', each.body[:9])
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 1000 else f"{text[:500]}…{text[-500:]}"
