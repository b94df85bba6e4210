"""One connection to a provider, and the answers that come on it.

::

           ┌─────────────── answer complete, connection kept ───────────────┐
           ▼                                                                │
    IDLE ──begin──▶ HEAD (first_byte_seconds) ──there──▶ BODY (idle_seconds while somebody waits)
     │               │                                    │
     └───────────────┴── the connection's end, a clock, a fault, close ──┴──▶ CLOSED
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol, cast

from core.errors import UpstreamError
from transport import failures
from transport.answer import Answer
from transport.answer_head import kept_seconds
from transport.answer_parser import AnswerParser
from transport.clock import LazyTimer
from transport.messages import Clocks
from transport.turn import turn_of
from transport.upload import Upload

_MAX_UNREAD_BYTES: Final = 64 * 1024
"""Taken from the provider while nobody reads, not counting the last reading of the socket."""
_MAX_BARREN_BYTES: Final = 64 * 1024
"""Framing without a byte of the body in between: chunk extensions, trailers."""
_HIGH_MARK_BYTES: Final = 64 * 1024
_LOW_MARK_BYTES: Final = 16 * 1024


class Phase(Enum):
    """Where a connection is; see the module."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    CLOSED = "closed"


# Names of their own: to look them up in their class costs as much as the rest of a comparison.
_IDLE, _HEAD, _BODY, _CLOSED = Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.CLOSED


class Keeper(Protocol):
    """Who has a connection between requests."""

    @property
    def keep_alive_seconds(self) -> float:
        """An idle connection is closed after this."""
        ...

    def came_back(self, connection: "ProviderConnection") -> None:
        """It is idle and may be used again."""
        ...

    def gone(self, connection: "ProviderConnection") -> None:
        """It is closed. Told once."""
        ...


class NotSent(Exception):
    """The connection has ended before the first byte of the request was written: another will do."""


class ProviderConnection(asyncio.Protocol):
    """See the module."""

    __slots__ = (
        "_answer",
        "_barren_bytes",
        "_clocks",
        "_full",
        "_keep_seconds",
        "_keeper",
        "_keeps",
        "_loop",
        "_out",
        "_parser",
        "_paused",
        "_take",
        "_timer",
        "_transport",
        "_turn",
        "_unread_bytes",
        "_until_end",
        "_upload",
        "_waiter",
        "phase",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
        """``keeper`` is told when it has nothing to do and when it is gone."""
        self.phase = _IDLE
        self._loop = loop
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._turn = turn_of(loop)
        self._out: bytes | None = None
        """A request of which no byte is written yet."""
        self._timer = LazyTimer(loop, self._expired)
        self._parser = AnswerParser()
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[Any] | None = None
        self._upload: Upload | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._clocks: Clocks | None = None
        self._unread_bytes = self._barren_bytes = 0
        self._until_end = self._keeps = self._paused = self._full = False
        self._keep_seconds = 0.0

    def __repr__(self) -> str:
        return f"<connection {self.phase.value}>"

    @property
    def usable(self) -> bool:
        """Whether a request may be written on it: none of its bytes will be lost for what is known by now."""
        return self.phase is _IDLE and self._transport is not None and not self._transport.is_closing()

    # What is asked of it

    def begin(
        self, data: bytes, method_is_head: bool, clocks: Clocks, upload: Upload | None
    ) -> "asyncio.Future[Answer]":
        """Write ``data``, a request's head and small body, and then what ``upload`` has. Only when it is `usable`.

        The future gives the answer when its head is there, or raises what became of it: :class:`NotSent`, too.
        """
        self.phase = _HEAD
        self._parser.begin(method_is_head)
        self._clocks = clocks
        waiter = self._waiter = self._loop.create_future()
        self._timer.set(clocks.first_byte_seconds)
        if upload is None:
            self._out = data
            self._turn.join(self)
        else:
            cast("asyncio.Transport", self._transport).write(data)
            self._upload = upload
            upload.begin(self)
        return waiter

    def send_out(self) -> None:
        """See :class:`transport.turn.Writer`."""
        out, transport = self._out, cast("asyncio.Transport", self._transport)
        if out is None:
            return
        if transport.is_closing():
            self._fail(NotSent())
        else:
            self._out = None
            transport.write(out)

    def give_up(self) -> None:
        """Close now: whatever it still has to write, and without TLS's farewell."""
        self._answer = None
        self._wake()
        self._close()

    def cut(self) -> None:
        """Close now; an answer under way, or waited for, fails."""
        self._close() if self.phase is _IDLE else self._fail(failures.cut())

    def take_unread(self) -> bytes:
        if not self._parser.pieces:
            return b""
        piece = self._parser.take()
        self._unread_bytes = 0
        if self._paused:
            self._resume()
        return piece

    def wait(self) -> "asyncio.Future[bool]":
        if self._clocks is not None:
            self._timer.set(self._clocks.idle_seconds)
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def pour(self, take: Callable[[bytes], bool]) -> "asyncio.Future[bool]":
        self._take = take
        if self._paused:
            self._resume()
        return self.wait()

    # What the socket says (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_HIGH_MARK_BYTES, _LOW_MARK_BYTES)
        if self.phase is _CLOSED:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.phase is _IDLE or self.phase is _CLOSED:
            self._close()  # nobody has asked anything
            return
        if self._out is not None:
            self._fail(NotSent())  # it speaks before it was asked
            return
        parser = self._parser
        failure: Exception | None = parser.feed(data)
        if self.phase is _HEAD:
            if failure is None:
                self._head_came(data)
            else:
                self._fail(failure)
            return
        if parser.pieces:
            self._barren_bytes = 0
            if self._take is not None:
                failure = self._hand_on(self._take) or failure
            else:
                self._unread_bytes += len(data)
                if self._unread_bytes > _MAX_UNREAD_BYTES and not parser.complete:
                    self._pause()
                self._timer.clear()
                self._wake()
        elif not parser.complete:
            self._barren_bytes += len(data)
            if self._barren_bytes > _MAX_BARREN_BYTES:
                failure = failures.malformed()
        if failure is not None:
            self._fail(failure)
            failure = None  # it may have gone through this frame: no circle of them
        elif parser.complete and self.phase is _BODY:
            self._completed()

    def eof_received(self) -> None:
        # Not left to `connection_lost`, which comes when all that is still to be written has been.
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._upload is not None:
            self._upload.go_on()

    # What an upload says (see :class:`transport.upload.Outlet`); its clocks end when an answer begins

    def put(self, data: bytes | memoryview) -> bool:
        """Write; whether there is room for more."""
        cast("asyncio.Transport", self._transport).write(data)
        return not self._full

    def taken(self) -> None:
        """The provider has the word, with `idle_seconds` for a piece."""
        if self.phase is _HEAD and self._clocks is not None:
            self._timer.set(self._clocks.idle_seconds)

    def hungry(self) -> None:
        """The body's source has the word."""
        if self.phase is _HEAD:
            self._timer.clear()

    def written(self) -> None:
        """The request is written whole."""
        self._upload = None
        if self.phase is _HEAD and self._clocks is not None:
            self._timer.set(self._clocks.first_byte_seconds)

    def failed(self, error: Exception) -> None:
        """The body's source raised ``error``."""
        self._upload = None
        self._fail(error)

    # What follows from it

    def _head_came(self, data: bytes) -> None:
        """``data`` is in the parser; take the head from it, if it is whole, and go on to the body."""
        parser = self._parser
        try:
            head = parser.head(data)
        except UpstreamError as failure:
            self._fail(failure)
            return
        if head is None:
            return
        status, headers, delimited, self._keeps = head
        self._until_end = not delimited
        if self._keeps:
            self._keep_seconds = kept_seconds(headers, self._keeper.keep_alive_seconds)
        waiter = self._waiter
        self._waiter = None
        if waiter is None or waiter.done():
            self._close()
        elif parser.complete:
            answer = Answer(status, headers, None, self.take_unread())
            self._come_back()
            waiter.set_result(answer)
        else:
            self.phase = _BODY
            self._timer.clear()
            self._unread_bytes = len(data)
            self._answer = answer = Answer(status, headers, self, b"")
            waiter.set_result(answer)

    def _hand_on(self, take: Callable[[bytes], bool]) -> Exception | None:
        """Give what has come to ``take``; what it raised."""
        piece = self._parser.take()
        self._timer.set(cast("Clocks", self._clocks).idle_seconds)
        try:
            if not take(piece) and self.phase is _BODY:
                self._take = None
                self._timer.clear()
                if not self._parser.complete:
                    self._pause()
                self._wake(more=False)
        except Exception as error:
            # Unless it gave the answer up, and by the way raised.
            return error if self.phase is _BODY else None
        return None

    def _completed(self) -> None:
        if self._answer is not None:
            self._answer.settle(self.take_unread(), None)
            self._answer = None
        self._wake()
        self._come_back()

    def _come_back(self) -> None:
        """An exchange is over, and nothing of it is left: be there for the next, or not."""
        if not self._keeps or self._parser.excess or self._upload is not None or self._keep_seconds <= 0:
            self._close()
            return
        self._unread_bytes = self._barren_bytes = 0
        self._take = self._clocks = None
        if self._paused:
            self._resume()
        self.phase = _IDLE
        self._timer.set(self._keep_seconds)
        self._keeper.came_back(self)

    def _ended(self, error: Exception | None) -> None:
        if self.phase is _IDLE or self.phase is _CLOSED:
            self._close()
        elif self._out is not None:
            self._fail(NotSent())
        elif self.phase is _BODY and self._until_end and error is None:
            self._completed()
        else:
            self._fail(failures.exchange_failure(error))

    def _expired(self) -> None:
        if self.phase is _IDLE:
            self._close()
        elif self.phase is _HEAD:
            self._fail(failures.no_answer_in_time())
        elif self._waiter is not None and not self._waiter.done():
            self._fail(failures.silent_in_answer())

    def _fail(self, failure: Exception) -> None:
        answer, waiter = self._answer, self._waiter
        self._answer = None
        if answer is not None:
            self._paused = False
            answer.settle(self.take_unread(), failure)
            self._wake()
        self._close()
        if answer is None and waiter is not None and not waiter.done():
            waiter.set_exception(failure)

    def _close(self) -> None:
        if self.phase is _CLOSED:
            return
        self.phase = _CLOSED
        self._timer.close()
        self._parser.close()
        self._waiter = self._take = self._clocks = self._out = None
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._keeper.gone(self)

    def _wake(self, more: bool = True) -> None:
        waiter = self._waiter
        if waiter is not None and self.phase is _BODY:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(more)

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
