"""How long something took, as the event loop has it: a machine that is slow, or that stops, makes it no longer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from core.tasks import Tasks


class Turns:
    """A clock that stands still while this process does: it counts pauses of 10 ms, which may take longer and never less, so
    that a machine that is slow has fewer of them in the same time."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0
        """Of what :meth:`of` has waited for."""

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.count += 1

    async def of(self, work: Awaitable[object]) -> None:
        """Await ``work``, and remember how long it took."""
        began = self.count
        await work
        self.longest = max(self.longest, self.count - began)


@asynccontextmanager
async def counted() -> AsyncIterator[Turns]:
    """One that counts within the block."""
    turns, tasks = Turns(), Tasks()
    tasks.spawn(turns.go_on(), "turns")
    try:
        yield turns
    finally:
        await tasks.cancel()
