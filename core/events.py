"""Facts that happen, told to whoever observes: metrics, the access log and webhooks.

An event is frozen, carries plain values and no secret. Durations are seconds. Names that become labels
(`provider`, `model_label`, `route`, `token`) come from the configuration only, never from what a client sent.
"""

import logging
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, overload

import msgspec

from core.usage import Usage

_log = logging.getLogger("sluice.events")


# gc=False: an event is a leaf, and thousands a second wait for a while to be written.
class Event(msgspec.Struct, gc=False, frozen=True, kw_only=True):
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
    dialect: str
    """The wire format that the client speaks, such as `openai-chat`."""
    status: int
    """What the client got; 499 when it had gone before a status was sent."""
    token: str | None
    """The name of the API token."""
    token_id: str | None
    """Of a token that the API has made; None: the file declares it, or there is none."""
    owner: str | None
    """Whose the token is."""
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
    cost_nano_usd: int | None
    """What it cost, in 10⁻⁹ US dollars; None: nothing was used that has a known price."""
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
    """A target left the rotation until ``seconds`` from now."""

    name = "target.cooldown"
    provider: str
    model_label: str | None
    reason: str
    seconds: float


class CredentialCooled(Event, frozen=True, kw_only=True):
    """A credential left the rotation until ``seconds`` from now."""

    name = "credential.cooldown"
    provider: str
    credential: str
    model_label: str | None
    """Where it is so for one model alone."""
    reason: str
    seconds: float


class CredentialRejected(Event, frozen=True, kw_only=True):
    """A provider has answered 401 or 403 to a credential, which leaves the rotation until ``seconds`` from now."""

    name = "credential.rejected"
    provider: str
    credential: str
    seconds: float


class CredentialRefreshed(Event, frozen=True, kw_only=True):
    """A credential that ends has been exchanged for a fresh one."""

    name = "credential.refreshed"
    provider: str
    credential: str
    expires_in_seconds: float | None


class CredentialRefreshFailed(Event, frozen=True, kw_only=True):
    """A credential that ends could not be exchanged for a fresh one."""

    name = "credential.refresh_failed"
    provider: str
    credential: str
    reason: str
    """A word."""
    needs_login: bool
    """Whether only a person who signs in again can mend it."""


class _LimitReached(Event, frozen=True, kw_only=True):
    limit: str
    """As it is written, such as `60 requests per minute`."""
    metric: str
    per: str | None
    amount: int
    """Of the limit, in the metric's unit; money in 10⁻⁹ US dollars."""
    used: int
    """In the same."""
    scope: str
    """Whom the limit is for, in words, such as ``token `team-a```."""
    token: str | None
    owner: str | None
    provider: str | None
    credential: str | None
    reset_seconds: float
    """Until the window ends; 0 where there is none."""
    shadow: bool
    """Whether the limit refuses nothing."""


class QuotaThreshold(_LimitReached, frozen=True, kw_only=True):
    """So much of a limit is used; told once for each window and share, by each worker that sees it."""

    name = "quota.threshold"
    share: float
    """As `quotas.thresholds` has it."""


class QuotaExceeded(_LimitReached, frozen=True, kw_only=True):
    """A limit has refused a request, or, in shadow, would have; told once for each window, by each worker that does."""

    name = "quota.exceeded"


class BudgetThreshold(_LimitReached, frozen=True, kw_only=True):
    """So much of a limit of money is spent; told once for each window and share, by each worker that sees it."""

    name = "budget.threshold"
    share: float
    """As `quotas.thresholds` has it."""


class QuotaStoreDown(Event, frozen=True, kw_only=True):
    """Redis, which counts what limits count, cannot be used."""

    name = "quota.store_down"
    reason: str
    """A word: `unreachable`, `slow`, `denied`, `failing` or `forgetful`."""
    on_store_failure: str


class QuotaStoreRecovered(Event, frozen=True, kw_only=True):
    """Redis counts again."""

    name = "quota.store_recovered"
    down_seconds: float


class LedgerDown(Event, frozen=True, kw_only=True):
    """The ledger of requests cannot be written to; its rows wait on the disk."""

    name = "ledger.down"
    reason: str


class LedgerRecovered(Event, frozen=True, kw_only=True):
    """The ledger is written to again."""

    name = "ledger.recovered"
    down_seconds: float
    lost: int
    """Rows for which there was no room meanwhile."""


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
    CredentialCooled,
    CredentialRejected,
    CredentialRefreshed,
    CredentialRefreshFailed,
    QuotaThreshold,
    QuotaExceeded,
    BudgetThreshold,
    QuotaStoreDown,
    QuotaStoreRecovered,
    LedgerDown,
    LedgerRecovered,
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

    def unsubscribe(self, observer: Callable[[Any], None], *kinds: type[Event]) -> None:
        """``observer`` is told of ``kinds`` no more."""
        for kind in kinds:
            self._observers[kind] = tuple(each for each in self._observers[kind] if each != observer)

    def emit(self, event: Event) -> None:
        """An observer that fails is logged and harms neither the others nor the request."""
        for observer in self._observers.get(type(event), self._of_all):
            try:
                observer(event)
            except Exception:
                _log.exception("an observer failed on %s", event.name)
