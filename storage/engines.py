"""SQLAlchemy's engines as we use them: Core alone, over drivers of asyncio.

Not by ``sqlalchemy.ext.asyncio``, which brings the ORM: 7 MB and 75 ms for nothing. A plain engine with a driver of asyncio
is called within ``greenlet_spawn``, which is what that package does too (storage/database.py).
"""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from storage.address import Address, Server, SqliteFile

WRITES = "sluice_writes"
"""Execution option: the transaction will write. SQLite lets a reader become a writer only if nobody wrote meanwhile."""

BUSY_SECONDS = 5.0
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
# Values are hidden in errors: they would be logged with them.
_OPTIONS: dict[str, Any] = {"pool_size": 4, "max_overflow": 4, "pool_timeout": 10, "hide_parameters": True}


def make_engine(address: Address, *, patient: bool = False, looks: bool = False) -> Engine:
    """An engine for the database; connects when it is first used.

    ``patient``: a statement may take as long as it needs; ``looks``: a file is left as it is.
    """
    match address:
        case SqliteFile():
            return _sqlite(address, _look_at_sqlite if looks else _set_up_sqlite)
        case Server():
            return _postgresql(address, None if patient else ANSWER_SECONDS)


def snapshot_options(address: Address) -> dict[str, Any]:
    """What makes all of a transaction's reads see one state. SQLite's do so by themselves (WAL)."""
    if isinstance(address, Server):
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return {}


def _sqlite(file: SqliteFile, set_up: Callable[[Any, object], None]) -> Engine:
    # It logs every statement with its values.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    # isolation_level None: Python's module begins no transaction by itself; ours begin below.
    arguments = {"isolation_level": None, "timeout": BUSY_SECONDS}
    engine = create_engine(URL.create("sqlite+aiosqlite", database=str(file.path)), connect_args=arguments, **_OPTIONS)
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _look_at_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA query_only = ON")
        cursor.execute("PRAGMA trusted_schema = OFF")
    finally:
        cursor.close()


def _set_up_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        # Readers beside the writer. Kept in the file, so but for the first time this only asks.
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # A commit is on the disk when it returns: an audit must not lose its end with the power.
        cursor.execute("PRAGMA synchronous = FULL")
        # Nothing in the file may call functions that have effects (https://www.sqlite.org/pragma.html#pragma_trusted_schema).
        cursor.execute("PRAGMA trusted_schema = OFF")
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")


def _postgresql(server: Server, answer_seconds: float | None) -> Engine:
    arguments: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": answer_seconds,
        "server_settings": {"application_name": "sluice"},
    }
    if server.ssl_mode is not None:
        arguments["ssl"] = server.ssl_mode
    # Pre-ping: a server that was restarted costs a new connection, and not a failed transaction.
    url = URL.create(
        "postgresql+asyncpg",
        username=server.username,
        password=server.password,
        host=server.host,
        port=server.port,
        database=server.database,
    )
    return create_engine(url, connect_args=arguments, pool_pre_ping=True, **_OPTIONS)
