"""What handlers ask of the events that happen. `gateway/event_feed.py` answers."""

from typing import Protocol

import msgspec

GAP = "stream.gap"
"""Told in the place of events that are missing; no event has that name."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; each that is given must be so of an event, which must have such a field."""

    names: tuple[str, ...]
    token: str | None = None
    token_id: str | None = None
    owner: str | None = None
    provider: str | None = None
    model: str | None = None
    """The provider's; of events that have none, the one as the configuration calls it."""
    declared: bool = False
    """Only of tokens that the file declares, which have no id."""


class Told(msgspec.Struct, frozen=True):
    """One event, or a gap."""

    id: str
    """The place after it in the stream, for :meth:`EventFeed.listen`."""
    name: str
    data: str
    """JSON without a line feed."""


class TooManyListeners(Exception):
    """No more can be told of events; the text says why."""


class FeedEnds(Exception):
    """This process is about to end."""


class Listening(Protocol):
    """One listener, who is told when it asks; what it is too slow for it does not get, and is told so."""

    @property
    def place(self) -> str:
        """Up to where all has been told, as an id; other than the last one's where others' events are between."""
        ...

    async def next(self, timeout_seconds: float) -> tuple[Told, ...] | None:
        """What has happened since, once there is something; empty after ``timeout_seconds``, or soon after :meth:`end`.
        None: the process is about to end, and nothing follows."""
        ...

    def end(self) -> None:
        """Have :meth:`next` give back."""
        ...

    async def close(self) -> None:
        """Nobody listens any more."""
        ...


class EventFeed(Protocol):
    """The events of all workers."""

    async def listen(self, wanted: Wanted, last_id: str | None, caller: str) -> Listening:
        """From now on, or from ``last_id`` on. To be closed.

        Args:
            wanted: which.
            last_id: as the client has it from wherever.
            caller: whose the listener is: nobody may have all that there can be.

        Raises:
            TooManyListeners: of this caller, or in all.
            FeedEnds: come again: another process will serve.
        """
        ...
