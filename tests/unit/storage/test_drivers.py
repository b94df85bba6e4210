"""What the drivers' exceptions mean. Most of it is seen with real means too (tests/integration/test_storage_faults*.py)."""

import errno
import sqlite3
from typing import Any

import pytest
from sqlalchemy import exc

from storage.drivers import unavailable
from storage.errors import Reason


class ServerError(Exception):
    """An exception of a PostgreSQL driver."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("the server's words\nDETAIL: with a value")
        self.sqlstate = sqlstate


def _sqlite(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("sqlite's words")
    error.sqlite_errorname = name
    return error


def _wrapped(error: BaseException, **more: Any) -> exc.DBAPIError:
    return exc.DBAPIError("SELECT 'the statement'", {"a": "value"}, error, **more)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("08006", Reason.UNREACHABLE),
        ("57P01", Reason.UNREACHABLE),
        ("57P03", Reason.UNREACHABLE),
        ("53300", Reason.UNREACHABLE),
        ("53100", Reason.FULL),
        ("53200", Reason.FULL),
        ("28P01", Reason.DENIED),
        ("3D000", Reason.DENIED),
        ("42501", Reason.DENIED),
        ("40001", Reason.LOCKED),
        ("40P01", Reason.LOCKED),
        ("55P03", Reason.LOCKED),
        ("57014", Reason.SLOW),
        ("25006", Reason.READ_ONLY),
        ("58030", Reason.FAILING),
        ("XX001", Reason.DAMAGED),
    ],
)
def test_what_postgresql_says(state: str, reason: Reason) -> None:
    for error in (ServerError(state), _wrapped(ServerError(state))):
        found = unavailable(error, "DB")
        assert found is not None
        assert reason is found.reason
        assert str(found).startswith("the database DB ")
        assert str(found).endswith("(the server's words)")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SQLITE_BUSY", Reason.LOCKED),
        ("SQLITE_BUSY_SNAPSHOT", Reason.LOCKED),
        ("SQLITE_FULL", Reason.FULL),
        ("SQLITE_IOERR_WRITE", Reason.FAILING),
        ("SQLITE_READONLY_DIRECTORY", Reason.READ_ONLY),
        ("SQLITE_CANTOPEN", Reason.UNREACHABLE),
        ("SQLITE_PERM", Reason.DENIED),
        ("SQLITE_CORRUPT_VTAB", Reason.DAMAGED),
        ("SQLITE_NOTADB", Reason.DAMAGED),
    ],
)
def test_what_sqlite_says(name: str, reason: Reason) -> None:
    found = unavailable(_wrapped(_sqlite(name)), "DB")
    assert found is not None
    assert reason is found.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Reason.UNREACHABLE),
        (TimeoutError(), Reason.SLOW),
        (exc.TimeoutError("pool"), Reason.SLOW),
        (PermissionError(errno.EACCES, "no"), Reason.DENIED),
        (OSError(errno.ENOSPC, "full"), Reason.FULL),
        (OSError(errno.EROFS, "read-only"), Reason.READ_ONLY),
        (OSError("nothing more"), Reason.UNREACHABLE),
        (_wrapped(Exception("connection is closed"), connection_invalidated=True), Reason.UNREACHABLE),
    ],
)
def test_what_the_system_and_the_pool_say(error: Exception, reason: Reason) -> None:
    found = unavailable(error, "DB")
    assert found is not None
    assert reason is found.reason


@pytest.mark.parametrize(
    "error",
    [
        ServerError("42P01"),
        _wrapped(ServerError("23505")),
        _wrapped(_sqlite("SQLITE_CONSTRAINT_UNIQUE")),
        _wrapped(Exception("a fault of ours")),
        ValueError("a fault of ours"),
    ],
)
def test_a_fault_of_ours_is_not_blamed_on_the_database(error: Exception) -> None:
    assert None is unavailable(error, "DB")


def test_the_statement_and_its_values_are_not_told() -> None:
    found = unavailable(_wrapped(TimeoutError()), "DB")
    assert "the database DB does not answer in time: see what keeps it busy (TimeoutError)" == str(found)
