"""What is stored of webhooks, as plain values: to import them costs nothing, as none of SQL comes with them.

Times are whole microseconds since the Unix epoch, UTC. A delivery is one event for one webhook.
"""

import msgspec

PENDING = "pending"
DELIVERED = "delivered"
DEAD = "dead"


class OutboxEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and whom it is to be delivered to."""

    id: str
    type: str
    at: int
    payload: str
    """JSON text, which is sent as it is."""
    webhooks: tuple[str, ...]


class ClaimedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that one process has for itself, until a time."""

    webhook: str
    event_id: str
    type: str
    payload: str
    attempts: int
    """Tries that were made."""
    claim: str
    until: int


class SettledDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery that was claimed."""

    webhook: str
    event_id: str
    claim: str
    state: str
    state_at: int
    """As of :class:`StoredDelivery`."""
    attempts: int
    attempted_at: int | None
    """None: it was not tried."""
    status: int | None = None
    failure: str | None = None
    took: int | None = None


class StoredDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as it is kept."""

    webhook: str
    event_id: str
    """Goes to the receiver as `webhook-id`."""
    type: str
    at: int
    """When the event happened."""
    state: str
    """`pending`, `delivered`, or `dead`: given up."""
    state_at: int
    """Of one that is pending, from when on it may be tried; of another, since when it is what it is."""
    claimed: bool
    """Whether a process has it now; then it may be tried by another one from ``state_at`` on."""
    attempts: int
    """Tries since it was written or last asked for again."""
    attempted_at: int | None
    """When the last try ended."""
    status: int | None
    """What the last try was answered with."""
    failure: str | None
    """Why it is not delivered; one of :class:`webhooks.schedule.Failure`."""
    took: int | None
    """How long the last try took, in microseconds."""


class DueDeliveries(msgspec.Struct, frozen=True):
    """What is pending for a webhook."""

    webhook: str
    at: int
    """When the next may be tried."""
    pending: int


class DisabledWebhook(msgspec.Struct, frozen=True):
    """A webhook whose endpoint wants nothing more."""

    webhook: str
    at: int
    address: bytes
    """The SHA-256 of its address: at another address it is not disabled."""
