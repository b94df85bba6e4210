"""Tells what a test wants told."""

from dataclasses import dataclass, field

from management.event_feed import Told, Wanted


@dataclass
class EventsStandIn:
    """Every listener is told ``told``, and then that the process ends."""

    told: list[tuple[Told, ...]] = field(default_factory=list)
    refusal: Exception | None = None
    listened: list[tuple[Wanted, str | None, str]] = field(default_factory=list)
    closed: int = 0

    async def listen(self, wanted: Wanted, last_id: str | None, caller: str) -> "_Listening":
        if self.refusal is not None:
            raise self.refusal
        self.listened.append((wanted, last_id, caller))
        return _Listening(self, list(self.told))


@dataclass
class _Listening:
    stand_in: EventsStandIn
    left: list[tuple[Told, ...]]
    place: str = "evt_0000000a1"

    async def next(self, timeout_seconds: float) -> tuple[Told, ...] | None:
        return self.left.pop(0) if self.left else None

    def end(self) -> None:
        """There is nothing to wait for."""

    async def close(self) -> None:
        self.stand_in.closed += 1
