"""Pieces of work that an answer did not wait for, so that whoever asked can see what became of them."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from storage.changes import bump
from storage.connection import Connection
from storage.database import Database
from storage.errors import NotFound
from storage.pages import decode_cursor, encode_cursor
from storage.records import Job, Page
from storage.tables import jobs as table

TOPIC = "jobs"
KEPT = 1000

_SHOWN = [column for column in table.columns if column.name not in {"seq", "owner"}]


class JobStore:
    """The last jobs. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database, kept: int = KEPT) -> None:
        self._database = database
        self._kept = kept

    async def begin(self, job_id: str, kind: str, owner: str | None = None) -> Job:
        """Keep a new one, which runs from now on; the oldest beyond the bound are forgotten.

        ``owner`` names the process that runs it, for :meth:`fail_running`.

        Raises:
            sqlalchemy.exc.IntegrityError: the id is there already.
        """
        job = Job(id=job_id, kind=kind, state="running", created_at=self._database.now())
        async with self._database.transaction() as connection:
            number = await bump(connection, TOPIC)
            row = {"id": job.id, "seq": number, "kind": kind, "state": job.state, "created_at": job.created_at}
            await connection.execute(table.insert().values(row | {"owner": owner}))
            await connection.execute(table.delete().where(table.c.seq <= number - self._kept))
        return job

    async def end(self, job_id: str, state: str, result: Any = None) -> Job:
        """It is `done` or `failed`, with ``result``, a value of JSON. What has ended before stays as it is.

        Raises:
            NotFound: there is no such job, or no longer.
        """
        async with self._database.transaction() as connection:
            ended = {"state": state, "finished_at": self._database.now(), "result": result}
            running = (table.c.id == job_id) & (table.c.state == "running")
            await connection.execute(table.update().where(running).values(ended))
            found = await _several(connection, table.c.id == job_id, 1)
        if not found:
            raise NotFound(f"there is no job `{job_id}`")
        return found[0][1]

    async def fail_running(self, gone: Collection[str], began_before: int) -> int:
        """Those that run still, of owners that are ``gone`` or of any but begun before a time, have failed. How many."""
        async with self._database.reading() as connection:
            if await connection.scalar(select(1).where(table.c.state == "running").limit(1)) is None:
                return 0
        async with self._database.transaction() as connection:
            left = or_(table.c.owner.in_(gone), table.c.created_at < began_before)
            failed = {"state": "failed", "finished_at": self._database.now()}
            statement = table.update().where(table.c.state == "running", left).values(failed)
            return (await connection.execute(statement)).rowcount

    async def get(self, job_id: str) -> Job | None:
        async with self._database.reading() as connection:
            found = await _several(connection, table.c.id == job_id, 1)
        return found[0][1] if found else None

    async def list(self, *, cursor: str | None = None, limit: int = 100) -> Page[Job]:
        """Newest first.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        wanted = table.c.seq < decode_cursor(cursor, tuple[int])[0] if cursor is not None else None
        async with self._database.reading() as connection:
            found = await _several(connection, wanted, limit + 1)
        more = encode_cursor(found[limit - 1][0]) if len(found) > limit else None
        return Page(tuple(job for _, job in found[:limit]), more)


async def _several(
    connection: Connection, wanted: ColumnElement[bool] | None, limit: int
) -> tuple[tuple[int, Job], ...]:
    """With their numbers."""
    statement = select(table.c.seq, *_SHOWN).order_by(table.c.seq.desc()).limit(limit)
    if wanted is not None:
        statement = statement.where(wanted)
    rows = (await connection.execute(statement)).all()
    names = [column.name for column in _SHOWN]
    return tuple((row[0], Job(**dict(zip(names, row[1:], strict=True)))) for row in rows)
