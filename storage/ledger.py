"""The ledger of requests, to be written to; storage/ledger_queries.py reads it.

Thousands of rows a second share a core with the requests that they tell of, so rows go to the database in the way that
costs this process least. SQLAlchemy's own way, a mapping for each row, costs four times as much.
"""

import asyncio
from collections.abc import Sequence
from itertools import chain

import msgspec
import sqlalchemy
from msgspec.structs import astuple
from sqlalchemy import Boolean, delete, select, text

from storage.connection import Connection
from storage.database import Database
from storage.ledger_records import LedgerRow
from storage.ledger_tables import ledger

ROWS_AT_ONCE = 256
"""Of so many the values are made in a row, which holds up the event loop by some 150 µs; so many are in a statement."""

_COLUMNS = len(LedgerRow.__struct_fields__)
_BOOLEANS = [place for place, column in enumerate(ledger.columns) if isinstance(column.type, Boolean)]
# Rows that are there already were written by a try that seemed to fail, or are read from the spool again.
_PASSING_OVER = "ON CONFLICT DO NOTHING"
_ONE = "(" + ", ".join("?" * _COLUMNS) + ")"
# In few statements: between two of them SQLite's thread and the event loop take the interpreter from each other.
_ADD_TO_SQLITE = [
    (size, f"INSERT INTO ledger VALUES {', '.join([_ONE] * size)} {_PASSING_OVER}")  # noqa: S608  no text of others is in it
    for size in (ROWS_AT_ONCE, 32, 4, 1)
]
# One text for all rows: to make it costs this process a quarter of what a value for each column does.
_ADD_TO_POSTGRESQL = text(
    "INSERT INTO ledger SELECT * FROM json_populate_recordset(CAST(NULL AS ledger), CAST(:rows AS json)) "
    "ON CONFLICT DO NOTHING"
)
_NULL = float("nan")
"""SQLite keeps a number that is none as NULL (https://www.sqlite.org/c3ref/bind_blob.html). For None and booleans Python's
`sqlite3` looks for an adapter, each time: six times the price."""


class LedgerStore:
    """The ledger of one database. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, rows: Sequence[LedgerRow]) -> int:
        """Keep those that are not there yet, all or none; how many these were.

        Texts must be without NUL, and numbers of 64 bits.
        """
        if not rows:
            return 0
        async with self._database.transaction() as connection:
            if connection.dialect == "sqlite":
                return await _add_to_sqlite(connection, rows)
            return await _add_to_postgresql(connection, rows)

    async def prune(self, before: int, most: int) -> int:
        """Delete rows from before a time, the oldest ``most`` of them; how many these were. Fewer: there are no others.

        Rows of one time go together.
        """
        last = (
            select(ledger.c.at)
            .where(ledger.c.at < before)
            .order_by(ledger.c.at, ledger.c.request_id)
            .offset(most - 1)
            .limit(1)
        )
        async with self._database.transaction() as connection:
            at = await connection.scalar(last)
            wanted = ledger.c.at < before if at is None else ledger.c.at <= at
            return (await connection.execute(delete(ledger).where(wanted))).rowcount


async def _add_to_sqlite(connection: Connection, rows: Sequence[LedgerRow]) -> int:
    added = start = 0
    for size, statement in _ADD_TO_SQLITE:
        values = []
        while len(rows) - start >= size:
            values.append(_values(rows[start : start + size]))
            start += size
            await asyncio.sleep(0)
        if values:
            added += await connection.run(_execute, statement, values)
    return added


def _execute(connection: sqlalchemy.Connection, statement: str, values: list[tuple[object, ...]]) -> int:
    return connection.exec_driver_sql(statement, values).rowcount


def _values(rows: Sequence[LedgerRow]) -> tuple[object, ...]:
    """One row's after the other's."""
    values: list[object] = [_NULL if value is None else value for value in chain.from_iterable(map(astuple, rows))]
    for place in _BOOLEANS:
        values[place::_COLUMNS] = [1 if value else 0 for value in values[place::_COLUMNS]]
    return tuple(values)


async def _add_to_postgresql(connection: Connection, rows: Sequence[LedgerRow]) -> int:
    encoded = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        # Without its brackets.
        encoded.append(msgspec.json.encode(rows[start : start + ROWS_AT_ONCE])[1:-1])
        await asyncio.sleep(0)
    values = {"rows": f"[{b','.join(encoded).decode()}]"}
    return (await connection.execute(_ADD_TO_POSTGRESQL, values)).rowcount
