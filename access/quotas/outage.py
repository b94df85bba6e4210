"""A shared store that is away: what is done then, why it is so, and who is told. Free of Redis's client, which is large."""

from enum import StrEnum


class OnFailure(StrEnum):
    """What is done with requests while the store is away."""

    LOCAL = "local"
    """Each process counts for itself, from where it has last seen the shared counters."""
    REFUSE = "refuse"


class Reason(StrEnum):
    """Why it cannot be used, in a word for metrics and events."""

    UNREACHABLE = "unreachable"
    SLOW = "slow"
    DENIED = "denied"
    FAILING = "failing"
    FORGETFUL = "forgetful"
    """It does not know this process any more: it was emptied, or this process stood still for too long."""


class Observer:
    """Told of the store's going and coming; here nobody listens."""

    def down(self, reason: Reason, detail: str) -> None:
        """It cannot be used any more."""

    def up(self, down_seconds: float) -> None:
        """It can be used again."""
