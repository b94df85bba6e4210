"""The ledger in both databases: every row once, as it was given, and the oldest forgotten."""

import asyncio

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import exc, func, select, text

from storage.database import Database
from storage.ledger import ROWS_AT_ONCE, LedgerStore
from storage.ledger_records import LedgerRow
from storage.ledger_tables import ledger

FULL = LedgerRow(
    request_id="req_full",
    at=1_700_000_000_000_000,
    token="team",
    token_id="tok_1",
    owner="ann",
    endpoint="chat_completions",
    dialect="openai-chat",
    stream=True,
    requested_model="fast",
    route="gold",
    provider="openai",
    model="gpt-4o-mini",
    credential="main",
    input_tokens=11,
    output_tokens=7,
    cached_tokens=3,
    reasoning_tokens=2,
    estimated=True,
    cost_nano_usd=(1 << 63) - 1,
    status=200,
    error_code="cancelled",
    attempts=2,
    duration_us=1_500_000,
    ttft_us=250_000,
    upstream_us=0,
    overhead_us=150,
    revision="a" * 64,
)
OPTIONAL = {"token", "token_id", "owner", "requested_model", "route", "provider", "model", "credential"} | {
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "error_code",
    "ttft_us",
    "upstream_us",
}
EMPTY = msgspec.structs.replace(FULL, request_id="req_empty", stream=False, estimated=False, **dict.fromkeys(OPTIONAL))


def made(count: int, begin: int = 0) -> list[LedgerRow]:
    return [msgspec.structs.replace(FULL, request_id=f"req_{n}", at=n) for n in range(begin, begin + count)]


async def kept(database: Database) -> list[LedgerRow]:
    async with database.reading() as connection:
        rows = (await connection.execute(select(ledger).order_by(ledger.c.at, ledger.c.request_id))).all()
    return [LedgerRow(*row) for row in rows]


async def count(database: Database) -> int:
    async with database.reading() as connection:
        return int(await connection.scalar(select(func.count()).select_from(ledger)))


def test_the_columns_are_those_of_a_row() -> None:
    assert list(LedgerRow.__struct_fields__) == [column.name for column in ledger.columns]
    assert {column.name for column in ledger.columns if column.nullable} == OPTIONAL


async def test_a_row_is_kept_as_it_is(database: Database) -> None:
    assert 2 == await LedgerStore(database).add([FULL, EMPTY])
    assert [EMPTY, FULL] == await kept(database)


# Text that databases or JSON could take for something else.
STRANGE = (
    "",
    "null",
    "NULL",
    "nan",
    "0",
    "1e5",
    "'",
    '"',
    "\\",
    "\\N",
    "{}",
    "größer 🙂",
    "a\nb",
    "?",
    ":rows",
    "%s",
    "\ufffd",
)


async def test_texts_and_numbers_of_any_kind_come_back(database: Database) -> None:
    rows = [
        msgspec.structs.replace(FULL, request_id=f"req_{n}", at=n, requested_model=one, model=one, error_code=one)
        for n, one in enumerate(STRANGE)
    ]
    rows += [
        msgspec.structs.replace(FULL, request_id=f"of {n}", at=1000 + n, input_tokens=number, duration_us=number)
        for n, number in enumerate((0, 1, (1 << 31) + 1, (1 << 63) - 1))
    ]
    assert len(rows) == await LedgerStore(database).add(rows)
    assert rows == await kept(database)


@pytest.mark.parametrize("size", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE + 5])
async def test_a_batch_of_any_size_is_kept_once_however_often_it_is_written(database: Database, size: int) -> None:
    store = LedgerStore(database)
    rows = made(size)
    assert [size, 0] == [await store.add(rows), await store.add(rows)]
    # Some of them again with others, and one twice in a batch.
    assert 3 == await store.add([*rows[-2:], *made(3, begin=size), *made(1, begin=size)])
    assert made(size + 3) == await kept(database)


async def test_a_batch_is_kept_as_a_whole_or_not_at_all(database: Database) -> None:
    bad = msgspec.structs.replace(FULL, request_id="bad", endpoint=None)
    with pytest.raises(exc.IntegrityError):
        await LedgerStore(database).add([*made(ROWS_AT_ONCE + 3), bad])
    assert 0 == await count(database)


async def test_writers_at_once_that_have_the_same_rows_hinder_nobody(database: Database) -> None:
    store = LedgerStore(database)
    rows = made(500)
    async with asyncio.timeout(60):
        added = await asyncio.gather(*(store.add(rows[start:]) for start in (0, 100, 0, 250)))
    assert (500, 500) == (sum(added), await count(database))


async def test_the_oldest_rows_go_first_some_at_a_time(database: Database) -> None:
    store = LedgerStore(database)
    # Of one time are several.
    rows = [msgspec.structs.replace(FULL, request_id=f"req_{n:02}", at=n // 4 * 10) for n in range(40)]
    await store.add(rows[::-1])
    assert 0 == await store.prune(0, 10)
    # Those of one time go together.
    assert 12 == await store.prune(70, 10)
    assert rows[12:] == await kept(database)
    assert 12 == await store.prune(70, 12)
    assert 4 == await store.prune(70, 10)
    assert 0 == await store.prune(70, 10)
    assert rows[28:] == await kept(database)
    # What is read from the spool late may be older than what is kept.
    assert 40 - 12 == await store.add(rows)
    assert 28 == await store.prune(70, 100)
    assert rows[28:] == await kept(database)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 99)), max_size=40), st.integers(1, 9), st.integers(0, 7))
async def test_pruning_to_the_end_leaves_what_is_young_enough(
    database: Database, ids: list[tuple[int, int]], most: int, before: int
) -> None:
    store = LedgerStore(database)
    async with database.transaction() as connection:
        await connection.execute(ledger.delete())
    rows = sorted(
        {(at, number): msgspec.structs.replace(FULL, request_id=f"{number:02}", at=at) for at, number in ids}.items()
    )
    await store.add([row for _, row in rows])
    while await store.prune(before, most) >= most:
        pass
    assert [row for (at, _), row in rows if at >= before] == await kept(database)


async def test_a_range_of_time_is_read_by_the_key_alone(database: Database, kind: str) -> None:
    await LedgerStore(database).add(made(3000))
    asked = "SELECT count(*) FROM ledger WHERE at >= 10 AND at < 20"
    async with database.transaction() as connection:
        if kind == "sqlite":
            plan = (await connection.execute(text(f"EXPLAIN QUERY PLAN {asked}"))).all()
            found = [row[3] for row in plan]
            indexes = await connection.scalar(
                text(
                    "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ledger' AND sql IS NOT NULL"
                )
            )
            assert "WITHOUT ROWID" in str(
                await connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'ledger'"))
            )
        else:
            await connection.execute(text("ANALYZE ledger"))
            found = [row[0] for row in (await connection.execute(text(f"EXPLAIN {asked}"))).all()]
            indexes = await connection.scalar(text("SELECT count(*) - 1 FROM pg_indexes WHERE tablename = 'ledger'"))
    wanted = "SEARCH ledger USING PRIMARY KEY" if kind == "sqlite" else "using pk_ledger"
    assert any(wanted in line for line in found), found
    assert 0 == indexes
