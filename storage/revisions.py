"""What the configuration was: the files of each revision, so that one can be looked at, compared and restored."""

import zlib

import msgspec
from sqlalchemy import ColumnElement, select, tuple_

from storage.changes import bump, hold
from storage.connection import Connection
from storage.database import Database
from storage.pages import decode_cursor, encode_cursor
from storage.records import Files, KeptRevision, Page, RevisionMeta, StoredRevision
from storage.tables import config_revisions as table

TOPIC = "config_revisions"
KEPT = 1000


class RevisionStore:
    """The last revisions. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database, kept: int = KEPT) -> None:
        self._database = database
        self._kept = kept

    async def keep(
        self, files: Files, meta: RevisionMeta, *, first: tuple[Files, RevisionMeta] | None = None
    ) -> KeptRevision:
        """Keep what was put in force, and forget the oldest beyond the bound.

        What an edit has made is always added; what was found is not where its neighbours in the list are the same, and
        nothing is added twice. Where nothing is kept yet, ``first`` is kept before it.
        """
        # Before the transaction, as others wait for that.
        packed = _packed(files)
        packed_first = None if first is None else (_packed(first[0]), first[1])
        async with self._database.transaction() as connection:
            # What is looked at here stays so until its end: others add revisions too.
            await hold(connection, TOPIC)
            if packed_first is not None and not await _several(connection, None, 1):
                await self._add(connection, *packed_first)
            previous = next(iter(await _several(connection, table.c.at <= meta.at, 1)), None)
            if await _is_there(connection, meta, previous):
                return KeptRevision(None, previous)
            return KeptRevision(await self._add(connection, packed, meta), previous)

    async def _add(self, connection: Connection, packed: bytes, meta: RevisionMeta) -> StoredRevision:
        number = await bump(connection, TOPIC)
        row = msgspec.structs.asdict(meta) | {"id": f"{meta.revision}-{number}", "seq": number}
        await connection.execute(table.insert().values(**row, files=packed))
        await connection.execute(table.delete().where(table.c.seq <= number - self._kept))
        return StoredRevision(**row)

    async def list(self, *, cursor: str | None = None, limit: int = 100) -> Page[StoredRevision]:
        """Newest first, by when they were put in force.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        wanted = None
        if cursor is not None:
            wanted = tuple_(table.c.at, table.c.seq) < tuple_(*decode_cursor(cursor, tuple[int, int]))
        async with self._database.reading() as connection:
            found = await _several(connection, wanted, limit + 1)
        if len(found) <= limit:
            return Page(found)
        return Page(found[:limit], encode_cursor(found[limit - 1].at, found[limit - 1].seq))

    async def get(self, revision_id: str) -> tuple[StoredRevision, Files] | None:
        """One with its files, by its id, or the newest of a hash alone; None where it is not there, or no longer."""
        column = table.c.id if "-" in revision_id else table.c.revision
        async with self._database.reading() as connection:
            return await _one(connection, column == revision_id)

    async def before(self, revision: StoredRevision) -> tuple[StoredRevision, Files] | None:
        """The one that ``revision`` took the place of; where that is not kept, the one below it in the list."""
        older = tuple_(table.c.at, table.c.seq) < tuple_(revision.at, revision.seq)
        async with self._database.reading() as connection:
            found = None
            if revision.before is not None:
                # Of the same hash are the same files, whichever of them it was.
                found = await _one(connection, table.c.revision == revision.before)
            return found if found is not None else await _one(connection, older)


_SHOWN = [column for column in table.columns if column.name != "files"]
_NAMES = [column.name for column in _SHOWN]
_NEWEST_FIRST = (table.c.at.desc(), table.c.seq.desc())


def _packed(files: Files) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(files))


async def _is_there(connection: Connection, meta: RevisionMeta, previous: StoredRevision | None) -> bool:
    """``previous``: the newest that is not newer than ``meta``."""
    if previous is not None and (previous.revision, previous.at) == (meta.revision, meta.at):
        return True  # a transaction that counted, though its answer was lost
    if meta.before is not None:
        return False
    following = select(table.c.revision).where(table.c.at > meta.at).order_by(table.c.at, table.c.seq).limit(1)
    neighbours = previous and previous.revision, await connection.scalar(following)
    return meta.revision in neighbours


async def _one(connection: Connection, wanted: ColumnElement[bool]) -> tuple[StoredRevision, Files] | None:
    """The newest of those, with its files."""
    statement = select(*_SHOWN, table.c.files).where(wanted).order_by(*_NEWEST_FIRST).limit(1)
    row = (await connection.execute(statement)).first()
    if row is None:
        return None
    *shown, packed = row
    files = msgspec.msgpack.decode(zlib.decompress(packed), type=Files)
    return StoredRevision(**dict(zip(_NAMES, shown, strict=True))), files


async def _several(
    connection: Connection, wanted: ColumnElement[bool] | None, limit: int
) -> tuple[StoredRevision, ...]:
    statement = select(*_SHOWN).order_by(*_NEWEST_FIRST).limit(limit)
    if wanted is not None:
        statement = statement.where(wanted)
    rows = (await connection.execute(statement)).all()
    return tuple(StoredRevision(**dict(zip(_NAMES, row, strict=True))) for row in rows)
