"""Sees to it that a database is there and has the newest revision of the schema.

An empty one gets the tables as storage/tables.py has them; an older one what is missing, by Alembic. A test holds that
both ways end alike. So Alembic, which takes 13 MB, is imported only where there is an older one.
"""

import asyncio
import logging
import os
from pathlib import Path

import msgspec
import sqlalchemy
from sqlalchemy import Engine, func, select

from core.clock import Clock
from storage.address import Address, SqliteFile
from storage.connection import call, transaction
from storage.drivers import unavailable
from storage.engines import BUSY_SECONDS, WRITES, make_engine
from storage.errors import Reason, SchemaUnknown, StorageUnavailable
from storage.migrations import REVISIONS, create, revision_of
from storage.tables import METADATA

_log = logging.getLogger("sluice.storage")

# Any number that is always the same (https://www.postgresql.org/docs/current/explicit-locks.html#ADVISORY-LOCKS).
_MIGRATION_LOCK = int.from_bytes(b"sluice")
_MIGRATION_SECONDS = 60.0
_MIGRATION_POLL_SECONDS = 0.1


class Migration(msgspec.Struct, frozen=True):
    """What became of a database: the revisions of its schema, None where it was empty."""

    before: str | None
    after: str


async def bring_up(address: Address, clock: Clock) -> Migration:
    """See to it that the database is there and has the newest revision: by one process, while others wait for it.

    Raises:
        StorageUnavailable: not now.
        SchemaUnknown: a newer version of the program has been here.
    """
    if isinstance(address, SqliteFile):
        _make_file(address.path, address.shown)
    # An engine for this alone: a migration may take longer than a statement should.
    engine = make_engine(address, patient=True)
    deadline = clock.monotonic() + _MIGRATION_SECONDS
    settled_by = asyncio.get_running_loop().time() + BUSY_SECONDS
    try:
        while (done := await _look_and_bring_up(engine, address.shown, settled_by)) is None:
            if clock.monotonic() > deadline:
                raise StorageUnavailable(
                    f"the database {address.shown} has been locked by a migration of another process for over "
                    f"{_MIGRATION_SECONDS:.0f} s: see what keeps that one",
                    Reason.LOCKED,
                )
            await asyncio.sleep(_MIGRATION_POLL_SECONDS)
    finally:
        await asyncio.shield(call(address.shown, engine.dispose))
    return done


async def _look_and_bring_up(engine: Engine, where: str, settled_by: float) -> Migration | None:
    try:
        return await _try_to_bring_up(engine, where)
    except StorageUnavailable as error:
        # Once in its life a file goes over to a write-ahead log, and for that SQLite waits for nobody: of several processes
        # that open a new one some are told at once that it is locked.
        if error.reason is Reason.LOCKED and asyncio.get_running_loop().time() < settled_by:
            return None
        raise


async def _try_to_bring_up(engine: Engine, where: str) -> Migration | None:
    """None: another process is at it."""
    async with transaction(engine, where, {}) as connection:
        before = await connection.run(known_revision, where)
    if before == REVISIONS[-1]:
        return Migration(before, before)
    try:
        async with transaction(engine, where, {WRITES: True}) as connection:
            # SQLite has its one lock for writers, and the transaction has it now.
            if connection.dialect == "postgresql" and not await connection.scalar(
                select(func.pg_try_advisory_xact_lock(_MIGRATION_LOCK))
            ):
                return None
            before = await connection.run(known_revision, where)
            if before is None:
                await connection.run(_create, where)
            elif before != REVISIONS[-1]:
                await connection.run(_upgrade)
            if before != REVISIONS[-1]:
                _log.info("database %s brought from revision %s to %s", where, before or "none", REVISIONS[-1])
            return Migration(before, REVISIONS[-1])
    except StorageUnavailable as error:
        if error.reason is Reason.LOCKED:
            return None
        raise


def known_revision(connection: sqlalchemy.Connection, where: str) -> str | None:
    """Which the database has; None where it is empty.

    Raises:
        SchemaUnknown: it is of a newer version of the program.
    """
    found = revision_of(connection)
    if found is not None and found not in REVISIONS:
        raise SchemaUnknown(
            f"the database {where} has revision `{found}` of the schema, and this program knows none later than "
            f"`{REVISIONS[-1]}`: run the newer version that has been here, or restore a backup"
        )
    return found


def refuse_foreign_tables(connection: sqlalchemy.Connection, where: str) -> None:
    """
    Raises:
        SchemaUnknown: a database that is to be empty has tables of our names.
    """
    foreign = METADATA.tables.keys() & set(sqlalchemy.inspect(connection).get_table_names())
    if foreign:
        raise SchemaUnknown(
            f"the database {where} has a table `{min(foreign)}` that is not of this program: name an empty one in "
            "`storage.url`"
        )


def _create(connection: sqlalchemy.Connection, where: str) -> None:
    refuse_foreign_tables(connection, where)
    create(connection)


def _upgrade(connection: sqlalchemy.Connection) -> None:
    # It tells at every import and run what it is made of; what it did is told here.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from storage.migrations.upgrade import upgrade  # noqa: PLC0415  Alembic is needed once in a database's life

    upgrade(connection)


def _make_file(path: Path, where: str) -> None:
    """Before SQLite does, which would let others read it. Its further files take its mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        found = unavailable(error, where)
        assert found is not None
        raise found from error
