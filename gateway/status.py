"""What the management API tells about the running gateway."""

from collections import defaultdict
from collections.abc import Iterable

from core.moments import moment_of
from credentials.credential_state import CredentialState
from gateway.limits import QuotaState
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.stores import StoreState
from management.dependencies import (
    CooldownStatus,
    CredentialsStatus,
    Health,
    LedgerStatus,
    ProviderStatus,
    QuotasStatus,
    ReloadStatus,
    StaleSecret,
    StorageStatus,
    WebhooksStatus,
)
from management.editing.editor import Refused
from telemetry.ledger import LedgerState
from webhooks.service import Webhooks


def health(reloader: Reloader, resources: Resources, started_at: float, *, draining: bool) -> Health:
    """The body of ``GET /api/v1/health``. Last known facts: no provider is asked."""
    now = resources.clock.monotonic()
    cooled = resources.cooldowns.current(now)
    generation = reloader.current()
    providers = tuple(
        ProviderStatus(
            name=provider.name,
            type=provider.type,
            cooldowns=tuple(
                CooldownStatus(
                    model=entry.model,
                    credential=entry.credential,
                    reason=entry.reason.value,
                    seconds=round(entry.until - now, 3),
                )
                for entry in cooled
                if entry.provider == provider.name
            ),
        )
        for provider in generation.config.providers
    )
    return Health(
        revision=generation.revision,
        started_at=moment_of(started_at),
        uptime_seconds=round(resources.clock.time() - started_at, 3),
        draining=draining,
        providers=providers,
        last_reload=_last_reload(reloader),
        stale_secrets=tuple(
            StaleSecret(reference=stale.reference, reason=stale.reason, since=moment_of(stale.since))
            for stale in resources.secrets.stale()
        ),
        issued_tokens=resources.token_keeper.status(),
        storage=_storage(resources.stores.state()),
        ledger=_ledger(resources.ledger.state()),
        webhooks=_webhooks(resources.webhooks),
        quotas=_quotas(resources.quotas.state()),
        credentials=_credentials(resources.credentials.accounts.states()),
    )


def _storage(state: StoreState) -> StorageStatus:
    return StorageStatus(
        state=state.status,
        reason=state.reason,
        since=moment_of(state.since),
        waiting=state.waiting,
        spooled=state.spooled,
    )


def _webhooks(webhooks: Webhooks) -> WebhooksStatus:
    deliverer, outbox = webhooks.deliverer, webhooks.outbox
    return WebhooksStatus(
        failing=tuple(name for name in deliverer.endpoints if deliverer.failing(name)),
        disabled=tuple(name for name in deliverer.endpoints if deliverer.disabled(name)),
        waiting=outbox.waiting,
        spooled=outbox.spooled,
        waits_for_database=deliverer.trouble is not None or outbox.trouble is not None,
    )


def _quotas(state: QuotaState) -> QuotasStatus:
    return QuotasStatus(
        store=state.store,
        up=state.up,
        reason=state.reason,
        since=moment_of(state.since),
        waiting=state.waiting,
    )


def _credentials(states: Iterable[CredentialState]) -> CredentialsStatus:
    by_state: defaultdict[str, list[str]] = defaultdict(list)
    for each in states:
        if each.kind != "api_key":
            by_state[each.state].append(f"{each.provider}/{each.name}")
    return CredentialsStatus(
        ready=len(by_state["ready"]),
        pending=len(by_state["pending"]),
        disabled=len(by_state["disabled"]),
        failing=tuple(by_state["failing"]),
        needs_login=tuple(by_state["needs_login"]),
        damaged=tuple(by_state["damaged"]),
        shadowed=tuple(by_state["shadowed"]),
    )


def _ledger(state: LedgerState) -> LedgerStatus:
    return LedgerStatus(
        state=state.status,
        reason=state.reason,
        since=moment_of(state.since),
        waiting=state.waiting,
        spooled=state.spooled,
        lost=state.lost,
    )


def _last_reload(reloader: Reloader) -> ReloadStatus | None:
    if reloader.last is None:
        return None
    at, trigger, outcome = reloader.last
    refused = isinstance(outcome, Refused)
    return ReloadStatus(
        at=moment_of(at),
        trigger=trigger,
        result="rejected" if refused else "applied",
        faults=len(outcome.faults) if isinstance(outcome, Refused) else 0,
    )
