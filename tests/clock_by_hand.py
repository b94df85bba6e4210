"""The clocks of connections, moved by hand: none runs out while a machine is busy, and nobody waits for one that is to."""

from collections.abc import Callable
from typing import Any

import pytest

from transport.clock import LazyTimer


class Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ClockByHand:
    """An event loop's clock, moved by hand, that counts what is armed on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.armed: list[tuple[float, Callable[[], None], Handle]] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        self.made += 1
        handle = Handle()
        self.armed.append((when, callback, handle))
        return handle

    def pass_to(self, now: float) -> None:
        """Everything due is called at its time."""
        while due := [one for one in self.armed if one[0] <= now and not one[2].cancelled]:
            first = min(due, key=lambda one: one[0])
            self.armed.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = now

    def pass_on(self, seconds: float) -> None:
        self.pass_to(self.now + seconds)

    @property
    def waiting(self) -> int:
        return sum(not handle.cancelled for _, _, handle in self.armed)


def connections_by_hand(patch: pytest.MonkeyPatch) -> ClockByHand:
    """What the clocks of all connections of clients go by from now on."""
    clock: Any = ClockByHand()
    for module in ("receiving", "outflow"):
        patch.setattr(f"transport.{module}.LazyTimer", lambda _loop, expired: LazyTimer(clock, expired))
    made: ClockByHand = clock
    return made
