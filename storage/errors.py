"""How storing can fail, as one tree. Free of SQL's packages, as whoever calls storage imports it.

::

    StorageError
    ├── StorageUnavailable   not now: unreachable, locked, full, …; what was to be written can be written later
    │   └── SchemaUnknown    the database is of a version of the program that this one does not know, or of another one
    ├── StorageUrlFault      `storage.url` cannot be understood
    ├── AuditFull            the audit can take no more, neither into the database nor into its spool
    ├── TransferRefused      an export cannot be read, or not be taken into this database
    ├── NotFound             no such entry
    ├── NameTaken            another living entry has the name
    ├── Stale                the entry has changed since it was read
    ├── BadCursor            not a cursor that a list gave
    └── QueryTooLarge        what was asked takes the database too long

Messages name what and where and how to mend it, never a password.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a database cannot be used, in a word for metrics and events."""

    UNREACHABLE = "unreachable"
    DENIED = "denied"
    LOCKED = "locked"
    SLOW = "slow"
    FULL = "full"
    READ_ONLY = "read_only"
    DAMAGED = "damaged"
    FAILING = "failing"
    UNKNOWN_SCHEMA = "unknown_schema"


class StorageError(Exception):
    """Base of the tree."""


class StorageUnavailable(StorageError):
    """The database cannot be used now. Nothing of the transaction is kept, unless it was lost while it committed."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


class SchemaUnknown(StorageUnavailable):
    """The database has a revision of the schema that this program does not know, or tables of another program."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.UNKNOWN_SCHEMA)


class StorageUrlFault(StorageError):
    """`storage.url` is not one that can be used."""


class AuditFull(StorageError):
    """The audit can take no more now, so nothing that it would have to tell of may be done."""


class TransferRefused(StorageError):
    """What was exported cannot be read, or this database cannot take it."""


class NotFound(StorageError):
    """There is no such entry."""


class NameTaken(StorageError):
    """Another living entry has the name."""


class Stale(StorageError):
    """The entry has changed since it was read; ``present`` is its version now."""

    def __init__(self, message: str, present: int) -> None:
        super().__init__(message)
        self.present = present


class BadCursor(StorageError):
    """Not a cursor that a list gave."""


class QueryTooLarge(StorageError):
    """What was asked takes the database too long, so it was ended. The database is well."""
