"""The outbox in a database, on SQLite and PostgreSQL."""

import asyncio
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import func, select, text

from core.clock import ManualClock
from storage.address import parse_address
from storage.connection import call, transaction
from storage.database import Database, migrate
from storage.engines import WRITES, make_engine
from storage.errors import BadCursor
from storage.migrations import REVISIONS
from storage.schema import Migration
from storage.webhook_records import ClaimedDelivery, OutboxEvent, SettledDelivery
from storage.webhook_tables import deliveries, outbox
from storage.webhooks import WebhookStore
from tests.integration.conftest import NewDatabase, NewUrl

SECOND = 1_000_000


@pytest.fixture
def store(database: Database) -> WebhookStore:
    return WebhookStore(database)


def event(number: int, at: int, webhooks: tuple[str, ...] = ("ops",)) -> OutboxEvent:
    return OutboxEvent(id=f"evt_{number:024x}", type="config.applied", at=at, payload='{"ü": 1}', webhooks=webhooks)


def settled(one: ClaimedDelivery, state: str, at: int, **more: Any) -> SettledDelivery:
    fields = {"state": state, "state_at": at, "attempts": one.attempts + 1, "attempted_at": at, **more}
    return SettledDelivery(webhook=one.webhook, event_id=one.event_id, claim=one.claim, **fields)


async def count(database: Database, table: sqlalchemy.Table) -> int:
    async with database.reading() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)))


async def test_a_delivery_is_taken_made_and_kept(store: WebhookStore, database: Database, clock: ManualClock) -> None:
    now = database.now()
    await store.add([event(1, now)])
    assert [("ops", now, 1)] == [(due.webhook, due.at, due.pending) for due in await store.due()]
    (claimed,) = await store.claim("ops", 10, 60)
    assert (event(1, now).id, "config.applied", '{"ü": 1}', 0) == (
        claimed.event_id,
        claimed.type,
        claimed.payload,
        claimed.attempts,
    )
    (shown,) = (await store.list("ops")).entries
    assert ("pending", True, now + 60 * SECOND) == (shown.state, shown.claimed, shown.state_at)
    clock.advance(1)
    await store.settle([settled(claimed, "delivered", database.now(), status=204, took=1234)])
    found = await store.get("ops", claimed.event_id)
    assert found is not None
    assert '{"ü": 1}' == found[1]
    assert ("delivered", False, now + SECOND, 1, now + SECOND, 204, None, 1234) == (
        found[0].state,
        found[0].claimed,
        found[0].state_at,
        found[0].attempts,
        found[0].attempted_at,
        found[0].status,
        found[0].failure,
        found[0].took,
    )
    assert () == await store.due()
    assert () == await store.claim("ops", 10, 60)


async def test_an_event_that_is_written_twice_counts_once(store: WebhookStore, database: Database) -> None:
    one, two = event(1, database.now(), ("a", "b")), event(2, database.now(), ("a",))
    await store.add([one])
    await store.add([one, two])
    await store.add([])
    assert {("a", 2), ("b", 1)} == {(due.webhook, due.pending) for due in await store.due()}


async def test_what_is_due_longest_is_taken_first(store: WebhookStore, database: Database) -> None:
    now = database.now()
    await store.add([event(number, now - number) for number in range(100)])
    taken = [[one.event_id for one in await store.claim("ops", 30, 60)] for _ in range(5)]
    ids = [event(number, 0).id for number in range(99, -1, -1)]
    assert [ids[:30], ids[30:60], ids[60:90], ids[90:], []] == taken


async def test_what_claims_at_once_take_is_taken_by_one(store: WebhookStore, database: Database) -> None:
    """Not in order across them: PostgreSQL passes over rows that another claim holds, and they take turns at it."""
    now = database.now()
    await store.add([event(number, now - number) for number in range(100)])
    taken = [some for some in await asyncio.gather(*(store.claim("ops", 30, 60) for _ in range(5))) if some]
    ids = [one.event_id for some in taken for one in some]
    assert sorted(event(number, 0).id for number in range(100)) == sorted(ids)
    assert len(taken) == len({some[0].claim for some in taken})
    for some in taken:
        assert [one.event_id for one in some] == sorted((one.event_id for one in some), reverse=True)


async def test_what_two_processes_take_at_once_is_taken_by_one(
    kind: str, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind)
    stores = [WebhookStore(new_database(kind, url=url)) for _ in range(3)]
    database = new_database(kind, url=url)
    await stores[0].add([event(number, database.now()) for number in range(200)])

    async def take(store: WebhookStore) -> list[str]:
        taken: list[str] = []
        while some := await store.claim("ops", 7, 60):
            taken += [one.event_id for one in some]
        return taken

    ids = [event_id for taken in await asyncio.gather(*map(take, stores)) for event_id in taken]
    assert sorted(event(number, 0).id for number in range(200)) == sorted(ids)


async def test_what_an_ended_process_had_taken_is_taken_by_another_and_its_late_word_counts_for_nothing(
    store: WebhookStore, database: Database, clock: ManualClock
) -> None:
    await store.add([event(1, database.now())])
    (first,) = await store.claim("ops", 1, 60)
    clock.advance(59.9)
    assert () == await store.claim("ops", 1, 60)
    clock.advance(0.2)
    (second,) = await store.claim("ops", 1, 60)
    await store.settle([settled(first, "dead", database.now(), failure="timeout")])
    (shown,) = (await store.list("ops")).entries
    assert ("pending", True) == (shown.state, shown.claimed)
    await store.settle([settled(second, "delivered", database.now(), status=200)])
    (shown,) = (await store.list("ops")).entries
    assert ("delivered", 1) == (shown.state, shown.attempts)


async def test_what_was_not_tried_goes_back_as_it_was(store: WebhookStore, database: Database) -> None:
    await store.add([event(1, database.now()), event(2, database.now())])
    one, two = await store.claim("ops", 2, 60)
    await store.settle([settled(one, "pending", database.now(), status=500, failure="status", took=5)])
    (one,) = await store.claim("ops", 1, 60)
    back = [
        SettledDelivery(
            webhook="ops",
            event_id=each.event_id,
            claim=each.claim,
            state="pending",
            state_at=database.now() + number,
            attempts=each.attempts,
            attempted_at=None,
        )
        for number, each in enumerate((one, two))
    ]
    await store.settle(back)
    shown = {one.event_id: one for one in (await store.list("ops")).entries}
    assert (1, "status", 500) == (shown[one.event_id].attempts, shown[one.event_id].failure, shown[one.event_id].status)
    assert (0, None, None) == (shown[two.event_id].attempts, shown[two.event_id].failure, shown[two.event_id].status)
    assert {False} == {one.claimed for one in shown.values()}


async def test_what_is_given_up_can_be_delivered_again(
    store: WebhookStore, database: Database, clock: ManualClock
) -> None:
    began = database.now()
    await store.add([event(number, began + number, ("ops", "other")) for number in range(4)])
    (taken,) = await store.claim("ops", 1, 60)
    assert 2 == await store.give_up("ops", "overdue", began + 3)
    assert 1 == await store.give_up("ops", "disabled")
    assert {"other": 4, "ops": 1} == {due.webhook: due.pending for due in await store.due()}
    clock.advance(1)
    # The one that is being delivered is not among them.
    assert 1 == await store.redeliver("ops", [event(3, 0).id, taken.event_id, "evt_unknown"])
    assert 2 == await store.redeliver_dead("ops", began)
    assert 0 == await store.redeliver_dead("ops", began)
    assert 3 == len(await store.claim("ops", 10, 60))
    await store.settle([settled(taken, "delivered", database.now(), status=200)])
    assert 1 == await store.redeliver("ops", [taken.event_id])
    (again,) = await store.claim("ops", 10, 60)
    assert (taken.event_id, 0) == (again.event_id, 0)
    assert 0 == await store.redeliver_dead("ops", database.now() + 1)


async def test_the_pages_of_the_list_give_each_once_newest_first(store: WebhookStore, database: Database) -> None:
    now = database.now()
    # Several at the same moment.
    await store.add([event(number, now + number // 3) for number in range(10)])
    await store.add([event(99, now, ("other",))])
    await store.settle([settled(one, "delivered", now, status=200) for one in await store.claim("ops", 2, 60)])
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.list("ops", cursor=cursor, limit=4)
        ids += [one.event_id for one in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [event(number, 0).id for number in range(9, -1, -1)] == ids
    assert 2 == len((await store.list("ops", state="delivered")).entries)
    assert () == (await store.list("nobody")).entries
    with pytest.raises(BadCursor):
        await store.list("ops", cursor="nonsense")


async def test_old_deliveries_are_forgotten_and_their_events_with_the_last_of_them(
    store: WebhookStore, database: Database, clock: ManualClock
) -> None:
    began = database.now()
    await store.add([event(number, began - 6 + number, ("a", "b")) for number in range(6)])
    await store.settle([settled(one, "delivered", database.now(), status=200) for one in await store.claim("a", 6, 60)])
    clock.advance(10)
    await store.settle(
        [settled(one, "dead", database.now(), failure="status") for one in await store.claim("b", 3, 60)]
    )
    pruned = [await store.prune(ended_before=began, most_delivered=4) for _ in range(2)]
    assert ([2, 0], 4) == (pruned, len((await store.list("a")).entries))
    # Their events are there for the others.
    assert (10, 6) == (await count(database, deliveries), await count(database, outbox))
    clock.advance(10)
    pruned = [await store.prune(ended_before=database.now(), most_delivered=100) for _ in range(3)]
    assert [3, 4, 0] == sorted(pruned, key=lambda number: number or 9)
    # What is pending is never forgotten.
    assert 3 == await count(database, outbox)
    assert {("b", 3)} == {(due.webhook, due.pending) for due in await store.due()}


async def test_much_is_forgotten_bit_by_bit(store: WebhookStore, database: Database) -> None:
    await store.add([event(number, database.now()) for number in range(1200)])
    while some := await store.claim("ops", 1000, 60):
        await store.settle([settled(one, "delivered", database.now(), status=200) for one in some])
    pruned = [await store.prune(ended_before=0, most_delivered=100) for _ in range(4)]
    assert [500, 500, 100, 0] == pruned
    assert (100, 100) == (await count(database, deliveries), await count(database, outbox))


async def test_an_endpoint_that_wants_nothing_more_is_remembered(store: WebhookStore, database: Database) -> None:
    await asyncio.gather(*(store.disable("ops", b"1" * 32) for _ in range(3)))
    await store.disable("ops", b"2" * 32)
    (found,) = await store.disabled()
    assert ("ops", database.now(), b"2" * 32) == (found.webhook, found.at, found.address)
    await store.enable("ops")
    await store.enable("ops")
    assert () == await store.disabled()


async def test_a_try_that_was_made_already_is_kept_with_its_event(store: WebhookStore, database: Database) -> None:
    told = event(1, database.now())
    made = SettledDelivery(
        webhook="ops",
        event_id=told.id,
        claim="",
        state="dead",
        state_at=database.now(),
        attempts=1,
        attempted_at=database.now(),
        failure="timeout",
        took=7,
    )
    await store.keep_tried(told, made)
    (shown,) = (await store.list("ops")).entries
    assert ("dead", "timeout", 1, 7, False) == (shown.state, shown.failure, shown.attempts, shown.took, shown.claimed)
    assert () == await store.due()


async def test_a_database_of_the_revision_before_is_brought_here_with_all_that_is_in_it(
    kind: str, new_url: NewUrl, new_database: NewDatabase, clock: ManualClock
) -> None:
    from alembic import command  # noqa: PLC0415  as large as it is

    from storage.migrations.upgrade import configuration  # noqa: PLC0415  large

    def first(connection: sqlalchemy.Connection) -> None:
        settings = configuration()
        settings.attributes["connection"] = connection
        command.upgrade(settings, "0001")
        connection.execute(text("INSERT INTO changes VALUES ('tokens', 7)"))

    url = new_url(kind, empty=True)
    engine = make_engine(parse_address(url))
    async with transaction(engine, "", {WRITES: True}) as connection:
        await connection.run(first)
    await call("", engine.dispose)
    assert Migration("0001", REVISIONS[-1]) == await migrate(url, clock)
    database = new_database(kind, url=url)
    store = WebhookStore(database)
    await store.add([event(1, database.now())])
    assert 1 == len(await store.claim("ops", 1, 60))
    async with database.reading() as connection:
        assert 7 == await connection.scalar(text("SELECT version FROM changes WHERE topic = 'tokens'"))
