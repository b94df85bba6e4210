"""How many may ask the ledger at the same time."""

import asyncio
from typing import Any

import pytest

from gateway.stores import Stores
from gateway.usage_service import AT_ONCE, MOST_WAITING, GatewayUsage
from management.usage_service import UsageBusy
from storage.errors import QueryTooLarge
from storage.records import Page
from storage.usage_records import LedgerFilter
from tests.ledger_rows import ROW

ALL = LedgerFilter(since=0, until=1)


class SlowStores(Stores):
    """A database that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()
        self.failure: Exception | None = None

    def exists(self) -> bool:
        return True

    async def ledger_queries(self) -> Any:
        return self

    async def rows(self, wanted: LedgerFilter, **options: Any) -> Page[Any]:
        self.asked += 1
        await self.answer.wait()
        if self.failure is not None:
            raise self.failure
        return Page((ROW,))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_few_ask_at_once_some_wait_and_more_are_told_to_come_again() -> None:
    stores = SlowStores()
    usage = GatewayUsage(stores)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(usage.list(ALL, cursor=None, limit=1)) for _ in range(AT_ONCE + MOST_WAITING)]
        await settle()
        assert AT_ONCE == stores.asked
        with pytest.raises(UsageBusy):
            await usage.list(ALL, cursor=None, limit=1)
        # Who does not wait any longer makes room.
        asking.pop().cancel()
        await settle()
        asking.append(group.create_task(usage.list(ALL, cursor=None, limit=1)))
        await settle()
        stores.answer.set()
    assert [Page((ROW,))] * len(asking) == [each.result() for each in asking]


async def test_what_fails_leaves_its_turn_to_others() -> None:
    stores = SlowStores()
    stores.failure = QueryTooLarge("it takes too long")
    stores.answer.set()
    usage = GatewayUsage(stores)
    for _ in range(AT_ONCE + MOST_WAITING + 1):
        with pytest.raises(QueryTooLarge):
            await usage.list(ALL, cursor=None, limit=1)
    stores.failure = None
    assert Page((ROW,)) == await usage.list(ALL, cursor=None, limit=1)
