"""A database looked at, and left as it is: none is made, no schema is changed."""

import asyncio

import msgspec
import sqlalchemy
from sqlalchemy import text

from storage.address import Address
from storage.audit import TOPIC
from storage.changes import version
from storage.connection import Connection, call, transaction
from storage.engines import make_engine, snapshot_options
from storage.migrations import REVISIONS
from storage.schema import known_revision, refuse_foreign_tables
from storage.tables import METADATA


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is there."""

    revision: str | None
    """Of the schema; None: there are no tables yet."""
    writable: bool
    """Whether its user may write to it, and make what is missing of the schema."""
    audit_entries: int
    """How many have been counted; 0 where the schema is not the newest."""

    @property
    def newest(self) -> bool:
        return self.revision == REVISIONS[-1]


async def look(address: Address) -> Seen:
    """What the database has. A file must be there.

    Raises:
        StorageUnavailable: it cannot be used.
        SchemaUnknown: a newer version of the program has been here, or another program.
    """
    engine = make_engine(address, looks=True)
    try:
        async with transaction(engine, address.shown, snapshot_options(address)) as connection:
            revision = await connection.run(known_revision, address.shown)
            if revision is None:
                await connection.run(refuse_foreign_tables, address.shown)
            newest = revision == REVISIONS[-1]
            return Seen(
                revision=revision,
                writable=await _is_writable(connection, newest=newest),
                audit_entries=await version(connection, TOPIC) if newest else 0,
            )
    finally:
        await asyncio.shield(call(address.shown, engine.dispose))


async def _is_writable(connection: Connection, *, newest: bool) -> bool:
    if connection.dialect == "sqlite":
        # The modes of the file and of its directory tell.
        return True
    if await connection.scalar(
        text("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool")
    ):
        return False
    if not newest:
        return bool(await connection.scalar(text("SELECT has_schema_privilege(current_schema(), 'CREATE')")))
    return await connection.run(_may_insert)


def _may_insert(connection: sqlalchemy.Connection) -> bool:
    asked = text("SELECT has_table_privilege(:name, 'INSERT')")
    return all(connection.scalar(asked, {"name": f"{name}"}) for name in METADATA.tables)
