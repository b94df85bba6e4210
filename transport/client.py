"""The way to providers over HTTP/1.1, on aiohttp's connection pool.

aiohttp stays inside this module, :mod:`transport.interim` and :mod:`transport.failures`. What it would do by itself
is switched off: redirects, cookies, decompression, proxies from the environment, header fields of its own, a second
sending of idempotent requests on a reused connection, and its clocks, for which those of
:class:`transport.messages.Clocks` stand.

Header text is latin-1, one character a byte (RFC 9110 section 5.5), in both directions.
"""

import asyncio
import ssl
import weakref
from types import TracebackType
from typing import Final, NoReturn

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from core.errors import ConnectFailed, Delivered, UpstreamMalformed, UpstreamTimeout
from core.headers import Headers
from transport import failures
from transport.interim import Connector
from transport.messages import Clocks, UpstreamRequest
from transport.upload import SLICE_BYTES, Slices, Upload

# Answers may carry long fields: content security policies, signed URLs.
_MAX_FIELD_BYTES: Final = 64 * 1024
_MAX_FIELDS: Final = 256

# Written by the transport itself, whatever the request says: two opinions on framing are request smuggling
# (RFC 9112 section 11.2). `Expect` is a matter between two hops, and this one does not wait.
_OWN_FIELDS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
)
_NO_FIELDS_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_NO_CLOCKS = aiohttp.ClientTimeout()


class PoolLimits(msgspec.Struct, frozen=True):
    """Bounds of the connection pool."""

    connections: int = 4096
    """Open connections to all providers; a request beyond them waits, on its connect clock."""
    connections_per_host: int = 2048
    """Open connections to one scheme, host and port."""
    keep_alive_seconds: float = 15.0
    """An idle connection is closed after this. Below the limit of most providers' front ends, so that they seldom
    close first, which costs the request that is just on its way."""


class AiohttpClient:
    """:class:`transport.messages.UpstreamClient` over TCP and TLS. Made anywhere, used in one event loop."""

    def __init__(self, limits: PoolLimits | None = None, tls: ssl.SSLContext | None = None) -> None:
        """``tls`` replaces the default context, which trusts the system's authorities."""
        self._limits = limits or PoolLimits()
        # Made here, for reading the authorities takes tens of milliseconds that no request should wait for.
        self._tls = tls or ssl.create_default_context()
        self._session: aiohttp.ClientSession | None = None
        self._answers: weakref.WeakSet[_Answer] = weakref.WeakSet()
        self._lines: _Lines = weakref.WeakKeyDictionary()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._answers)} answers under way"
        return f"<AiohttpClient {state}>"

    async def send(self, request: UpstreamRequest) -> "_Answer":
        """See :meth:`transport.messages.UpstreamClient.send`.

        Raises:
            core.errors.UpstreamError: as the protocol says.
            core.errors.InvalidRequest: a streamed body is shorter or longer than its ``body_length``.
            Exception: whatever a streamed body raised, as it was.
        """
        if self._closed:
            raise ConnectFailed("The gateway is closing its connections to providers.", delivered=Delivered.NO)
        attempt = _Attempt(request.clocks, self._lines)
        try:
            async with attempt:
                response = await self._open_session().request(
                    request.method,
                    _url(request.url),
                    headers=_fields(request),
                    data=_payload(request, attempt),
                    skip_auto_headers=_NO_FIELDS_ADDED,
                    allow_redirects=False,
                    timeout=_NO_CLOCKS,
                    middlewares=(attempt.follow,),
                )
        except (aiohttp.ClientError, ValueError) as error:
            if attempt.failure is not None:
                raise attempt.failure from None  # which aiohttp may have wrapped
            raise failures.unwritable(error) from error
        except asyncio.CancelledError as error:
            if self._gave_up_waiting():
                raise failures.connect_failure(error) from error
            raise
        answer = _Answer(response, attempt, request.clocks.idle_seconds)
        if answer.status < 200:
            # 101 to a request that asked for no upgrade (RFC 9110 section 15.2.2); aiohttp skips the other 1xx.
            answer.close()
            raise UpstreamMalformed("The provider switched to a protocol that nobody asked for.")
        self._answers.add(answer)
        return answer

    async def close(self) -> None:
        """See :meth:`transport.messages.UpstreamClient.close`. The client takes no request afterwards."""
        self._closed = True
        for answer in list(self._answers):
            answer.close()
        if self._session is not None:
            await self._session.close()

    def _gave_up_waiting(self) -> bool:
        """Whether a ``CancelledError`` only means that the pool was closed: it cancels those that wait in it so."""
        task = asyncio.current_task()
        return self._closed and task is not None and not task.cancelling()

    def _open_session(self) -> aiohttp.ClientSession:
        # Made late: aiohttp binds a session to the running loop.
        if self._session is None:
            connector = Connector(
                ssl=self._tls,
                limit=self._limits.connections,
                limit_per_host=self._limits.connections_per_host,
                keepalive_timeout=self._limits.keep_alive_seconds,
                resolver=aiohttp.ThreadedResolver(),
                happy_eyeballs_delay=0.25,  # RFC 8305 section 5
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                request_class=_Request,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                max_line_size=_MAX_FIELD_BYTES,
                max_field_size=_MAX_FIELD_BYTES,
                max_headers=_MAX_FIELDS,
            )
        return self._session


class _Attempt:
    """One sending: which clock runs for it, and what has been done.

    ::

        connecting ──connected──▶ waiting for the head   (first_byte_seconds)
                                     │ ▲
                          taken      ▼ │ written whole
                                  uploading              (idle_seconds a piece; off while the source is slow)
    """

    __slots__ = ("_clock", "_clocks", "_lines", "_running", "_transport", "content", "failure")

    def __init__(self, clocks: Clocks, lines: "_Lines") -> None:
        self._clocks = clocks
        self._lines = lines
        self._clock = asyncio.timeout(clocks.connect_seconds)
        self._transport: asyncio.Transport | None = None
        self._running = False
        self.failure: Exception | None = None
        """What a streamed body raised."""
        self.content: aiohttp.StreamReader | None = None
        """The answer's body, once its head is there."""

    async def __aenter__(self) -> None:
        await self._clock.__aenter__()
        self._running = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running = False
        if error is not None:
            self.abort()
        try:
            await self._clock.__aexit__(kind, error, traceback)
        except TimeoutError as timeout:
            if self._transport is None:
                raise failures.connect_timeout() from timeout
            raise UpstreamTimeout("The provider did not begin to answer in time.") from timeout

    async def follow(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """aiohttp's middleware around connecting, writing, and reading the head.

        It must map failures here: ``aiohttp.ClientSession`` would send an idempotent request a second time when it
        sees one of its own connection errors on the way out, and would do so after bytes had been written.
        """
        assert isinstance(request, _Request)
        request.attempt = self
        try:
            return await handler(request)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            if self.failure is not None:
                raise self.failure from error
            if self._transport is None:
                raise failures.connect_failure(error) from error
            raise failures.exchange_failure(error) from failures.for_the_log(error)

    def connected(self, protocol: ResponseHandler) -> None:
        """A connection is there, nothing has been written on it."""
        line = self._lines.get(protocol)
        if line is None:
            self._lines[protocol] = line = _Line(protocol)
        line.attempt = self
        self._transport = protocol.transport
        self._await_head()

    def taken(self) -> None:
        """See :meth:`transport.upload.UploadClock.taken`."""
        self._set(self._clocks.idle_seconds)

    def hungry(self) -> None:
        """See :meth:`transport.upload.UploadClock.hungry`."""
        self._set(None)

    def written(self) -> None:
        """See :meth:`transport.upload.UploadClock.written`."""
        self._await_head()

    def failed(self, error: Exception) -> None:
        """See :meth:`transport.upload.UploadClock.failed`."""
        self.failure = error

    def abort(self) -> None:
        """Close the connection now: whatever it still has to write, and without TLS's farewell."""
        if self._transport is not None:
            self._transport.abort()

    def _await_head(self) -> None:
        self._set(self._clocks.first_byte_seconds)

    def _set(self, seconds: float | None) -> None:
        # An answer may begin, and this clock end, before the body is written whole.
        if self._running and not self._clock.expired():
            self._clock.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


class _Line:
    """One connection of the pool, watched for its end on behalf of the attempt that it serves.

    When the framing of a body breaks after its head, aiohttp closes the connection and tells its protocol, but not
    the reader of the body, who would wait until the idle clock ends.
    """

    __slots__ = ("_protocol", "attempt")

    def __init__(self, protocol: ResponseHandler) -> None:
        self._protocol = weakref.ref(protocol)
        self.attempt: _Attempt | None = None
        closed = protocol.closed
        if closed is not None:
            closed.add_done_callback(self._ended)

    def _ended(self, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # looked at, so that asyncio does not log it as forgotten
        protocol = self._protocol()
        content = self.attempt.content if self.attempt is not None else None
        if protocol is None or content is None or content.is_eof() or content.exception() is not None:
            return
        content.set_exception(protocol.exception() or aiohttp.ClientPayloadError("the connection has ended"))


class _Request(aiohttp.ClientRequest):
    """aiohttp's request, telling its attempt of the connection that it got."""

    attempt: _Attempt

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        assert conn.protocol is not None
        self.attempt.connected(conn.protocol)
        return await super().send(conn)


class _Answer:
    """:class:`transport.messages.UpstreamResponse` around aiohttp's."""

    __slots__ = ("__weakref__", "_attempt", "_ended", "_idle_seconds", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, attempt: _Attempt, idle_seconds: float | None) -> None:
        self._response = response
        self._attempt = attempt
        attempt.content = response.content
        self._idle_seconds = idle_seconds
        self._ended = False
        self.status: int = response.status
        self.headers = Headers(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.raw_headers
        )

    def __repr__(self) -> str:
        return f"<answer {self.status} {'ended' if self._ended else 'under way'}>"

    async def read(self) -> bytes:
        clock = asyncio.timeout(self._idle_seconds)
        try:
            async with clock:
                data = await self._response.content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            self._fail(error, idle=clock.expired())
        if not data:
            self._ended = True
        return data

    def close(self) -> None:
        if self._ended:
            return
        self._ended = True
        # A response that is complete has given its connection back to the pool already.
        if self._response.connection is not None:
            self._attempt.abort()
        self._response.close()

    def _fail(self, error: Exception, idle: bool) -> NoReturn:
        self.close()
        if idle:
            raise UpstreamTimeout("The provider stopped sending in the middle of its answer.") from error
        raise failures.exchange_failure(error) from failures.for_the_log(error)


_Lines = weakref.WeakKeyDictionary[ResponseHandler, _Line]


def _payload(request: UpstreamRequest, attempt: _Attempt) -> bytes | Upload | None:
    body = request.body
    if body is None:
        return None
    if isinstance(body, bytes):
        return body if len(body) <= SLICE_BYTES else Upload(Slices(body), len(body), attempt)
    return Upload(body, request.body_length, attempt)


def _fields(request: UpstreamRequest) -> list[tuple[str, str]]:
    """The header section but for ``Host``; without a length aiohttp frames a streamed body in chunks."""
    fields = [
        (name, value if value.isascii() else _rewrite(value))
        for name, value in request.headers
        if name not in _OWN_FIELDS
    ]
    length = len(request.body) if isinstance(request.body, bytes) else request.body_length
    if length is not None and request.body is not None:
        fields.append(("content-length", str(length)))
    return fields


def _rewrite(value: str) -> str:
    """The text that aiohttp, which writes UTF-8, turns into the bytes that ``value`` stands for."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        # Bytes that are no UTF-8 cannot be written through aiohttp; each goes out as the character it stands for.
        return value


def _url(text: str) -> URL:
    """``text`` as it is: neither quoted again nor normalised."""
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("a URL on the wire is printable ASCII")
    return URL(text, encoded=True)
