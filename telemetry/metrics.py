"""Prometheus metrics, observed from :mod:`core.events`.

With several workers, prometheus_client keeps each value in a memory-mapped file a worker, and any worker renders the
sum (https://prometheus.github.io/client_python/multiprocess/). It decides so when it is first imported: the variable
``PROMETHEUS_MULTIPROC_DIR`` must be set by then, to an empty directory, and the same one be passed to :class:`Metrics`.
Make a :class:`Metrics` in each worker, after the fork.
"""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess, values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from core.clock import Clock
from core.events import (
    AttemptFailed,
    ConfigApplied,
    ConfigRejected,
    Event,
    RequestCompleted,
    RequestFailed,
    RequestStarted,
    TargetCooled,
)
from telemetry import registry
from telemetry.registry import UNKNOWN, Metric

_Child = TypeVar("_Child", Counter, Gauge, Histogram)


class _Series(Generic[_Child]):
    """The children of one labelled metric, found by a tuple of label values.

    prometheus_client's own ``labels()`` turns every value into a string and takes a lock at each call; a
    dictionary's lookup is five times as fast.
    """

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: _Child) -> None:
        self._metric: _Child = metric
        self._children: dict[tuple[str, ...], _Child] = {}

    def __getitem__(self, labels: tuple[str, ...]) -> _Child:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child

    def remove(self, labels: tuple[str, ...]) -> None:
        del self._children[labels]
        self._metric.remove(*labels)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, clock: Clock, multiprocess_dir: str | None = None) -> None:
        """``multiprocess_dir`` is where the workers' files are; None: this process is the only one.

        Raises:
            RuntimeError: prometheus_client was imported under another setting.
        """
        self._multiprocess_dir = multiprocess_dir
        if (multiprocess_dir is None) != (values.ValueClass is values.MutexValue):
            raise RuntimeError(
                "PROMETHEUS_MULTIPROC_DIR must be set before prometheus_client is imported, or not at all"
            )
        self._clock = clock
        self._revision: str | None = None
        own = CollectorRegistry()
        self._requests = _Series(_counter(registry.REQUESTS, own))
        self._request_duration = _Series(_histogram(registry.REQUEST_DURATION, own))
        self._ttft = _Series(_histogram(registry.TTFT, own))
        self._upstream_duration = _Series(_histogram(registry.UPSTREAM_DURATION, own))
        self._overhead = _Series(_histogram(registry.OVERHEAD, own))
        self._in_flight = _Series(_gauge(registry.IN_FLIGHT, own))
        self._attempts_failed = _Series(_counter(registry.ATTEMPTS_FAILED, own))
        self._retries = _Series(_counter(registry.RETRIES, own))
        self._fallbacks = _Series(_counter(registry.FALLBACKS, own))
        self._cooldowns = _Series(_counter(registry.COOLDOWNS, own))
        self._input_tokens = _Series(_counter(registry.INPUT_TOKENS, own))
        self._output_tokens = _Series(_counter(registry.OUTPUT_TOKENS, own))
        self._cached_tokens = _Series(_counter(registry.CACHED_TOKENS, own))
        self._reloads = _Series(_counter(registry.CONFIG_RELOADS, own))
        self._revisions = _Series(_gauge(registry.CONFIG_REVISION, own))
        self._last_reload_successful = _gauge(registry.CONFIG_LAST_RELOAD_SUCCESSFUL, own)
        self._last_applied = _gauge(registry.CONFIG_LAST_APPLIED, own)
        self._loop_lag = _histogram(registry.EVENT_LOOP_LAG, own)
        self._shown = CollectorRegistry()
        if multiprocess_dir is None:
            # These describe the process that answers, so they would jump between several workers.
            prometheus_client.ProcessCollector(registry=own)
            prometheus_client.GCCollector(registry=own)
            prometheus_client.PlatformCollector(registry=own)
            self._shown.register(_Shown(own))
        else:
            workers = multiprocess.MultiProcessCollector(None, path=multiprocess_dir)  # type: ignore[no-untyped-call]
            self._shown.register(_Shown(workers))
        self._observers: dict[type[Event], Callable[[Any], None]] = {
            RequestStarted: self._started,
            RequestCompleted: self._ended,
            RequestFailed: self._ended,
            AttemptFailed: self._attempt_failed,
            TargetCooled: self._cooled,
            ConfigApplied: self._applied,
            ConfigRejected: self._rejected,
        }

    def observe(self, event: Event) -> None:
        """Count ``event``; an observer of :class:`core.events.Events`."""
        observer = self._observers.get(type(event))
        if observer is not None:
            observer(event)

    def observe_loop_lag(self, seconds: float) -> None:
        """One measurement of :class:`telemetry.loop_lag.LoopLag`."""
        self._loop_lag.observe(seconds)

    def render(self) -> tuple[str, bytes]:
        """The content type and the text exposition of all metrics, of all workers. May be called from any thread."""
        return prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest(self._shown)

    def _started(self, event: RequestStarted) -> None:
        self._in_flight[(event.endpoint,)].inc()

    def _ended(self, event: RequestCompleted | RequestFailed) -> None:
        endpoint = event.endpoint
        provider = event.provider or UNKNOWN
        model = event.model_label or UNKNOWN
        token = event.token or UNKNOWN
        status = str(event.status) if 100 <= event.status <= 599 else UNKNOWN
        target = (provider, model)
        self._in_flight[(endpoint,)].dec()
        self._requests[(endpoint, event.route or UNKNOWN, provider, model, status, token)].inc()
        self._request_duration[(endpoint, provider, model)].observe(event.duration_seconds)
        self._overhead[(endpoint,)].observe(event.overhead_seconds)
        if event.ttft_seconds is not None:
            self._ttft[target].observe(event.ttft_seconds)
        if event.upstream_seconds is not None:
            self._upstream_duration[target].observe(event.upstream_seconds)
        usage = event.usage
        if usage is not None:
            labels = (provider, model, token)
            self._input_tokens[labels].inc(usage.input_tokens)
            self._output_tokens[labels].inc(usage.output_tokens)
            if usage.cached_tokens:
                self._cached_tokens[labels].inc(usage.cached_tokens)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        self._attempts_failed[(event.provider, event.model_label, event.error_code)].inc()
        if event.next == "retry":
            self._retries[(event.provider, event.model_label)].inc()
        elif event.next == "fallback":
            self._fallbacks[(event.provider, event.model_label)].inc()

    def _cooled(self, event: TargetCooled) -> None:
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
        self._last_reload_successful.set(0)


def forget_worker(multiprocess_dir: str, pid: int) -> None:
    """Drop the live gauges of a worker that has ended; its counters stay."""
    multiprocess.mark_process_dead(pid, multiprocess_dir)  # type: ignore[no-untyped-call]


class _Shown(Collector):
    """What is rendered of another collector: not the revisions that are no longer in force, not `_created` series."""

    def __init__(self, source: Collector | CollectorRegistry) -> None:
        self._source = source

    def collect(self) -> Iterable[Family]:
        for family in self._source.collect():
            if family.name == registry.CONFIG_REVISION.name:
                family.samples = [sample for sample in family.samples if sample.value != 0]
            elif family.type in ("counter", "histogram"):
                # In the text format these would be gauges that double the number of families.
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _counter(metric: Metric, own: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=own)


def _gauge(metric: Metric, own: CollectorRegistry) -> Gauge:
    return Gauge(metric.name, metric.help, metric.labels, registry=own, multiprocess_mode=metric.across_workers)


def _histogram(metric: Metric, own: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, registry=own, buckets=metric.buckets)
