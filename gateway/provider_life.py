"""Providers while they run: :class:`management.provider_service.ProviderService`, of the parts that ask and watch them."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from config.schema import Provider
from core.errors import UpstreamError
from core.events import ConfigApplied
from core.moments import moment_of
from gateway.build import Generation
from gateway.explain import masked
from gateway.kept import Jobs, KeptModels
from gateway.resources import Resources
from management.provider_service import (
    Job,
    JobState,
    KnownModel,
    KnownModels,
    ProbeAsked,
    ProbeError,
    ProbeResult,
    ProviderHealth,
    ProviderState,
    Refreshed,
    RefreshFailed,
    RefreshReport,
    UnknownProvider,
)
from proxy import discovery, monitor
from proxy.dataplane import BoundProvider
from proxy.discovery import Discovery, Listing
from proxy.monitor import Health, Monitor
from proxy.probe import Probed, Prober
from proxy.providers import PROVIDER_TYPES
from proxy.providers.base import ListedModel as Seen
from routing.router import ListedModel
from transport.messages import UpstreamClient

_TESTS_AT_ONCE = 8
_STATES = {None: ProviderState.UNKNOWN, True: ProviderState.UP, False: ProviderState.DOWN}
# RFC 9110 sections 15.5.5 and 15.5.6: there is nothing at the path, or nothing to read.
_NO_LIST = (404, 405)


class ProviderLife:
    """Made once in a process; :meth:`start` has it watch."""

    def __init__(self, resources: Resources, current: Callable[[], Generation]) -> None:
        """``current`` is the generation in force."""
        self._resources = resources
        self._current = current
        clock = resources.clock
        self._prober = Prober(lambda: current().plane, self._client_of, clock, resources.random)
        self._health = Health(resources.events, clock, resources.random, resources.metrics.show_provider)
        self._monitor = Monitor(self._health, self._prober.knock, resources.events)
        self._discovery = Discovery(
            self._ask_for_models, KeptModels(resources.stores), clock, resources.background, self._lists_changed
        )
        self._jobs = Jobs(resources.stores, clock)
        self._running_job: str | None = None
        self._shown: dict[str, tuple[tuple[Seen, ...], tuple[KnownModel, ...]]] = {}
        """Lists as they are told, made once for each."""
        self._turns = asyncio.Semaphore(_TESTS_AT_ONCE)
        self._outdated = False

    def start(self) -> None:
        """Watch the providers of the configuration in force, whichever that is."""
        background = self._resources.background
        self._health.subscribe()
        self._resources.events.subscribe(lambda _: self._follow(), ConfigApplied)
        self._follow()
        self._resources.discovered.asked = self._discovery.asked_for
        background.spawn(self._monitor.run(), "providers' health")
        background.spawn(self._discovery.load(), "lists of models")
        background.spawn(self._jobs.fail_left(), "jobs of ended processes")

    def health(self, name: str) -> ProviderHealth:
        """See :class:`ProviderService`, as for all that follow."""
        provider = self._provider(name)
        watched = self._health.of(name)
        # One for all of them: what came at one moment is told as one.
        offset = self._resources.clock.time() - self._resources.clock.monotonic()

        def moment(at: float | None) -> datetime | None:
            return None if at is None else moment_of(offset + at)

        return ProviderHealth(
            name=name,
            type=provider.type,
            state=_STATES[watched.up],
            since=moment(watched.since),
            last_success_at=moment(watched.succeeded_at),
            last_failure_at=moment(watched.failed_at),
            last_error_code=watched.error_code,
            consecutive_failures=watched.failures,
            probe_latency_seconds=None if watched.latency is None else round(watched.latency, 6),
            next_probe_at=moment(watched.due_at),
        )

    async def test(self, name: str, model: str | None = None) -> ProbeResult:
        self._provider(name)
        async with self._turns:
            try:
                if model is None:
                    probed = await self._prober.models(name, others=False)
                else:
                    probed = await self._prober.trial(name, model)
            except KeyError:
                # It has gone while others had their turn.
                raise UnknownProvider(name) from None
        self._health.observed(name, probed)
        return _result(probed, model)

    async def models(self, name: str) -> KnownModels:
        self._provider(name)
        return self._known(name, await self._discovery.known(name))

    async def all_models(self) -> tuple[KnownModels, ...]:
        return tuple(self._known(name, listing) for name, listing in (await self._discovery.all_known()).items())

    async def refresh(self, name: str) -> KnownModels:
        self._provider(name)
        try:
            return self._known(name, await self._discovery.refresh(name))
        except KeyError:
            raise UnknownProvider(name) from None
        except UpstreamError as error:
            raise RefreshFailed(_error(error)) from error

    async def refresh_all(self) -> str:
        if self._running_job is not None:
            return self._running_job
        names = tuple(provider.name for provider in self._current().config.providers)
        # Set before anything is waited for: whoever calls meanwhile gets the same.
        self._running_job = job_id = self._jobs.new("models.refresh")
        try:
            await self._jobs.tell(job_id)
            self._resources.background.spawn(self._refresh_all(job_id, names), "models of all providers")
        except BaseException:
            self._running_job = None
            raise
        return job_id

    async def job(self, job_id: str) -> Job | None:
        return await self._jobs.get(job_id)

    async def _refresh_all(self, job_id: str, names: tuple[str, ...]) -> None:
        async def one(name: str) -> Refreshed:
            try:
                return Refreshed(provider=name, models=len((await self.refresh(name)).models))
            except RefreshFailed as failed:
                return Refreshed(provider=name, error=failed.error)
            except UnknownProvider as gone:
                return Refreshed(provider=name, error=ProbeError("provider_not_found", str(gone)))

        try:
            found = await asyncio.gather(*map(one, names))
        finally:
            self._running_job = None
        failed = bool(names) and all(each.error is not None for each in found)
        await self._jobs.end(job_id, JobState.FAILED if failed else JobState.DONE, RefreshReport(tuple(found)))

    def _provider(self, name: str) -> Provider:
        for provider in self._current().config.providers:
            if provider.name == name:
                return provider
        raise UnknownProvider(name)

    def _client_of(self, bound: BoundProvider) -> UpstreamClient:
        # What is asked here takes no connection away from requests, and waits for none of theirs.
        return self._resources.probes if bound.client is self._resources.client else bound.client

    async def _ask_for_models(self, name: str) -> Probed:
        probed = await self._prober.models(name)
        self._health.observed(name, probed)
        return probed

    def _follow(self) -> None:
        generation = self._current()
        watched: dict[str, monitor.Entry] = {}
        listed: dict[str, discovery.Entry] = {}
        for provider in generation.config.providers:
            address = f"{provider.type} {generation.plane.providers[provider.name].adapter.url('')}"
            local = PROVIDER_TYPES[provider.type].transport == "local"
            watched[provider.name] = monitor.Entry(address, None if local else provider.health.probe_seconds)
            shown = generation.plane.router.catalog.may_list(provider.name)
            listed[provider.name] = discovery.Entry(address, provider.discovery.ttl_seconds, shown)
        self._shown = {name: shown for name, shown in self._shown.items() if name in listed}
        self._monitor.follow(watched)
        self._discovery.follow(listed)

    def _lists_changed(self) -> None:
        """Have `GET /v1/models` tell it, soon: several changes at once are one."""
        if not self._outdated:
            self._outdated = True
            self._resources.background.spawn(self._show_lists(), "models that are listed")

    async def _show_lists(self) -> None:
        self._outdated = False
        generation, lists = self._current(), self._discovery.lists()
        # Thousands of names against hundreds of globs: not on the event loop.
        found = await asyncio.get_running_loop().run_in_executor(None, listed_models, generation, lists)
        if generation is self._current():
            self._resources.discovered.models = found

    def _known(self, name: str, listing: Listing) -> KnownModels:
        seen, shown = self._shown.get(name, ((), ()))
        if seen is not listing.models:
            shown = tuple(map(_shown_model, sorted(listing.models, key=lambda each: each.id)))
            self._shown[name] = listing.models, shown
        return KnownModels(
            provider=name,
            models=shown,
            seen_at=moment_of(listing.seen_at),
            stale=listing.stale,
            refreshing=listing.refreshing,
            stored=listing.stored,
            error=None if listing.error is None else _error(listing.error),
        )


def listed_models(generation: Generation, lists: Mapping[str, tuple[Seen, ...]]) -> tuple[ListedModel, ...]:
    """Of what providers have, the names that lead to them: each once, under the first provider that serves it."""
    catalog = generation.plane.router.catalog
    found: dict[str, str] = {}
    for provider, models in lists.items():
        for model in models:
            # A name that begins with another provider's leads to that one.
            led_away = "/" in model.id and model.id.partition("/")[0] in catalog
            if provider in catalog and not led_away and catalog.pattern(provider, model.id) is not None:
                found.setdefault(model.id, provider)
    return tuple(ListedModel(name, provider) for name, provider in found.items())


def _result(probed: Probed, model: str | None) -> ProbeResult:
    error = None if probed.error is None else _error(probed.error)
    if error is not None and model is None and probed.status in _NO_LIST:
        error = ProbeError(error.code, f"{error.message} It may have no list of models: test it with a `model`.")
    return ProbeResult(
        ok=error is None,
        status=probed.status,
        error=error,
        duration_seconds=round(probed.seconds, 6),
        asked=ProbeAsked(method=probed.method, url=masked(probed.url), credential=probed.credential, model=model),
    )


def _error(error: UpstreamError) -> ProbeError:
    return ProbeError(error.client_code, error.message)


def _shown_model(model: Seen) -> KnownModel:
    return KnownModel(id=model.id, owned_by=model.owned_by, created_at=moment_of(model.created))
