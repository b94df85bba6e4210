"""The outbox of webhooks: events that are to be delivered, and what became of each delivery.

A delivery is taken by one process at a time, for a while: if that process ends without a word, another takes it again when
the while is over. So every delivery that was committed is made at least once, and now and then twice.
"""

import secrets
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, exists, func, select, text, tuple_

from storage.changes import bump
from storage.connection import Connection
from storage.database import Database
from storage.pages import decode_cursor, encode_cursor
from storage.records import Page
from storage.webhook_records import (
    DEAD,
    DELIVERED,
    PENDING,
    ClaimedDelivery,
    DisabledWebhook,
    DueDeliveries,
    OutboxEvent,
    SettledDelivery,
    StoredDelivery,
)
from storage.webhook_tables import deliveries, disabled, outbox

PRUNE_TOPIC = "webhooks.prune"
_AT_A_TIME = 500
_SECOND = 1_000_000

# What is there already was written by a try that seemed to fail, or is read from the spool again.
_ADD_EVENT = text(
    "INSERT INTO webhook_outbox (id, type, at, payload) VALUES (:id, :type, :at, :payload) ON CONFLICT DO NOTHING"
)
_ADD_DELIVERY = text(
    "INSERT INTO webhook_deliveries (event_id, webhook, at, state, state_at, attempts) "
    "VALUES (:event_id, :webhook, :at, 'pending', :at, 0) ON CONFLICT DO NOTHING"
)
_SETTLE = (
    deliveries.update()
    .where(
        deliveries.c.event_id == bindparam("of_event"),
        deliveries.c.webhook == bindparam("of_webhook"),
        deliveries.c.claim == bindparam("of_claim"),
    )
    .values({name: bindparam(name) for name in ("state", "state_at", "attempts")} | {"claim": None})
)
_TRIED = ("attempted_at", "status", "failure", "took")
_SETTLE_TRIED = _SETTLE.values({name: bindparam(name) for name in _TRIED})
_SHOWN = (
    deliveries.c.webhook,
    deliveries.c.event_id,
    outbox.c.type,
    deliveries.c.at,
    deliveries.c.state,
    deliveries.c.state_at,
    deliveries.c.claim.is_not(None).label("claimed"),
    deliveries.c.attempts,
    deliveries.c.attempted_at,
    deliveries.c.status,
    deliveries.c.failure,
    deliveries.c.took,
)


class WebhookStore:
    """The outbox of one database. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, events: Sequence[OutboxEvent]) -> None:
        """Keep those that are not there yet."""
        if not events:
            return
        rows = [{"id": one.id, "type": one.type, "at": one.at, "payload": one.payload} for one in events]
        wanted = [{"event_id": one.id, "webhook": name, "at": one.at} for one in events for name in one.webhooks]
        async with self._database.transaction() as connection:
            await connection.execute(_ADD_EVENT, rows)
            await connection.execute(_ADD_DELIVERY, wanted)

    async def due(self) -> tuple[DueDeliveries, ...]:
        """Of each webhook for which anything is pending."""
        statement = (
            select(deliveries.c.webhook, func.min(deliveries.c.state_at), func.count())
            .where(deliveries.c.state == PENDING)
            .group_by(deliveries.c.webhook)
        )
        async with self._database.reading() as connection:
            return tuple(DueDeliveries(*row) for row in (await connection.execute(statement)).all())

    async def claim(self, webhook: str, most: int, seconds: float) -> tuple[ClaimedDelivery, ...]:
        """Take up to ``most`` that are due, the longest due first; for ``seconds`` nobody else does."""
        now = self._database.now()
        until, claim = now + round(seconds * _SECOND), secrets.token_hex(8)
        due = (
            select(deliveries.c.event_id)
            .where(deliveries.c.state == PENDING, deliveries.c.webhook == webhook, deliveries.c.state_at <= now)
            .order_by(deliveries.c.state_at, deliveries.c.event_id)
            .limit(most)
            # SQLite has one writer at a time anyway.
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        taken = (
            deliveries.update()
            .where(deliveries.c.webhook == webhook, deliveries.c.event_id.in_(select(due.c.event_id)))
            .values(state_at=until, claim=claim)
            .returning(deliveries.c.event_id, deliveries.c.attempts)
        )
        async with self._database.transaction() as connection:
            attempts = {row[0]: row[1] for row in (await connection.execute(taken)).all()}
            events = select(outbox).where(outbox.c.id.in_(list(attempts))).order_by(outbox.c.at, outbox.c.id)
            rows = (await connection.execute(events)).all() if attempts else []
        return tuple(
            ClaimedDelivery(
                webhook=webhook,
                event_id=row.id,
                type=row.type,
                payload=row.payload,
                attempts=attempts[row.id],
                claim=claim,
                until=until,
            )
            for row in rows
        )

    async def settle(self, settled: Sequence[SettledDelivery]) -> None:
        """Keep what became of deliveries, as far as nobody else has taken them meanwhile."""
        rows = [_settled_row(one) for one in settled]
        tried = [row for row in rows if row["attempted_at"] is not None]
        others = [
            {name: row[name] for name in row if name not in _TRIED} for row in rows if row["attempted_at"] is None
        ]
        async with self._database.transaction() as connection:
            for statement, some in ((_SETTLE_TRIED, tried), (_SETTLE, others)):
                if some:
                    await connection.execute(statement, some)

    async def keep_tried(self, event: OutboxEvent, settled: SettledDelivery) -> None:
        """Keep an event whose one delivery has been made already."""
        row = _settled_row(settled)
        values = {name: row[name] for name in ("state", "state_at", "attempts", *_TRIED)}
        async with self._database.transaction() as connection:
            await connection.execute(
                _ADD_EVENT, {"id": event.id, "type": event.type, "at": event.at, "payload": event.payload}
            )
            await connection.execute(
                deliveries.insert().values(event_id=event.id, webhook=settled.webhook, at=event.at, **values)
            )

    async def give_up(self, webhook: str, failure: str, before: int | None = None) -> int:
        """What is pending for ``webhook``, and nobody has taken, is dead from now on; how many there were.

        ``before``: those alone that happened before a time.
        """
        now = self._database.now()
        wanted = [deliveries.c.webhook == webhook, deliveries.c.state == PENDING, _free(now)]
        if before is not None:
            wanted.append(deliveries.c.at < before)
        values = {"state": DEAD, "state_at": now, "claim": None, "failure": failure}
        async with self._database.transaction() as connection:
            return (await connection.execute(deliveries.update().where(*wanted).values(values))).rowcount

    async def redeliver(self, webhook: str, event_ids: Collection[str]) -> int:
        """Deliver these again, from the schedule's beginning, but those that a process has now; how many they are."""
        return await self._revive(webhook, deliveries.c.event_id.in_(list(event_ids)))

    async def redeliver_dead(self, webhook: str, since: int) -> int:
        """The same for all that have been given up since a time."""
        return await self._revive(webhook, (deliveries.c.state == DEAD) & (deliveries.c.state_at >= since))

    async def _revive(self, webhook: str, which: ColumnElement[bool]) -> int:
        now = self._database.now()
        values = {"state": PENDING, "state_at": now, "claim": None, "attempts": 0}
        wanted = (deliveries.c.webhook == webhook, which, _free(now))
        async with self._database.transaction() as connection:
            return (await connection.execute(deliveries.update().where(*wanted).values(values))).rowcount

    async def list(
        self, webhook: str, *, state: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[StoredDelivery]:
        """Newest event first.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        wanted = [deliveries.c.webhook == webhook]
        if state is not None:
            wanted.append(deliveries.c.state == state)
        if cursor is not None:
            at, event_id = decode_cursor(cursor, tuple[int, str])
            wanted.append(tuple_(deliveries.c.at, deliveries.c.event_id) < tuple_(at, event_id))
        order = deliveries.c.at.desc(), deliveries.c.event_id.desc()
        async with self._database.reading() as connection:
            found = await _several(connection, *wanted, order=order, limit=limit + 1)
        if len(found) <= limit:
            return Page(found)
        return Page(found[:limit], encode_cursor(found[limit - 1].at, found[limit - 1].event_id))

    async def get(self, webhook: str, event_id: str) -> tuple[StoredDelivery, str] | None:
        """A delivery, and its payload."""
        async with self._database.reading() as connection:
            found = await _several(connection, deliveries.c.webhook == webhook, deliveries.c.event_id == event_id)
            if not found:
                return None
            payload = await connection.scalar(select(outbox.c.payload).where(outbox.c.id == event_id))
        return found[0], payload

    async def disable(self, webhook: str, address: bytes) -> None:
        """The endpoint at ``address`` (as of :class:`DisabledWebhook`) wants nothing more."""
        async with self._database.transaction() as connection:
            await connection.execute(disabled.delete().where(disabled.c.webhook == webhook))
            values = {"webhook": webhook, "at": self._database.now(), "address": address}
            # Another process may be told the same at this moment.
            await connection.execute(
                text(
                    "INSERT INTO webhook_disabled (webhook, at, address) VALUES (:webhook, :at, :address) "
                    "ON CONFLICT DO NOTHING"
                ),
                values,
            )

    async def enable(self, webhook: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(disabled.delete().where(disabled.c.webhook == webhook))

    async def disabled(self) -> tuple[DisabledWebhook, ...]:
        async with self._database.reading() as connection:
            return tuple(DisabledWebhook(*row) for row in (await connection.execute(select(disabled))).all())

    async def prune(self, *, ended_before: int, most_delivered: int) -> int:
        """Forget deliveries that ended before a time, and of those that were made the oldest beyond ``most_delivered`` of
        each webhook. Some at a time: how many there were, 0 when all is done."""
        async with self._database.transaction() as connection:
            # By one at a time: of two that each take one delivery of an event, neither would see that the event can go.
            await bump(connection, PRUNE_TOPIC, 0)
            ended = (
                select(deliveries.c.state, deliveries.c.webhook, func.min(deliveries.c.state_at), func.count())
                .where(deliveries.c.state.in_((DELIVERED, DEAD)))
                .group_by(deliveries.c.state, deliveries.c.webhook)
            )
            for state, webhook, first, count in (await connection.execute(ended)).all():
                most = count - most_delivered if state == DELIVERED else 0
                if most > 0 or first < ended_before:
                    of_these: list[ColumnElement[bool]] = [deliveries.c.state == state, deliveries.c.webhook == webhook]
                    if most <= 0:
                        of_these.append(deliveries.c.state_at < ended_before)
                    return await _forget(connection, of_these, min(most, _AT_A_TIME) if most > 0 else _AT_A_TIME)
        return 0


async def _forget(connection: Connection, which: Sequence[ColumnElement[bool]], most: int) -> int:
    oldest = select(deliveries.c.event_id, deliveries.c.webhook).where(*which)
    rows = (await connection.execute(oldest.order_by(deliveries.c.state_at).limit(most))).all()
    ids = [row.event_id for row in rows]
    await connection.execute(deliveries.delete().where(*which, deliveries.c.event_id.in_(ids)))
    delivered = exists().where(deliveries.c.event_id == outbox.c.id)
    await connection.execute(outbox.delete().where(outbox.c.id.in_(ids), ~delivered))
    return len(ids)


def _free(now: int) -> ColumnElement[bool]:
    """Nobody has it."""
    return deliveries.c.claim.is_(None) | (deliveries.c.state_at <= now)


def _settled_row(settled: SettledDelivery) -> dict[str, Any]:
    row = msgspec.structs.asdict(settled)
    return row | {f"of_{name}": row.pop(name) for name in ("webhook", "claim")} | {"of_event": row.pop("event_id")}


async def _several(
    connection: Connection, *wanted: ColumnElement[bool], order: Sequence[ColumnElement[Any]] = (), limit: int = 1
) -> tuple[StoredDelivery, ...]:
    joined = select(*_SHOWN).join_from(deliveries, outbox, deliveries.c.event_id == outbox.c.id)
    rows = (await connection.execute(joined.where(*wanted).order_by(*order).limit(limit))).all()
    return tuple(StoredDelivery(**(dict(row._mapping) | {"claimed": bool(row.claimed)})) for row in rows)  # noqa: SLF001  public, by its docs
