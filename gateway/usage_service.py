"""Answers what the management API asks of the ledger."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.stores import Stores
from management.usage_service import UsageBusy
from storage.ledger_records import LedgerRow
from storage.records import Page
from storage.usage_records import LedgerFilter, Usage, UsagePage

if TYPE_CHECKING:
    # At run time it is imported when it is used first.
    from storage.ledger_queries import LedgerQueries

AT_ONCE = 2
"""Queries that the database is asked at the same time: it has other things to do, which must not wait for these."""
MOST_WAITING = 8
_PART = 200
"""Rows of an export that are in memory at once, and hold up the event loop for a millisecond or two."""
_NOTHING = Usage(0, 0, 0, 0, 0, 0, 0, 0, 0)


class GatewayUsage:
    """Fits :class:`management.usage_service.UsageService`."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def usage(
        self, wanted: LedgerFilter, group_by: tuple[str, ...], *, cursor: str | None, limit: int, percentiles: bool
    ) -> UsagePage:
        if not self._stores.exists():
            return UsagePage((), None if cursor is not None else _NOTHING)
        async with self._turn() as queries:
            return await queries.usage(wanted, group_by, cursor=cursor, limit=limit, percentiles=percentiles)

    async def list(self, wanted: LedgerFilter, *, cursor: str | None, limit: int) -> Page[LedgerRow]:
        return await self._page(wanted, cursor, limit, oldest_first=False)

    async def get(self, request_id: str, wanted: LedgerFilter) -> LedgerRow | None:
        if not self._stores.exists():
            return None
        async with self._turn() as queries:
            return await queries.row(request_id, wanted)

    async def every(self, wanted: LedgerFilter) -> AsyncGenerator[tuple[LedgerRow, ...], None]:
        cursor: str | None = None
        while True:
            # A turn for each part: between two of them others have theirs, however long a client takes.
            page = await self._page(wanted, cursor, _PART, oldest_first=True)
            yield page.entries
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _page(
        self, wanted: LedgerFilter, cursor: str | None, limit: int, *, oldest_first: bool
    ) -> Page[LedgerRow]:
        if not self._stores.exists():
            return Page(())
        async with self._turn() as queries:
            return await queries.rows(wanted, cursor=cursor, limit=limit, oldest_first=oldest_first)

    @asynccontextmanager
    async def _turn(self) -> "AsyncIterator[LedgerQueries]":
        if self._waiting >= MOST_WAITING:
            raise UsageBusy
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield await self._stores.ledger_queries()
        finally:
            self._turns.release()
