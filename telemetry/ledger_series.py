"""The metrics of the ledger."""

from prometheus_client import CollectorRegistry

from telemetry import registry
from telemetry.ledger_writer import Observer
from telemetry.series import counter, gauge, histogram


class LedgerSeries(Observer):
    """Of one process; see :class:`Observer`."""

    def __init__(self, own: CollectorRegistry) -> None:
        self._written = counter(registry.LEDGER_ROWS, own)
        self._lost = counter(registry.LEDGER_LOST, own)
        self._waiting = gauge(registry.LEDGER_WAITING, own)
        self._on_disk = gauge(registry.LEDGER_ON_DISK, own)
        self._batch_duration = histogram(registry.LEDGER_BATCH_DURATION, own)

    def waiting(self, count: int) -> None:
        self._waiting.set(count)

    def on_disk(self, count: int) -> None:
        self._on_disk.set(count)

    def written(self, count: int, seconds: float) -> None:
        self._written.inc(count)
        self._batch_duration.observe(seconds)

    def lost(self, count: int) -> None:
        self._lost.inc(count)
