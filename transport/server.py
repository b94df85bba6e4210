"""HTTP/1.1 on a client's connection, under the interfaces of Tornado's own server.

One request is active at a time. What follows it waits as raw bytes, so that nothing of it is interpreted before its
turn comes; reading goes on meanwhile, as the end of the stream is how a client that has gone shows.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import cast

from tornado.httputil import HTTPInputError, HTTPServerConnectionDelegate

from transport.answers import failure, refusal
from transport.handover import HandedOverStream, Tunnel
from transport.outflow import HIGH_MARK_BYTES, LOW_MARK_BYTES
from transport.peer import ConnectionContext, PeerStream
from transport.received import Refused, RequestHead, ServerLimits, WireHeaders, check_partial, parse_head
from transport.receiving import Receiver, State

__all__ = ["ConnectionContext", "Refused", "ServerConnection", "ServerLimits", "WireHeaders"]

_log = logging.getLogger("sluice.server")

# Pipelined requests that wait for the active one. A client that sends more is not one that waits for answers.
_WAITING_BYTES = 64 * 1024
# RFC 9112 section 9.6: what still comes after the last answer is taken and dropped up to these bounds, as a connection
# that is closed over unread bytes is reset, and the reset may take the answer out of the client's hands.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * 1024 * 1024
# What the kernel takes of an answer before the client has taken it, besides what is on its way. With megabytes there, as
# it would like to, a slow client shows no progress for minutes, and a thousand that stopped reading cost gigabytes.
_UNSENT_BYTES = 256 * 1024


def _keep_unsent_small(connection: socket.socket | None) -> None:
    if connection is not None and connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


class ServerConnection(Receiver, asyncio.Protocol):
    """A client's connection: drives ``door`` as :mod:`tornado.http1connection` would.

    A delegate may have a method ``body_stalled()`` besides Tornado's: called when the client pauses for
    ``body_idle_seconds`` inside its body. Without it the answer is 408 (:meth:`refuse_slow_body`).
    """

    __slots__ = (
        "_close_callback",
        "_door",
        "_dropped",
        "_heading",
        "_on_closed",
        "_protocol",
        "_requests",
        "_seen",
        "context",
        "target",
    )

    def __init__(
        self,
        door: HTTPServerConnectionDelegate,
        limits: ServerLimits,
        on_closed: "Callable[[ServerConnection], None] | None" = None,
        protocol: str = "http",
    ) -> None:
        super().__init__(limits)
        self._door = door
        self._on_closed = on_closed
        self._method = ""
        self.target = ""
        """Of the active request, as it was sent."""
        self._until_close = False
        self._protocol = protocol
        self._seen = 0
        """How much of what is pending was searched for the end of a head."""
        self._heading = False
        """Whether the clock of a head that has begun is running."""
        self._requests = 0
        self._dropped = 0
        self._close_callback: Callable[[], None] | None = None

    @property
    def stream(self) -> PeerStream:
        """A part of Tornado's stream, for :meth:`tornado.httputil.HTTPServerRequest.get_ssl_certificate`."""
        return PeerStream(self._transport)

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """``callback`` is called once if the client goes after its request is in and before its answer is out."""
        self._close_callback = callback

    def refuse_slow_body(self) -> None:
        """Answer 408, if no answer has begun, and close."""
        self._refuse(Refused(408, "request_timeout", "nothing more of the body came in time"))

    def detach(self) -> HandedOverStream:
        """Give the connection to another protocol, with what was read after the request. No HTTP follows.

        ``on_closed`` is called when that protocol's connection ends.
        """
        self.send_out()
        self._state = State.DETACHED
        self._answered = True
        self._timer.close()
        self._flow_lost()
        self._delegate = self._close_callback = self._held = None
        received, self._pending = bytes(self._pending), b""
        send_idle_seconds = self._limits.send_idle_seconds
        return HandedOverStream(Tunnel(self._transport, self._loop, received, send_idle_seconds, self._detached_closed))

    def close(self) -> None:
        """Close once what is written is sent. A request under way is cut."""
        if not self.closed:
            self._shut()

    def _detached_closed(self) -> None:
        self.closed = True
        self._end()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own class says nothing of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(HIGH_MARK_BYTES, LOW_MARK_BYTES)
        _keep_unsent_small(transport.get_extra_info("socket"))
        self.context = ConnectionContext(transport.get_extra_info("peername"), self._protocol)
        self._timer.set(self._limits.header_seconds)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if not self._pending:
            self._pending = data
        else:
            if not isinstance(self._pending, bytearray):
                self._pending = bytearray(self._pending)
            self._pending += data
        if state is State.HEAD:
            self._take_head()
        elif state is State.BODY:
            self._take_body()
        elif state is State.DROP or state is State.CLOSING:
            self._drop()
        elif len(self._pending) > _WAITING_BYTES:
            self.abort()

    def eof_received(self) -> None:
        # A client that closes its half cannot be told from one that has gone.
        if not self.closed:
            self.closed = True
            self._gone()
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self._gone()
        self._end()

    def _end(self) -> None:
        self._state = State.CLOSING
        self._timer.close()
        self._flow_lost()
        self._pending = b""
        self._body = None
        self._held = None
        self._door.on_close(self)
        if self._on_closed is not None:
            self._on_closed(self)
            self._on_closed = None

    # Requests, one by one.

    def _take_head(self) -> None:
        if self._state is not State.HEAD or self.closed:
            return  # it was called later, and things went on
        pending = self._pending
        if self._full:
            # Nothing more is begun for a client that does not take what it has asked for already.
            if len(pending) > _WAITING_BYTES:
                self.abort()
            return
        if pending[:2] == b"\r\n":
            pending = self._skip_empty_lines(bytes(pending))
        if not pending:
            return
        end = pending.find(b"\r\n\r\n", max(self._seen - 3, 0))
        try:
            if end < 0:
                check_partial(pending, self._seen, self._limits)
                if not self._heading:
                    # Once a request: empty lines before it, byte by byte, are no way to prolong it.
                    self._heading = True
                    self._timer.set(self._limits.header_seconds)
                self._seen = len(pending)
                return
            head = parse_head(bytes(pending[:end]), self._limits)
        except Refused as error:
            self._refuse(error)
            return
        self._seen = 0
        self._pending = bytes(pending[end + 4 :])
        self._begin(head)

    def _skip_empty_lines(self, pending: bytes) -> bytes:
        # RFC 9112 section 2.2: an empty line before a request is ignored.
        at = 0
        while pending.startswith(b"\r\n", at):
            at += 2
        self._seen = 0
        self._pending = pending = pending[at:]
        return pending

    def _begin(self, head: RequestHead) -> None:
        self._heading = False
        self._requests += 1
        start_line = head.start_line
        self.target = start_line.path
        keep_alive = head.keep_alive and self._requests < self._limits.requests_per_connection
        self._expect_answer(start_line.method, start_line.version, keep_alive)
        self._timer.clear()
        self._expect_body(head)
        self._dropped = 0
        try:
            self._delegate = self._door.start_request(self, self)
            awaited = self._delegate.headers_received(start_line, head.headers)
            if self._expects_continue:
                # Later: a handler that refuses in its first step needs no body.
                self._loop.call_soon(self._continue)
            if awaited is not None and self._hold(awaited, self._take_body):
                return
        except Exception as error:
            self._failed(error)
            return
        self._take_body()

    # The ends of exchanges.

    def _answer_ended(self) -> None:
        state = self._state
        self._close_callback = None
        if self.status == 101:
            self._state = State.SWITCHED
            self._timer.set(self._limits.header_seconds)
        elif state is State.ANSWER:
            self._next()
        elif state is State.BODY:
            # The answer is out before the body is in.
            self._held = None
            if not self._keep_alive and not self._is_complete():
                self._close_gently()
                return
            self._state = State.DROP
            self.resume_body()
            self._timer.set(_LINGER_SECONDS)
            self._drop()

    def _next(self) -> None:
        self._delegate = None
        self._body = None
        # A body may have been paused for a reader who was done before its last piece.
        self.resume_body()
        if not self._keep_alive:
            self._close_gently()
            return
        self._state = State.HEAD
        self._timer.clear()
        if not self._full:
            self._await_head()

    def _await_head(self) -> None:
        if not self._pending:
            self._timer.set(self._limits.keep_alive_seconds)
            return
        # What is here already has no clock: an event loop that is late is not the client's fault.
        self._timer.clear()
        # Later: a handler may still be at work behind its answer, and a thousand requests are no recursion.
        self._loop.call_soon(self._take_waiting)

    def _take_waiting(self) -> None:
        self._take_head()
        if self._state is State.HEAD and not self._pending and not self.closed:
            # It was empty lines.
            self._timer.set(self._limits.keep_alive_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._state is State.HEAD:
            # The client has yet to take what it asked for: the clock of that rules, and what it asks next may wait.
            self._timer.clear()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._state is State.HEAD:
            self._await_head()

    def _drop(self) -> None:
        """Let go of what came after the answer."""
        self._dropped += len(self._pending)
        if self._state is State.DROP:
            try:
                self._decode()
            except Refused:
                self._close_gently()
                return
            if self._is_complete():
                self._tell()
                self._next()
                return
        else:
            self._pending = b""
        if self._dropped > _LINGER_BYTES:
            self._shut()

    def _tell(self) -> None:
        """Tell the delegate, or who asked to be told, that the exchange is not going to be completed."""
        delegate, self._delegate = self._delegate, None
        callback, self._close_callback = self._close_callback, None
        self._held = None
        try:
            if self._state is State.ANSWER and callback is not None:
                callback()
            elif delegate is not None:
                delegate.on_connection_close()
        except Exception:
            _log.exception("a handler failed when its client went")

    def _gone(self) -> None:
        self._timer.clear()
        self._tell()

    def _close_gently(self) -> None:
        if self.closed:
            return
        read_whole = self._state in (State.ANSWER, State.HEAD) and not self._pending
        self._tell()
        self._state = State.CLOSING
        self.closed = True
        self._pending = b""
        if read_whole:
            self._shut()
            return
        self.send_out()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._paused = False
        self._read_on()
        self._dropped = 0
        self._timer.set(_LINGER_SECONDS)

    def _shut(self) -> None:
        self._tell()
        self._state = State.CLOSING
        self.closed = True
        self._timer.clear()
        self._close()

    def _refuse(self, error: Refused) -> None:
        in_head = self._state is State.HEAD
        bodyless = self._pending[:5] == b"HEAD " if in_head else self._method == "HEAD"
        self._end_with(refusal(error, bodyless=bodyless))

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, HTTPInputError):
            self._refuse(Refused(400, "malformed_request", str(error) or "malformed request"))
            return
        _log.error("a handler failed", exc_info=error)
        self._end_with(failure(bodyless=self._method == "HEAD"))

    def _end_with(self, answer: bytes) -> None:
        """Close with ``answer``, if none has begun."""
        if self.closed or (self._answered and self._state is not State.HEAD):
            return
        if self._answered or not self.begun:
            self._write(answer)
            self._left = 0
            self._until_close = False
        self._state = State.BODY  # of which nothing more is read: more may be on its way
        self.cut()

    def _expired(self) -> None:
        state = self._state
        if state is State.HEAD and self._pending:
            self._refuse(Refused(408, "request_timeout", "the head of the request did not come in time"))
        elif state is State.BODY:
            stalled = getattr(self._delegate, "body_stalled", self.refuse_slow_body)
            try:
                stalled()
            except Exception as error:
                self._failed(error)
        elif state is State.SWITCHED:
            self.abort()
        else:
            self._shut()
