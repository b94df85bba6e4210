"""The audit: who did what, one entry after the other, each with a hash over itself and over the hash before it.

The hash is SHA-256 over the hash of the entry before (of the first: 32 zero bytes) and the entry as JSON in UTF-8: one
object of all columns but the two hashes, its names sorted, no space in it. An entry's number (`seq`) is counted by the
topic `audit` too (storage/changes.py). So what is changed, taken out or put elsewhere shows, and so does a tail that is
cut; from one who may write to all of the database, only by a hash that is known from elsewhere, such as the log.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, select

from storage.changes import bump, version
from storage.connection import Connection
from storage.database import Database
from storage.pages import decode_cursor, encode_cursor
from storage.records import AuditBreak, AuditEntry, AuditFilter, AuditHead, NewAuditEntry, Page, VerifiedAudit
from storage.tables import audit

TOPIC = "audit"
BEGINNING = bytes(32)
"""What stands for the hash before the first entry."""
_AT_A_TIME = 500

_NAMES = tuple(column.name for column in audit.columns)
_UNHASHED = frozenset({"previous_hash", "hash"})
_EQUAL = ("actor", "resource", "resource_id", "outcome")
_GLOB = frozenset("*?")


def entry_hash(previous: bytes, row: dict[str, Any]) -> bytes:
    """The hash of an entry: ``row`` has its columns, by their names."""
    told = {name: value for name, value in row.items() if name not in _UNHASHED}
    return hashlib.sha256(previous + msgspec.json.encode(told, order="sorted")).digest()


class AuditStore:
    """The audit of one database. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[NewAuditEntry]) -> AuditHead | None:
        """Add those that are not there yet, in their order; gives the head of the chain, None where it has none."""
        async with self._database.transaction() as connection:
            # From here on nobody else appends.
            counted = await bump(connection, TOPIC, 0)
            new = await _those_not_there(connection, entries)
            last = (await _several(connection, select(audit).order_by(audit.c.seq.desc()).limit(1))) or None
            previous = last[0].hash if last else BEGINNING
            # Where a tail was cut, the numbers that are missing tell; where more is there than was counted, go on all the same.
            seq = max(counted, last[0].seq if last else 0)
            rows = []
            for entry in new:
                seq += 1
                row = msgspec.structs.asdict(entry) | {"seq": seq, "previous_hash": previous}
                previous = row["hash"] = entry_hash(previous, row)
                rows.append(row)
            if rows:
                await connection.execute(audit.insert(), rows)
                await bump(connection, TOPIC, seq - counted)
                return AuditHead(seq, previous)
            return AuditHead(last[0].seq, previous) if last else None

    async def list(
        self, wanted: AuditFilter | None = None, *, cursor: str | None = None, limit: int = 100
    ) -> Page[AuditEntry]:
        """Newest first.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        async with self._database.reading() as connection:
            where = _conditions(wanted or AuditFilter(), connection.dialect)
            if cursor is not None:
                where.append(audit.c.seq < decode_cursor(cursor, tuple[int])[0])
            statement = select(audit).where(*where).order_by(audit.c.seq.desc()).limit(limit + 1)
            found = await _several(connection, statement)
        if len(found) <= limit:
            return Page(found)
        return Page(found[:limit], encode_cursor(found[limit - 1].seq))

    async def verify(self, expected_head: bytes | None = None) -> VerifiedAudit:
        """Follow the chain from its beginning, all of it of one state.

        ``expected_head`` is the hash of some entry, known from elsewhere: without that entry a tail has been cut.
        """
        previous, seq, seen = BEGINNING, 0, expected_head in {None, BEGINNING}
        async with self._database.reading() as connection:
            counted = await version(connection, TOPIC)
            # A number below the first is none of ours, and is found too.
            after = -(1 << 63)
            while entries := await _several(
                connection, select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(_AT_A_TIME)
            ):
                for entry in entries:
                    broken = broken_link(entry, seq, previous)
                    if broken is not None:
                        return VerifiedAudit(head=_head(seq, previous), broken=broken)
                    seq = after = entry.seq
                    previous = entry.hash
                    seen = seen or previous == expected_head
        head = _head(seq, previous)
        if counted > seq:
            missing = AuditBreak(seq + 1, f"is missing, and all after it: {counted} have been counted")
            return VerifiedAudit(head=head, broken=missing)
        if counted < seq:
            added = AuditBreak(counted + 1, f"was put in, or the count changed: {counted} have been counted")
            return VerifiedAudit(head=head, broken=added)
        if not seen:
            return VerifiedAudit(
                head=head, broken=AuditBreak(seq + 1, "is missing: no entry has the hash that was given")
            )
        return VerifiedAudit(head=head)


def _head(seq: int, last: bytes) -> AuditHead | None:
    return AuditHead(seq, last) if seq else None


def broken_link(entry: AuditEntry, before: int, previous: bytes) -> AuditBreak | None:
    """What is wrong with ``entry``, which comes after the one with the number ``before`` and the hash ``previous``."""
    if entry.seq <= before:
        return AuditBreak(entry.seq, "has a number that there cannot be")
    if entry.seq != before + 1:
        return AuditBreak(before + 1, "is missing")
    if entry.previous_hash != previous:
        return AuditBreak(entry.seq, "does not follow the entry before it: one of them was changed or put elsewhere")
    if entry.hash != entry_hash(previous, msgspec.structs.asdict(entry)):
        return AuditBreak(entry.seq, "was changed: its hash is not that of what it says")
    return None


async def _those_not_there(connection: Connection, entries: Sequence[NewAuditEntry]) -> list[NewAuditEntry]:
    by_id = {entry.id: entry for entry in entries}
    ids = list(by_id)
    for start in range(0, len(ids), _AT_A_TIME):
        found = await connection.execute(select(audit.c.id).where(audit.c.id.in_(ids[start : start + _AT_A_TIME])))
        for known in found.scalars():
            del by_id[known]
    return list(by_id.values())


async def _several(connection: Connection, statement: Any) -> tuple[AuditEntry, ...]:
    rows = (await connection.execute(statement)).all()
    return tuple(AuditEntry(**dict(zip(_NAMES, row, strict=True))) for row in rows)


def _conditions(wanted: AuditFilter, dialect: str) -> list[ColumnElement[bool]]:
    found = [audit.c[name] == value for name in _EQUAL if (value := getattr(wanted, name)) is not None]
    if wanted.action is not None:
        found.append(_fits(audit.c.action, wanted.action, dialect))
    if wanted.since is not None:
        found.append(audit.c.at >= wanted.since)
    if wanted.until is not None:
        found.append(audit.c.at < wanted.until)
    return found


def _fits(column: ColumnElement[str], pattern: str, dialect: str) -> ColumnElement[bool]:
    """Case counts. SQLite's LIKE takes no notice of it, and PostgreSQL has no GLOB."""
    if _GLOB.isdisjoint(pattern):
        return column == pattern
    if dialect == "sqlite":
        return column.bool_op("GLOB")(pattern.replace("[", "[[]"))
    for character in "\\%_":
        pattern = pattern.replace(character, f"\\{character}")
    return column.like(pattern.replace("*", "%").replace("?", "_"), escape="\\")
