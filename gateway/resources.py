"""What outlives generations, as one named object."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from access.admin_key import AdminKeys
from access.issued import IssuedTokens
from config.load import LoadedConfig
from config.secret_stores import SecretStores
from config.vault.values import VaultValues
from core.clock import Clock, SystemClock
from core.events import (
    AddressLockedOut,
    AttemptFailed,
    CredentialCooled,
    CredentialRejected,
    Event,
    Events,
    ProviderDown,
    ProviderRecovered,
    SecretFresh,
    SecretStale,
    TargetCooled,
)
from core.tasks import Tasks
from gateway.attempt_log import log_attempts
from gateway.control import Others
from gateway.credentials import CredentialKeeper
from gateway.event_feed import GatewayEvents
from gateway.issued_tokens import IssuedTokenKeeper
from gateway.limits import QuotaKeeper
from gateway.master_keys import MasterKeys
from gateway.others import Alone
from gateway.storage_metrics import StorageMetrics
from gateway.stores import Stores
from gateway.teller import Teller
from gateway.token_sources import TokenSources
from gateway.webhook_metrics import WebhookMetrics
from gateway.webhooks import webhook_limits
from gateway.workers import WORKER
from proxy.dataplane import Discovered
from routing.cooldown import Cooldowns, Cooled, Reason
from telemetry.ledger import Ledger
from telemetry.metrics import Metrics
from transport.client import HttpClient, PoolLimits
from transport.messages import STRAIGHT, ConnectionOptions
from webhooks.endpoint import Endpoint
from webhooks.service import Webhooks

_log = logging.getLogger("sluice.access")

_MOST_OPTIONS = 256
_PROBES = PoolLimits(connections=64, connections_per_origin=8, waiting=256)
_SIGN_INS = PoolLimits(connections=64, connections_per_origin=16, waiting=256)
# How many are used at a time each webhook says itself.
_DELIVERIES = PoolLimits(connections=1024, connections_per_origin=512, waiting=4096)


class Resources:
    """Pools, cooldowns, counters and handles that a reload must not lose."""

    def __init__(
        self,
        environment: Mapping[str, str],
        metrics_dir: str | None = None,
        clock: Clock | None = None,
        *,
        workers: int = 1,
        writes: bool = True,
    ) -> None:
        """``metrics_dir`` is where several workers keep their metrics; None for one process. ``workers``: how many serve.
        Without ``writes`` no file of secrets is made: for commands that look."""
        self.environment = environment
        self.clock: Clock = clock if clock is not None else SystemClock()
        # Choosing among targets and spreading retries needs no cryptographic strength.
        self.random: Callable[[], float] = random.random
        self.events = Events()
        self.tasks = Tasks()
        """Exchanges in flight."""
        self.background = Tasks()
        """What runs as long as the process does."""
        self.others: Others = Alone()
        """The other workers; a worker puts its link here before anything is served."""
        self._loop = asyncio.get_running_loop()
        self.secrets = SecretStores(self.clock, self._tell, writes=writes)
        self.metrics = Metrics(self.clock, metrics_dir, environment.get(WORKER))
        self.stores = Stores(self.clock, StorageMetrics(self.metrics), writes=writes)
        """What outlives the process."""
        self.ledger = Ledger(self.stores.ledger, self.clock, self.events.emit, self.metrics.ledger)
        self._kept_fresh: tuple[VaultValues, asyncio.Task[None]] | None = None
        self.cooldowns = Cooldowns(self._cooled)
        self.admin_keys = AdminKeys(self.clock, self._locked_out)
        self.issued_tokens = IssuedTokens()
        self.token_keeper = IssuedTokenKeeper(self.issued_tokens, self.stores, self.clock, self.random)
        self.quotas = QuotaKeeper(self.clock, self.events, self.metrics, workers)
        """What limits have counted."""
        self.client = HttpClient()
        self.probes = HttpClient(_PROBES, beside=self.client)
        """For what is asked of providers by ourselves: it takes no connection away from requests."""
        self.sign_ins = HttpClient(_SIGN_INS, beside=self.client)
        """For servers that give tokens."""
        self.credentials = CredentialKeeper(
            stores=self.stores,
            keys=MasterKeys(self.secrets, environment),
            clock=self.clock,
            random=self.random,
            emit=self.events.emit,
            series=self.metrics.credentials,
            cooldowns=self.cooldowns,
            background=self.background,
            others=lambda: self.others,
        )
        """Those whose tokens end."""
        self._deliveries = HttpClient(_DELIVERIES, beside=self.client)
        self._webhooks: Webhooks | None = None
        self.teller = Teller(self.events, environment.get(WORKER), lambda: self.webhooks)
        """Offers events to webhooks."""
        self.event_feed = GatewayEvents(self.events, self.clock, self.background, self.teller)
        """Tells those who listen to the management API."""
        self.discovered = Discovered()
        self._options = [STRAIGHT]
        self.metrics.subscribe(self.events)
        self._references: list[str] = []
        self.events.subscribe(self._show_stale_secrets, SecretStale, SecretFresh)
        self.events.subscribe(
            log_attempts, AttemptFailed, TargetCooled, CredentialCooled, ProviderDown, ProviderRecovered
        )

    def shared_options(self, options: ConnectionOptions) -> ConnectionOptions:
        """The same as ``options``, where a former generation had them: its connections to the provider serve on."""
        for known in self._options:
            if _alike(known, options):
                return known
        self._options.append(options)
        del self._options[:-_MOST_OPTIONS]
        return options

    def redirect_url(self) -> str:
        """Where people come back to from a sign-in, where the configuration does not say."""
        return self.credentials.redirect_url()

    @property
    def webhooks(self) -> Webhooks:
        """The outbox and the delivery; there are some from the first :meth:`follow` on."""
        if self._webhooks is None:
            self._webhooks = Webhooks(
                self.stores.webhooks,
                self.stores.exists,
                self.stores.spool,
                self._deliveries,
                self.clock,
                self.random,
                WebhookMetrics(self.metrics),
            )
        return self._webhooks

    def follow(
        self, loaded: LoadedConfig, endpoints: Sequence[Endpoint] = (), token_sources: TokenSources | None = None
    ) -> None:
        """Keep to the bounds of a configuration that is put in force, and its secrets and tokens fresh; tell its webhooks."""
        self._follow_secrets(loaded)
        self.stores.begin(loaded.config, loaded.sources.root.parent)
        self.credentials.follow(loaded, token_sources if token_sources is not None else TokenSources())
        self.quotas.follow(loaded.config)
        self.ledger.follow(loaded.config.usage)
        self.metrics.webhooks.follow([endpoint.name for endpoint in endpoints])
        self.teller.follow(endpoints, webhook_limits(loaded.config))
        transport = loaded.config.transport
        self.client.limits = PoolLimits(
            connections=transport.max_connections,
            connections_per_origin=transport.max_connections_per_origin,
            waiting=transport.max_waiting,
            keep_alive_seconds=transport.keep_alive_seconds,
            dns_cache_seconds=transport.dns_cache_seconds,
            max_decoded_bytes=transport.max_decoded_bytes,
        )

    def _follow_secrets(self, loaded: LoadedConfig) -> None:
        self.secrets.follow(loaded.vault, loaded.vault_references)
        self._references = [each.label for each in loaded.vault_references]
        self._show_stale_secrets()
        if self._kept_fresh is not None:
            former, keeping = self._kept_fresh
            if former is loaded.vault:
                return
            keeping.cancel()
            self._kept_fresh = None
        if loaded.vault is not None:
            self._kept_fresh = loaded.vault, self.background.spawn(loaded.vault.keep_fresh(), "vault")

    def _show_stale_secrets(self, _event: Event | None = None) -> None:
        stale = {each.reference: each.since for each in self.secrets.stale()}
        self.metrics.show_stale_since({reference: stale.get(reference, 0.0) for reference in self._references})

    def _tell(self, event: Event) -> None:
        """Emit an event of any thread on the event loop. At the very end there is none any more, nor who would hear."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.events.emit, event)

    def _cooled(self, cooled: Cooled) -> None:
        provider, label, reason, seconds = cooled.provider, cooled.label, cooled.reason.value, cooled.seconds
        if cooled.credential is None:
            self.events.emit(TargetCooled(provider=provider, model_label=label, reason=reason, seconds=seconds))
            return
        if cooled.reason is Reason.CREDENTIAL_REFUSED:
            self.events.emit(CredentialRejected(provider=provider, credential=cooled.credential, seconds=seconds))
        self.events.emit(
            CredentialCooled(
                provider=provider, credential=cooled.credential, model_label=label, reason=reason, seconds=seconds
            )
        )

    def _locked_out(self, address: str, seconds: float) -> None:
        _log.warning("%s is locked out for %.0f s: too many tries with the admin key have failed", address, seconds)
        self.events.emit(AddressLockedOut(address=address, seconds=seconds))

    async def close(self) -> None:
        """Cancel what still runs and close what is open."""
        await self.background.cancel()
        await self.tasks.cancel()
        self.event_feed.close()
        await self.credentials.close()
        await self.quotas.close()
        await self.ledger.close()
        self.teller.close()
        if self._webhooks is not None:
            await self._webhooks.close()
        await self.stores.close()
        await self._deliveries.close()
        await self.client.close()
        await self.probes.close()
        await self.sign_ins.close()
        await asyncio.get_running_loop().run_in_executor(None, self.secrets.close)
        self.admin_keys.close()


def _alike(one: ConnectionOptions, other: ConnectionOptions) -> bool:
    if msgspec.structs.replace(one, proxy_url=None) != msgspec.structs.replace(other, proxy_url=None):
        return False
    if one.proxy_url is None or other.proxy_url is None:
        return one.proxy_url is other.proxy_url
    # The label says where it is read from: a handle on another place may come to differ later.
    return one.proxy_url.label == other.proxy_url.label and one.proxy_url.matches(other.proxy_url.reveal())
