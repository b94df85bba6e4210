"""Facts that happen, told to whoever observes: metrics, the access log and (later) webhooks.

An event is frozen, carries plain values and no secret. Durations are seconds. Names that become labels
(`provider`, `model_label`, `route`, `token`) come from the configuration only, never from what a client sent.
"""

import logging
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, overload

import msgspec

from core.usage import Usage

_log = logging.getLogger("sluice.events")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events; ``name`` is what subscriptions select by."""

    name: ClassVar[str] = ""


class RequestStarted(Event, frozen=True, kw_only=True):
    """A request on the data plane has been read up to its head."""

    name = "request.started"
    endpoint: str


class _RequestEnded(Event, frozen=True, kw_only=True):
    request_id: str
    client_request_id: str | None
    method: str
    endpoint: str
    """The name of the endpoint's row in the table, `unknown` for paths that are in none."""
    status: int
    """What the client got; 499 when it had gone before a status was sent."""
    token: str | None
    remote_ip: str
    requested_model: str | None
    """As the client spelled it: for the log, never for a label."""
    route: str | None
    provider: str | None
    model: str | None
    model_label: str | None
    credential: str | None
    stream: bool
    attempts: int
    duration_seconds: float
    overhead_seconds: float
    """The gateway's own share: end of the head to the upstream's start, and first byte in to first byte out."""
    ttft_seconds: float | None
    """From the request's head to the first byte of output sent to the client, streams only."""
    upstream_seconds: float | None
    """From the last attempt's start to the end of its answer."""
    usage: Usage | None
    revision: str
    bytes_in: int
    bytes_out: int
    error_code: str | None = None
    """The wire code of what went wrong; None for a request that was answered in full."""
    error_message: str | None = None


class RequestCompleted(_RequestEnded, frozen=True, kw_only=True):
    """A request was answered in full."""

    name = "request.completed"


class RequestFailed(_RequestEnded, frozen=True, kw_only=True):
    """A request ended in an error, a cut stream or the client's departure."""

    name = "request.failed"


class AttemptFailed(Event, frozen=True, kw_only=True):
    """One attempt at a target failed; ``next`` says what follows: `retry`, `fallback` or `give_up`."""

    name = "attempt.failed"
    request_id: str
    provider: str
    model_label: str
    credential: str | None
    number: int
    error_code: str
    delivered: str
    next: str


class TargetCooled(Event, frozen=True, kw_only=True):
    """A target or credential left the rotation until ``seconds`` from now."""

    name = "target.cooldown"
    provider: str
    model_label: str | None
    credential: str | None
    reason: str
    seconds: float


class ProviderDown(Event, frozen=True, kw_only=True):
    """A provider has failed several times in a row, through its own fault."""

    name = "provider.down"
    provider: str
    reason: str
    """The wire code of the last failure, such as `upstream_timeout`."""
    failures: int
    """In a row."""


class ProviderRecovered(Event, frozen=True, kw_only=True):
    """A provider that was down has answered."""

    name = "provider.recovered"
    provider: str
    down_seconds: float


class ConfigApplied(Event, frozen=True, kw_only=True):
    """A new generation is in force."""

    name = "config.applied"
    revision: str
    trigger: str
    duration_seconds: float


class ConfigRejected(Event, frozen=True, kw_only=True):
    """A document was refused; the last good generation stays in force."""

    name = "config.rejected"
    trigger: str
    faults: tuple[str, ...]
    on_disk: bool = True
    """Whether it stands on the disk; False: an edit that was refused before anything was written."""


class ConfigRolledBack(Event, frozen=True, kw_only=True):
    """An edit that waited to be confirmed was taken back."""

    name = "config.rolled_back"
    revision: str
    """The one that was taken back."""
    restored: str
    """The one that is in force again."""
    reason: str
    """A word: `unconfirmed`, `failures` or `asked`."""


class SecretRotated(Event, frozen=True, kw_only=True):
    """A reference was read again and gave another value, which is in use from now on."""

    name = "secret.rotated"
    reference: str


class SecretStale(Event, frozen=True, kw_only=True):
    """A reference could not be read again; its last value stays in use."""

    name = "secret.stale"
    reference: str
    reason: str
    """A word: `unreachable`, `sealed`, `slow`, `denied`, `rate_limited`, `error` or `missing`."""


class SecretFresh(Event, frozen=True, kw_only=True):
    """A reference that was stale has been read."""

    name = "secret.fresh"
    reference: str


class TokenCreated(Event, frozen=True, kw_only=True):
    """The API has made a token."""

    name = "token.created"
    token_id: str
    token: str
    """Its name."""
    by: str
    """Who had it made, as the audit calls them."""
    rotated_from: str | None = None
    """The id of the token that it takes the place of."""


class TokenRevoked(Event, frozen=True, kw_only=True):
    """A token that the API had made opens nothing any more."""

    name = "token.revoked"
    token_id: str
    token: str
    by: str


class AddressLockedOut(Event, frozen=True, kw_only=True):
    """Too many tries with the admin key have failed; told once for each lock-out, by the worker that has them."""

    name = "auth.lockout"
    address: str
    """An IPv4 address, or the /64 network of an IPv6 one."""
    seconds: float


class GatewayStarted(Event, frozen=True, kw_only=True):
    """The listeners are open."""

    name = "gateway.started"
    address: str
    revision: str


class GatewayStopping(Event, frozen=True, kw_only=True):
    """Draining has begun."""

    name = "gateway.stopping"
    reason: str


EVENTS: tuple[type[Event], ...] = (
    RequestStarted,
    RequestCompleted,
    RequestFailed,
    AttemptFailed,
    TargetCooled,
    ProviderDown,
    ProviderRecovered,
    ConfigApplied,
    ConfigRejected,
    ConfigRolledBack,
    SecretRotated,
    SecretStale,
    SecretFresh,
    TokenCreated,
    TokenRevoked,
    AddressLockedOut,
    GatewayStarted,
    GatewayStopping,
)

_E = TypeVar("_E", bound=Event)


class Events:
    """Tells every observer of the events that it subscribed to, in order of subscription, at once."""

    __slots__ = ("_observers", "_of_all")

    def __init__(self) -> None:
        # By type, so that a request costs an observer of other events nothing.
        self._observers: dict[type[Event], tuple[Callable[[Any], None], ...]] = {}
        self._of_all: tuple[Callable[[Event], None], ...] = ()

    @overload
    def subscribe(self, observer: Callable[[Event], None]) -> None: ...
    @overload
    def subscribe(self, observer: Callable[[_E], None], *kinds: type[_E]) -> None: ...
    def subscribe(self, observer: Callable[[Any], None], *kinds: type[Event]) -> None:
        """``observer`` is called with each event of ``kinds`` (none given: of all), subclasses not included.

        It is called from the event loop's thread and must not block.
        """
        for kind in kinds or {*EVENTS, *self._observers}:
            self._observers[kind] = (*self._observers.get(kind, self._of_all), observer)
        if not kinds:
            self._of_all += (observer,)

    def emit(self, event: Event) -> None:
        """An observer that fails is logged and harms neither the others nor the request."""
        for observer in self._observers.get(type(event), self._of_all):
            try:
                observer(event)
            except Exception:
                _log.exception("an observer failed on %s", event.name)
