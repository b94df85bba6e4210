"""One connection to a provider, and the answers that come on it.

::

           ┌─────────────── answer complete, connection kept ───────────────┐
           ▼                                                                │
    IDLE ──begin──▶ HEAD (first_byte_seconds) ──there──▶ BODY (idle_seconds while somebody waits)
     │               │                                    │
     └───────────────┴── the connection's end, a clock, a fault, close ──┴──▶ CLOSED

The parser is llhttp's. It does what it is good at, finding the ends of things and refusing what is not HTTP, and calls
back little: pieces of a body go straight into a list, and a head is read from the bytes themselves.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from transport import failures
from transport.answer import Answer
from transport.answer_head import MAX_HEAD_BYTES, kept_seconds, read_head
from transport.clock import LazyTimer
from transport.messages import Clocks
from transport.upload import Upload

_MAX_INTERIM: Final = 16
"""Interim answers to one request (RFC 9110 section 15.2). A provider has use for two or three: 100, 102, 103."""
_MAX_UNREAD_BYTES: Final = 64 * 1024
"""Taken from the provider while nobody reads, not counting the last reading of the socket."""
_MAX_BARREN_BYTES: Final = 64 * 1024
"""Framing without a byte of the body in between: chunk extensions, trailers."""
_HIGH_MARK_BYTES: Final = 64 * 1024
_LOW_MARK_BYTES: Final = 16 * 1024
_END_OF_HEAD: Final = b"\r\n\r\n"
_SWITCHING_PROTOCOLS: Final = 101
_NO_PARSER: Final = HttpResponseParser(None)


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


class _Unexpected(Exception):
    """Raised inside the parser: what comes now is not part of the answer."""


class ProviderConnection(asyncio.Protocol):
    """See the module."""

    __slots__ = (
        "_answer",
        "_barren_bytes",
        "_begun",
        "_clocks",
        "_complete",
        "_excess",
        "_full",
        "_held",
        "_keep_seconds",
        "_keeper",
        "_keeps",
        "_loop",
        "_method_is_head",
        "_parser",
        "_paused",
        "_pieces",
        "_take",
        "_timer",
        "_transport",
        "_unread_bytes",
        "_until_end",
        "_upload",
        "_waiter",
        "on_body",
        "phase",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
        """``keeper`` is told when it has nothing to do and when it is gone."""
        self.phase = _IDLE
        self._loop = loop
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._timer = LazyTimer(loop, self._expired)
        # The parser looks its callbacks up once, when it is made. A piece of the body costs no Python call.
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[Any] | None = None
        self._upload: Upload | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._held: bytearray | None = None
        self._clocks: Clocks | None = None
        self._begun = self._unread_bytes = self._barren_bytes = 0
        self._complete = self._excess = self._until_end = self._keeps = self._method_is_head = False
        self._paused = self._full = False
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

        The future gives the answer when its head is there, or raises what became of it.
        """
        self.phase = _HEAD
        self._method_is_head = method_is_head
        self._clocks = clocks
        waiter = self._waiter = self._loop.create_future()
        cast("asyncio.Transport", self._transport).write(data)
        self._timer.set(clocks.first_byte_seconds)
        if upload is not None:
            self._upload = upload
            upload.begin(self)
        return waiter

    def give_up(self) -> None:
        """Close now: whatever it still has to write, and without TLS's farewell."""
        self._answer = None
        self._wake()
        self._close()

    def cut(self) -> None:
        """Close now; an answer under way, or waited for, fails."""
        if self.phase is _IDLE:
            self._close()
        else:
            self._fail(failures.cut())

    def take_unread(self) -> bytes:
        """See :class:`transport.answer.Source`."""
        pieces = self._pieces
        if not pieces:
            return b""
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread_bytes = 0
        if self._paused:
            self._resume()
        return piece

    def wait(self) -> "asyncio.Future[bool]":
        """See :class:`transport.answer.Source`."""
        if self._clocks is not None:
            self._timer.set(self._clocks.idle_seconds)
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def pour(self, take: Callable[[bytes], bool]) -> "asyncio.Future[bool]":
        """See :class:`transport.answer.Source`."""
        self._take = take
        if self._paused:
            self._resume()
        return self.wait()

    # What the socket says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_HIGH_MARK_BYTES, _LOW_MARK_BYTES)
        if self.phase is _CLOSED:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if self.phase is _IDLE:
            self._close()  # nobody has asked anything
            return
        if self.phase is _CLOSED:
            return
        failure: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._excess = True
            if not self._complete:
                failure = self._not_http(error)
        if self.phase is _HEAD:
            if failure is None:
                self._head_came(data)
            else:
                self._fail(failure)
            return
        if self._pieces:
            self._barren_bytes = 0
            if self._take is not None:
                failure = self._hand_on(self._take) or failure
            else:
                self._unread_bytes += len(data)
                if self._unread_bytes > _MAX_UNREAD_BYTES and not self._complete:
                    self._pause()
                self._timer.clear()
                self._wake()
        elif not self._complete:
            self._barren_bytes += len(data)
            if self._barren_bytes > _MAX_BARREN_BYTES:
                failure = failures.malformed()
        if failure is not None:
            self._fail(failure)
        elif self._complete and self.phase is _BODY:
            self._completed()

    def eof_received(self) -> None:
        """See :class:`asyncio.Protocol`."""
        # Not left to `connection_lost`, which comes when all that is still to be written has been.
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._ended(exc)

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._full = True

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._full = False
        if self._upload is not None:
            self._upload.go_on()

    # What the parser says

    def on_message_begin(self) -> None:
        """The first byte of a message."""
        self._begun += 1
        if self._complete or self._begun > _MAX_INTERIM + 1:
            raise _Unexpected

    def on_message_complete(self) -> None:
        """The last byte of a message."""
        if self._parser.get_status_code() >= 200:
            self._complete = True

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
        raw: bytes | bytearray = data
        searched = 0
        if self._held is not None:
            searched = max(0, len(self._held) - len(_END_OF_HEAD) + 1)
            raw = self._held
            raw += data
        try:
            while True:
                end = raw.find(_END_OF_HEAD, searched)
                if end < 0:
                    if len(raw) > MAX_HEAD_BYTES:
                        raise failures.malformed("The head of the provider's answer is too large.")
                    self._held = raw if isinstance(raw, bytearray) else bytearray(raw)
                    return
                status, headers, delimited, self._keeps = read_head(raw, end, self._method_is_head)
                if status >= 200:
                    break
                if status == _SWITCHING_PROTOCOLS:
                    raise self._not_http(None)
                raw = raw[end + len(_END_OF_HEAD) :]
                searched = 0
        except Exception as failure:
            self._fail(failure)
            return
        self._held = None
        if self._method_is_head:
            # The parser believes in a body that is not to come (RFC 9112 section 6.3). What came is none, whole or not.
            self._complete = True
            self._excess = self._excess or len(raw) > end + len(_END_OF_HEAD)
            self._pieces.clear()
        self._until_end = not delimited
        if self._keeps:
            self._keep_seconds = kept_seconds(headers, self._keeper.keep_alive_seconds)
        waiter = self._waiter
        self._waiter = None
        if waiter is None or waiter.done():
            self._close()
        elif self._complete:
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
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._timer.set(cast("Clocks", self._clocks).idle_seconds)
        try:
            if not take(piece) and self.phase is _BODY:
                self._take = None
                self._timer.clear()
                if not self._complete:
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
        if not self._keeps or self._excess or self._upload is not None or self._keep_seconds <= 0:
            self._close()
            return
        if self._method_is_head:
            self._parser = HttpResponseParser(self)
        self._complete = False
        self._begun = self._unread_bytes = self._barren_bytes = 0
        self._take = self._clocks = None
        if self._paused:
            self._resume()
        self.phase = _IDLE
        self._timer.set(self._keep_seconds)
        self._keeper.came_back(self)

    def _ended(self, error: Exception | None) -> None:
        if self.phase is _CLOSED:
            return
        if self.phase is _IDLE:
            self._close()
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
        # It holds on to our methods.
        self._parser = _NO_PARSER
        self._waiter = self._take = self._held = self._clocks = None
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        if self._transport is not None:
            self._transport.abort()
        self._keeper.gone(self)

    def _not_http(self, error: Exception | None) -> Exception:
        if isinstance(error, HttpParserUpgrade) or error is None:
            # RFC 9110 section 15.2.2: only to those that asked for it.
            return failures.malformed("The provider switched to a protocol that nobody asked for.")
        if self._begun > _MAX_INTERIM + 1:
            return failures.malformed("The provider sends interim answers without end.")
        return failures.exchange_failure(error)

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
