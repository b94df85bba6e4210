"""The data plane as a Tornado message delegate: HTTP messages become exchanges.

``tornado.web`` is not used here: a request handler reads a body whole and builds an object of many parts a request.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from http.client import responses as reason_phrases

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from access.address import client_address
from core.clock import Clock
from core.errors import BodyTimeout
from core.headers import Headers
from core.ids import new_request_id
from core.tasks import Tasks
from proxy.dataplane import DataPlane
from proxy.exchange import ClientGone, RequestHead
from proxy.pipeline import Pipeline

_BUFFER_BYTES = 64 * 1024
"""How much of a body waits for the pipeline before the client is made to wait."""

_WRITE_BYTES = 256 * 1024
"""What is written at once: the send clock runs for each such slice."""

_WITHOUT_BODY = frozenset({204, 304})
"""RFC 9110 sections 15.3.5 and 15.4.5."""

_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * 1024 * 1024
"""A refused body is taken and dropped up to these bounds, so that closing does not reset the refusal away."""


class DataPlaneDelegate(HTTPMessageDelegate):
    """One request on the data plane."""

    def __init__(
        self,
        connection: HTTPConnection,
        peer_ip: str,
        pipeline: Pipeline,
        plane: DataPlane,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._connection = connection
        self._peer_ip = peer_ip
        self._pipeline = pipeline
        self._plane = plane
        self._clock = clock
        self._tasks = tasks
        self._exchange: TornadoExchange | None = None

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        assert isinstance(start_line, RequestStartLine)
        if self._connection.stream.closed():  # type: ignore[attr-defined]  # not in the base class
            # Tornado goes on with requests that were read before their client went; nobody is there to pay for them.
            raise HTTPInputError("the client has gone")
        fields = Headers.parse(headers.get_all())
        path, _, query = start_line.path.partition("?")
        head = RequestHead(
            method=start_line.method,
            path=path,
            query=query,
            headers=fields,
            remote_ip=client_address(self._peer_ip, fields, self._plane.trusted_proxies),
            received_at=self._clock.monotonic(),
        )
        exchange = self._exchange = TornadoExchange(self._connection, head, self._plane)
        exchange.needs_length = start_line.version == "HTTP/1.0"
        task = self._tasks.spawn(self._pipeline.run(exchange, self._plane), name=exchange.request_id)
        exchange.on_close(task.cancel)

    def data_received(self, chunk: bytes) -> "asyncio.Future[None] | None":
        assert self._exchange is not None
        return self._exchange.receive(chunk)

    def finish(self) -> None:
        assert self._exchange is not None
        self._exchange.receive_end()

    def on_connection_close(self) -> None:
        if self._exchange is not None:
            self._exchange.client_gone()


class TornadoExchange:
    """An :class:`proxy.exchange.Exchange` on a Tornado connection."""

    def __init__(self, connection: HTTPConnection, head: RequestHead, plane: DataPlane) -> None:
        self.request_id = new_request_id()
        self.head = head
        self.closed = False
        self.started = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.needs_length = False
        """HTTP/1.0 knows no chunks: an answer whose length is not stated ends with its connection."""
        self._connection = connection
        self._body_idle_seconds = plane.body_idle_seconds
        self._send_idle_seconds = plane.send_idle_seconds
        self._on_close: Callable[[], object] | None = None
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._ended = False
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._discarding = False
        self._discarded = 0
        self._finished = False
        self._linger: asyncio.TimerHandle | None = None
        self._written: asyncio.Future[None] | None = None
        """Done when the client has taken what was written last; nothing more is written before."""
        connection.set_close_callback(self.client_gone)  # type: ignore[attr-defined]  # not in the base class

    # The client's side: called by the delegate.

    def receive(self, chunk: bytes) -> "asyncio.Future[None] | None":
        """Body bytes from the client; the future, if any, holds the connection's reading until it is done."""
        self.bytes_in += len(chunk)
        if self._discarding:
            self._discarded += len(chunk)
            if self._discarded > _LINGER_BYTES:
                self._close_now()
            return None
        self._pieces.append(chunk)
        self._buffered += len(chunk)
        self._wake()
        if self._buffered < _BUFFER_BYTES:
            return None
        self._drained = asyncio.get_running_loop().create_future()
        return self._drained

    def receive_end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._wake()
        if self._discarding:
            self._finish_connection()

    def client_gone(self) -> None:
        """The connection is closed."""
        if self.closed or self._finished:
            return
        self.closed = True
        self._resume()
        if self._linger is not None:
            self._linger.cancel()
        if self._on_close is not None and not self._discarding:
            self._on_close()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _resume(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # The pipeline's side: the Exchange protocol.

    def on_close(self, callback: Callable[[], object]) -> None:
        self._on_close = callback

    async def read(self) -> bytes:
        while not self._pieces:
            if self._ended:
                return b""
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._body_idle_seconds):
                    await self._arrived
            except TimeoutError:
                raise BodyTimeout(f"nothing more of the body came for {self._body_idle_seconds:g} s") from None
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if self._buffered < _BUFFER_BYTES:
            self._resume()
        return piece

    def start(self, status: int, headers: Sequence[tuple[str, str]], data: bytes = b"", *, complete: bool) -> None:
        self.started = True
        fields = HTTPHeaders()
        for name, value in headers:
            fields.add(name, value)
        if complete and status not in _WITHOUT_BODY:
            fields["content-length"] = str(len(data))
        if self.needs_length and "content-length" not in fields:
            self._close_when_finished()
        if self.head.method == "HEAD" or status in _WITHOUT_BODY:
            # An answer to HEAD has the fields of the answer to GET and no body (RFC 9110 section 9.3.2).
            data = b""
        self.bytes_out += len(data)
        line = ResponseStartLine("HTTP/1.1", status, reason_phrases.get(status, "Unknown"))
        self._written = self._connection.write_headers(line, fields, data)
        if complete:
            self.finish()

    def _close_when_finished(self) -> None:
        # Tornado has no public way to say so once it has read the request, and would promise to keep the connection.
        self._connection._disconnect_on_finish = True  # type: ignore[attr-defined]  # noqa: SLF001  see above
        self._connection._request_headers.pop("connection", None)  # type: ignore[attr-defined]  # noqa: SLF001  see above

    async def write(self, data: bytes) -> None:
        if len(data) <= _WRITE_BYTES:
            await self._write(data)
            return
        for start in range(0, len(data), _WRITE_BYTES):
            await self._write(data[start : start + _WRITE_BYTES])

    async def _write(self, data: bytes) -> None:
        await self._flush(self._send_idle_seconds)
        if self.closed:
            raise ClientGone
        self.bytes_out += len(data)
        self._written = self._connection.write(data)
        await self._flush(self._send_idle_seconds)

    async def _flush(self, seconds: float) -> None:
        """Wait until the client has taken what was written; one that does not within ``seconds`` is given up."""
        if self._written is None or self._written.done():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._written
        except TimeoutError:
            raise ClientGone from None

    def finish(self) -> None:
        if self.closed or self._finished:
            return
        if self._ended:
            self._finish_connection()
            return
        # The answer is out before the body is in. Closing now would reset the connection under the client's hands,
        # so what still comes is dropped for a while (RFC 9112 section 9.6).
        self._discarding = True
        self._pieces.clear()
        self._resume()
        self._linger = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._close_now)

    async def abort(self) -> None:
        if self.closed or self._finished:
            return
        try:
            await self._flush(min(self._send_idle_seconds, _LINGER_SECONDS))
        except ClientGone:
            pass  # it takes nothing, not even this
        self._close_now()

    def _finish_connection(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        if not self._finished and not self.closed:
            self._finished = True
            self._connection.finish()
            if self._written is not None and not self._written.done():
                # Nobody waits for the end of an answer that is complete: a client that does not take it is cut.
                timer = asyncio.get_running_loop().call_later(self._send_idle_seconds, self._close_now)
                self._written.add_done_callback(lambda _: timer.cancel())

    def _close_now(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._finished = True
        self._resume()
        self._connection.close()  # type: ignore[attr-defined]  # not in the base class
