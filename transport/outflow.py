"""What leaves through a transport: backpressure, and a clock for clients that take nothing."""

import asyncio
import fcntl
import socket
import sys
import termios
from abc import abstractmethod

from tornado.iostream import StreamClosedError

from transport.clock import LazyTimer
from transport.turn import turn_of

# uvloop's low mark is 16 bytes unless it is set.
HIGH_MARK_BYTES = 64 * 1024
LOW_MARK_BYTES = 16 * 1024


class Outflow:
    """The writing side of a transport. The subclass is its protocol and sets ``_transport``."""

    __slots__ = (
        "_full",
        "_gathered",
        "_handed",
        "_loop",
        "_out",
        "_send_idle_seconds",
        "_send_mark",
        "_send_timer",
        "_transport",
        "_turn",
        "_waiters",
        "closed",
    )

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, send_idle_seconds: float) -> None:
        """``send_idle_seconds``: how long the other end may take nothing of what is written."""
        self._loop = loop
        self._send_idle_seconds = send_idle_seconds
        self.closed = False
        """Nobody is there any more; what is written goes nowhere."""
        self._full = False
        self._turn = turn_of(loop)
        self._out: list[bytes | memoryview] = []
        """Written in this turn of the event loop."""
        self._gathered = 0
        self._handed = 0
        """Bytes that the transport was given."""
        self._waiters: list[asyncio.Future[None]] | None = None
        self._send_timer: LazyTimer | None = None
        self._send_mark = 0

    @abstractmethod
    def _gone(self) -> None:
        """The connection is lost or given up: tell whom it concerns."""

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        if not self.closed:
            self.closed = True
            self._gone()
        self._transport.abort()

    def _write(self, data: bytes | memoryview) -> None:
        """Send ``data`` at the end of this turn; at once where so much has gathered that the turn may be a long one."""
        out = self._out
        if not out:
            self._gathered = 0
            self._turn.join(self)
        out.append(data)
        self._gathered += len(data)
        if self._gathered > HIGH_MARK_BYTES:
            self.send_out()

    def send_out(self) -> None:
        """See :class:`transport.turn.Writer`."""
        out = self._out
        if not out:
            return
        transport = self._transport
        if transport.is_closing():
            out.clear()
        elif len(out) == 1:
            data = out[0]
            out.clear()
            self._handed += len(data)
            transport.write(data)
        else:
            self._out = []
            self._handed += sum(map(len, out))
            transport.writelines(out)

    def _flow(self) -> asyncio.Future[None]:
        """Done when more may be written; fails with StreamClosedError when the connection goes."""
        flow = self._loop.create_future()
        if self.closed:
            flow.set_exception(StreamClosedError())
            flow.exception()  # nobody has to look at it
        elif not self._full:
            flow.set_result(None)
        elif self._waiters is None:
            self._waiters = [flow]
        else:
            self._waiters.append(flow)
        return flow

    def pause_writing(self) -> None:
        self._full = True
        self._start_send_clock()

    def resume_writing(self) -> None:
        self._full = False
        if self._send_timer is not None:
            self._send_timer.clear()
        waiters, self._waiters = self._waiters, None
        for flow in waiters or ():
            if not flow.done():
                flow.set_result(None)

    def _start_send_clock(self) -> None:
        if self._send_timer is None:
            self._send_timer = LazyTimer(self._loop, self._send_expired)
        self._send_mark = self._taken()
        self._send_timer.set(self._send_idle_seconds)

    def _send_expired(self) -> None:
        if self._taken() > self._send_mark:
            # It takes something, if slowly.
            self._start_send_clock()
        elif self._transport.get_write_buffer_size():
            self.abort()

    def _taken(self) -> int:
        """Bytes that the other end has acknowledged: what the system holds for it may be megabytes, and is not taken."""
        link: socket.socket | None = self._transport.get_extra_info("socket")
        try:
            # tcp(7): SIOCOUTQ, what is not sent or not acknowledged.
            queued = b"" if link is None else fcntl.ioctl(link.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            queued = b""
        return self._handed - self._transport.get_write_buffer_size() - int.from_bytes(queued, sys.byteorder)

    def _close(self) -> None:
        """Close when all is sent; a client that takes nothing is given up."""
        self.send_out()
        if self._transport.get_write_buffer_size():
            self._start_send_clock()
        self._transport.close()

    def _flow_lost(self) -> None:
        """The connection is lost."""
        if self._send_timer is not None:
            self._send_timer.close()
            self._send_timer = None
        waiters, self._waiters = self._waiters, None
        for flow in waiters or ():
            if not flow.done():
                flow.set_exception(StreamClosedError())
                flow.exception()
