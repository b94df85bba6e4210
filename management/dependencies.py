"""What the management API needs of the rest of the program; `gateway/build.py` fills it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from access.address import TrustedProxies
from core.clock import Clock
from core.headers import Headers
from core.identity import AuthContext
from management.credential_service import CredentialService
from management.editing.editor import Editor
from management.event_feed import EventFeed
from management.handler.origin import Origins
from management.limit_service import LimitService
from management.login_service import LoginService
from management.price_service import PriceService
from management.provider_service import ProviderService
from management.routing_service import RoutingService
from management.secrets.entry_values import Sealer
from management.setting_values import SettingShown
from management.token_service import TokenService
from management.usage_service import UsageService
from storage.records import AuditEntry, AuditFilter, Files, NewAuditEntry, Page, StoredRevision
from webhooks.service import WebhookService


class ManagerIdentifier(Protocol):
    """Fits :class:`access.identify.Identifier`."""

    async def manager(self, headers: Headers, address: str) -> AuthContext:
        """Who calls from ``address``; raises as :meth:`access.identify.Identifier.manager` does."""
        ...

    def still(self, headers: Headers, address: str) -> AuthContext | None:
        """As :meth:`access.identify.Identifier.still`."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """What a request needs of the generation that is in force when it arrives."""

    revision: str
    identifier: ManagerIdentifier
    trusted_proxies: TrustedProxies
    metrics_public: bool
    origins: Origins = field(default_factory=Origins)
    """Names and pages that the API may be called by."""


class AuditLog(Protocol):
    """Where operations are remembered; fits what gateway/stores.py gives."""

    def require_room(self) -> None:
        """
        Raises:
            storage.errors.AuditFull: no further entry can be taken: the operation must not be done.
        """
        ...

    async def append(self, entry: NewAuditEntry) -> None:
        """Keep ``entry``; gives back when it will not be lost: in the database, or on the disk until that answers."""
        ...

    async def list(
        self, wanted: AuditFilter | None = None, *, cursor: str | None = None, limit: int = 100
    ) -> Page[AuditEntry]:
        """Newest first; what waits for the database (:meth:`waiting`) is not among them.

        Raises:
            storage.errors.BadCursor: ``cursor`` is of no page of this list.
            storage.errors.StorageUnavailable: not now.
        """
        ...

    async def waiting(self) -> int:
        """At most so many entries of this machine are not in the database yet. Asked before :meth:`list` is, it counts all
        that may be missing there."""
        ...


class Revisions(Protocol):
    """The configurations that were put in force. Each may raise :class:`storage.errors.StorageUnavailable`."""

    async def list(self, *, cursor: str | None, limit: int) -> Page[StoredRevision]:
        """Newest first.

        Raises:
            storage.errors.BadCursor: ``cursor`` is of no page of this list.
        """
        ...

    async def get(self, revision_id: str) -> tuple[StoredRevision, Files] | None:
        """One with its files, by its id, or the newest of a hash alone; None where it is not there, or no longer."""
        ...

    async def before(self, revision: StoredRevision) -> tuple[StoredRevision, Files] | None:
        """The one that ``revision`` took the place of, or, where that is not kept, the one below it in the list."""
        ...


class CooldownStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A target (``model``) or a credential that is out of rotation, or the whole provider where both are null."""

    model: str | None
    credential: str | None
    reason: str
    seconds: float
    """How long it stays out."""


class ProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A provider and what of it is out of rotation."""

    name: str
    type: str
    cooldowns: tuple[CooldownStatus, ...] = ()


class ReloadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the last attempt to put a configuration in force went."""

    at: datetime
    trigger: str
    result: str
    """`applied` or `rejected`."""
    faults: int = 0
    """How many; what they are is told to who reloads, and in the log."""


class StaleSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that is in use though it could not be read again."""

    reference: str
    """As the configuration writes it, without its default."""
    reason: str
    """`unreachable`, `sealed`, `slow`, `denied`, `rate_limited`, `error` or `missing`."""
    since: datetime


class IssuedTokensStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker that answers knows of the tokens that the API has made."""

    count: int
    loaded: bool
    """False: the database has not answered since the start, so none of them is accepted yet."""
    stale_since: datetime | None
    """Since when the database does not answer; what was known goes on serving."""


class StorageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the database does, as far as the worker that answers knows."""

    state: Literal["ok", "absent", "unavailable"]
    """`absent`: there is none yet, as nothing was stored."""
    reason: str | None
    """Why it cannot be used: `unreachable`, `denied`, `locked`, `slow`, `full`, `read_only`, `damaged`, `failing` or
    `unknown_schema`."""
    since: datetime | None
    """Since when."""
    waiting: int
    """Entries of the audit that this worker has in memory alone."""
    spooled: int
    """Those that it has on the disk, to be written to the database."""


class LedgerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the ledger of requests does, as far as the worker that answers knows."""

    state: Literal["ok", "off", "unavailable"]
    """`off`: `usage.ledger` is false; `unavailable`: the database took no rows when it was asked last."""
    reason: str | None
    """Why, as of `storage`."""
    since: datetime | None
    """Since when."""
    waiting: int
    """Rows that this worker has in memory alone."""
    spooled: int
    """Those that it has on the disk, to be written to the database."""
    lost: int
    """Those for which it had no room, since it was started."""


class WebhooksStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How webhooks do, as far as the worker that answers knows."""

    failing: tuple[str, ...]
    """Names of those whose endpoint has failed several times in a row: it is asked once in a while."""
    disabled: tuple[str, ...]
    """Names of those whose endpoint has answered 410: it gets nothing more."""
    waiting: int
    """Events that this worker has in memory alone."""
    spooled: int
    """Those that it has on the disk, to be written to the database."""
    waits_for_database: bool
    """Whether the database did not answer when it was asked last; `storage` tells why."""


class QuotasStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the counters of limits do, as far as the worker that answers knows."""

    store: Literal["memory", "redis", "none"]
    """`none`: several workers have no Redis in common, so that no limit can be kept."""
    up: bool
    """Whether the store counts."""
    reason: str | None
    """Why Redis cannot be used: `unreachable`, `slow`, `denied`, `failing` or `forgetful`."""
    since: datetime | None
    """Since when."""
    waiting: int
    """Requests that wait for a limit in this worker."""


class CredentialsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How credentials do whose tokens end, as far as the worker that answers knows; they are named `PROVIDER/NAME`."""

    ready: int
    """How many have a token that serves."""
    pending: int
    """How many have had none yet."""
    disabled: int
    """How many are left out."""
    failing: tuple[str, ...]
    """Those whose last refresh failed: a token that has not ended serves on, and it is tried again."""
    needs_login: tuple[str, ...]
    """Those that serve no more until a person signs in again."""
    damaged: tuple[str, ...]
    """Accounts that are kept and cannot be read."""
    shadowed: tuple[str, ...]
    """Accounts that serve no more, as the configuration has a credential of their name."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``GET /api/v1/health``."""

    revision: str
    started_at: datetime
    uptime_seconds: float
    draining: bool
    providers: tuple[ProviderStatus, ...]
    last_reload: ReloadStatus | None
    stale_secrets: tuple[StaleSecret, ...] = ()
    """Of the worker that answers; each reads for itself."""
    issued_tokens: IssuedTokensStatus
    storage: StorageStatus
    ledger: LedgerStatus
    webhooks: WebhooksStatus
    quotas: QuotasStatus
    credentials: CredentialsStatus


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Everything that handlers reach; each callable is cheap and is asked anew for every request."""

    clock: Clock
    view: Callable[[], View]
    ready: Callable[[], bool]
    """Whether a configuration is in force and the gateway is not draining."""
    health: Callable[[], Health]
    editor: Editor
    sealer: Sealer
    audit: AuditLog
    render_metrics: Callable[[], tuple[str, bytes]]
    """Content type and body; called in a thread."""
    tokens: TokenService
    limits: LimitService
    usage: UsageService
    events: EventFeed
    settings: Callable[[], Mapping[str, SettingShown]]
    """By key."""
    webhooks: WebhookService
    settle_events: Callable[[], Awaitable[bool]]
    """Gives back when the events of the operation that webhooks are told of will not be lost; False: they may be."""
    providers: ProviderService
    prices: PriceService
    credentials: CredentialService
    logins: LoginService
    revisions: Revisions
    routing: RoutingService
