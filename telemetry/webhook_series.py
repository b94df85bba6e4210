"""The metrics of webhooks."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from telemetry import registry
from telemetry.series import Series, counter, gauge

FORGOTTEN = -1
"""Of a webhook that there is no more; no worker shows it."""


class WebhookSeries:
    """Labels are names of webhooks and of events, and words of the gateway's own."""

    def __init__(self, own: CollectorRegistry) -> None:
        self._written = Series(counter(registry.WEBHOOK_EVENTS, own))
        self._shed = Series(counter(registry.WEBHOOK_SHED, own))
        self._tries = Series(counter(registry.WEBHOOK_TRIES, own))
        self._dead_letters = Series(counter(registry.WEBHOOK_DEAD_LETTERS, own))
        self._pending = Series(gauge(registry.WEBHOOK_PENDING, own))
        self._shown: set[str] = set()

    def follow(self, webhooks: Iterable[str]) -> None:
        """There are these and no others."""
        for webhook in self._shown.difference(webhooks):
            # Workers' files cannot forget a label: this is hidden when it is rendered, and below what others know.
            self._pending[(webhook,)].set(FORGOTTEN)
        self._shown.intersection_update(webhooks)

    def written(self, event: str, count: int) -> None:
        """So many more events of that name are in the outbox."""
        self._written[(event,)].inc(count)

    def shed(self, event: str, reason: str, count: int) -> None:
        """So many more deliveries of that name never got there."""
        self._shed[event, reason].inc(count)

    def tried(self, webhook: str, outcome: str) -> None:
        """One try has ended."""
        self._tries[webhook, outcome].inc()

    def given_up(self, webhook: str, reason: str, count: int) -> None:
        """So many more deliveries are dead letters."""
        self._dead_letters[webhook, reason].inc(count)

    def pending(self, webhook: str, count: int) -> None:
        """So many deliveries wait for the webhook, in the whole database."""
        self._shown.add(webhook)
        self._pending[(webhook,)].set(count)
