"""Opening a database and its transactions, on SQLite and PostgreSQL."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import func, select, text

import storage.engines
import storage.schema
from core.clock import ManualClock, SystemClock
from storage.address import parse_address
from storage.connection import call, transaction
from storage.database import Database, migrate
from storage.engines import WRITES, make_engine
from storage.errors import SchemaUnknown, StorageUnavailable
from storage.migrations import REVISIONS
from storage.schema import Migration
from storage.tables import METADATA, changes
from tests.integration.conftest import NewDatabase, NewUrl

ROOT = Path(__file__).resolve().parent.parent.parent


async def put(database: Database, topic: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(changes.insert().values(topic=topic, version=1))


async def topics(database: Database) -> set[str]:
    async with database.reading() as connection:
        return set((await connection.execute(select(changes.c.topic))).scalars())


async def test_what_is_committed_is_there_after_a_restart(
    new_database: NewDatabase, kind: str, new_url: NewUrl
) -> None:
    url = new_url(kind)
    first = new_database(kind, url=url)
    await put(first, "a")
    await first.close()
    # Closed, it opens again by itself; so does another one.
    assert {"a"} == await topics(first) == await topics(new_database(kind, url=url))


async def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    async def half() -> None:
        async with database.transaction() as connection:
            await connection.execute(changes.insert().values(topic="a", version=1))
            raise LookupError

    with pytest.raises(LookupError):
        await half()
    assert set() == await topics(database)


async def test_a_failed_statement_leaves_nothing_and_harms_no_later_one(database: Database) -> None:
    async def twice() -> None:
        async with database.transaction() as connection:
            await connection.execute(changes.insert().values(topic="b", version=1))
            await connection.execute(changes.insert().values(topic="a", version=1))

    await put(database, "a")
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        await twice()
    await put(database, "c")
    assert {"a", "c"} == await topics(database)


async def test_a_cancelled_task_leaves_nothing_and_no_connection_is_lost(database: Database) -> None:
    await database.open()

    async def half(number: int) -> None:
        async with database.transaction() as connection:
            await connection.execute(changes.insert().values(topic=f"half-{number}", version=1))
            await asyncio.Event().wait()

    # More than the pool has connections.
    for number in range(20):
        task = asyncio.get_running_loop().create_task(half(number))
        # At any stage: as it connects, begins, inserts, waits.
        await asyncio.sleep(number * 0.001)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await put(database, "a")
    assert {"a"} == await topics(database)


async def test_a_long_statement_is_cancelled_at_once(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.engines, "ANSWER_SECONDS", 60.0)
    database = new_database("postgresql")
    await database.open()
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))
    assert 20 > asyncio.get_running_loop().time() - began
    await put(database, "a")


async def test_reads_of_one_block_see_one_state(database: Database) -> None:
    await put(database, "a")
    async with database.reading() as connection:
        before = await connection.scalar(select(func.count()).select_from(changes))
        await put(database, "b")
        assert before == await connection.scalar(select(func.count()).select_from(changes))
    assert {"a", "b"} == await topics(database)


async def test_many_readers_and_writers_at_once(database: Database) -> None:
    jobs: list[Any] = [put(database, f"topic-{number}") for number in range(40)]
    jobs += [topics(database) for _ in range(40)]
    await asyncio.gather(*jobs)
    assert 40 == len(await topics(database))


async def test_a_transaction_within_a_transaction_is_refused_where_it_would_wait_for_itself(
    new_database: NewDatabase,
) -> None:
    database = new_database("sqlite")
    with pytest.raises(RuntimeError, match="waits for itself"):
        async with database.transaction():
            await put(database, "a")
    await put(database, "a")


async def test_a_database_is_closed_when_its_transactions_have_ended(database: Database) -> None:
    async with database.transaction() as connection:
        closing = asyncio.get_running_loop().create_task(database.close())
        # Opens it anew; on SQLite when the first has ended.
        waiting = asyncio.get_running_loop().create_task(put(database, "b"))
        await asyncio.sleep(0.05)
        assert not closing.done()
        await connection.execute(changes.insert().values(topic="a", version=1))
    await closing
    await waiting
    assert {"a", "b"} == await topics(database)


async def test_plain_calls_are_made_on_the_same_transaction(database: Database) -> None:
    def count(connection: sqlalchemy.Connection, topic: str) -> int:
        connection.execute(changes.insert().values(topic=topic, version=1))
        return connection.execute(select(func.count()).select_from(changes)).scalar_one()

    async with database.transaction() as connection:
        assert 1 == await connection.run(count, "a")
        assert connection.dialect in {"sqlite", "postgresql"}


async def test_the_time_is_in_microseconds(database: Database, clock: ManualClock) -> None:
    clock.advance(0.000_001)
    assert 1_700_000_000_000_001 == database.now()


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/data/sluice.db", SystemClock())
    await put(database, "a")
    files = sorted((tmp_path / "data").iterdir())
    assert ["sluice.db", "sluice.db-shm", "sluice.db-wal"] == [file.name for file in files]
    assert {0o600} == {file.stat().st_mode & 0o777 for file in files}
    assert 0o700 == (tmp_path / "data").stat().st_mode & 0o777
    await database.close()
    # Closed in order, all is in the one file.
    assert ["sluice.db"] == [file.name for file in (tmp_path / "data").iterdir()]


def move(place: Path, to: Path) -> None:
    place.rename(to)


async def test_nothing_is_written_to_a_file_that_was_taken_away(
    new_database: NewDatabase, new_url: NewUrl, tmp_path: Path
) -> None:
    database, other = (new_database("sqlite", url=new_url("sqlite")) for _ in range(2))
    path, backup, away = Path(database.shown.removeprefix("sqlite:///")), tmp_path / "backup", tmp_path / "away"
    await put(database, "a")
    await put(other, "b")
    await other.close()
    move(Path(other.shown.removeprefix("sqlite:///")), backup)
    move(path, away)
    for is_replaced in (False, True):
        if is_replaced:
            move(backup, path)
        with pytest.raises(StorageUnavailable, match="was taken away or replaced"):
            await put(database, "lost")
        with pytest.raises(StorageUnavailable, match="was taken away or replaced"):
            await topics(database)
    move(path, backup)
    move(away, path)
    await put(database, "c")
    assert {"a", "c"} == await topics(database)
    # Opened anew, it uses what is there.
    await database.close()
    move(backup, path)
    assert {"b"} == await topics(database)


async def test_sqlite_is_set_up_for_readers_beside_a_writer_and_for_sudden_ends(new_database: NewDatabase) -> None:
    async with new_database("sqlite").reading() as connection:
        settings = {
            name: await connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema")
        }
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000, "trusted_schema": 0}
    assert expected == settings


def _tables(connection: sqlalchemy.Connection) -> dict[str, Any]:
    """All that a database says of its tables."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")).all()
        # The order of a table's columns and constraints means nothing; a column that was added later stands behind them.
        return {
            name: sorted(" ".join(sql.split()).removesuffix(")").rstrip().replace("( ", "(").split(", "))
            for name, sql in rows
        }
    found = sqlalchemy.inspect(connection)
    return {
        name: {
            "columns": [(one["name"], str(one["type"]), one["nullable"]) for one in found.get_columns(name)],
            "defaults": [one["default"] for one in found.get_columns(name)],
            "primary key": found.get_pk_constraint(name),
            "foreign keys": found.get_foreign_keys(name),
            "unique": sorted(found.get_unique_constraints(name), key=str),
            "indexes": sorted(found.get_indexes(name), key=str),
        }
        for name in found.get_table_names()
    }


async def test_the_migrations_make_just_what_an_empty_database_is_given(
    new_url: NewUrl, new_database: NewDatabase, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def all_of_it() -> Any:
        async with new_database(kind, url=new_url(kind, empty=True)).reading() as connection:
            revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return revision, await connection.run(_tables)

    created = await all_of_it()
    monkeypatch.setattr(storage.schema, "_create", lambda connection, _where: storage.schema._upgrade(connection))
    migrated = await all_of_it()
    assert METADATA.tables.keys() < created[1].keys()
    assert created == migrated


async def test_a_database_of_another_program_is_left_alone(
    kind: str, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind, empty=True)
    engine = make_engine(parse_address(url))
    async with transaction(engine, "", {WRITES: True}) as connection:
        await connection.execute(text("CREATE TABLE tokens (of_theirs INTEGER)"))
    await call("", engine.dispose)
    with pytest.raises(SchemaUnknown, match="a table `tokens` that is not of this program: name an empty one"):
        await new_database(kind, url=url).open()


async def test_an_older_database_is_brought_to_the_newest_revision_once(
    kind: str, new_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upgrade(connection: sqlalchemy.Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = 'next'"))

    url = new_url(kind)
    await migrate(url, SystemClock())
    monkeypatch.setattr(storage.schema, "REVISIONS", (*REVISIONS, "next"))
    monkeypatch.setattr(storage.schema, "_upgrade", upgrade)
    assert Migration(REVISIONS[-1], "next") == await migrate(url, SystemClock())
    assert Migration("next", "next") == await migrate(url, SystemClock())


async def test_a_migration_tells_what_it_did(kind: str, new_url: NewUrl) -> None:
    url = new_url(kind, empty=True)
    assert Migration(None, REVISIONS[-1]) == await migrate(url, SystemClock())
    assert Migration(REVISIONS[-1], REVISIONS[-1]) == await migrate(url, SystemClock())


async def test_a_migration_that_fails_leaves_nothing(
    kind: str, new_url: NewUrl, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(connection: sqlalchemy.Connection, where: str) -> None:
        complete(connection, where)
        connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    complete = storage.schema._create
    database = new_database(kind, url=new_url(kind, empty=True))
    with monkeypatch.context() as patch:
        patch.setattr(storage.schema, "_create", half)
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="nowhere"):
            await database.open()
    # The next start does it from the beginning.
    await put(database, "a")


async def test_a_database_of_a_newer_version_is_left_alone(
    kind: str, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind)
    database = new_database(kind, url=url)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(
        SchemaUnknown, match=rf"has revision `9999` .* none later than `{REVISIONS[-1]}`: run the newer version"
    ):
        await database.open()
    with pytest.raises(SchemaUnknown):
        await migrate(url, SystemClock())


_OPENS = """
import asyncio, os
from core.clock import SystemClock
from storage.database import migrate

print(asyncio.run(migrate(os.environ["DATABASE_URL"], SystemClock())).before)
"""


def _open_at_once(url: str, processes: int) -> list[tuple[bytes, bytes]]:
    command = [sys.executable, "-c", _OPENS]
    # Not among a program's arguments, which all may see.
    environment = os.environ | {"DATABASE_URL": url}
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe) for _ in range(processes)]
    return [process.communicate() for process in started]


async def test_of_several_processes_one_makes_the_schema_and_the_others_wait(
    kind: str, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind, empty=True)
    outputs = _open_at_once(url, 3)
    assert [b""] * 3 == [err for _, err in outputs]
    assert {b"None\n", f"{REVISIONS[-1]}\n".encode()} >= {out for out, _ in outputs}
    assert 1 == [out for out, _ in outputs].count(b"None\n")
    await put(new_database(kind, url=url), "a")


async def test_one_that_waits_too_long_for_anothers_migration_says_so(
    new_url: NewUrl, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_url("postgresql")
    async with new_database("postgresql", url=url).transaction() as connection:
        await connection.execute(select(func.pg_advisory_xact_lock(storage.schema._MIGRATION_LOCK)))
        # One more is to be done.
        monkeypatch.setattr(storage.schema, "REVISIONS", (*REVISIONS, "next"))
        monkeypatch.setattr(storage.schema, "_MIGRATION_SECONDS", 0.2)
        with pytest.raises(StorageUnavailable, match="locked by a migration of another process") as waited:
            await migrate(url, SystemClock())
    assert "locked" == waited.value.reason
