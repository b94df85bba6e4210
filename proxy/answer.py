"""A provider's answer on its way to the client: opened up to its first output, then delivered."""

from enum import Enum

import msgspec

from core.errors import GatewayError, UpstreamCut, UpstreamError, UpstreamErrorEvent, UpstreamMalformed
from core.usage import Usage
from proxy.dialects.base import Dialect
from proxy.exchange import Exchange
from proxy.relay import EventRelay, find_usage, rename
from transport.messages import UpstreamResponse

MAX_HELD_BYTES = 64 * 1024 * 1024
"""The largest JSON answer that is held whole; a larger one is passed on as it comes, unread."""

MAX_ERROR_BYTES = 64 * 1024
"""How much of an error answer is read."""

_SSE = "text/event-stream"


class Shape(Enum):
    """How an answer is passed on."""

    EVENTS = "events"
    WHOLE = "whole"
    OPAQUE = "opaque"


class _Probe(msgspec.Struct):
    error: object = None
    type: str = ""
    message: str = ""
    code: object = None


_PROBE = msgspec.json.Decoder(_Probe)


class Answer:
    """An answer that has begun. What it has read before the commit point waits in ``held``."""

    __slots__ = ("_expects_final", "_model", "dialect", "held", "relay", "response", "shape", "usage")

    def __init__(
        self, response: UpstreamResponse, dialect: Dialect, shape: Shape, model: str | None, *, expects_final: bool
    ) -> None:
        """``model`` is the name to show the client, or None to leave the provider's.

        With ``expects_final`` a stream that ends without its final event counts as cut, however politely it ends.
        """
        self.response = response
        self._expects_final = expects_final
        self._model = model
        self.dialect = dialect
        self.shape = shape
        self.held = b""
        self.usage: Usage | None = None
        self.relay = EventRelay(dialect, model) if shape is Shape.EVENTS else None

    async def open(self) -> None:
        """Read up to the commit point: the first real event, a whole JSON answer, or the first bytes of others.

        Raises:
            UpstreamError: the answer broke, or began with an error event. Nothing has reached the client.
        """
        if self.relay is not None:
            self.held = await self._first_event(self.relay)
        elif self.shape is Shape.WHOLE:
            await self._whole()
        else:
            self.held = await self.response.read()

    async def _first_event(self, relay: EventRelay) -> bytes:
        held = b""
        while chunk := await self.response.read():
            events = relay.feed(chunk)
            if not events:
                continue
            held += events
            data = first_data(events)
            if data is not None:
                error = stream_error(data)
                if error is not None:
                    raise UpstreamErrorEvent(error, events)
                return held
            if len(held) > MAX_ERROR_BYTES:
                return held
        held += relay.end()
        if not held:
            raise UpstreamMalformed("the provider's stream ended before its first event")
        return held

    async def _whole(self) -> None:
        pieces: list[bytes] = []
        size = 0
        while chunk := await self.response.read():
            pieces.append(chunk)
            size += len(chunk)
            if size > MAX_HELD_BYTES:
                self.shape = Shape.OPAQUE
                self.held = b"".join(pieces)
                return
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.usage = find_usage(body, self.dialect)
        if self._model is not None:
            body = rename(body, msgspec.json.encode(self._model))
        self.held = body

    async def deliver(self, exchange: Exchange) -> None:
        """Pass on what is left after the head was sent, and end the client's answer as the provider's ended.

        Raises:
            UpstreamError: the answer broke; :meth:`fail` is then owed to the client.
            ClientGone: nobody is there to take it.
        """
        relay, response = self.relay, self.response
        if relay is None:
            while chunk := await response.read():
                await exchange.write(chunk)
        else:
            while chunk := await response.read():
                events = relay.feed(chunk)
                if events:
                    await exchange.write(events)
            rest = relay.end()
            if rest:
                await exchange.write(rest)
            if self._expects_final and not relay.final:
                raise UpstreamCut("the provider's stream ended before it was complete")
        exchange.finish()

    async def fail(self, exchange: Exchange, error: GatewayError) -> None:
        """Let the client know that an answer under way broke.

        A stream is told by an event that stands alone and then ends normally, unless its final event has passed.
        Any other body is cut: without its full length or final chunk the client sees it (RFC 9112 section 8).
        """
        if self.relay is None:
            await exchange.abort()
            return
        if not (self._expects_final and self.relay.final):
            await exchange.write(self.relay.break_off(self.dialect.error_event(error)))
        exchange.finish()

    def settled_usage(self) -> Usage | None:
        """The usage that was seen, once the answer has ended in whatever way."""
        return self.usage if self.relay is None else self.relay.usage


def shape_of(response: UpstreamResponse, reads_answer: bool) -> Shape:
    """How an answer with this head is to be passed on. What is compressed cannot be read in passing."""
    essence = (response.headers.get("content-type") or "").partition(";")[0].strip().lower()
    coding = response.headers.get("content-encoding")
    if coding not in (None, "", "identity"):
        return Shape.OPAQUE
    if essence == _SSE:
        return Shape.EVENTS
    if reads_answer and essence in ("application/json", ""):
        return Shape.WHOLE
    return Shape.OPAQUE


async def read_error(response: UpstreamResponse) -> bytes:
    """The body of an error answer, as much of it as comes and fits."""
    body = b""
    try:
        while len(body) < MAX_ERROR_BYTES and (chunk := await response.read()):
            body += chunk
    except UpstreamError:
        # The status is worth more than the fault that cut its explanation.
        return body
    finally:
        response.close()
    return body


def first_data(events: bytes) -> bytes | None:
    """The data of the first event that has any; None where there are only comments and bare fields."""
    for line in events.splitlines():
        if line.startswith(b"data:"):
            return line[5:].strip()
    return None


def stream_error(data: bytes) -> str | None:
    """The message when ``data`` is a provider's error event, else None."""
    try:
        probe = _PROBE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = probe.error
    if not error and probe.type != "error":
        return None
    message = error.get("message") if isinstance(error, dict) else error or probe.message
    return f"the provider answered with an error: {str(message)[:300]}"
