"""What is remembered of one exchange until it is settled."""

from access.quotas.outcomes import Lease
from core.errors import GatewayError
from core.events import RequestCompleted, RequestFailed
from core.identity import ApiToken
from core.usage import Usage
from proxy.exchange import Exchange

CLIENT_CLOSED_STATUS = 499
"""nginx's code for a client that left before it was answered: it is logged, never sent."""


class Record:
    """Filled in along the request path, told as one event at its end. Times are readings of the monotonic clock."""

    __slots__ = (
        "answered",
        "attempt_started_at",
        "attempts",
        "body_read_at",
        "caller",
        "client_gone",
        "cost_nano_usd",
        "credential",
        "dialect",
        "endpoint",
        "error",
        "exchange",
        "first_attempt_at",
        "first_byte_at",
        "held_up_seconds",
        "lease",
        "model",
        "model_label",
        "provider",
        "reading_at",
        "requested_model",
        "revision",
        "route",
        "sent_at",
        "status",
        "stream",
        "upstream_ended_at",
        "usage",
    )

    def __init__(self, exchange: Exchange, revision: str) -> None:
        self.exchange = exchange
        self.revision = revision
        self.endpoint = "unknown"
        self.dialect = "openai-chat"
        self.caller: ApiToken | None = None
        self.requested_model: str | None = None
        self.route: str | None = None
        self.provider: str | None = None
        self.model: str | None = None
        self.model_label: str | None = None
        self.credential: str | None = None
        self.stream = False
        self.attempts = 0
        self.status = CLIENT_CLOSED_STATUS
        self.error: GatewayError | None = None
        self.client_gone = False
        self.answered = False
        """Whether a client that has gone had been sent all that it was to get."""
        self.usage: Usage | None = None
        self.cost_nano_usd: int | None = None
        self.lease: Lease | None = None
        """What the caller's limits have admitted it with."""
        self.held_up_seconds = 0.0
        """How long it waited for limits that let requests wait."""
        self.reading_at: float | None = None
        """When the client's body was first waited for."""
        self.body_read_at: float | None = None
        self.first_attempt_at: float | None = None
        self.attempt_started_at: float | None = None
        self.first_byte_at: float | None = None
        """When the provider's first output of the answer that was taken came in."""
        self.sent_at: float | None = None
        """When the first byte of the answer went out."""
        self.upstream_ended_at: float | None = None

    def overhead_seconds(self, now: float) -> float:
        """The gateway's own share so far: until the first attempt, and from the provider's first output to ours.

        Neither the time that the client takes to send its body, nor waiting for limits, nor pauses between attempts, nor
        the providers' own time are in it.
        """
        received_at = self.exchange.head.received_at
        if self.reading_at is None:
            return max(0.0, now - received_at)
        share = self.reading_at - received_at
        if self.body_read_at is not None:
            until = self.first_attempt_at if self.first_attempt_at is not None else now
            share += until - self.body_read_at - self.held_up_seconds
        if self.first_byte_at is not None:
            share += (self.sent_at if self.sent_at is not None else now) - self.first_byte_at
        return max(0.0, share)

    def ended(self, now: float) -> RequestCompleted | RequestFailed:
        """The event that tells of this exchange."""
        exchange = self.exchange
        received_at = exchange.head.received_at
        ttft = self.sent_at - received_at if self.stream and self.sent_at is not None else None
        upstream = None
        if self.attempt_started_at is not None:
            upstream = (self.upstream_ended_at if self.upstream_ended_at is not None else now) - self.attempt_started_at
        client_request_id = exchange.head.headers.get("x-request-id")
        code, message = self._failure()
        caller = self.caller
        kind = RequestCompleted if code is None else RequestFailed
        return kind(
            request_id=exchange.request_id,
            client_request_id=None if client_request_id is None else client_request_id[:128],
            method=exchange.head.method,
            endpoint=self.endpoint,
            dialect=self.dialect,
            status=self.status,
            token=None if caller is None else caller.name,
            token_id=None if caller is None else caller.id,
            owner=None if caller is None else caller.owner,
            remote_ip=exchange.head.remote_ip,
            requested_model=self.requested_model,
            route=self.route,
            provider=self.provider,
            model=self.model,
            model_label=self.model_label,
            credential=self.credential,
            stream=self.stream,
            attempts=self.attempts,
            duration_seconds=now - received_at,
            overhead_seconds=self.overhead_seconds(now),
            ttft_seconds=ttft,
            upstream_seconds=upstream,
            usage=self.usage,
            cost_nano_usd=self.cost_nano_usd,
            revision=self.revision,
            bytes_in=exchange.bytes_in,
            bytes_out=exchange.bytes_out,
            error_code=code,
            error_message=message,
        )

    def _failure(self) -> tuple[str | None, str | None]:
        if self.error is not None:
            return self.error.client_code, self.error.message
        if (self.client_gone or self.exchange.closed) and not self.answered:
            return "client_closed", "the client closed the connection"
        return None, None
