"""One scheduler for all credentials of a process whose tokens end."""

import asyncio
import heapq
import itertools
from typing import NoReturn

from core.clock import Clock
from credentials.live import LiveCredential

MOST_AT_ONCE = 8
"""Exchanges that nobody waits for; those that requests ask for are not counted."""
_MOST_LEFT_OVER = 64
_LONGEST_SLEEP_SECONDS = 15.0
"""The system's clock may be set, and the machine may have slept."""


class Refresher:
    """A heap of who is due when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, LiveCredential]] = []
        self._due_at: dict[LiveCredential, float] = {}
        """What counts: entries of the heap that say otherwise are left over."""
        self._number = itertools.count()
        self._running = 0
        self._wake = asyncio.Event()

    def plan(self, live: LiveCredential, at: float | None) -> None:
        """``live`` is due ``at`` that moment, in seconds since the Unix epoch, and not when it was said before; None: never."""
        if self._due_at.get(live) == at:
            return
        if at is None:
            del self._due_at[live]
            return
        self._due_at[live] = at
        heapq.heappush(self._heap, (at, next(self._number), live))
        if len(self._heap) > 2 * len(self._due_at) + _MOST_LEFT_OVER:
            # Those that are planned anew at each change are not kept for each of them until they would have been due.
            self._heap = [entry for entry in self._heap if self._due_at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        self._wake.set()

    def planned(self, live: LiveCredential) -> float | None:
        """When it is due."""
        return self._due_at.get(live)

    def look(self) -> float | None:
        """Begin what is due; in how many seconds something is, if more can be begun then."""
        now = self._clock.time()
        while self._heap and self._running < MOST_AT_ONCE:
            at, _, live = self._heap[0]
            if self._due_at.get(live) != at:
                heapq.heappop(self._heap)
            elif at > now:
                return at - now
            else:
                heapq.heappop(self._heap)
                del self._due_at[live]
                flight = live.look()
                if flight is not None:
                    self._running += 1
                    flight.add_done_callback(self._ended)
        return None

    async def run(self) -> NoReturn:
        """Look whenever something is due."""
        while True:
            self._wake.clear()
            seconds = self.look()
            try:
                async with asyncio.timeout(min(_LONGEST_SLEEP_SECONDS, seconds or _LONGEST_SLEEP_SECONDS)):
                    await self._wake.wait()
            except TimeoutError:
                pass  # something is due, or the clock is looked at

    def _ended(self, _: object) -> None:
        self._running -= 1
        self._wake.set()
