"""Reading the ledger: sums by group, and rows. Both databases answer alike, to the last digit.

A query has :data:`MAX_SECONDS` in all. What takes longer is ended by the database itself, so that nobody who may ask can
keep it busy.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Select, select, text, tuple_

from core.clock import Clock
from storage.connection import Connection
from storage.database import Database
from storage.errors import BadCursor, QueryTooLarge, Reason, StorageUnavailable
from storage.ledger_groups import Groups, conditions, fits
from storage.ledger_records import LedgerRow
from storage.ledger_tables import ledger
from storage.pages import decode_cursor, encode_cursor
from storage.records import Page
from storage.usage_records import Key, LedgerFilter, Usage, UsageGroup, UsagePage

MAX_SECONDS = 8.0
"""Less than the drivers wait for an answer (storage/engines.py)."""
_STEPS = 100_000
"""Of SQLite's virtual machine: about a millisecond."""


class LedgerQueries:
    """The ledger of one database, to be read.

    Every method may raise what a transaction does (:class:`Database`), and :class:`storage.errors.QueryTooLarge`.
    """

    def __init__(self, database: Database, clock: Clock, max_seconds: float = MAX_SECONDS) -> None:
        self._database = database
        self._clock = clock
        self._max_seconds = max_seconds

    async def usage(
        self,
        wanted: LedgerFilter,
        group_by: tuple[str, ...] = (),
        *,
        cursor: str | None = None,
        limit: int = 100,
        percentiles: bool = True,
    ) -> UsagePage:
        """What the requests have come to, by groups; ``group_by`` has some of :data:`storage.usage_records.KEYS`, each once.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        after = None if cursor is None else _place_of(cursor, group_by)
        async with self._reading() as query:
            total: Usage | None = None
            if after is None:
                ((_, total),) = await _summed(query, Groups(wanted, (), query.dialect), 1, percentiles=percentiles)
            found: list[tuple[tuple[Key, ...], Usage]] = []
            if group_by and (total is None or total.requests):
                groups = Groups(wanted, group_by, query.dialect)
                found = await _summed(query, groups, limit, after=after, percentiles=percentiles)
        following = None
        if len(found) > limit:
            del found[limit:]
            following = encode_cursor(",".join(group_by), *found[-1][0])
        return UsagePage(tuple(UsageGroup(*each) for each in found), total, following)

    async def rows(
        self, wanted: LedgerFilter, *, cursor: str | None = None, limit: int = 100, oldest_first: bool = False
    ) -> Page[LedgerRow]:
        """The requests themselves, newest first.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        behind = []
        if cursor is not None:
            at, request_id = decode_cursor(cursor, tuple[int, str])
            place, last = tuple_(ledger.c.at, ledger.c.request_id), tuple_(at, request_id)
            behind = [place > last if oldest_first else place < last]
            # As the one bound of the time: of several SQLite takes any, and reads again all that lies before the place.
            if oldest_first:
                wanted = replace(wanted, since=max(wanted.since, at))
            else:
                wanted = replace(wanted, until=min(wanted.until, at + 1))
        columns = ledger.c.at, ledger.c.request_id
        order = columns if oldest_first else tuple(column.desc() for column in columns)
        statement = select(ledger).where(*conditions(wanted), *behind).order_by(*order).limit(limit + 1)
        async with self._reading() as query:
            found = tuple(LedgerRow(*row) for row in await query(statement))
        if len(found) <= limit:
            return Page(found)
        last_one = found[limit - 1]
        return Page(found[:limit], encode_cursor(last_one.at, last_one.request_id))

    async def row(self, request_id: str, wanted: LedgerFilter) -> LedgerRow | None:
        """One of those that are ``wanted``. The newest are looked at first."""
        statement = select(ledger).where(ledger.c.request_id == request_id, *conditions(wanted))
        async with self._reading() as query:
            found = await query(statement.order_by(ledger.c.at.desc(), ledger.c.request_id.desc()).limit(1))
        return LedgerRow(*found[0]) if found else None

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator["_Query"]:
        async with self._database.reading() as connection:
            query = _Query(connection, self._clock, self._max_seconds)
            async with query.ended_in_time():
                yield query


class _Query:
    """Asks one thing after the other, all within one time."""

    def __init__(self, connection: Connection, clock: Clock, max_seconds: float) -> None:
        self._connection = connection
        self._clock = clock
        self._max_seconds = max_seconds
        self._until = clock.monotonic() + max_seconds

    @property
    def dialect(self) -> str:
        return self._connection.dialect

    async def __call__(self, statement: Select[Any]) -> Sequence[Any]:
        try:
            if self.dialect != "sqlite":
                left = max(round((self._until - self._clock.monotonic()) * 1000), 1)
                limited = text("SELECT set_config('statement_timeout', :most, true)")
                await self._connection.execute(limited, {"most": str(left)})
            return (await self._connection.execute(statement)).all()
        except StorageUnavailable as error:
            if error.reason is not Reason.SLOW:
                raise
            raise QueryTooLarge(f"it takes longer than {self._max_seconds:g} s, and was ended") from error

    @asynccontextmanager
    async def ended_in_time(self) -> AsyncIterator[None]:
        """PostgreSQL ends statements by itself; SQLite asks every now and then whether to go on."""
        if self.dialect != "sqlite":
            yield
            return
        driver = await self._connection.run(lambda own: own.connection.driver_connection)
        assert driver is not None
        # https://www.sqlite.org/c3ref/progress_handler.html: what is not false ends the statement.
        await driver.set_progress_handler(lambda: self._clock.monotonic() > self._until, _STEPS)
        try:
            yield
        finally:
            # The connection is another's next.
            await driver.set_progress_handler(None, 0)


async def _summed(
    query: _Query, groups: Groups, limit: int, *, after: tuple[Key, ...] | None = None, percentiles: bool
) -> list[tuple[tuple[Key, ...], Usage]]:
    """The first ``limit`` groups, and one more, if there are more, without its percentiles."""
    found = [groups.usage(row) for row in await query(groups.sums(after, limit + 1))]
    if not percentiles or not found:
        return found
    last = found[:limit][-1][0]
    durations, ttfts = [
        dict(map(groups.percentiles_of, await query(statement))) for statement in groups.percentiles(after, last)
    ]
    return [(key, replace(usage, duration=durations.get(key), ttft=ttfts.get(key))) for key, usage in found]


def _place_of(cursor: str, group_by: tuple[str, ...]) -> tuple[Key, ...]:
    named, *key = decode_cursor(cursor, tuple[Key, ...])
    if named != ",".join(group_by) or len(key) != len(group_by) or not all(map(fits, group_by, key)):
        raise BadCursor("this is a cursor of another list: begin without one")
    return tuple(key)
