"""A whole database as lines of JSON, and back: for backups, and to go from SQLite to PostgreSQL or the other way.

::

    {"sluice_export":1,"schema":"0001"}
    {"table":"audit","row":{"seq":1,…}}           bytes are in base64, JSON is as it is
    …
    {"end":{"rows":{"audit":1,…},"sha256":"…"}}   over all bytes before this line

All of it is of one state of the database. The ledger of requests, which may be larger than all else by far, is in it on
demand; sign-ins under way, which end within minutes, are not.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, Table, bindparam, exc, select, text, tuple_

from storage.account_tables import logins
from storage.audit import BEGINNING, TOPIC, broken_link
from storage.connection import Connection
from storage.database import Database
from storage.errors import TransferRefused
from storage.ledger_tables import ledger
from storage.migrations import REVISIONS
from storage.records import AuditBreak, AuditEntry
from storage.tables import METADATA, Json, audit, changes, tokens

FORMAT = 1
_AT_A_TIME = 500
# SQLAlchemy's names are of a type of their own.
_TABLES = {f"{name}": table for name, table in sorted(METADATA.tables.items())}
_COLUMNS = {name: [f"{column}" for column in table.columns.keys()] for name, table in _TABLES.items()}  # noqa: SIM118  no dict


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    sluice_export: int
    schema: str


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    table: str
    row: dict[str, Any]


class _Totals(msgspec.Struct, forbid_unknown_fields=True):
    rows: dict[str, int]
    sha256: str


class _End(msgspec.Struct, forbid_unknown_fields=True):
    end: _Totals


async def export_all(
    database: Database, write: Callable[[bytes], object], *, with_usage: bool = False
) -> dict[str, int]:
    """Give ``write`` the lines, one after the other; how many rows of each table there were. ``with_usage``: the ledger too.

    Raises:
        StorageUnavailable: not now; what was written is of no use.
    """
    hashed = hashlib.sha256()

    def put(line: object) -> None:
        data = msgspec.json.encode(line) + b"\n"
        hashed.update(data)
        write(data)

    left_out = {logins} if with_usage else {logins, ledger}
    tables = {name: table for name, table in _TABLES.items() if table not in left_out}
    rows = dict.fromkeys(tables, 0)
    put(_Header(FORMAT, REVISIONS[-1]))
    async with database.reading() as connection:
        for name, table in tables.items():
            last: tuple[Any, ...] | None = None
            while found := await _some(connection, table, last):
                for row in found:
                    put(_Row(name, dict(zip(_COLUMNS[name], row, strict=True))))
                rows[name] += len(found)
                last = tuple(getattr(found[-1], column.name) for column in table.primary_key)
    put(_End(_Totals(rows, hashed.hexdigest())))
    return rows


async def _some(connection: Connection, table: Table, last: tuple[Any, ...] | None) -> list[Any]:
    key = list(table.primary_key)
    statement = select(table).order_by(*key).limit(_AT_A_TIME)
    if last is not None:
        statement = statement.where(tuple_(*key) > tuple_(*last))
    return list((await connection.execute(statement)).all())


async def import_all(
    database: Database, lines: Iterable[bytes], *, accept_broken_audit: bool = False
) -> dict[str, int]:
    """Put an export into an empty database, all of it or nothing; how many rows of each table there were.

    Raises:
        TransferRefused: the database is not empty, or what ``lines`` give is no whole export, or its audit's chain is broken.
        StorageUnavailable: not now.
    """
    async with database.transaction() as connection:
        await _see_that_all_is_empty(connection)
        taken = _Import(connection)
        try:
            for batch in _batches(_read(lines)):
                await taken.add(batch)
            await taken.finish()
        except exc.DBAPIError as error:
            # What the database does not take of it: a row twice, or none where there must be something.
            raise TransferRefused(f"the export does not fit: {str(error.orig).splitlines()[0]}") from None
        if taken.broken is not None and not accept_broken_audit:
            raise TransferRefused(
                f"the audit in the export is broken: {taken.broken}. To take it as it is: --accept-broken-audit"
            )
    return dict(taken.rows)


class _Import:
    """What has been taken so far."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.rows: Counter[str] = Counter(dict.fromkeys(_TABLES, 0))
        self.broken: AuditBreak | None = None
        self._audited = 0, BEGINNING
        self._counted = 0
        self._rotated: list[dict[str, str]] = []

    async def add(self, batch: list[_Row]) -> None:
        """``batch`` is of one table."""
        name = batch[0].table
        table = _TABLES[name]
        rows = [one.row for one in batch]
        self.rows[name] += len(rows)
        for row in rows:
            if table is audit:
                self._follow_chain(row)
            elif table is changes and row["topic"] == TOPIC:
                self._counted = row["version"]
            elif table is tokens and row["rotated_from"] is not None:
                # It may come before the token that it names.
                self._rotated.append({"own": row["id"], "former": row["rotated_from"]})
                row["rotated_from"] = None
        await self._connection.execute(table.insert(), rows)

    async def finish(self) -> None:
        if self._rotated:
            own = tokens.c.id == bindparam("own")
            statement = tokens.update().where(own).values(rotated_from=bindparam("former"))
            await self._connection.execute(statement, self._rotated)
        if self.broken is None and self._counted != self._audited[0]:
            self.broken = AuditBreak(self._audited[0] + 1, f"is missing: {self._counted} have been counted")

    def _follow_chain(self, row: dict[str, Any]) -> None:
        entry = AuditEntry(**row)
        if self.broken is None:
            self.broken = broken_link(entry, *self._audited)
            self._audited = entry.seq, entry.hash


def _read(lines: Iterable[bytes]) -> Iterator[_Row]:
    """The rows; at the end it is known that they are all."""
    hashed = hashlib.sha256()
    numbered = enumerate(lines, 1)
    number, line = next(numbered, (1, b""))
    header = _decoded(line, _Header, number)
    if header.sluice_export != FORMAT or header.schema != REVISIONS[-1]:
        raise TransferRefused(
            f"the export has format {header.sluice_export} and schema `{header.schema}`, and this program takes {FORMAT} and "
            f"`{REVISIONS[-1]}`: import it with the version that wrote it, and upgrade that database"
        )
    hashed.update(line)
    count: Counter[str] = Counter(dict.fromkeys(_TABLES, 0))
    for number, line in numbered:
        if line.startswith(b'{"end":'):
            totals = _decoded(line, _End, number).end
            if totals.sha256 != hashed.hexdigest() or Counter(totals.rows) != count:
                raise TransferRefused("the export is damaged: it is not what was written")
            return
        hashed.update(line)
        row = _decoded(line, _Row, number)
        count[row.table] += 1
        yield _Row(row.table, _values(row, number))
    raise TransferRefused(f"the export is cut: its last line, {number}, is not its end")


def _decoded(line: bytes, kind: type[Any], number: int) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError as error:
        raise TransferRefused(f"line {number} is not of an export of ./sluice export: {error}") from None


def _values(row: _Row, number: int) -> dict[str, Any]:
    """As the columns take them."""
    table = _TABLES.get(row.table)
    if table is None:
        raise TransferRefused(f"line {number} is of a table `{row.table}`, which there is not")
    if row.row.keys() != set(_COLUMNS[row.table]):
        raise TransferRefused(f"line {number} has not the columns of the table `{row.table}`")
    found = {}
    for name, value in row.row.items():
        column = table.columns[name]
        try:
            found[name] = _value(column, value)
        except (ValueError, TypeError):
            raise TransferRefused(f"line {number} has in `{name}` what cannot stand there") from None
    return found


def _value(column: Column[Any], value: Any) -> Any:
    """
    Raises:
        ValueError, TypeError: it is not of the column's type.
    """
    if value is None or isinstance(column.type, Json):
        return value
    if isinstance(column.type, LargeBinary):
        return base64.b64decode(value, validate=True)
    if isinstance(column.type, Boolean) and isinstance(value, bool):
        return value
    if isinstance(value, bool) or not isinstance(value, int if isinstance(column.type, BigInteger) else str):
        raise TypeError(column.name)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(column.name)
    return value


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    for row in rows:
        if batch and (row.table != batch[0].table or len(batch) == _AT_A_TIME):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


async def _see_that_all_is_empty(connection: Connection) -> None:
    if connection.dialect == "postgresql":
        # From here on no other adds anything: SQLite has one writer anyway.
        names = ", ".join(_TABLES)
        await connection.execute(text(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"))
    for name, table in _TABLES.items():
        if await connection.scalar(select(1).select_from(table).limit(1)) is not None:
            raise TransferRefused(
                f"the database is not empty: there is something in its table `{name}`. Import into a new one"
            )
