"""One try of a delivery: a signed POST, and what came of it."""

import asyncio
import logging
import ssl

from core.clock import Clock
from core.errors import (
    ConnectFailed,
    ConnectTimeout,
    PrivateAddressRefused,
    UpstreamCut,
    UpstreamError,
    UpstreamMalformed,
    UpstreamTimeout,
)
from core.headers import Headers
from core.retry_after import parse_retry_after
from transport.messages import Clocks, UpstreamClient, UpstreamRequest, UpstreamResponse
from webhooks.endpoint import Endpoint
from webhooks.schedule import Failure, Outcome, answered
from webhooks.signing import sign

USER_AGENT = "sluice-webhooks"
MAX_ANSWER_BYTES = 64 << 10
"""Of an answer's body, which nobody reads: a longer one costs its connection."""
_DRAIN_SECONDS = 2.0

# Whoever stands first is asked first: some are kinds of others.
_FAILURES: tuple[tuple[type[UpstreamError], Failure], ...] = (
    (PrivateAddressRefused, Failure.PRIVATE_ADDRESS),
    (ConnectTimeout, Failure.TIMEOUT),
    (UpstreamTimeout, Failure.TIMEOUT),
    (ConnectFailed, Failure.UNREACHABLE),
    (UpstreamCut, Failure.DISCONNECTED),
    (UpstreamMalformed, Failure.MALFORMED),
)

_log = logging.getLogger("sluice.webhooks")


async def send(client: UpstreamClient, endpoint: Endpoint, event_id: str, payload: str, clock: Clock) -> Outcome:
    """Send it once; what came of it is in the outcome, whatever it was. Cancelled, it may have arrived or not."""
    began = clock.monotonic()
    try:
        try:
            request = _request(endpoint, event_id, payload, clock)
        except Exception as error:
            # A secret may come from anywhere, so it fails in any way; and its text has no place in a log.
            _log.error("webhook `%s` cannot be signed for: %s", endpoint.name, type(error).__name__)
            return Outcome(seconds=clock.monotonic() - began, failure=Failure.UNSIGNED)
        async with asyncio.timeout(endpoint.timeout_seconds):
            answer = await client.send(request)
    except TimeoutError:
        return Outcome(seconds=clock.monotonic() - began, failure=Failure.TIMEOUT)
    except UpstreamError as error:
        return Outcome(seconds=clock.monotonic() - began, failure=_failure(error))
    retry_after = parse_retry_after(answer.headers.get("retry-after"), clock.time())
    outcome = answered(answer.status, clock.monotonic() - began, retry_after)
    await _drain(answer)
    return outcome


def _request(endpoint: Endpoint, event_id: str, payload: str, clock: Clock) -> UpstreamRequest:
    body = payload.encode()
    now = int(clock.time())
    headers = Headers(
        (
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            ("webhook-id", event_id),
            ("webhook-timestamp", str(now)),
            ("webhook-signature", sign(endpoint.keys(), event_id, now, body)),
        )
    )
    seconds = endpoint.timeout_seconds
    clocks = Clocks(connect_seconds=seconds, first_byte_seconds=seconds, idle_seconds=seconds)
    return UpstreamRequest("POST", endpoint.url, headers, body, None, clocks, endpoint.options)


async def _drain(answer: UpstreamResponse) -> None:
    """Take the body away, so that the connection serves the next; what it says changes nothing."""
    left = MAX_ANSWER_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                piece = await answer.read()
                if not piece:
                    return
                left -= len(piece)
    except (TimeoutError, UpstreamError):
        pass  # it was delivered, or not, before
    finally:
        answer.close()


def _failure(error: UpstreamError) -> Failure:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return Failure.TLS
        cause = cause.__cause__
    return next((failure for kind, failure in _FAILURES if isinstance(error, kind)), Failure.FAULT)
