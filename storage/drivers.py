"""The one map from the exceptions of SQLAlchemy and of the databases' drivers to ours.

An exception that is in no line of it is a fault of ours, and is raised as it is.
"""

import errno

from sqlalchemy import exc

from storage.errors import Reason, StorageUnavailable

_ADVICE = {
    Reason.UNREACHABLE: "cannot be reached: see that it runs and that `storage.url` names it",
    Reason.DENIED: "lets us not in: check the user, the password and the database in `storage.url`, and the files' mode",
    Reason.LOCKED: "is locked by another process: end what holds it",
    Reason.SLOW: "does not answer in time: see what keeps it busy",
    Reason.FULL: "has no room: free some on its disk",
    Reason.READ_ONLY: "can only be read: make it writable, or name the writable one in `storage.url`",
    Reason.DAMAGED: "is damaged: restore a backup",
    Reason.FAILING: "fails: its log tells why",
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html: a code, or a class (its first two characters).
_OF_SQLSTATE = {
    "08": Reason.UNREACHABLE,  # connection exceptions
    "28": Reason.DENIED,  # invalid authorization specification
    "3D": Reason.DENIED,  # no such database
    "42501": Reason.DENIED,  # insufficient_privilege
    "40": Reason.LOCKED,  # transaction rollback: deadlock, serialization failure
    "55P03": Reason.LOCKED,  # lock_not_available
    "57014": Reason.SLOW,  # query_canceled: statement_timeout
    "57P": Reason.UNREACHABLE,  # shutdown, crash, still starting
    "53300": Reason.UNREACHABLE,  # too_many_connections
    "53": Reason.FULL,  # insufficient resources
    "25006": Reason.READ_ONLY,  # read_only_sql_transaction: a standby
    "58": Reason.FAILING,  # system errors
    "XX": Reason.DAMAGED,  # internal error, data or index corrupted
}

# https://www.sqlite.org/rescode.html: primary codes; extended ones begin with theirs.
_OF_SQLITE = {
    "SQLITE_BUSY": Reason.LOCKED,
    "SQLITE_LOCKED": Reason.LOCKED,
    "SQLITE_INTERRUPT": Reason.SLOW,
    "SQLITE_FULL": Reason.FULL,
    "SQLITE_NOMEM": Reason.FULL,
    "SQLITE_READONLY": Reason.READ_ONLY,
    "SQLITE_PERM": Reason.DENIED,
    "SQLITE_AUTH": Reason.DENIED,
    "SQLITE_CANTOPEN": Reason.UNREACHABLE,
    "SQLITE_CORRUPT": Reason.DAMAGED,
    "SQLITE_NOTADB": Reason.DAMAGED,
    "SQLITE_IOERR": Reason.FAILING,
    "SQLITE_PROTOCOL": Reason.FAILING,
}

_OF_ERRNO = {
    errno.EACCES: Reason.DENIED,
    errno.EPERM: Reason.DENIED,
    errno.EROFS: Reason.READ_ONLY,
    errno.ENOSPC: Reason.FULL,
    errno.EDQUOT: Reason.FULL,
}


def unavailable(error: Exception, where: str) -> StorageUnavailable | None:
    """What ``error`` of a driver or of SQLAlchemy means; None where it is no matter of the database being there.

    ``where`` names the database, without a password.
    """
    reason = _reason(error)
    if reason is None:
        return None
    return StorageUnavailable(f"the database {where} {_ADVICE[reason]} ({_cause(error)})", reason)


def _reason(error: Exception) -> Reason | None:
    raised = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    state = getattr(raised, "sqlstate", None)
    if isinstance(state, str):
        return _of_code(_OF_SQLSTATE, state)
    name = getattr(raised, "sqlite_errorname", None)
    if isinstance(name, str):
        return _of_code(_OF_SQLITE, name)
    if isinstance(raised, TimeoutError | exc.TimeoutError):
        return Reason.SLOW
    if isinstance(raised, OSError):
        return _OF_ERRNO.get(raised.errno or 0, Reason.UNREACHABLE)
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return Reason.UNREACHABLE
    return None


def _of_code(reasons: dict[str, Reason], code: str) -> Reason | None:
    fitting = [prefix for prefix in reasons if code.startswith(prefix)]
    return reasons[max(fitting, key=len)] if fitting else None


def _cause(error: Exception) -> str:
    """The driver's own words: without the statement and its values, which SQLAlchemy's text would tell."""
    raised: BaseException = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    raised = raised.__cause__ or raised  # SQLAlchemy's adapter of asyncpg puts an error of its own around
    # The first line: further ones give details, which may hold values.
    return next(iter(str(raised).splitlines()), "") or type(raised).__name__
