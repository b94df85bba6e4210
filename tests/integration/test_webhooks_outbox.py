"""The way of events into the outbox, and what happens while the database is away."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.clock import ManualClock
from core.events import ConfigApplied, GatewayStopping, RequestStarted, TokenRevoked
from storage.database import Database
from storage.webhook_records import OutboxEvent
from storage.webhooks import WebhookStore
from tests.conftest import ExpectLog
from tests.databases import PostgreSQL
from tests.integration.conftest import NewDatabase, NewUrl
from tests.integration.test_webhooks_delivery import Told
from webhooks.observer import Shed
from webhooks.outbox import COMMITTED, LINGER_SECONDS, Bounds, Outbox
from webhooks.subscriptions import Subscription, Subscriptions

APPLIED = ConfigApplied(revision="ab", trigger="api", duration_seconds=0.1)
ALL = Subscriptions([Subscription(webhook="ops")])

StartOutbox = Callable[..., Outbox]


class CountingStore:
    """A real one, which counts its transactions."""

    def __init__(self, store: WebhookStore) -> None:
        self.store = store
        self.batches: list[int] = []

    async def add(self, events: Sequence[OutboxEvent]) -> None:
        await self.store.add(events)
        self.batches.append(len(events))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def start(
    new_database: NewDatabase, told: Told, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartOutbox]:
    """``start(database)``: an outbox that every event goes to. Its databases are closed after it.

    It has the patience for a machine that is busy with other things, unless a test is about its end.
    """
    monkeypatch.setattr("webhooks.outbox._CLOSE_SECONDS", 60.0)
    async with contextlib.AsyncExitStack() as running:

        def begin(
            database: Database,
            store: Any = None,
            spool: Path | None = None,
            patience_seconds: float = 60.0,
            **options: Any,
        ) -> Outbox:
            opened = store or WebhookStore(database)

            async def give() -> Any:
                return opened

            made = Outbox(give, spool or tmp_path / "spool", clock, lambda _names: None, told, **options)
            made._writer._patience_seconds = patience_seconds
            running.push_async_callback(made.close)
            made.follow(ALL)
            made.start()
            return made

        yield begin


async def kept(database: Database) -> int:
    return sum(due.pending for due in await WebhookStore(database).due())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def until_logged(log: pytest.LogCaptureFixture, text: str) -> None:
    await until(lambda: _is(any(text in record.getMessage() for record in log.records)))


async def test_events_are_written_together_and_soon(
    start: StartOutbox, database: Database, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.open()
    store = CountingStore(WebhookStore(database))
    outbox = start(database, store)
    assert 0.2 == LINGER_SECONDS
    outbox.offer(RequestStarted(endpoint="x"))
    await until(lambda: _is(len(store.batches) == 1))
    # What comes after it has longer: more than this test takes on any machine.
    monkeypatch.setattr("webhooks.outbox.LINGER_SECONDS", 3600.0)
    for _ in range(100):
        outbox.offer(RequestStarted(endpoint="x"))
        await asyncio.sleep(0)
    assert (100, [1]) == (outbox.waiting, store.batches)
    # Where there are many, nothing waits.
    for _ in range(1200):
        outbox.offer(RequestStarted(endpoint="x"))
    await until(lambda: _is(sum(store.batches) == 1301))
    assert [1, 500, 500, 300] == store.batches
    assert {"request.started": 1301} == told.writes
    assert 1301 == await kept(database)


async def _is(value: bool) -> bool:
    return value


async def test_what_must_be_committed_is_in_the_database_when_commit_now_returns(
    start: StartOutbox, database: Database, kind: str, new_url: NewUrl
) -> None:
    outbox = start(database)
    assert await outbox.commit_now()
    for number in range(5):
        outbox.offer(APPLIED)
        outbox.offer(TokenRevoked(token_id="tok_1", token="a", by="ann"))
        outbox.offer(GatewayStopping(reason="this one may wait"))
        assert await outbox.commit_now()
        found = await WebhookStore(database).list("ops", limit=100)
        committed = [one for one in found.entries if one.type != "gateway.stopping"]
        assert 2 * (number + 1) == len(committed)


def test_events_of_configuration_tokens_and_security_are_committed() -> None:
    assert ("config.*", "token.*", "auth.*", "secret.*", "credential.rejected", "credential.refresh*") == COMMITTED


async def test_what_nobody_wants_is_not_kept_and_opens_no_database(
    start: StartOutbox, new_database: NewDatabase, tmp_path: Path
) -> None:
    outbox = start(new_database("sqlite"))
    outbox.follow(Subscriptions([Subscription(webhook="ops", events=("token.*",))]))
    outbox.offer(APPLIED)
    outbox.offer(GatewayStopping(reason="x"))
    assert await outbox.commit_now()
    await asyncio.sleep(LINGER_SECONDS * 1.5)
    assert [] == await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


async def test_while_the_database_is_down_events_wait_in_memory_and_beyond_its_bound_are_shed_by_name(
    start: StartOutbox,
    new_database: NewDatabase,
    postgresql_server: PostgreSQL,
    told: Told,
    expect_log: ExpectLog,
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = new_database("postgresql")
    outbox = start(database, bounds=Bounds(events=20))
    with (
        expect_log("events for webhooks wait in memory for the database"),
        expect_log(r"are shed: 10 of gateway\.stopping \(full\), 5 of request\.started \(full\)"),
    ):
        with postgresql_server.stopped():
            for number in range(30):
                outbox.offer(GatewayStopping(reason=str(number)))
            for _ in range(5):
                outbox.offer(RequestStarted(endpoint="x"))
            await until(lambda: _is(outbox.trouble is not None))
            assert 20 == outbox.waiting
            await until_logged(caplog, "10 of gateway.stopping (full), 5 of request.started (full)")
        await until(lambda: _is(not outbox.waiting))
    assert 20 == await kept(database)
    assert {("gateway.stopping", "full"): 10, ("request.started", "full"): 5} == told.of_shed


async def test_memory_is_bounded_in_bytes_too(
    start: StartOutbox, database: Database, told: Told, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = start(database, bounds=Bounds(bytes=10_000))
    with expect_log(r"shed: 5 of gateway\.stopping"):
        for _ in range(10):
            outbox.offer(GatewayStopping(reason="x" * 2000))
        await until_logged(caplog, "shed: 5 of gateway.stopping")
    await until(lambda: _is(not outbox.waiting))
    assert 5 == await kept(database)
    assert {("gateway.stopping", "full"): 5} == told.of_shed


async def test_what_must_be_committed_waits_on_the_disk_while_the_database_is_down(
    start: StartOutbox, new_database: NewDatabase, postgresql_server: PostgreSQL, expect_log: ExpectLog, tmp_path: Path
) -> None:
    database = new_database("postgresql")
    outbox = start(database)
    with expect_log("the outbox of webhooks waits on the disk for the database"):
        with postgresql_server.stopped():
            outbox.offer(APPLIED)
            assert await outbox.commit_now()
            assert 1 == outbox.spooled
            assert ["webhooks"] == [path.name.partition(".")[0] for path in (tmp_path / "spool").iterdir()]
        await until(lambda: _is(not outbox.spooled))
    assert 1 == await kept(database)


async def test_a_file_that_is_locked_for_long_costs_no_event(
    start: StartOutbox, new_database: NewDatabase, new_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_url("sqlite")
    # By far longer than the outbox's, however slow the machine is.
    monkeypatch.setattr("storage.engines.BUSY_SECONDS", 120.0)
    database = new_database("sqlite", url=url)
    await database.open()
    outbox = start(database, patience_seconds=1.0)
    other = sqlite3.connect(url.removeprefix("sqlite:///"))
    other.execute("BEGIN EXCLUSIVE")
    outbox.offer(APPLIED)
    # The disk has it before the database's patience ends.
    assert await outbox.commit_now()
    assert 1 == outbox.spooled
    outbox.offer(GatewayStopping(reason="x"))
    other.rollback()
    other.close()
    await until(lambda: _is(not outbox.spooled and not outbox.waiting))
    assert 2 == await kept(database)


async def test_where_neither_database_nor_disk_takes_it_commit_now_says_so(
    start: StartOutbox,
    new_database: NewDatabase,
    new_url: NewUrl,
    expect_log: ExpectLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = new_url("sqlite")
    # By far longer than the outbox's, however slow the machine is.
    monkeypatch.setattr("storage.engines.BUSY_SECONDS", 120.0)
    database = new_database("sqlite", url=url)
    await database.open()
    (tmp_path / "file").write_text("in the way")
    with expect_log("the outbox of webhooks cannot be read: Not a directory"):
        outbox = start(database, spool=tmp_path / "file", patience_seconds=1.0)
    other = sqlite3.connect(url.removeprefix("sqlite:///"))
    other.execute("BEGIN EXCLUSIVE")
    with expect_log("entries of the outbox of webhooks are in memory alone", level=40):
        outbox.offer(APPLIED)
        assert not await outbox.commit_now()
    other.rollback()
    other.close()
    # It is tried on.
    await until(lambda: _is(outbox._writer.refused is None))
    assert 1 == await kept(database)


async def test_webhooks_that_take_nothing_are_left_out_and_counted(
    start: StartOutbox, database: Database, told: Told
) -> None:
    refused = {"a": Shed.DISABLED}
    outbox = start(database, refused=refused)
    outbox.follow(Subscriptions([Subscription(webhook=name) for name in ("a", "b")]))
    outbox.offer(APPLIED)
    assert await outbox.commit_now()
    assert ["b"] == [due.webhook for due in await WebhookStore(database).due()]
    refused["b"] = Shed.DISABLED
    outbox.offer(APPLIED)
    assert {("config.applied", "disabled"): 3} == told.of_shed


async def test_at_the_end_all_that_has_come_is_written(start: StartOutbox, database: Database) -> None:
    outbox = start(database)
    for number in range(700):
        outbox.offer(GatewayStopping(reason=str(number)))
    outbox.offer(APPLIED)
    await outbox.close()
    assert 701 == await kept(database)


async def test_at_the_end_what_cannot_be_written_is_shed_and_counted(
    start: StartOutbox, new_database: NewDatabase, postgresql_server: PostgreSQL, told: Told, expect_log: ExpectLog
) -> None:
    outbox = start(new_database("postgresql"))
    with (
        expect_log("wait in memory"),
        expect_log(r"shed: 3 of gateway\.stopping \(full\)"),
        postgresql_server.stopped(),
    ):
        for _ in range(3):
            outbox.offer(GatewayStopping(reason="x"))
        await until(lambda: _is(outbox.trouble is not None))
        await outbox.close()
    assert {("gateway.stopping", "full"): 3} == told.of_shed


async def test_a_fault_of_ours_loses_what_it_concerns_and_says_so(
    start: StartOutbox, database: Database, told: Told, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(CountingStore):
        async def add(self, events: Sequence[OutboxEvent]) -> None:
            if any("bad" in one.payload for one in events):
                raise LookupError("no such thing")
            await super().add(events)

    outbox = start(database, Faulty(WebhookStore(database)))
    with expect_log("events for webhooks cannot be written", level=40), expect_log(r"1 of gateway\.stopping \(fault\)"):
        outbox.offer(GatewayStopping(reason="bad"))
        # Told a moment after it has gone.
        await until_logged(caplog, "1 of gateway.stopping (fault)")
    await until(lambda: _is(not outbox.waiting))
    outbox.offer(GatewayStopping(reason="good"))
    await until(lambda: _is(not outbox.waiting))
    assert 1 == await kept(database)
    assert {("gateway.stopping", "fault"): 1} == told.of_shed
