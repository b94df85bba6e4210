"""How the database does, and what waits for it, as metrics."""

from gateway.stores import Observer
from telemetry.metrics import Metrics


class StorageMetrics(Observer):
    """Tells the metrics of one process; see :class:`Observer`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def answers(self, up: bool) -> None:
        self._metrics.show_storage(up)

    def waiting(self, count: int) -> None:
        self._metrics.show_audit_waiting(count)

    def on_disk(self, count: int) -> None:
        self._metrics.show_audit_spooled(count)

    def spooled(self, count: int) -> None:
        self._metrics.count_audit_spooled(count)

    def replayed(self, count: int) -> None:
        self._metrics.count_audit_replayed(count)
