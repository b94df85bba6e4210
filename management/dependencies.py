"""What the management API needs of the rest of the program; `gateway/build.py` fills it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from access.address import TrustedProxies
from config.faults import Fault
from core.headers import Headers
from core.identity import AdminKey, ApiToken


class ManagerIdentifier(Protocol):
    """Fits :class:`access.identify.Identifier`."""

    async def manager(self, headers: Headers, address: str) -> AdminKey | ApiToken:
        """Who calls from ``address``; raises as :meth:`access.identify.Identifier.manager` does."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """What a request needs of the generation that is in force when it arrives."""

    revision: str
    identifier: ManagerIdentifier
    trusted_proxies: TrustedProxies
    metrics_public: bool


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration was read again and is in force; ``changed`` is False when its revision was before."""

    revision: str
    changed: bool
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The configuration was refused, the last good one stays in force; ``faults`` is never empty."""

    faults: tuple[Fault, ...]


class Reloader(Protocol):
    """Reads the configuration again."""

    async def reload(self, trigger: str) -> Reloaded | Refused:
        """Build, test and swap; ``trigger`` (`api`) is told in events and metrics."""
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


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Everything that handlers reach; each callable is cheap and is asked anew for every request."""

    view: Callable[[], View]
    ready: Callable[[], bool]
    """Whether a configuration is in force and the gateway is not draining."""
    health: Callable[[], Health]
    reloader: Reloader
    render_metrics: Callable[[], tuple[str, bytes]]
    """Content type and body; called in a thread."""
