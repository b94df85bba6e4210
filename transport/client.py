"""The way to providers over HTTP/1.1: a pool of kept connections, each with llhttp as its parser.

A request is written on a connection that is idle, or else on a new one, and never a second time: what has been written
may have been delivered, and whether it may be sent again is not for this layer to say. What has not been written has
lost nothing: an idle connection that turns out to be closed costs the request a look at the next.
"""

import asyncio
from typing import Final

from core.tasks import Tasks
from transport import failures
from transport.answer import Answer
from transport.decoding import DecodedAnswer, decoded
from transport.dialing import Dialer
from transport.messages import ConnectionOptions, UpstreamRequest
from transport.pool import Origin, Pool, PoolLimits
from transport.provider_connection import NotSent, ProviderConnection
from transport.request_head import parse_url, render
from transport.upload import WHOLE_BYTES, SlicedUpload, StreamedUpload, Upload

__all__ = ["HttpClient", "PoolLimits"]

_MAX_ADDRESSES: Final = 1024
"""URLs remembered with what they come to. Few differ, as long as no ids stand in them."""
_MAX_LOST: Final = 3
"""Connections, made for one request, that may end before its first byte: whoever accepts and hangs up would have us try
for ever."""


class HttpClient:
    """:class:`transport.messages.UpstreamClient` over TCP and TLS. Made anywhere, used in one event loop."""

    def __init__(self, limits: PoolLimits | None = None, beside: "HttpClient | None" = None) -> None:
        """``beside``: a client whose TLS contexts this one uses too, which are long in the making; nothing else is shared."""
        self._pool = Pool(limits or PoolLimits())
        self._tasks = Tasks()
        self._dialer: Dialer = Dialer(self._tasks, None if beside is None else beside._dialer.contexts)  # noqa: SLF001  its own
        self._addresses: dict[tuple[str, ConnectionOptions], tuple[Origin, str]] = {}
        self._connecting: set[asyncio.Timeout] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpClient {'closed' if self._closed else repr(self._pool)}>"

    @property
    def limits(self) -> PoolLimits:
        """May be changed at any time; what is beyond new limits stays until it is closed anyway."""
        return self._pool.limits

    @limits.setter
    def limits(self, limits: PoolLimits) -> None:
        self._pool.limits = limits
        self._pool.wake()

    async def send(self, request: UpstreamRequest) -> Answer | DecodedAnswer:
        """See :meth:`transport.messages.UpstreamClient.send`.

        Raises:
            core.errors.UpstreamError: as the protocol says.
            core.errors.InvalidRequest: a streamed body is shorter or longer than its ``body_length``.
            Exception: whatever a streamed body raised, as it was.
        """
        origin, start = self._addresses.get((request.url, request.options)) or self._address(request)
        method, body = request.method, request.body
        upload: Upload | None = None
        if isinstance(body, bytes):
            data = render(method, start, request.headers, True, len(body))
            if len(body) <= WHOLE_BYTES:
                data += body
            else:
                upload = SlicedUpload((body,))
        elif isinstance(body, tuple):
            data = render(method, start, request.headers, True, sum(map(len, body)))
            while body and len(body[0]) <= WHOLE_BYTES:
                data, body = data + body[0], body[1:]
            upload = SlicedUpload(body)
        else:
            data = render(method, start, request.headers, body is not None, request.body_length)
            if body is not None:
                upload = StreamedUpload(body, request.body_length, self._tasks)
        lost = 0
        while True:
            connection = origin.take()
            if connection is None:
                if lost == _MAX_LOST:
                    raise failures.connect_failure(ConnectionResetError())
                lost += 1
                connection = await self._connect(origin, request.clocks.connect_seconds)
            head = connection.begin(data, method == "HEAD", request.clocks, upload)
            try:
                answer = await head
            except NotSent:
                continue
            except asyncio.CancelledError:
                _give_up(connection, head)
                raise
            finally:
                # It knows its failure, which knows this frame: a circle, if this frame knew it.
                del head
            break
        if (
            answer.headers.get("content-encoding") is not None
            and request.headers.get("accept-encoding") == "identity"
            and method != "HEAD"
        ):
            return decoded(answer, self._pool.limits.max_decoded_bytes)
        return answer

    async def close(self) -> None:
        """See :meth:`transport.messages.UpstreamClient.close`. The client takes no request afterwards."""
        self._closed = True
        self._addresses.clear()
        now = asyncio.get_running_loop().time()
        for clock in self._connecting:
            if not clock.expired():
                clock.reschedule(now)
        self._pool.cut()
        await self._tasks.cancel()

    def _address(self, request: UpstreamRequest) -> tuple[Origin, str]:
        if self._closed:
            raise failures.closing()
        to = parse_url(request.url)
        if len(self._addresses) >= _MAX_ADDRESSES:
            self._addresses.clear()
        address = self._pool.origin(to.tls, to.host, to.port, request.options), to.start
        self._addresses[request.url, request.options] = address
        return address

    async def _connect(self, origin: Origin, seconds: float | None) -> ProviderConnection:
        """A connection that came back, or a new one; one clock for the queue and all that a new one takes."""
        if self._closed:
            raise failures.closing()
        try:
            async with asyncio.timeout(seconds) as clock:
                self._connecting.add(clock)
                try:
                    while True:
                        connection = await self._pool.place(origin)
                        if connection is None:
                            return await self._dial(origin)
                        if connection.usable:
                            return connection
                finally:
                    self._connecting.discard(clock)
        except TimeoutError as error:
            if self._closed:
                raise failures.closing() from error
            raise failures.connect_timeout() from error

    async def _dial(self, origin: Origin) -> ProviderConnection:
        connection = ProviderConnection(asyncio.get_running_loop(), origin)
        try:
            await self._dialer.dial(
                origin.host, origin.port, origin.tls, origin.options, connection, self._pool.limits.dns_cache_seconds
            )
            if self._closed:
                raise failures.closing()
            if not connection.usable:
                raise failures.connect_failure(ConnectionResetError())
        except BaseException:
            connection.cut()
            self._pool.leave(origin)
            raise
        self._pool.add(connection)
        return connection


def _give_up(connection: ProviderConnection, head: "asyncio.Future[Answer]") -> None:
    """Nobody waits for ``head`` any more."""
    if head.cancelled() or not head.done():
        connection.give_up()
    elif head.exception() is None:
        # It had come already, and the connection may be another request's by now.
        head.result().close()
