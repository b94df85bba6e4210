"""A connection that has left HTTP: the part of Tornado's stream that :mod:`tornado.websocket` works on."""

import asyncio
from collections.abc import Callable

from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError

from transport.outflow import Outflow

_BUFFER_BYTES = 64 * 1024
"""What is read ahead of the reader. More waits at the client."""


class Tunnel(Outflow, asyncio.Protocol):
    """The transport's new protocol."""

    __slots__ = ("_buffer", "_ended", "_limit", "_lost", "_on_end", "_paused", "_reading", "_wanted")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        received: bytes,
        send_idle_seconds: float,
        on_end: Callable[[], None],
    ) -> None:
        """``received`` is read first. ``on_end`` is called when the connection is lost, whoever closed it."""
        super().__init__(loop, send_idle_seconds)
        self._transport = transport
        self._buffer = bytearray(received)
        self._wanted = 0
        self._limit = 0
        self._reading: asyncio.Future[bytes] | None = None
        self._paused = False
        self._on_end = on_end
        self._lost: Callable[[], None] | None = None
        self._ended = False
        transport.set_protocol(self)
        if not transport.is_closing():
            transport.resume_reading()
        self._mind_buffer()

    def read(self, number: int, *, partial: bool) -> asyncio.Future[bytes]:
        assert self._reading is None, "already reading"
        reading = self._reading = self._loop.create_future()
        self._wanted = min(number, 1) if partial else number
        self._limit = number
        self._serve()
        if self._reading is not None:
            if self.closed:
                self._fail_read()
            else:
                self._mind_buffer()
        return reading

    def _serve(self) -> None:
        reading = self._reading
        if reading is None:
            return
        if reading.done():
            self._reading = None  # cancelled
        elif len(self._buffer) >= self._wanted:
            self._reading = None
            data = bytes(self._buffer[: self._limit])
            del self._buffer[: len(data)]
            reading.set_result(data)
            self._mind_buffer()

    def _mind_buffer(self) -> None:
        if self.closed or self._transport.is_closing():
            return
        over = len(self._buffer) >= _BUFFER_BYTES and (self._reading is None or len(self._buffer) >= self._wanted)
        if over != self._paused:
            self._paused = over
            if over:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _fail_read(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None and not reading.done():
            reading.set_exception(StreamClosedError())
            reading.exception()  # nobody has to look at it

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        if not self.closed and data:
            self._handed += len(data)
            self._transport.write(data)
        return self._flow()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._close()
            self._gone()

    def is_writing(self) -> bool:
        return self._transport.get_write_buffer_size() > 0

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        self._lost = callback
        if callback is not None and self.closed:
            self._call_lost()

    def _call_lost(self) -> None:
        callback, self._lost = self._lost, None
        if callback is not None:
            self._loop.call_soon(callback)

    def _gone(self) -> None:
        self._fail_read()
        self._call_lost()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._buffer += data
        self._serve()
        self._mind_buffer()

    def eof_received(self) -> None:
        if not self.closed:
            self.closed = True
            self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()
        self._flow_lost()
        if not self._ended:
            self._ended = True
            self._on_end()


class HandedOverStream:
    """What :meth:`transport.server.ServerConnection.detach` gives. Methods are those of Tornado's ``IOStream``."""

    __slots__ = ("_tunnel", "io_loop")

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self.io_loop = IOLoop.current()

    def read_bytes(self, num_bytes: int, partial: bool = False) -> asyncio.Future[bytes]:
        """Exactly ``num_bytes``, or between one and that many when ``partial``.

        The future fails with :class:`tornado.iostream.StreamClosedError` when the connection ends before.
        """
        return self._tunnel.read(num_bytes, partial=partial)

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        """The future is done when the client has taken enough for more to be written."""
        return self._tunnel.write(data)

    def close(self, exc_info: object = False) -> None:
        """Send what is written, then close. A client that takes nothing is given up after a while."""
        self._tunnel.close()

    def closed(self) -> bool:
        return self._tunnel.closed

    def reading(self) -> bool:
        return self._tunnel._reading is not None  # noqa: SLF001  # one object in two parts

    def writing(self) -> bool:
        return self._tunnel.is_writing()

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """``callback`` is called once when the connection closes, soon if it has."""
        self._tunnel.on_lost(callback)

    def set_nodelay(self, value: bool) -> None:
        """Small writes go out at once, as on every connection here."""
