"""The rows of :mod:`telemetry.registry` as prometheus_client's metrics, and their children."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from telemetry.registry import Metric

_Child = TypeVar("_Child", Counter, Gauge)


class Series(Generic[_Child]):
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


class BatchHistogram(Histogram):
    """A histogram that can be told of many observations at once, for which prometheus_client has no public way.

    This class alone knows how its 0.26 keeps them: for each bucket a value that counts this bucket alone, the last
    bucket's bound being +Inf, and a value for the sum. A test holds it to what `Histogram.observe` does.
    """

    def observe_batch(self, counts: Sequence[int], total: float) -> None:
        """``counts``: how many observations fell into each bucket alone, +Inf's too; ``total``: their sum."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


def counter(metric: Metric, own: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=own)


def gauge(metric: Metric, own: CollectorRegistry) -> Gauge:
    return Gauge(metric.name, metric.help, metric.labels, registry=own, multiprocess_mode=metric.across_workers)


def histogram(metric: Metric, own: CollectorRegistry) -> BatchHistogram:
    return BatchHistogram(metric.name, metric.help, metric.labels, registry=own, buckets=metric.buckets)
