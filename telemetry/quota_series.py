"""What decisions on limits add up to."""

import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from telemetry import registry
from telemetry.series import Series, counter, gauge
from telemetry.tallies import Count


class QuotaSeries:
    """Fits :class:`proxy.admission.Tallies`: plain numbers, which :meth:`fold` brings to prometheus_client's."""

    def __init__(self, own: CollectorRegistry, forgotten: int) -> None:
        """``forgotten``: the value of a gauge that is not shown."""
        self._decisions = Series(counter(registry.QUOTA_DECISIONS, own))
        self._refusals = Series(counter(registry.QUOTA_REFUSALS, own))
        self._waiting = gauge(registry.QUOTA_WAITING, own)
        self._store_up = gauge(registry.QUOTA_STORE_UP, own)
        self._store_up.set(forgotten)
        self._counts: dict[tuple[str, ...], Count] = {}
        self._count_waiting: Callable[[], int] = lambda: 0
        self._waited = 0
        self._folding = threading.Lock()

    def quota_decisions(self, result: str) -> Count:
        """Decisions that came to ``result``."""
        return self._count(self._decisions, result)

    def quota_refusals(self, metric: str, scope: str) -> Count:
        """Refusals by limits of ``metric`` for a ``scope`` of this kind."""
        return self._count(self._refusals, metric, scope)

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """``waiting`` says how many requests wait for a limit."""
        self._count_waiting = waiting

    def show_store(self, *, up: bool) -> None:
        """Whether the shared store counts."""
        self._store_up.set(up)

    def fold(self) -> None:
        """Bring prometheus_client's values up to date. May be called from any thread."""
        with self._folding:
            for count in list(self._counts.values()):
                count.fold()
            waiting = self._count_waiting()
            if waiting != self._waited:
                self._waited = waiting
                self._waiting.set(waiting)

    def _count(self, series: Series[Counter], *labels: str) -> Count:
        known = self._counts.get(labels)
        if known is None:
            known = self._counts[labels] = Count(series[labels])
        return known
