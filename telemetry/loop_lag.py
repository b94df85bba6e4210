"""How late the event loop runs its timers: the first thing to look at when everything is slow at once."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

from core.clock import Clock

INTERVAL_SECONDS = 0.25


class LoopLag:
    """Measures the lag of the running event loop, for as long as :meth:`run` runs."""

    def __init__(
        self, clock: Clock, observe: Callable[[float], None], interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        """``observe`` is given each measurement in seconds, never negative."""
        self._clock = clock
        self._observe = observe
        self._interval_seconds = interval_seconds

    async def run(self) -> NoReturn:
        """Measure until cancelled; to be spawned in a :class:`core.tasks.Tasks`."""
        while True:
            due = self._clock.monotonic() + self._interval_seconds
            await asyncio.sleep(self._interval_seconds)
            # uvloop's timers have a resolution of 1 ms and may run early by less than that.
            self._observe(max(0.0, self._clock.monotonic() - due))
