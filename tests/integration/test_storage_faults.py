"""Databases that go, come back, are locked, full, damaged or not ours: by real means."""

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

import storage.engines
import storage.schema
from core.clock import SystemClock
from storage.database import Database
from storage.errors import Reason, StorageUnavailable
from storage.tables import changes
from tests.databases import PASSWORD, PostgreSQL
from tests.integration.conftest import NewDatabase, NewUrl

ROOT = Path(__file__).resolve().parent.parent.parent


async def put(database: Database, topic: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(changes.insert().values(topic=topic, version=1))


async def topics(database: Database) -> set[str]:
    async with database.reading() as connection:
        return set((await connection.execute(select(changes.c.topic))).scalars())


def _with_url(url: str) -> dict[str, str]:
    """Not among a program's arguments, which all may see."""
    return os.environ | {"DATABASE_URL": url}


def _run(program: str, url: str) -> str:
    """What a process prints; it must end well, and in time."""
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, env=_with_url(url), capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (run.returncode, run.stderr)
    return run.stdout


@contextmanager
def refused(reason: Reason, words: str | None = None) -> Iterator[None]:
    with pytest.raises(StorageUnavailable, match=words) as fault:
        yield
    assert reason is fault.value.reason, fault.value
    assert PASSWORD not in repr(fault.value)


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_a_server_that_was_stopped_is_used_again_when_it_is_back(
    new_database: NewDatabase, postgresql_server: PostgreSQL, how: str
) -> None:
    database = new_database("postgresql")
    # Several connections in the pool, all of which will be gone.
    await asyncio.gather(*(put(database, f"before-{number}") for number in range(6)))
    with postgresql_server.stopped(how):
        for _ in range(3):
            with refused(Reason.UNREACHABLE, "^the database postgresql://sluice@127.0.0.1:.* cannot be reached"):
                await put(database, "while")
        with refused(Reason.UNREACHABLE):
            await topics(database)
    # No transaction fails because its connection was of the old server.
    await asyncio.gather(*(put(database, f"after-{number}") for number in range(6)))
    assert {f"{when}-{number}" for when in ("before", "after") for number in range(6)} == await topics(database)


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_a_transaction_that_loses_its_server_says_so_and_leaves_nothing(
    new_database: NewDatabase, postgresql_server: PostgreSQL, how: str
) -> None:
    database = new_database("postgresql")
    with refused(Reason.UNREACHABLE):
        async with database.transaction() as connection:
            await connection.execute(changes.insert().values(topic="a", version=1))
            with postgresql_server.stopped(how):
                await connection.execute(changes.insert().values(topic="b", version=1))
    with refused(Reason.UNREACHABLE):
        async with database.transaction() as connection:
            await connection.execute(changes.insert().values(topic="c", version=1))
            # Seen at the commit.
            postgresql_server.stop(how)
            postgresql_server.start()
    assert set() == await topics(database)


async def test_a_statement_that_waits_for_a_server_that_crashes_ends(
    new_database: NewDatabase, postgresql_server: PostgreSQL
) -> None:
    database = new_database("postgresql")
    await database.open()

    async def sleep() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))

    waiting = asyncio.get_running_loop().create_task(sleep())
    await asyncio.sleep(0.2)
    with postgresql_server.stopped("immediate"), refused(Reason.UNREACHABLE):
        await waiting
    await put(database, "a")


async def test_a_server_that_is_down_at_the_start_is_used_when_it_is_up(
    new_database: NewDatabase, postgresql_server: PostgreSQL
) -> None:
    database = new_database("postgresql")
    with postgresql_server.stopped():
        with refused(Reason.UNREACHABLE):
            await database.open()
        with refused(Reason.UNREACHABLE):
            await put(database, "while")
        with refused(Reason.UNREACHABLE):
            await database.wait_ready(0)
    await put(database, "after")
    assert {"after"} == await topics(database)


async def test_one_can_wait_until_a_server_is_up(new_url: NewUrl, postgresql_server: PostgreSQL) -> None:
    database = Database(new_url("postgresql"), SystemClock())
    postgresql_server.stop()
    waiting = asyncio.get_running_loop().create_task(database.wait_ready(60))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await asyncio.to_thread(postgresql_server.start)
    await waiting
    await database.close()


async def test_a_backend_that_an_operator_ends_costs_one_transaction(
    new_database: NewDatabase, postgresql_server: PostgreSQL
) -> None:
    database = new_database("postgresql")
    with refused(Reason.UNREACHABLE, "terminating connection"):
        async with database.transaction() as connection:
            own = await connection.scalar(select(func.pg_backend_pid()))
            postgresql_server.sql(f"SELECT pg_terminate_backend({own})")
            await connection.execute(text("SELECT 1"))
    await put(database, "a")


async def test_a_server_that_is_silent_is_given_up(
    new_url: NewUrl, monkeypatch: pytest.MonkeyPatch, postgresql_server: PostgreSQL
) -> None:
    monkeypatch.setattr(storage.engines, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = Database(f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/sluice", SystemClock())
        with refused(Reason.SLOW, "does not answer in time"):
            await database.open()
    monkeypatch.setattr(storage.engines, "CONNECT_SECONDS", 60)
    monkeypatch.setattr(storage.engines, "ANSWER_SECONDS", 0.3)
    database = Database(new_url("postgresql"), SystemClock())
    with refused(Reason.SLOW):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))
    # With time enough for a machine that is slow; nothing is left that would keep it from closing.
    monkeypatch.setattr(storage.engines, "ANSWER_SECONDS", 60)
    await database.close()
    await put(database, "a")
    await database.close()


async def test_a_wrong_password_or_name_is_told_without_the_password(
    new_url: NewUrl, postgresql_server: PostgreSQL, planted_secret: str
) -> None:
    url = new_url("postgresql")
    wrong = Database(url.replace(PASSWORD, planted_secret), SystemClock())
    with refused(Reason.DENIED, "lets us not in: check the user, the password"):
        await wrong.open()
    nowhere = Database(postgresql_server.url("nowhere"), SystemClock())
    with refused(Reason.DENIED, 'database "nowhere" does not exist'):
        await nowhere.open()


async def test_a_standby_that_takes_no_writes_can_be_read(
    new_url: NewUrl, postgresql_server: PostgreSQL, new_database: NewDatabase
) -> None:
    url = new_url("postgresql")
    name = url.rpartition("/")[2]
    postgresql_server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database = new_database("postgresql", url=url)
    assert set() == await topics(database)
    with refused(Reason.READ_ONLY, "can only be read"):
        await put(database, "a")


_HOLDS = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN " + sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, how: str = "IMMEDIATE") -> Iterator[None]:
    """Another process has the lock of a SQLite database."""
    command = [sys.executable, "-c", _HOLDS, str(path), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert b"held\n" == other.stdout.readline()
        yield


@pytest.fixture
def busy_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.engines, "BUSY_SECONDS", 0.2)


async def test_a_file_that_another_process_writes_to_can_be_read_and_later_written(
    tmp_path: Path, new_database: NewDatabase, busy_at_once: None
) -> None:
    database = new_database("sqlite", url=f"sqlite:///{tmp_path}/sluice.db")
    await put(database, "a")
    with held(tmp_path / "sluice.db"):
        with refused(Reason.LOCKED, "is locked by another process"):
            await put(database, "b")
        assert {"a"} == await topics(database)
    await put(database, "c")
    assert {"a", "c"} == await topics(database)


async def test_a_lock_that_is_soon_gone_is_waited_for(
    tmp_path: Path, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How soon the other process has ended is a matter of the machine.
    monkeypatch.setattr(storage.engines, "BUSY_SECONDS", 60.0)
    database = new_database("sqlite", url=f"sqlite:///{tmp_path}/sluice.db")
    await put(database, "a")
    with held(tmp_path / "sluice.db"):
        waiting = asyncio.get_running_loop().create_task(put(database, "b"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    await waiting
    assert {"a", "b"} == await topics(database)


async def test_a_file_that_is_locked_at_the_start_is_opened_later(
    tmp_path: Path, new_database: NewDatabase, busy_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.schema, "_MIGRATION_SECONDS", 0.3)
    monkeypatch.setattr(storage.schema, "BUSY_SECONDS", 0.2)
    database = new_database("sqlite", url=f"sqlite:///{tmp_path}/sluice.db")
    sqlite3.connect(tmp_path / "sluice.db").close()
    with held(tmp_path / "sluice.db", "EXCLUSIVE"), refused(Reason.LOCKED):
        await database.open()
    await put(database, "a")


async def test_who_is_told_at_once_that_a_new_file_is_locked_tries_again(
    tmp_path: Path, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As SQLite does to all but one of several processes that make a write-ahead log for it.
    monkeypatch.setattr(storage.engines, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(storage.schema, "BUSY_SECONDS", 60.0)
    database = new_database("sqlite", url=f"sqlite:///{tmp_path}/sluice.db")
    sqlite3.connect(tmp_path / "sluice.db").close()
    with held(tmp_path / "sluice.db", "EXCLUSIVE"):
        opening = asyncio.get_running_loop().create_task(database.open())
        await asyncio.sleep(0.3)
        assert not opening.done()
    await opening
    await put(database, "a")


async def test_a_file_that_is_no_database_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    content = b"this is a text, and was never a database\n" * 100
    (tmp_path / "sluice.db").write_bytes(content)
    database = Database(f"sqlite:///{tmp_path}/sluice.db", SystemClock())
    with refused(Reason.DAMAGED, "is damaged: restore a backup"):
        await database.open()
    assert content == (tmp_path / "sluice.db").read_bytes()


async def test_a_place_that_cannot_be_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "sluice.db"):
        with refused(Reason.UNREACHABLE, str(place)):
            await Database(f"sqlite:///{place}", SystemClock()).open()


async def test_a_full_database_says_so_and_keeps_what_it_has(new_database: NewDatabase) -> None:
    database = new_database("sqlite")
    await put(database, "a")
    with refused(Reason.FULL, "has no room"):
        async with database.transaction() as connection:
            pages = await connection.scalar(text("PRAGMA page_count"))
            await connection.execute(text(f"PRAGMA max_page_count = {pages + 2}"))
            for number in range(100):
                await connection.execute(changes.insert().values(topic=f"{number}" * 1000, version=1))
    assert {"a"} == await topics(database)


_FILLS = """
import asyncio, os, resource
from core.clock import SystemClock
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.tables import changes

async def put(database, topic):
    async with database.transaction() as connection:
        await connection.execute(changes.insert().values(topic=topic, version=1))

async def main():
    database = Database(os.environ["DATABASE_URL"], SystemClock())
    await put(database, "first")
    # Files cannot grow any further than this: for SQLite the disk is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    done = 0
    try:
        for number in range(1000):
            await put(database, f"{number:04}" + "x" * 4000)
            done += 1
    except StorageUnavailable as error:
        print(done, error.reason)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await put(database, "last")
    await database.close()

asyncio.run(main())
"""


async def test_a_full_disk_is_told_and_what_was_written_before_and_after_is_there(
    tmp_path: Path, new_database: NewDatabase
) -> None:
    url = f"sqlite:///{tmp_path}/sluice.db"
    done, reason = _run(_FILLS, url).split()
    assert reason in {"full", "failing"}
    found = await topics(new_database("sqlite", url=url))
    assert {"first", "last", *(f"{number:04}" + "x" * 4000 for number in range(int(done)))} == found


_WRITES = """
import asyncio, os
from core.clock import SystemClock
from storage.database import Database
from storage.tables import changes

async def main():
    database = Database(os.environ["DATABASE_URL"], SystemClock())
    for number in range(1_000_000):
        async with database.transaction() as connection:
            await connection.execute(changes.insert().values(topic=f"{number}-a", version=1))
            await connection.execute(changes.insert().values(topic=f"{number}-b", version=1))
        print(number, flush=True)

asyncio.run(main())
"""


def _killed_after(transactions: int, url: str) -> list[int]:
    """The numbers of those that a process had committed when it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITES], cwd=ROOT, env=_with_url(url), stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(transactions)]
        writer.kill()
        last = writer.stdout.read().splitlines(keepends=True)
        return told + [int(line) for line in last if line.endswith(b"\n")]


async def test_a_process_that_is_killed_as_it_writes_loses_nothing_that_it_has_committed(
    kind: str, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind)
    told = _killed_after(50, url)
    found = await topics(new_database(kind, url=url))
    assert {f"{number}-{half}" for number in told for half in "ab"} <= found
    # Of the one that it was at, all is there or nothing.
    assert {topic[:-1] + "b" for topic in found} == {topic[:-1] + "b" for topic in found if topic.endswith("a")}
    assert len(found) in {2 * len(told), 2 * len(told) + 2}


def test_a_process_that_never_closes_its_database_ends(tmp_path: Path) -> None:
    assert "0\n" == _run(_WRITES.replace("1_000_000", "1"), f"sqlite:///{tmp_path}/sluice.db")
