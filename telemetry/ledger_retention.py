"""Forgets rows of the ledger that are older than `usage.retention_seconds`: some at a time, so that nobody waits long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

from core.clock import Clock
from storage.errors import StorageUnavailable

ROWS_AT_ONCE = 1000
"""Rows of one transaction: some 5 ms, for which others' writes wait."""
PAUSE_SECONDS = 0.05
"""Between two transactions: so 20,000 rows a second go at most, more than one process adds."""
_EVERY_SECONDS = 600.0
_LEAST_SECONDS = 5.0
_OFTEN = 10
"""Where little is kept it is looked at more often: so many times within that time."""

_log = logging.getLogger("sluice.ledger")


class Store(Protocol):
    """Fits :class:`storage.ledger.LedgerStore`."""

    async def prune(self, before: int, most: int) -> int: ...


class Retention:
    """To be run by one process of those that share a database; several do no harm."""

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        exists: Callable[[], bool],
        clock: Clock,
        random: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        """``exists``: whether there may be a database; ``seconds``: how long rows are kept, asked each time."""
        self._store = store
        self._exists = exists
        self._clock = clock
        self._random = random
        self._seconds = seconds

    async def run(self) -> NoReturn:
        """Prune now and then, until cancelled."""
        while True:
            every = max(_LEAST_SECONDS, min(_EVERY_SECONDS, self._seconds() / _OFTEN))
            # Of several machines not all at once.
            await asyncio.sleep(every * (0.5 + self._random()))
            if self._exists():
                await self.prune()

    async def prune(self) -> int:
        """Delete what is too old; how many rows there were, as far as the database could be used."""
        before = round((self._clock.time() - self._seconds()) * 1_000_000)
        count = 0
        try:
            store = await self._store()
            while (gone := await store.prune(before, ROWS_AT_ONCE)) >= ROWS_AT_ONCE:
                count += gone
                await asyncio.sleep(PAUSE_SECONDS)
            count += gone
        except StorageUnavailable as error:
            _log.info("old rows of the ledger stay for now: %s", error)
        if count:
            _log.info("%d old rows of the ledger are deleted", count)
        return count
