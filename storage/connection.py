"""A connection within a transaction, for coroutines."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple

import sqlalchemy
from sqlalchemy import CursorResult, Engine, Executable
from sqlalchemy.util.concurrency import greenlet_spawn

from storage.drivers import unavailable
from storage.errors import StorageUnavailable

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

Row = Mapping[str, Any]


class Connection:
    """What a transaction is done by. Results are whole: nothing of them waits for the database."""

    __slots__ = ("_connection", "_where")

    def __init__(self, connection: sqlalchemy.Connection, where: str) -> None:
        self._connection = connection
        self._where = where

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._connection.dialect.name

    async def execute(
        self, statement: Executable, parameters: Row | Sequence[Row] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """Several ``parameters`` execute the statement for each, and give no rows.

        Raises:
            StorageUnavailable: the database cannot be used now.
            sqlalchemy.exc.IntegrityError: a constraint is not kept.
        """
        return await call(self._where, self._connection.execute, statement, parameters)

    async def scalar(self, statement: Executable, parameters: Row | None = None) -> Any:
        """The first column of the first row; None where there is no row. Errors as of :meth:`execute`."""
        return (await self.execute(statement, parameters)).scalar()

    async def run(self, work: Callable[[sqlalchemy.Connection, *Ts], T], *args: *Ts) -> T:
        """``work`` with SQLAlchemy's own connection, in plain calls. Errors as of :meth:`execute`."""
        return await call(self._where, work, self._connection, *args)


async def call(where: str, work: Callable[[*Ts], T], *args: *Ts) -> T:
    """``work``, which calls SQLAlchemy, without blocking; ``where`` names the database in errors.

    Raises:
        StorageUnavailable: the database cannot be used now.
    """
    try:
        return await greenlet_spawn(work, *args)
    except Exception as error:
        found = unavailable(error, where)
        if found is None:
            raise
        raise found from error


@asynccontextmanager
async def transaction(engine: Engine, where: str, options: dict[str, Any]) -> AsyncIterator[Connection]:
    """A transaction of a connection of its own: committed at the end of the block, or, when that raises, rolled back."""
    connection = await call(where, _begin, engine, options)
    try:
        yield Connection(connection, where)
        await call(where, connection.commit)
    except BaseException:
        # Rolls back. Shielded, so that a second cancellation leaves no open transaction in the pool.
        try:
            await asyncio.shield(call(where, connection.close))
        except StorageUnavailable:
            pass  # nothing is kept of it then either; what went wrong first is what is told
        raise
    await asyncio.shield(call(where, connection.close))


def _begin(engine: Engine, options: dict[str, Any]) -> sqlalchemy.Connection:
    connection = engine.connect()
    try:
        connection = connection.execution_options(**options)
        connection.begin()
    except BaseException:
        connection.close()
        raise
    return connection
