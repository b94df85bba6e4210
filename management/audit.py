"""Who has changed what."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from core.identity import Role
from core.moments import Moment, microseconds, moment
from management.errors import RequestError, StorageError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.pages import Cursor, Limit, bad_cursor
from management.handler.permit import requires
from storage.errors import BadCursor
from storage.records import AuditEntry, AuditFilter

Text = Annotated[str, Meta(max_length=500)]


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries; what is left out does not matter."""

    actor: Text | None = None
    action: Annotated[str, Meta(max_length=500, description="`*` and `?` are wildcards: `config.*`")] | None = None
    resource: Text | None = None
    resource_id: Text | None = None
    outcome: Annotated[str, Meta(max_length=500, description="`done`, or the code of an error")] | None = None
    since: Annotated[datetime, Meta(tz=True, description="at that time or later")] | None = None
    until: Annotated[datetime, Meta(tz=True, description="before that time")] | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


class AuditEntryShown(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, when, from where, and how it ended."""

    seq: int
    id: str
    at: Moment
    actor: str
    actor_kind: str
    address: str | None
    action: str
    resource: str
    resource_id: str | None
    before: Any
    after: Any
    outcome: str
    """`done`, or the code of the error that refused it."""
    request_id: str | None
    previous_hash: str
    hash: str
    """In hexadecimal digits; see docs/storage.md for what it is taken of."""


class AuditList(msgspec.Struct, frozen=True):
    """Some of them, newest first. What waits for the database is not among them."""

    data: tuple[AuditEntryShown, ...]
    next_cursor: str | None
    waiting: int
    """At most so many entries of this machine are not in the list yet, wherever they belong in it; 0: none is missing."""


class AuditHeadShown(msgspec.Struct, frozen=True):
    """The end of the chain: to be kept elsewhere, as a cut tail shows by it alone."""

    seq: int
    """0: there is no entry yet."""
    hash: str | None


class Audit(ManagementHandler):
    """``/api/v1/audit``."""

    @operation(
        requires(Role.MANAGER, tokens=False),
        summary="List what was done, newest first.",
        query=AuditQuery,
        answers={200: AuditList},
        errors=(RequestError.INVALID_QUERY, StorageError.UNAVAILABLE),
    )
    async def get(self) -> None:
        query = self.read_query(AuditQuery)
        wanted = AuditFilter(
            actor=query.actor,
            action=query.action,
            resource=query.resource,
            resource_id=query.resource_id,
            outcome=query.outcome,
            since=microseconds(query.since),
            until=microseconds(query.until),
        )
        # First: what goes to the database meanwhile may be counted though it is there, and not the other way round.
        waiting = await self.dependencies.audit.waiting()
        try:
            page = await self.dependencies.audit.list(wanted, cursor=query.cursor, limit=query.limit)
        except BadCursor as error:
            raise bad_cursor() from error
        self.write_json(AuditList(tuple(map(_shown, page.entries)), page.next_cursor, waiting))


class AuditHead(ManagementHandler):
    """``/api/v1/audit/head``."""

    @operation(
        requires(Role.MANAGER, tokens=False),
        summary="Show the end of the audit's chain.",
        answers={200: AuditHeadShown},
        errors=(StorageError.UNAVAILABLE,),
    )
    async def get(self) -> None:
        newest = (await self.dependencies.audit.list(limit=1)).entries
        self.write_json(AuditHeadShown(newest[0].seq, newest[0].hash.hex()) if newest else AuditHeadShown(0, None))


def _shown(entry: AuditEntry) -> AuditEntryShown:
    return AuditEntryShown(
        seq=entry.seq,
        id=entry.id,
        at=moment(entry.at),
        actor=entry.actor,
        actor_kind=entry.actor_kind,
        address=entry.address,
        action=entry.action,
        resource=entry.resource,
        resource_id=entry.resource_id,
        before=_value(entry.before),
        after=_value(entry.after),
        outcome=entry.outcome,
        request_id=entry.request_id,
        previous_hash=entry.previous_hash.hex(),
        hash=entry.hash.hex(),
    )


def _value(text: str | None) -> Any:
    """As it was given; what is no JSON, as whoever can write to the database may make it, as the text that it is."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
