"""The data plane as a Tornado message delegate: HTTP messages become exchanges.

``tornado.web`` is not used here: a request handler reads a body whole and builds an object of many parts a request.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine

from access.address import client_address
from core.clock import Clock
from core.errors import BodyTimeout
from core.ids import new_request_id
from core.tasks import Tasks
from proxy.dataplane import DataPlane
from proxy.exchange import ClientGone, RequestHead
from proxy.pipeline import Pipeline
from transport.server import ServerConnection, WireHeaders

_BUFFER_BYTES = 512 * 1024
"""How much of a body waits for the pipeline before the client is made to wait."""


class DataPlaneDelegate(HTTPMessageDelegate):
    """One request on the data plane."""

    __slots__ = ("_clock", "_connection", "_exchange", "_pipeline", "_plane", "_tasks")

    def __init__(
        self, connection: ServerConnection, pipeline: Pipeline, plane: DataPlane, clock: Clock, tasks: Tasks
    ) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._plane = plane
        self._clock = clock
        self._tasks = tasks
        self._exchange: HttpExchange | None = None

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        assert isinstance(start_line, RequestStartLine)
        assert isinstance(headers, WireHeaders)
        fields = headers.fields
        path, _, query = start_line.path.partition("?")
        connection, plane = self._connection, self._plane
        head = RequestHead(
            start_line.method,
            path,
            query,
            fields,
            client_address(connection.context.remote_ip, fields, plane.trusted_proxies),
            self._clock.monotonic(),
        )
        exchange = self._exchange = HttpExchange(connection, head, plane.body_idle_seconds)
        task = self._tasks.spawn(self._pipeline.run(exchange, plane), exchange.request_id)
        exchange.on_close(task.cancel)

    def data_received(self, chunk: bytes) -> None:
        assert self._exchange is not None
        self._exchange.receive(chunk)

    def finish(self) -> None:
        assert self._exchange is not None
        self._exchange.receive_end()

    def body_stalled(self) -> None:
        """See :class:`transport.server.ServerConnection`: the client paused for too long inside its body."""
        assert self._exchange is not None
        self._exchange.receive_nothing()

    def on_connection_close(self) -> None:
        if self._exchange is not None:
            self._exchange.client_gone()


class HttpExchange:
    """An :class:`proxy.exchange.Exchange` on a connection."""

    __slots__ = (
        "_arrived",
        "_body_idle_seconds",
        "_buffered",
        "_connection",
        "_ended",
        "_on_close",
        "_paused",
        "_pieces",
        "_stalled",
        "bytes_in",
        "bytes_out",
        "closed",
        "finished",
        "head",
        "request_id",
        "started",
    )

    def __init__(self, connection: ServerConnection, head: RequestHead, body_idle_seconds: float) -> None:
        self.request_id = new_request_id()
        self.head = head
        self.closed = False
        self.started = False
        self.finished = False
        self.bytes_in = 0
        self.bytes_out = 0
        self._connection = connection
        self._body_idle_seconds = body_idle_seconds
        self._on_close: Callable[[], object] | None = None
        self._pieces: deque[bytes] | None = None
        self._buffered = 0
        self._ended = False
        self._stalled = False
        self._paused = False
        self._arrived: asyncio.Future[None] | None = None

    # The client's side: called by the delegate.

    def receive(self, chunk: bytes) -> None:
        """Body bytes from the client."""
        self.bytes_in += len(chunk)
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(chunk)
        self._buffered += len(chunk)
        if self._buffered >= _BUFFER_BYTES and not self._paused:
            self._paused = True
            self._connection.pause_body()
        self._wake()

    def receive_end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._wake()

    def receive_nothing(self) -> None:
        """The body is not, and has paused for too long."""
        self._stalled = True
        self._wake()

    def client_gone(self) -> None:
        """The connection is closed."""
        if self.closed or self.finished:
            return
        self.closed = True
        # Let go of: it is the task's, and a task that was cancelled knows its frames, which know this exchange.
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # The pipeline's side: the Exchange protocol.

    def on_close(self, callback: Callable[[], object]) -> None:
        self._on_close = callback

    async def read(self) -> bytes:
        while not self._pieces:
            if self._ended:
                self._pieces = None
                return b""
            if self._stalled:
                raise BodyTimeout(f"nothing more of the body came for {self._body_idle_seconds:g} s")
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if self._paused and self._buffered < _BUFFER_BYTES:
            self._paused = False
            self._connection.resume_body()
        return piece

    def start(self, status: int, headers: Sequence[tuple[str, str]], data: bytes = b"", *, complete: bool) -> None:
        # What it refuses has not begun.
        self._connection.start_answer(status, headers, data, complete=complete)
        self.started = True
        if complete:
            self._end()
        if self.head.method != "HEAD":
            self.bytes_out += len(data)

    def write(self, data: bytes) -> bool:
        if self.closed:
            raise ClientGone
        self.bytes_out += len(data)
        return self._connection.send(data)

    async def drained(self) -> None:
        try:
            await self._connection.drained()
        except ConnectionError:
            raise ClientGone from None

    def finish(self) -> None:
        if not self.closed and not self.finished:
            self._end()
            self._connection.finish()

    def abort(self) -> None:
        if not self.closed and not self.finished:
            self._end()
            self._connection.cut()

    def _end(self) -> None:
        self.finished = True
        self._on_close = None
