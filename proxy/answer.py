"""A provider's answer on its way to the client: opened up to its first output, then delivered."""

from collections.abc import Callable
from enum import Enum

import msgspec

from core.errors import GatewayError, UpstreamCut, UpstreamError, UpstreamErrorEvent, UpstreamMalformed
from core.headers import Headers
from core.usage import Usage
from proxy.dialects.base import Dialect, Ending
from proxy.estimates import estimated_input, tokens_of_text, tokens_said
from proxy.exchange import Exchange
from proxy.headers import SHORTEST_SECRET
from proxy.outbound import Outbound
from proxy.relay import EventRelay, find_usage, rename
from proxy.sse import with_data
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


class Answer:
    """An answer that has begun. What it has read before the commit point waits in ``held``."""

    __slots__ = (
        "_ended",
        "_expects_final",
        "_model",
        "_waits_for_output",
        "account_headers",
        "dialect",
        "held",
        "relay",
        "response",
        "secret",
        "shape",
        "usage",
    )

    def __init__(
        self,
        response: UpstreamResponse,
        dialect: Dialect,
        shape: Shape,
        model: str | None,
        *,
        expects_final: bool,
        account_headers: frozenset[str],
        secret: str | None = None,
        usage_unasked: bool = False,
        waits_for_output: bool = False,
    ) -> None:
        """``model`` is the name to show the client, or None to leave the provider's; ``account_headers`` are not passed on,
        and no field that holds the ``secret``. With ``usage_unasked`` the client did not ask for a stream's usage, and does
        not see it.

        With ``waits_for_output`` the first event of a stream is not enough to commit to it: something has to be said.

        With ``expects_final`` a stream that ends without its final event counts as cut, however politely it ends.
        """
        self.response = response
        self.account_headers = account_headers
        self.secret = secret
        self._ended = False
        self._expects_final = expects_final
        self._model = model
        self._waits_for_output = waits_for_output
        self.dialect = dialect
        self.shape = shape
        self.held = b""
        self.usage: Usage | None = None
        self.relay = EventRelay(dialect, model, usage_unasked=usage_unasked) if shape is Shape.EVENTS else None

    async def open(self) -> None:
        """Read up to the commit point: the first real event of a stream, a whole JSON answer, or the first bytes of others.

        Raises:
            UpstreamError: the answer broke, or began with an error event. Nothing has reached the client.
        """
        if self.relay is not None:
            self.held = await self._begin(self.relay)
        elif self.shape is Shape.WHOLE:
            await self._whole()
        else:
            self.held = await self._read()

    async def _read(self) -> bytes:
        """The next bytes of the provider's answer; ``b""`` at its end and ever after."""
        if self._ended:
            return b""
        chunk = await self.response.read()
        self._ended = not chunk
        return chunk

    async def _begin(self, relay: EventRelay) -> bytes:
        held = b""
        while chunk := await self._read():
            events = relay.feed(chunk)
            if not events:
                continue
            held += events
            if self._commits(events) or len(held) > MAX_ERROR_BYTES:
                return held
        rest = relay.end()
        held += rest
        if not held:
            raise UpstreamMalformed("the provider's stream ended before its first event")
        self._commits(rest)
        self._require_end(relay)
        return held

    def _commits(self, events: bytes) -> bool:
        """Whether the event that was waited for is among ``events``, and they may go out.

        Raises:
            UpstreamErrorEvent: there is an error before it.
        """
        for event in with_data(events):
            failure = self.dialect.failure(event)
            if failure is not None:
                raise UpstreamErrorEvent(failure, event)
            if not self._waits_for_output or self.dialect.has_output(event):
                return True
        return False

    def _require_end(self, relay: EventRelay) -> None:
        if self._expects_final and not relay.may_end:
            raise UpstreamCut("the provider's stream ended before it was complete")

    async def _whole(self) -> None:
        pieces: list[bytes] = []
        size = 0
        while chunk := await self._read():
            pieces.append(chunk)
            size += len(chunk)
            if size > MAX_HELD_BYTES:
                self.shape = Shape.OPAQUE
                self.held = b"".join(pieces)
                return
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if body.lstrip()[:1] not in (b"{", b"[", b'"'):
            raise UpstreamMalformed("the provider's answer is not JSON")
        self._require_whole(body)
        self.usage = find_usage(body, self.dialect)
        if self._model is not None:
            body = rename(body, msgspec.json.encode(self._model))
        self.held = body

    def _require_whole(self, body: bytes) -> None:
        """Of an answer that ends where its connection does, nothing but itself tells whether that was too early."""
        headers = self.response.headers
        if "content-length" in headers or "transfer-encoding" in headers:
            return
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamCut("the provider's answer ended before it was complete") from None

    async def deliver(self, exchange: Exchange) -> None:
        """Pass on what is left after the head was sent, and end the client's answer as the provider's ended.

        Raises:
            UpstreamError: the answer broke; :meth:`fail` is then owed to the client.
            ClientGone: nobody is there to take it.
        """
        relay = self.relay
        if relay is None:
            await self._pass_on(exchange.write, exchange)
        else:
            feed, write = relay.feed, exchange.write

            def take(chunk: bytes) -> bool:
                events = feed(chunk)
                return write(events) if events else True

            await self._pass_on(take, exchange)
            # An event without its blank line is written only where nothing of ours follows: that would run into it.
            rest = relay.end()
            self._require_end(relay)
            if rest:
                exchange.write(rest)
        exchange.finish()

    async def _pass_on(self, take: Callable[[bytes], bool], exchange: Exchange) -> None:
        if not self._ended:
            await self.response.pass_on(take, exchange.drained)
            self._ended = True

    async def fail(self, exchange: Exchange, error: GatewayError) -> None:
        """Let the client know that an answer under way broke.

        A stream is told by an event that stands alone and then ends normally, unless its last event has passed.
        Any other body is cut: without its full length or final chunk the client sees it (RFC 9112 section 8).
        """
        if self.relay is None:
            exchange.abort()
            return
        if not self.relay.ended:
            await exchange.drained()
            exchange.write(self.relay.break_off(self.dialect.error_event(error, self.relay.last)))
        exchange.finish()

    @property
    def complete(self) -> bool:
        """Whether all has come that the client was to get, whatever happens to the connection afterwards."""
        return self.relay is not None and self.relay.ending is Ending.COMPLETE

    @property
    def failure(self) -> str | None:
        """What the provider said inside the stream, where that went wrong by its own account."""
        return None if self.relay is None else self.relay.failure

    def settled_usage(self, outbound: Outbound, bytes_out: int) -> Usage | None:
        """What the provider told, once the answer has ended in whatever way; what it did not tell is estimated.

        ``bytes_out`` is what the client was sent of the body. None where there are no tokens to count.
        """
        relay, endpoint = self.relay, outbound.endpoint
        told = self.usage if relay is None else relay.usage
        if not endpoint.reads_answer:
            return told
        if told is None or not told.is_known:
            written = self._written(bytes_out) if endpoint.writes else 0
            return Usage(estimated_input(outbound.inbound), written, estimated=True)
        if relay is None or relay.may_end or not relay.spoken.tokens:
            return told
        # It was cut: what was told holds up to there, and what came after that is estimated.
        return msgspec.structs.replace(told, output_tokens=told.output_tokens + relay.spoken.tokens, estimated=True)

    def _written(self, bytes_out: int) -> int:
        """What the model has written, as tokens."""
        if self.relay is not None:
            return self.relay.spoken.tokens
        if self.shape is Shape.WHOLE:
            return tokens_said(self.held, self.dialect.text)
        return tokens_of_text(bytes_out)


def shape_of(response: UpstreamResponse, reads_answer: bool) -> Shape:
    """How an answer with this head is to be passed on. What is compressed cannot be read in passing."""
    essence = (response.headers.get("content-type") or "").partition(";")[0].strip().lower()
    coding = (response.headers.get("content-encoding") or "").strip().lower()
    if coding not in ("", "identity"):
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


def without_echo(body: bytes, sent: Headers, from_client: Headers) -> bytes:
    """``body`` unless it repeats a value that only the gateway sent, a credential most likely; then nothing of it."""
    known = set(from_client)
    for name, value in sent:
        if (name, value) in known:
            continue
        # A scheme before a credential is no secret: `Bearer …`.
        text = value.rpartition(" ")[2]
        if len(text) >= SHORTEST_SECRET and text.encode("latin-1", "replace") in body:
            return b""
    return body
