"""What the outbox and the delivery of webhooks do, as metrics."""

from telemetry.metrics import Metrics
from webhooks.observer import Observer, Shed
from webhooks.schedule import Outcome


class WebhookMetrics(Observer):
    """Tells the metrics of one process; see :class:`Observer`."""

    def __init__(self, metrics: Metrics) -> None:
        self._series = metrics.webhooks

    def written(self, event_name: str, count: int) -> None:
        self._series.written(event_name, count)

    def shed(self, event_name: str, why: Shed, count: int) -> None:
        self._series.shed(event_name, why.value, count)

    def tried(self, webhook: str, outcome: Outcome) -> None:
        self._series.tried(webhook, "delivered" if outcome.failure is None else outcome.failure.value)

    def given_up(self, webhook: str, failure: str, count: int) -> None:
        self._series.given_up(webhook, str(failure), count)

    def pending(self, webhook: str, count: int) -> None:
        self._series.pending(webhook, count)
