"""Prometheus metrics, observed from :mod:`core.events`.

With several workers, prometheus_client keeps each value in a memory-mapped file a worker, and any worker renders the
sum (https://prometheus.github.io/client_python/multiprocess/). It decides so when it is first imported: the variable
``PROMETHEUS_MULTIPROC_DIR`` must be set by then, to an empty directory, and the same one be passed to :class:`Metrics`.
Make one :class:`Metrics` in each worker, after the fork, and have :meth:`Metrics.run` run there: what requests add up
to (:mod:`telemetry.tallies`) reaches the worker's file at its pace.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import prometheus_client
from prometheus_client import CollectorRegistry, multiprocess, values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from core.clock import Clock
from core.events import (
    AttemptFailed,
    ConfigApplied,
    ConfigRejected,
    CredentialCooled,
    Event,
    Events,
    RequestCompleted,
    RequestFailed,
    RequestStarted,
    SecretRotated,
    TargetCooled,
)
from telemetry import registry
from telemetry.credential_series import NO_END, NO_STATE, CredentialSeries
from telemetry.ledger_series import LedgerSeries
from telemetry.quota_series import QuotaSeries
from telemetry.registry import UNKNOWN
from telemetry.series import Series, counter, gauge, histogram
from telemetry.tallies import Tallies
from telemetry.webhook_series import WebhookSeries

FOLD_SECONDS = 0.25
"""What a worker has counted shows in the other workers' answers at most this much later."""

_FORGOTTEN = 2
"""Of a gauge that is 1 or 0: nothing is known, which is not shown."""
_MAY_BE_FORGOTTEN = frozenset({registry.PROVIDER_UP.name, registry.STORAGE_UP.name, registry.QUOTA_STORE_UP.name})
_OF_CREDENTIALS = frozenset({registry.CREDENTIAL_STATE.name, registry.CREDENTIAL_EXPIRES.name})

# It becomes a part of file names, which prometheus_client takes apart at `_` and matches as a glob.
_WORKER = re.compile(r"[A-Za-z0-9.-]+")


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, clock: Clock, multiprocess_dir: str | None = None, worker: str | None = None) -> None:
        """``multiprocess_dir`` is where the workers' files are; None: this process is the only one.

        ``worker`` names this process among all that ever write there (letters, digits, `.` and `-`), such as
        ``slot.epoch``; None: its process id does, which the system gives again to another one day.

        Raises:
            RuntimeError: prometheus_client was imported under another setting.
            ValueError: ``worker`` has other characters.
        """
        self._multiprocess_dir = multiprocess_dir
        if (multiprocess_dir is None) != (values.ValueClass is values.MutexValue):
            raise RuntimeError(
                "PROMETHEUS_MULTIPROC_DIR must be set before prometheus_client is imported, or not at all"
            )
        if multiprocess_dir is not None and worker is not None:
            identity = _identity(worker)
            # The class that metrics made from now on keep their values in; its files are named at its first value.
            values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]  # has no types
        self._clock = clock
        self._revision: str | None = None
        own = CollectorRegistry()
        self._tallies = Tallies(own)
        self._attempts_failed = Series(counter(registry.ATTEMPTS_FAILED, own))
        self._retries = Series(counter(registry.RETRIES, own))
        self._fallbacks = Series(counter(registry.FALLBACKS, own))
        self._cooldowns = Series(counter(registry.COOLDOWNS, own))
        self._providers_up = Series(gauge(registry.PROVIDER_UP, own))
        self._reloads = Series(counter(registry.CONFIG_RELOADS, own))
        self._revisions = Series(gauge(registry.CONFIG_REVISION, own))
        self._last_reload_successful = gauge(registry.CONFIG_LAST_RELOAD_SUCCESSFUL, own)
        self._last_applied = gauge(registry.CONFIG_LAST_APPLIED, own)
        self._stale_since = Series(gauge(registry.SECRET_STALE_SINCE, own))
        self._rotations = Series(counter(registry.SECRET_ROTATIONS, own))
        self._secrets: frozenset[str] = frozenset()
        self._storage_up = gauge(registry.STORAGE_UP, own)
        self._storage_up.set(_FORGOTTEN)
        self._storage_answers: bool | None = None
        self._audit_waiting = gauge(registry.AUDIT_WAITING, own)
        self._audit_on_disk = gauge(registry.AUDIT_ON_DISK, own)
        self._audit_spooled = counter(registry.AUDIT_SPOOLED, own)
        self._audit_replayed = counter(registry.AUDIT_REPLAYED, own)
        self.ledger = LedgerSeries(own)
        self.webhooks = WebhookSeries(own)
        self.quotas = QuotaSeries(own, _FORGOTTEN)
        self.credentials = CredentialSeries(own)
        self._loop_lag = histogram(registry.EVENT_LOOP_LAG, own)
        self._shown = CollectorRegistry()
        if multiprocess_dir is None:
            # These describe the process that answers, so they would jump between several workers.
            prometheus_client.ProcessCollector(registry=own)
            prometheus_client.GCCollector(registry=own)
            prometheus_client.PlatformCollector(registry=own)
            self._shown.register(_Shown(own))
        else:
            workers = multiprocess.MultiProcessCollector(None, path=multiprocess_dir)  # type: ignore[no-untyped-call]  # has no types
            self._shown.register(_Shown(workers))
        self._observers: dict[type[Event], Callable[[Any], None]] = {
            RequestStarted: self._tallies.started,
            RequestCompleted: self._tallies.ended,
            RequestFailed: self._tallies.ended,
            AttemptFailed: self._attempt_failed,
            TargetCooled: self._cooled,
            CredentialCooled: self._cooled,
            ConfigApplied: self._applied,
            ConfigRejected: self._rejected,
            SecretRotated: self._secret_rotated,
        }

    def subscribe(self, events: Events) -> None:
        """Observe whatever of ``events`` has a metric."""
        for kind, observer in self._observers.items():
            events.subscribe(observer, kind)

    def observe(self, event: Event) -> None:
        """Count ``event`` if there is a metric for it."""
        observer = self._observers.get(type(event))
        if observer is not None:
            observer(event)

    def observe_loop_lag(self, seconds: float) -> None:
        """One measurement of :class:`telemetry.loop_lag.LoopLag`."""
        self._loop_lag.observe(seconds)

    def show_stale_since(self, secrets: Mapping[str, float]) -> None:
        """``secrets`` are in use now: references, and since when (seconds of the epoch) they are stale; 0: they are not."""
        for reference in (*secrets, *self._secrets.difference(secrets)):
            self._stale_since[(reference,)].set(secrets.get(reference, 0))
        self._secrets = frozenset(secrets)

    def show_provider(self, provider: str, up: bool | None) -> None:
        """Whether ``provider`` answers; None: it is not known, or there is no such provider any more."""
        if up is not None:
            self._providers_up[(provider,)].set(up)
        elif self._multiprocess_dir is None:
            self._providers_up.remove((provider,))
        else:
            # Workers' files cannot forget a label: this is hidden when it is rendered, and above what others know.
            self._providers_up[(provider,)].set(_FORGOTTEN)

    def show_storage(self, up: bool) -> None:
        """Whether the database could be used when it was asked last."""
        if up is not self._storage_answers:
            self._storage_answers = up
            self._storage_up.set(up)

    def show_audit_waiting(self, count: int) -> None:
        """So many entries of the audit are in memory alone."""
        self._audit_waiting.set(count)

    def show_audit_spooled(self, count: int) -> None:
        """So many wait on the disk, in this process's keeping."""
        self._audit_on_disk.set(count)

    def count_audit_spooled(self, count: int) -> None:
        """So many more went to the disk."""
        self._audit_spooled.inc(count)

    def count_audit_replayed(self, count: int) -> None:
        """So many more went from there to the database."""
        self._audit_replayed.inc(count)

    async def run(self) -> NoReturn:
        """Let the other workers see what is counted here, until cancelled; to be spawned in :class:`core.tasks.Tasks`."""
        try:
            while True:
                await asyncio.sleep(FOLD_SECONDS)
                self.quotas.fold()
                for _ in self._tallies.fold_by_steps():
                    await asyncio.sleep(0)
        finally:
            # The last requests of a worker that ends are counted too.
            self._tallies.fold()
            self.quotas.fold()

    def render(self) -> tuple[str, bytes]:
        """The content type and the text exposition of all metrics, of all workers. May be called from any thread."""
        self._tallies.fold()
        self.quotas.fold()
        return prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest(self._shown)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        self._attempts_failed[(event.provider, event.model_label, event.error_code)].inc()
        if event.next == "retry":
            self._retries[(event.provider, event.model_label)].inc()
        elif event.next == "fallback":
            self._fallbacks[(event.provider, event.model_label)].inc()

    def _cooled(self, event: TargetCooled | CredentialCooled) -> None:
        self._cooldowns[(event.provider, event.model_label or UNKNOWN, event.reason)].inc()

    def _applied(self, event: ConfigApplied) -> None:
        self._reloads[("applied", event.trigger)].inc()
        self._last_reload_successful.set(1)
        self._last_applied.set(self._clock.time())
        if self._revision is not None and self._revision != event.revision:
            self._revisions[(self._revision,)].set(0)
            if self._multiprocess_dir is None:
                # Workers' files cannot forget a label: there the zero is hidden when it is rendered.
                self._revisions.remove((self._revision,))
        self._revision = event.revision
        self._revisions[(event.revision,)].set(1)

    def _rejected(self, event: ConfigRejected) -> None:
        self._reloads[("rejected", event.trigger)].inc()
        if event.on_disk:
            self._last_reload_successful.set(0)

    def _secret_rotated(self, event: SecretRotated) -> None:
        self._rotations[(event.reference,)].inc()


def forget_worker(multiprocess_dir: str, worker: str) -> None:
    """Drop the live gauges of the worker of that name (see :class:`Metrics`), which has ended; its counters stay.

    Raises:
        ValueError: ``worker`` can be no name.
    """
    multiprocess.mark_process_dead(_identity(worker), multiprocess_dir)  # type: ignore[no-untyped-call]  # has no types


def _identity(worker: str) -> str:
    if _WORKER.fullmatch(worker) is None:
        raise ValueError(f"a worker's name has letters, digits, dots and hyphens alone: {worker!r}")
    return worker


class _Shown(Collector):
    """What is rendered of another collector: not the revisions that are no longer in force, nor providers that are gone,
    nor webhooks or credentials, nor a database or a Redis that there is not, nor `_created` series."""

    def __init__(self, source: Collector | CollectorRegistry) -> None:
        self._source = source

    def collect(self) -> Iterable[Family]:
        for family in self._source.collect():
            if family.name == registry.CONFIG_REVISION.name:
                family.samples = [sample for sample in family.samples if sample.value != 0]
            elif family.name in _MAY_BE_FORGOTTEN:
                family.samples = [sample for sample in family.samples if sample.value != _FORGOTTEN]
            elif family.name == registry.WEBHOOK_PENDING.name:
                family.samples = [sample for sample in family.samples if sample.value >= 0]
            elif family.name in _OF_CREDENTIALS:
                family.samples = [sample for sample in family.samples if sample.value not in (NO_STATE, NO_END)]
            elif family.type in ("counter", "histogram"):
                # In the text format these would be gauges that double the number of families.
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
