"""What handlers ask of running providers: their health, a probe, their models. `gateway/provider_life.py` answers.

Every name is that of an entry of `providers` of the configuration in force. Addresses and credentials are the entry's own:
none comes from whoever calls, so that neither can be sent anywhere else.
"""

from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec


class ProviderState(StrEnum):
    """Whether a provider serves, as far as is known."""

    UNKNOWN = "unknown"
    """Nothing was asked of it yet."""
    UP = "up"
    DOWN = "down"


class ProviderHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a provider without asking it; of the worker that answers."""

    name: str
    type: str
    state: ProviderState
    since: datetime | None = None
    """When the state began."""
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    last_error_code: str | None = None
    """A wire code, such as `upstream_timeout`; kept when it is up again."""
    consecutive_failures: int = 0
    """Through the provider's fault."""
    probe_latency_seconds: float | None = None
    """Of the last probe that was answered."""
    next_probe_at: datetime | None = None
    """If nothing else is heard of it until then; null: it is not probed."""


class ProbeAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe sent, without what is secret."""

    method: str
    url: str
    """Values of a query are hidden."""
    credential: str | None
    """Its name; null: the provider has none."""
    model: str | None


class ProbeError(msgspec.Struct, frozen=True):
    """Why a provider could not do what it was asked."""

    code: str
    """A wire code, such as `upstream_credentials_rejected`."""
    message: str


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a live probe."""

    ok: bool
    status: int | None
    """The provider's own HTTP status; null: it gave none."""
    error: ProbeError | None
    duration_seconds: float
    asked: ProbeAsked


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a provider's list."""

    id: str
    owned_by: str | None = None
    created_at: datetime | None = None


class KnownModels(msgspec.Struct, frozen=True, kw_only=True):
    """The list of a provider's models as it was last seen."""

    provider: str
    models: tuple[KnownModel, ...] = ()
    """By id."""
    seen_at: datetime | None = None
    """null: it has not been read yet."""
    stale: bool = True
    """Older than `discovery.ttl_seconds`, or never read."""
    refreshing: bool = False
    """It is being read right now."""
    stored: bool = False
    """Whether the list outlives a restart; false while the database cannot be used."""
    error: ProbeError | None = None
    """Why the last reading failed; the list is of the one before."""


class JobState(StrEnum):
    """How far a job is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """No part of it could be done, or its process has ended before it."""


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of reading one provider's list."""

    provider: str
    models: int | None = None
    """How many; null: it could not be read."""
    error: ProbeError | None = None


class RefreshReport(msgspec.Struct, frozen=True):
    """The result of a job of the kind `models.refresh`."""

    providers: tuple[Refreshed, ...]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Work that goes on after the answer that began it."""

    id: str
    kind: str
    """`models.refresh`."""
    state: JobState
    created_at: datetime
    finished_at: datetime | None = None
    result: RefreshReport | None = None
    """null until it is finished."""


class UnknownProvider(Exception):
    """The configuration in force has no provider of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no provider is named `{name}`")
        self.name = name


class RefreshFailed(Exception):
    """The provider's list of models could not be read; the one that was known stays."""

    def __init__(self, error: ProbeError) -> None:
        super().__init__(error.message)
        self.error = error


class ProviderService(Protocol):
    """Providers while they run. Every method raises UnknownProvider for a name that is not configured."""

    def health(self, name: str) -> ProviderHealth:
        """The last that is known. Nothing is asked."""
        ...

    async def test(self, name: str, model: str | None = None) -> ProbeResult:
        """Ask the provider now: for its models, or ``model`` for a few tokens, which may cost something.

        It changes nothing: no cooldown, no metric of requests.
        """
        ...

    async def models(self, name: str) -> KnownModels:
        """What is stored; read again in the background where that is stale."""
        ...

    async def all_models(self) -> tuple[KnownModels, ...]:
        """As :meth:`models`, of every provider, in the order of the file."""
        ...

    async def refresh(self, name: str) -> KnownModels:
        """Read the list now; whoever asks meanwhile waits for the same reading.

        Raises:
            RefreshFailed: it could not be read.
        """
        ...

    async def refresh_all(self) -> str:
        """Begin to read the lists of all providers; gives the job's id. While such a job runs, its id again."""
        ...

    async def job(self, job_id: str) -> Job | None:
        """None: there is no such job, or it has been forgotten."""
        ...
