"""The audit while its database is away, locked, full, or its process is killed: nothing is lost, and it is in order."""

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import storage.audit_log
import storage.engines
import storage.writer
from core.clock import SystemClock
from storage.audit import AuditStore
from storage.audit_log import AuditLog
from storage.database import Database
from storage.errors import AuditFull
from storage.records import NewAuditEntry
from tests.conftest import ExpectLog
from tests.databases import PostgreSQL
from tests.gateway_process import until
from tests.integration.conftest import NewDatabase, NewUrl
from tests.turns import Turns, counted

ROOT = Path(__file__).resolve().parent.parent.parent
NewLog = Callable[[Database], AuditLog]


@pytest.fixture
async def new_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NewLog]:
    """``new_log(database)``: the audit of one process; all of a test have one directory for what waits."""
    monkeypatch.setattr(storage.writer, "_LAST_RETRY_SECONDS", 0.5)
    async with AsyncExitStack() as closing:

        def make(database: Database) -> AuditLog:
            async def store() -> AuditStore:
                return AuditStore(database)

            log = AuditLog(store, tmp_path / "spool")
            closing.push_async_callback(log.close)
            log.start()
            return log

        yield make


def entry(name: str) -> NewAuditEntry:
    return NewAuditEntry(
        id=name, at=1, actor="ann", actor_kind="session", action="a.b", resource="a", resource_id=None, outcome="done"
    )


async def ids(database: Database) -> list[str]:
    """Of all entries, oldest first; the chain is whole."""
    store = AuditStore(database)
    assert None is (await store.verify()).broken
    return [found.id for found in reversed((await store.list(limit=10_000)).entries)]


def names(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


async def wait_until_written(log: AuditLog) -> None:
    await until(lambda: not log.spooled_entries)


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    async with counted() as turns:
        yield turns


HELD_UP = 450
"""Turns (4.5 s): an append waits 1 s for the database, then for the disk; a statement or a lock is waited for 5 s or more."""


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_a_server_that_stops_and_comes_back_loses_nothing_and_holds_nobody_up(
    new_database: NewDatabase,
    postgresql_server: PostgreSQL,
    new_log: NewLog,
    how: str,
    expect_log: ExpectLog,
    turns: Turns,
) -> None:
    database = new_database("postgresql")
    log = new_log(database)
    written: list[str] = []
    stopping = asyncio.Event()

    async def write() -> None:
        while not stopping.is_set():
            log.require_room()
            name = f"{len(written):06}"
            await turns.of(log.append(entry(name)))
            written.append(name)
            await asyncio.sleep(0.002)

    writing = asyncio.get_running_loop().create_task(write())

    async def some_more() -> None:
        before = len(written)
        await until(lambda: before + 20 < len(written))

    await some_more()
    with expect_log("the audit waits on the disk for the database: the database postgresql://"):
        await asyncio.get_running_loop().run_in_executor(None, postgresql_server.stop, how)
        await some_more()
    await asyncio.get_running_loop().run_in_executor(None, postgresql_server.start)
    await some_more()
    stopping.set()
    await writing
    await wait_until_written(log)
    await log.append(entry("last"))
    await wait_until_written(log)
    assert [*written, "last"] == await ids(database)
    assert turns.longest < HELD_UP


async def test_a_file_that_another_process_locks_holds_nobody_up(
    new_database: NewDatabase, new_log: NewLog, tmp_path: Path, expect_log: ExpectLog, turns: Turns
) -> None:
    database = new_database("sqlite", url=f"sqlite:///{tmp_path}/sluice.db")
    log = new_log(database)
    await log.append(entry("0"))
    other = sqlite3.connect(tmp_path / "sluice.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = turns.count
    with expect_log("the audit waits on the disk for the database: it does not answer in time", logging.INFO):
        for number in range(1, 50):
            await turns.of(log.append(entry(f"{number}")))
    assert turns.longest < HELD_UP
    # Not each of them waited: that would be 49 s.
    assert turns.count - began < 2500
    assert log.spooled_entries
    other.execute("ROLLBACK")
    other.close()
    await wait_until_written(log)
    assert [f"{number}" for number in range(50)] == await ids(database)


async def test_several_processes_lose_nothing_and_each_keeps_its_order(
    new_database: NewDatabase, new_url: NewUrl, postgresql_server: PostgreSQL, new_log: NewLog, expect_log: ExpectLog
) -> None:
    url = new_url("postgresql")
    databases = [new_database("postgresql", url=url) for _ in range(3)]
    logs = [new_log(database) for database in databases]

    async def write(number: int, first: int, last: int) -> None:
        for count in range(first, last):
            await logs[number].append(entry(f"{number}-{count:03}"))

    await asyncio.gather(*(write(number, 0, 10) for number in range(3)))
    with expect_log("the audit waits on the disk"), postgresql_server.stopped():
        await asyncio.gather(*(write(number, 10, 20) for number in range(3)))
        # One ends, and another process comes and takes over what it left.
        await logs[0].close()
        logs.append(new_log(new_database("postgresql", url=url)))
        await asyncio.gather(*(write(number, 20, 30) for number in (1, 2, 3)))
    for log in logs[1:]:
        await wait_until_written(log)
    found = await ids(databases[1])
    for number, (first, last) in enumerate([(0, 20), (0, 30), (0, 30), (20, 30)]):
        expected = [f"{number}-{count:03}" for count in range(first, last)]
        assert expected == [name for name in found if name.startswith(f"{number}-")]
    # What was left came before what is new.
    assert found.index("0-019") < found.index("3-020")
    assert 90 == len(found)


async def test_no_more_than_the_bound_waits_on_the_disk(
    new_database: NewDatabase, tmp_path: Path, postgresql_server: PostgreSQL, expect_log: ExpectLog
) -> None:
    database = new_database("postgresql")

    async def store() -> AuditStore:
        return AuditStore(database)

    log = AuditLog(store, tmp_path / "spool", max_spool_bytes=2000)
    kept = 0

    async def fill() -> None:
        nonlocal kept
        while True:
            log.require_room()
            await log.append(entry(f"{kept}"))
            kept += 1

    with (
        expect_log("the audit waits on the disk"),
        expect_log("in memory alone"),
        expect_log('not kept yet: {"id":"', logging.ERROR),
        postgresql_server.stopped(),
        pytest.raises(AuditFull, match=r"^The audit takes no more now: .*\.$"),
    ):
        await fill()
    assert kept > 5
    with expect_log("the audit is kept again", logging.INFO):
        await wait_until_written(log)
        while len(await ids(database)) < kept:
            await asyncio.sleep(0.05)
    log.require_room()
    # The one that neither took is there too.
    assert [f"{number}" for number in range(kept)] == await ids(database)
    await log.close()


_PROGRAM = """
import asyncio, os, resource, sys
from pathlib import Path
from core.clock import SystemClock
from storage.audit import AuditStore
from storage.audit_log import AuditLog
from storage.database import Database
from storage.errors import AuditFull
from storage.records import NewAuditEntry

async def main():
    database = Database(os.environ["DATABASE_URL"], SystemClock())
    async def store():
        return AuditStore(database)
    log = AuditLog(store, Path(os.environ["SPOOL"]))
    log.start()
    prefix = os.environ["PREFIX"]
    async def append(number):
        name = f"{prefix}-{number:05}"
        await log.append(NewAuditEntry(
            id=name, at=number, actor="a", actor_kind="b", action="c", resource="d", after="x" * 1000, outcome="done"
        ))
        return name
    await use(log, append)
    await log.close()
    await database.close()

asyncio.run(main())
"""

_WRITES_ON = """
async def use(log, append):
    for number in range(1_000_000):
        print(await append(number), flush=True)
"""

_FILLS = """
async def use(log, append):
    print(await append(0))
    # Files cannot grow any further than this: neither that of the database nor that of what waits for it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (130_000, resource.RLIM_INFINITY))
    number = 1
    try:
        while True:
            log.require_room()
            print(await append(number))
            number += 1
    except AuditFull as error:
        print(error, file=sys.stderr)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    async with asyncio.timeout(60):
        while True:
            try:
                log.require_room()
                break
            except AuditFull:
                await asyncio.sleep(0.05)
    print(await append(number))
"""


def program(use: str, url: str, spool: Path, prefix: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.replace("async def main", f"{use}\nasync def main")],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url, "SPOOL": str(spool), "PREFIX": prefix},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def killed_after(count: int, url: str, spool: Path, prefix: str) -> list[str]:
    """What a process was told to be kept before it was killed."""
    with program(_WRITES_ON, url, spool, prefix) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline().decode().strip() for _ in range(count)]
        writer.kill()
        last = writer.stdout.read().decode().splitlines(keepends=True)
    return told + [line.strip() for line in last if line.endswith("\n")]


async def test_a_process_that_is_killed_as_it_writes_loses_nothing_that_was_kept(
    new_database: NewDatabase, new_url: NewUrl, new_log: NewLog, tmp_path: Path, postgresql_server: PostgreSQL
) -> None:
    """Killed while the database takes all, while it is down, and while what waited is written to it."""
    url = new_url("postgresql")
    spool = tmp_path / "spool"
    told = killed_after(20, url, spool, "a")
    with postgresql_server.stopped():
        told += killed_after(30, url, spool, "b")
        told += killed_after(20, url, spool, "c")
    told += killed_after(1, url, spool, "d")
    database = new_database("postgresql", url=url)
    log = new_log(database)
    await log.append(entry("last"))
    await wait_until_written(log)
    found = await ids(database)
    assert set(told) <= set(found)
    assert len(found) == len(set(found))
    for prefix in "abcd":
        own = [name for name in found if name.startswith(prefix)]
        # In its order, without a gap; of the last that was on its way nobody was told.
        assert [f"{prefix}-{number:05}" for number in range(len(own))] == own
        assert len(own) - 1 <= sum(name.startswith(prefix) for name in told) <= len(own)
    await until(lambda: names(spool) == [])


async def test_a_full_disk_loses_nothing(new_database: NewDatabase, new_log: NewLog, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sluice.db"
    with program(_FILLS, url, tmp_path / "spool", "a") as filling:
        output, errors = filling.communicate(timeout=120)
    assert 0 == filling.returncode, errors.decode()
    told = output.decode().split()
    assert len(told) > 10
    assert "The audit takes no more now: the disk takes no more: File too large." in errors.decode()
    # On a busy machine something may wait still as it ends.
    database = new_database("sqlite", url=url)
    await wait_until_written(new_log(database))
    assert told == await ids(database)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sluice.audit"]


async def test_the_head_is_told_at_first_and_at_the_end_and_between_not_too_often(
    database: Database, new_log: NewLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "sluice.audit")
    monkeypatch.setattr(storage.audit_log, "HEAD_SECONDS", 600)
    log = new_log(database)

    async def head() -> str:
        await wait_until_written(log)
        return f"audit: the head is {(await log.verify()).head}"

    await log.append(entry("1"))
    expected = [await head()]
    for number in range(2, 5):
        await log.append(entry(f"{number}"))
    expected.append(await head())
    assert expected[:1] == told(caplog)
    # The ten minutes pass.
    assert log._telling is not None
    log._telling.cancel()
    log._tell_head()
    assert expected == told(caplog)
    await log.append(entry("5"))
    expected.append(await head())
    assert expected[:2] == told(caplog)
    await log.close()
    assert expected == told(caplog)


NASTY = "a\0b \ud800 \udfff ü\u2028 " + "x" * 1000


async def test_any_text_is_kept(database: Database, new_log: NewLog) -> None:
    log = new_log(database)
    await log.append(
        NewAuditEntry(
            at=1,
            actor=NASTY,
            actor_kind="b",
            action=NASTY,
            resource="d",
            resource_id="\0",
            before=f'"{"ü" * 200_000}"',
            after='"\0\\u0000"',
            outcome="done",
        )
    )
    (found,) = (await log.list()).entries
    assert ("a\ufffdb ? ? ü\u2028 x", 500, "x…") == (found.actor[:12], len(found.actor), found.actor[-2:])
    assert ('{"left_out_bytes":400002}', '"\ufffd\\u0000"', "\ufffd") == (found.before, found.after, found.resource_id)
    assert None is (await log.verify()).broken


async def test_to_read_makes_no_database(tmp_path: Path) -> None:
    async def store() -> AuditStore:
        return AuditStore(Database(f"sqlite:///{tmp_path}/sluice.db", SystemClock()))

    log = AuditLog(store, tmp_path / "spool", (tmp_path / "sluice.db").exists)
    assert ((), None) == ((await log.list()).entries, (await log.verify()).broken)
    assert None is not (await log.verify(bytes([1] * 32))).broken
    await log.close()
    assert [] == names(tmp_path)
