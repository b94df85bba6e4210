"""Old rows of the ledger, here of a database that counts alone, are forgotten some at a time."""

import asyncio
from collections.abc import Callable

import pytest

from core.clock import ManualClock
from storage.errors import Reason, StorageUnavailable
from telemetry import ledger_retention
from telemetry.ledger_retention import Retention

AWAY = StorageUnavailable("the database is away", Reason.UNREACHABLE)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


class Old:
    """A database with so many old rows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.asked: list[tuple[int, int]] = []
        self.fails: Exception | None = None

    async def prune(self, before: int, most: int) -> int:
        if self.fails is not None:
            raise self.fails
        self.asked.append((before, most))
        gone = min(self.rows, most)
        self.rows -= gone
        return gone

    async def itself(self) -> "Old":
        return self


@pytest.mark.parametrize(("rows", "steps"), [(0, 1), (999, 1), (1000, 2), (2500, 3)])
async def test_old_rows_are_deleted_some_at_a_time(rows: int, steps: int) -> None:
    old = Old(rows)
    retention = Retention(old.itself, lambda: True, ManualClock(time=1000.0), lambda: 0.5, lambda: 100.0)
    assert rows == await retention.prune()
    assert [(900_000_000, 1000)] * steps == old.asked


async def test_old_rows_stay_while_the_database_is_away() -> None:
    old = Old(10)
    old.fails = AWAY
    retention = Retention(old.itself, lambda: True, ManualClock(time=1000.0), lambda: 0.5, lambda: 100.0)
    assert 0 == await retention.prune()


async def test_it_is_looked_at_now_and_then_whether_rows_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_retention, "_LEAST_SECONDS", 0.01)
    old, there = Old(10), asyncio.Event()
    retention = Retention(old.itself, there.is_set, ManualClock(time=1000.0), lambda: 0.5, lambda: 0.01)
    running = asyncio.ensure_future(retention.run())
    await asyncio.sleep(0.05)
    # Where there is no database, none is made.
    assert [] == old.asked
    there.set()
    await until(lambda: len(old.asked) > 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert 0 == old.rows
