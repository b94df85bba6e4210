"""From the commit point on: the head, what follows it, and how the client learns that it broke."""

import asyncio

from core.clock import Clock
from core.errors import Draining, GatewayError, UpstreamError, UpstreamErrorEvent
from proxy.answer import Answer, Shape
from proxy.deadline import AnyDeadline
from proxy.exchange import Exchange
from proxy.headers import forwarded_answer_headers, gateway_headers
from proxy.outbound import Outbound
from proxy.record import Record

AT_ONCE_BYTES = 256 * 1024
"""A longer answer is waited for until its client has taken it, so that draining does not cut it."""

FAREWELL_SECONDS = 1.0
"""How long a stream that is cut at the end of draining has to take the event that says so."""


class Delivery:
    """Passes one answer on to one client."""

    def __init__(self, exchange: Exchange, record: Record, clock: Clock) -> None:
        self.exchange = exchange
        self.record = record
        self.clock = clock

    async def relay(self, answer: Answer, outbound: Outbound, deadline: AnyDeadline) -> None:
        """Pass on the answer to what was sent. From its head on there is no fallback: a failure is said in the stream."""
        exchange, record = self.exchange, self.record
        record.status = answer.response.status
        try:
            if answer.shape is Shape.WHOLE:
                record.upstream_ended_at = self.clock.monotonic()
                await self._start(answer)
                return
            async with deadline:
                await self._start(answer)
                await answer.deliver(exchange)
        except UpstreamError as error:
            await self._broken(answer, error)
        except asyncio.CancelledError:
            if not exchange.closed:
                # Not the client's doing: the time for draining is over.
                await self._farewell(answer)
            else:
                # Some clients (Codex) wait for the last event, not for the end of the answer.
                record.answered = answer.complete
            raise
        finally:
            if record.upstream_ended_at is None:
                record.upstream_ended_at = self.clock.monotonic()
            record.usage = answer.settled_usage(outbound, exchange.bytes_out)
            if record.error is None and answer.failure is not None:
                record.error = UpstreamErrorEvent(answer.failure, b"")
            answer.response.close()

    async def _broken(self, answer: Answer, error: GatewayError) -> None:
        """Tell the client of an answer that broke under way, unless all that it was to get has come."""
        if answer.complete:
            self.exchange.finish()
            return
        self.record.error = error
        await answer.fail(self.exchange, error)

    async def _farewell(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._broken(answer, draining())
        except TimeoutError:
            # The client takes nothing; it is not waited for.
            self.exchange.abort()

    async def _start(self, answer: Answer) -> None:
        """Send the head and what is held, in one write."""
        whole = answer.shape is Shape.WHOLE
        at_once = len(answer.held) <= AT_ONCE_BYTES
        # What is spliced or may end early has another length than the provider stated.
        drop = answer.account_headers if answer.shape is Shape.OPAQUE else answer.account_headers | {"content-length"}
        headers = forwarded_answer_headers(answer.response.headers, drop, answer.secret)
        if whole and not at_once:
            headers.append(("content-length", str(len(answer.held))))
        now = self.record.sent_at = self.clock.monotonic()
        headers += gateway_headers(self.record, now)
        self.exchange.start(answer.response.status, headers, answer.held, complete=whole and at_once)
        if not at_once:
            await self.exchange.drained()
            if whole:
                self.exchange.finish()


def draining() -> Draining:
    """What is said to whom the gateway cannot serve to the end."""
    return Draining("the gateway is shutting down: try again")
