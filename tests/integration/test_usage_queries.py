"""What the ledger tells of usage, against a computation of our own over the same rows, on both databases."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from core.clock import ManualClock, SystemClock
from storage.database import Database
from storage.errors import BadCursor, QueryTooLarge
from storage.ledger import LedgerStore
from storage.ledger_queries import LedgerQueries
from storage.ledger_records import LedgerRow
from storage.pages import encode_cursor
from storage.usage_records import KEYS, Key, LedgerFilter, Percentiles, Usage, UsageGroup
from tests.ledger_rows import BEGIN, DAY, random_rows, row

ALL = LedgerFilter(since=BEGIN, until=BEGIN + 70 * DAY)
SUMMED = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost_nano_usd")
BUCKETS = {
    "minute": lambda at: at.replace(second=0),
    "hour": lambda at: at.replace(second=0, minute=0),
    "day": lambda at: at.replace(second=0, minute=0, hour=0),
    "month": lambda at: at.replace(second=0, minute=0, hour=0, day=1),
}


def key_of(row: LedgerRow, name: str) -> Key:
    if name in BUCKETS:
        begin = BUCKETS[name](datetime.fromtimestamp(row.at // 1_000_000, UTC))
        return int(begin.timestamp()) * 1_000_000
    found: Key = getattr(row, name)
    return found


def percentiles(values: Iterable[int | None]) -> Percentiles | None:
    """By nearest rank."""
    ordered = sorted(value for value in values if value is not None)
    if not ordered:
        return None
    return Percentiles(*(ordered[math.ceil(percent * len(ordered) / 100) - 1] for percent in (50, 90, 95, 99)))


def usage_of(rows: Sequence[LedgerRow]) -> Usage:
    return Usage(
        requests=len(rows),
        failed=sum(each.error_code is not None for each in rows),
        **{name: sum(getattr(each, name) or 0 for each in rows) for name in SUMMED},
        unpriced=sum(
            each.cost_nano_usd is None
            and each.attempts > 0
            and (each.input_tokens is not None or each.error_code is None)
            for each in rows
        ),
        estimated=sum(each.estimated for each in rows),
        duration=percentiles(each.duration_us for each in rows),
        ttft=percentiles(each.ttft_us for each in rows),
    )


def place(key: tuple[Key, ...]) -> list[Any]:
    """Groups without a value come first; texts are in the order of their bytes."""
    return [(value is not None, value.encode() if isinstance(value, str) else value) for value in key]


def groups_of(rows: Iterable[LedgerRow], *group_by: str) -> tuple[UsageGroup, ...]:
    found = defaultdict[tuple[Key, ...], list[LedgerRow]](list)
    for each in rows:
        found[tuple(key_of(each, name) for name in group_by)].append(each)
    return tuple(UsageGroup(key, usage_of(found[key])) for key in sorted(found, key=place))


async def kept(database: Database, rows: Sequence[LedgerRow], **options: Any) -> LedgerQueries:
    await LedgerStore(database).add(rows)
    # Unless a test is about the bound on a query, no machine is so slow that it is met.
    return LedgerQueries(database, SystemClock(), **{"max_seconds": 60.0, **options})


GROUPINGS = (
    *((name,) for name in KEYS),
    ("token", "day"),
    ("month", "status", "owner"),
    ("hour", "error_code", "model", "token_id"),
    ("requested_model", "token"),
)


async def test_sums_and_percentiles_of_all_groups_are_those_of_the_rows(database: Database) -> None:
    rows = random_rows(400)
    queries = await kept(database, rows)
    for group_by in ((), *GROUPINGS):
        page = await queries.usage(ALL, group_by, limit=1000)
        assert usage_of(rows) == page.total
        assert (groups_of(rows, *group_by) if group_by else ()) == page.groups
        assert None is page.next_cursor


FILTERS: tuple[dict[str, Any], ...] = (
    {"token": "team-a"},
    {"token": "team-a", "declared": True},
    {"token_id": "tok_old"},
    {"owner": "ann", "model": "gpt-4o"},
    {"requested_model": ""},
    {"requested_model": "=1+1"},
    {"provider": "local", "credential": "spare"},
    {"endpoint": "embeddings", "stream": True},
    {"stream": False},
    {"status": 429},
    {"status_class": 4},
    {"error_code": "client_closed"},
    {"since": BEGIN + 10 * DAY, "until": BEGIN + 10 * DAY + 1},
    {"token": "nobody"},
)


def fitting(rows: Iterable[LedgerRow], wanted: LedgerFilter) -> list[LedgerRow]:
    said = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value not in (None, False)}
    if wanted.stream is False:
        said["stream"] = False
    since, until = said.pop("since"), said.pop("until")
    declared, status_class = said.pop("declared", False), said.pop("status_class", None)
    return [
        each
        for each in rows
        if since <= each.at < until
        and all(getattr(each, name) == value for name, value in said.items())
        and (not declared or each.token_id is None)
        and (status_class is None or each.status // 100 == status_class)
    ]


async def test_a_filter_takes_what_fits_and_nothing_else(database: Database) -> None:
    rows = random_rows(300, seed=2)
    queries = await kept(database, rows)
    for said in FILTERS:
        wanted = msgspec.structs.replace(ALL, **said)
        expected = sorted(fitting(rows, wanted), key=lambda each: (each.at, each.request_id))
        page = await queries.usage(wanted, ("token", "day"), limit=1000)
        assert usage_of(expected) == page.total
        assert groups_of(expected, "token", "day") == page.groups
        assert tuple(expected[::-1]) == (await queries.rows(wanted, limit=1000)).entries
        assert tuple(expected) == (await queries.rows(wanted, limit=1000, oldest_first=True)).entries


async def test_a_range_holds_its_beginning_and_not_its_end(database: Database) -> None:
    queries = await kept(database, [row(number, at=BEGIN + number) for number in range(4)])
    wanted = LedgerFilter(since=BEGIN + 1, until=BEGIN + 3)
    assert [BEGIN + 2, BEGIN + 1] == [each.at for each in (await queries.rows(wanted)).entries]
    page = await queries.usage(wanted)
    assert 2 == (page.total and page.total.requests)


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_pages_of_groups_give_each_once_with_its_percentiles(database: Database, limit: int) -> None:
    rows = random_rows(60, seed=3)
    queries = await kept(database, rows)
    for group_by in (("token", "requested_model"), ("status",), ("error_code", "month")):
        found: list[UsageGroup] = []
        page = await queries.usage(ALL, group_by, limit=limit)
        assert usage_of(rows) == page.total
        while True:
            found += page.groups
            if page.next_cursor is None:
                break
            page = await queries.usage(ALL, group_by, limit=limit, cursor=page.next_cursor)
            # It was told on the first.
            assert None is page.total
        assert groups_of(rows, *group_by) == tuple(found)


async def test_the_pages_of_rows_lose_and_repeat_none_while_rows_are_added(database: Database) -> None:
    rows = random_rows(90, seed=4, span=30)  # many of one time
    queries = await kept(database, rows)
    late = [row(1000 + number, at=BEGIN + number % 30) for number in range(60)]
    for oldest_first in (False, True):
        found: list[LedgerRow] = []
        cursor = None
        while True:
            page = await queries.rows(ALL, cursor=cursor, limit=7, oldest_first=oldest_first)
            found += page.entries
            cursor = page.next_cursor
            if cursor is None:
                break
            # Before and behind the place that was reached.
            await LedgerStore(database).add([late.pop() for _ in range(min(2, len(late)))])
        assert sorted(found, key=lambda each: (each.at, each.request_id), reverse=not oldest_first) == found
        assert {each.request_id for each in rows} <= {each.request_id for each in found}


async def test_without_percentiles_all_else_is_the_same(database: Database) -> None:
    rows = random_rows(50, seed=5)
    queries = await kept(database, rows)
    page = await queries.usage(ALL, ("owner",), percentiles=False)
    bare = [
        UsageGroup(each.key, msgspec.structs.replace(each.usage, duration=None, ttft=None))
        for each in groups_of(rows, "owner")
    ]
    assert tuple(bare) == page.groups
    assert (None, None) == (page.total and page.total.duration, page.total and page.total.ttft)


async def test_nothing_gives_zeros_and_no_groups(database: Database) -> None:
    page = await (await kept(database, [])).usage(ALL, ("token",))
    assert ((), None) == (page.groups, page.next_cursor)
    assert Usage(0, 0, 0, 0, 0, 0, 0, 0, 0) == page.total


async def test_one_row_is_found_by_its_id_if_it_is_wanted(database: Database) -> None:
    rows = random_rows(20, seed=6)
    queries = await kept(database, rows)
    for each in rows:
        assert each == await queries.row(each.request_id, ALL)
    assert None is await queries.row("req_nothing", ALL)
    assert None is await queries.row(rows[0].request_id, msgspec.structs.replace(ALL, token="nobody"))


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        encode_cursor("token", "a"),
        encode_cursor("status", "a"),
        encode_cursor("status"),
        encode_cursor(1, 2),
    ],
)
async def test_a_cursor_of_another_list_is_refused(database: Database, cursor: str) -> None:
    queries = LedgerQueries(database, SystemClock())
    with pytest.raises(BadCursor):
        await queries.usage(ALL, ("status",), cursor=cursor)


async def ask_until_refused(queries: LedgerQueries) -> None:
    """A machine may be fast enough for one."""
    for _ in range(1000):
        await queries.usage(ALL, ("minute", "requested_model"), limit=1000)


async def test_what_takes_too_long_is_ended_and_the_database_goes_on(database: Database) -> None:
    queries = await kept(database, random_rows(3000, seed=7), max_seconds=0.001)
    with pytest.raises(QueryTooLarge, match=r"longer than 0\.001 s"):
        await ask_until_refused(queries)
    assert None is database.trouble
    # The connection has no such bound for others.
    patient = LedgerQueries(database, SystemClock())
    for _ in range(3):
        page = await patient.usage(ALL)
        assert 3000 == (page.total and page.total.requests)


class Hurried(ManualClock):
    """Each reading brings it 3 s further."""

    def monotonic(self) -> float:
        self.advance(3)
        return super().monotonic()


async def test_the_bound_is_of_the_whole_query(database: Database) -> None:
    await LedgerStore(database).add(random_rows(3000, seed=8))
    with pytest.raises(QueryTooLarge):
        await ask_until_refused(LedgerQueries(database, Hurried()))
