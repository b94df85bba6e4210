"""What the configuration was: the files of each revision, so that one can be looked at, compared and restored."""

import zlib

import msgspec
from sqlalchemy import ColumnElement, select

from storage.changes import bump
from storage.connection import Connection
from storage.database import Database
from storage.pages import Page, decode_cursor, encode_cursor
from storage.tables import config_revisions as table

TOPIC = "config_revisions"
KEPT = 1000

Files = tuple[tuple[str, bytes], ...]
"""The root file and then its includes: the path of each, relative to the root's directory, and its bytes."""


class RevisionMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Where a revision comes from."""

    revision: str
    """The hash of the files (config/sources.py)."""
    author: str
    trigger: str
    """What brought it into force, such as `file`, `api` or `restore`."""
    comment: str | None = None


class StoredRevision(RevisionMeta, frozen=True, kw_only=True):
    """A revision as a list shows it."""

    id: str
    """The hash and the number: one that was restored has the hash of the earlier one."""
    seq: int
    at: int
    """Microseconds since the Unix epoch."""


class RevisionStore:
    """The last revisions. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database, kept: int = KEPT) -> None:
        self._database = database
        self._kept = kept

    async def keep(self, files: Files, meta: RevisionMeta) -> StoredRevision:
        """Keep what is in force now, and forget the oldest beyond the bound; the newest again adds nothing."""
        # Before the transaction, as others wait for that.
        packed = zlib.compress(msgspec.msgpack.encode(files))
        async with self._database.transaction() as connection:
            newest = await _several(connection, None, 1)
            if newest and newest[0].revision == meta.revision:
                return newest[0]
            number = await bump(connection, TOPIC)
            row = msgspec.structs.asdict(meta) | {
                "id": f"{meta.revision}-{number}",
                "seq": number,
                "at": self._database.now(),
            }
            await connection.execute(table.insert().values(**row, files=packed))
            await connection.execute(table.delete().where(table.c.seq <= number - self._kept))
            return StoredRevision(**row)

    async def list(self, *, cursor: str | None = None, limit: int = 100) -> Page[StoredRevision]:
        """Newest first.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        wanted = table.c.seq < decode_cursor(cursor, tuple[int])[0] if cursor is not None else None
        async with self._database.reading() as connection:
            found = await _several(connection, wanted, limit + 1)
        return Page(found[:limit], encode_cursor(found[limit - 1].seq) if len(found) > limit else None)

    async def get(self, revision_id: str) -> tuple[StoredRevision, Files] | None:
        """One with its files; None where it is not there, or no longer."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(*_SHOWN, table.c.files).where(table.c.id == revision_id))
            row = rows.first()
        if row is None:
            return None
        *shown, packed = row
        files = msgspec.msgpack.decode(zlib.decompress(packed), type=Files)
        return StoredRevision(**dict(zip(_NAMES, shown, strict=True))), files


_SHOWN = [column for column in table.columns if column.name != "files"]
_NAMES = [column.name for column in _SHOWN]


async def _several(
    connection: Connection, wanted: ColumnElement[bool] | None, limit: int
) -> tuple[StoredRevision, ...]:
    statement = select(*_SHOWN).order_by(table.c.seq.desc()).limit(limit)
    if wanted is not None:
        statement = statement.where(wanted)
    rows = (await connection.execute(statement)).all()
    return tuple(StoredRevision(**dict(zip(_NAMES, row, strict=True))) for row in rows)
