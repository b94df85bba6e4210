"""What the outbox and the delivery tell of their work, for metrics."""

from enum import StrEnum

from webhooks.schedule import Outcome


class Shed(StrEnum):
    """Why an event did not get into the outbox."""

    FULL = "full"
    """Too much waits in memory: events come faster than the database takes them, or it is away."""
    BACKLOG = "backlog"
    """Too much waits in the outbox for one webhook."""
    DISABLED = "disabled"
    """The webhook's endpoint wants nothing more."""
    FAULT = "fault"
    """The gateway failed at it; its log tells how."""


class Observer:
    """Told of it; here by nothing."""

    def written(self, event_name: str, count: int) -> None:
        """So many more events of that name are in the outbox, or on the disk for it."""

    def shed(self, event_name: str, why: Shed, count: int) -> None:
        """So many more deliveries of that name never got into the outbox."""

    def tried(self, webhook: str, outcome: Outcome) -> None:
        """One try has ended."""

    def given_up(self, webhook: str, failure: str, count: int) -> None:
        """So many more deliveries are dead letters."""

    def pending(self, webhook: str, count: int) -> None:
        """So many deliveries wait for the webhook, in the whole database."""
