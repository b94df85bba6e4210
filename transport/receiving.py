"""The receiving half of a client's connection: request bodies, with backpressure and a clock."""

import asyncio
import enum
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.gen import convert_yielded
from tornado.httputil import HTTPMessageDelegate

from transport.chunked import ChunkedBody
from transport.clock import LazyTimer
from transport.received import CHUNKED, Refused, RequestHead, ServerLimits
from transport.sending import Sender

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(enum.Enum):
    HEAD = enum.auto()
    """Between requests, or inside a head."""
    BODY = enum.auto()
    """The body of the active request comes in."""
    ANSWER = enum.auto()
    """The request is complete, its answer is not."""
    DROP = enum.auto()
    """The answer is complete, the body is not: its rest is dropped."""
    SWITCHED = enum.auto()
    """101 was answered; somebody takes the stream now."""
    CLOSING = enum.auto()
    """Whatever comes is dropped."""
    DETACHED = enum.auto()


class Receiver(Sender):
    """What of a connection takes request bodies and gives them to the delegate."""

    __slots__ = (
        "_body",
        "_delegate",
        "_expects_continue",
        "_held",
        "_largest_body",
        "_paused",
        "_pending",
        "_received",
        "_remaining",
        "_state",
        "_timer",
    )

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(limits)
        self._state = State.HEAD
        self._pending: bytes | bytearray = b""
        """What was read and is not interpreted yet."""
        self._timer = LazyTimer(self._loop, self._expired)
        """Of what is waited for from the client."""
        self._paused = False
        self._held: asyncio.Future[Any] | None = None
        """The delegate's word that it is not ready for more."""
        self._delegate: HTTPMessageDelegate | None = None
        self._expects_continue = False
        self._body: ChunkedBody | None = None
        self._remaining = 0
        self._received = 0
        self._largest_body: int | None = None

    @abstractmethod
    def _expired(self) -> None:
        """The client was waited for in vain."""

    @abstractmethod
    def _refuse(self, error: Refused) -> None:
        """Answer with ``error``, if no answer has begun, and close."""

    @abstractmethod
    def _failed(self, error: BaseException) -> None:
        """The same for what a delegate raised."""

    def set_max_body_size(self, max_body_size: int) -> None:
        """For the active request alone; a longer body is answered with 413. For handlers that stream a body in."""
        self._largest_body = max_body_size

    def pause_body(self) -> None:
        """Take no more from the client for now, neither its body nor the sign that it has gone."""
        self._paused = True
        self._timer.clear()
        self._transport.pause_reading()

    def resume_body(self) -> None:
        self._paused = False
        self._read_on()

    def _read_on(self) -> None:
        if not (self._paused or self._held or self._transport.is_closing()):
            self._transport.resume_reading()
            if self._state is State.BODY:
                self._timer.set(self._limits.body_idle_seconds)

    def _expect_body(self, head: RequestHead) -> None:
        self._expects_continue = head.expects_continue and head.body_bytes != 0
        self._remaining = head.body_bytes
        self._body = ChunkedBody(self._limits) if head.body_bytes == CHUNKED else None
        self._received = 0
        self._largest_body = None
        self._state = State.BODY

    def _must_close(self) -> bool:
        # Whether the body follows after all is the client's choice (RFC 9110 section 10.1.1), and not to be known.
        return self._expects_continue

    def _continue(self) -> None:
        # RFC 9110 section 10.1.1: not needed once some of the body is in.
        if self._expects_continue and self._state is State.BODY and not self._held:
            self._expects_continue = False
            if not (self.begun or self._pending or self.closed):
                self._write(_CONTINUE)

    def _take_body(self) -> None:
        """Deliver what is there of the active request's body."""
        if self._state is not State.BODY or self._held is not None:
            return
        delegate = self._delegate
        assert delegate is not None
        try:
            data = self._decode()
            if self._largest_body is not None and self._received + max(self._remaining, 0) > self._largest_body:
                raise Refused(413, "request_too_large", f"the body is larger than {self._largest_body} bytes")
            if data:
                self._expects_continue = False
                awaited = delegate.data_received(data)
                if awaited is not None and self._hold(awaited, self._after_data):
                    return
            self._after_data()
        except Refused as error:
            self._refuse(error)
        except Exception as error:
            self._failed(error)

    def _decode(self) -> bytes:
        """What is there of the body; what is there after it stays."""
        data, self._pending = bytes(self._pending), b""
        body = self._body
        if body is None:
            remaining = self._remaining
            if len(data) > remaining:
                self._pending = data[remaining:]
                data = data[:remaining]
            self._remaining = remaining - len(data)
        elif data:
            data = body.feed(data)
            self._pending, body.rest = body.rest, b""
        self._received += len(data)
        return data

    def _is_complete(self) -> bool:
        """Whether the whole body was received."""
        return self._remaining == 0 if self._body is None else self._body.done

    def _after_data(self) -> None:
        if self._state is not State.BODY:
            return
        if self._is_complete():
            self._timer.clear()
            self._state = State.ANSWER
            assert self._delegate is not None
            self._delegate.finish()
        elif not self._paused:
            self._timer.set(self._limits.body_idle_seconds)

    def _hold(self, awaited: Awaitable[None], then: Callable[[], None]) -> bool:
        """Whether the delegate lets the body wait. ``then`` is called when it does no longer."""
        held: asyncio.Future[Any] = convert_yielded(awaited)
        if held.done():
            held.result()
            return False
        if self._state is not State.BODY:
            return False  # it is answered already
        self._held = held
        self._timer.clear()
        self._transport.pause_reading()
        held.add_done_callback(lambda future: self._release(future, then))
        return True

    def _release(self, held: asyncio.Future[Any], then: Callable[[], None]) -> None:
        error = asyncio.CancelledError() if held.cancelled() else held.exception()
        if self._held is not held:
            return  # the exchange is over
        self._held = None
        if error is not None:
            self._failed(error)
            return
        try:
            then()
        except Exception as failed:
            self._failed(failed)
            return
        if self._pending:
            self._take_body()
        self._continue()
        self._read_on()
