"""Deliveries to webhooks: what became of each, and to make them once more."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from core.identity import Role
from core.moments import MICROSECONDS, Moment, microseconds, moment
from management.dependencies import Dependencies
from management.errors import ManagementError, RequestError, StorageError, WebhookError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.pages import Cursor, Limit, bad_cursor
from management.handler.permit import requires
from storage.errors import BadCursor, NotFound
from storage.webhook_records import PENDING, StoredDelivery
from webhooks.service import WebhookDisabled

State = Literal["pending", "delivered", "dead"]

MOST_AT_A_TIME = 1000
_AUDITED_IDS = 20


class DeliveryQuery(msgspec.Struct, frozen=True):
    """Which of them."""

    state: State | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


class DeliveryShown(msgspec.Struct, frozen=True, kw_only=True):
    """An event for a webhook, and what became of it."""

    event_id: str
    """What the receiver gets as `webhook-id`."""
    type: str
    """The event's name."""
    at: Moment
    """When it happened."""
    state: str
    """`pending`, `delivered`, or `dead`: given up."""
    under_way: bool
    """Whether some worker has it now."""
    next_try_at: datetime | None
    """Null: it is not pending."""
    ended_at: datetime | None
    """When it was delivered or given up; null: it is pending."""
    attempts: int
    """Tries since it happened, or was last asked for again."""
    attempted_at: datetime | None
    """When the last try ended."""
    status: int | None
    """What that was answered with."""
    took_seconds: float | None
    failure: str | None
    """A word, such as `timeout`: why the last try has failed, or why it was given up; null: it has not."""
    failure_message: str | None


class DeliveryContent(DeliveryShown, frozen=True, kw_only=True):
    """The same, with what is sent."""

    payload: Any
    """The JSON that is sent."""


class DeliveryList(msgspec.Struct, frozen=True):
    """Deliveries to one webhook, newest event first."""

    data: tuple[DeliveryShown, ...]
    next_cursor: str | None


class RedeliveryDraft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which deliveries are to be made once more: those of `event_ids`, or, since a time, those that were given up."""

    event_ids: (
        Annotated[
            tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...],
            Meta(min_length=1, max_length=MOST_AT_A_TIME),
        ]
        | UnsetType
    ) = UNSET
    since: Annotated[datetime, Meta(tz=True, description="all that were given up then or later")] | UnsetType = UNSET


class Redelivered(msgspec.Struct, frozen=True):
    """Deliveries that are pending again. The answer does not wait for them."""

    count: int


@contextmanager
def _told() -> Iterator[None]:
    """What the service raises, as answers."""
    try:
        yield
    except NotFound as error:
        raise ManagementError(WebhookError.NOT_FOUND, _sentence(error)) from error
    except WebhookDisabled as error:
        raise ManagementError(WebhookError.DISABLED, _sentence(error)) from error


class Deliveries(ManagementHandler):
    """``/api/v1/webhooks/{name}/deliveries``."""

    @operation(
        requires(Role.ADMIN),
        summary="List the deliveries to a webhook, newest event first.",
        query=DeliveryQuery,
        answers={200: DeliveryList},
        errors=(WebhookError.NOT_FOUND, StorageError.UNAVAILABLE),
    )
    async def get(self, name: str) -> None:
        query = self.read_query(DeliveryQuery)
        service = self.dependencies.webhooks
        try:
            page = await service.deliveries(name, state=query.state, cursor=query.cursor, limit=query.limit)
        except BadCursor as error:
            raise bad_cursor() from error
        if not page.entries:
            # Those of a webhook that was removed are shown as long as they are kept.
            with _told():
                service.state(name)
        shown = tuple(DeliveryShown(**_fields(self.dependencies, each)) for each in page.entries)
        self.write_json(DeliveryList(shown, page.next_cursor))


class DeliveryItem(ManagementHandler):
    """``/api/v1/webhooks/{name}/deliveries/{event_id}``."""

    @operation(
        requires(Role.ADMIN),
        summary="Show a delivery with what is sent.",
        answers={200: DeliveryContent},
        errors=(WebhookError.DELIVERY_NOT_FOUND, StorageError.UNAVAILABLE),
    )
    async def get(self, name: str, event_id: str) -> None:
        found, payload = await _delivery(self.dependencies, name, event_id)
        self.write_json(
            DeliveryContent(**_fields(self.dependencies, found), payload=msgspec.Raw(payload.encode())),
        )


class DeliveryRedelivery(ManagementHandler):
    """``/api/v1/webhooks/{name}/deliveries/{event_id}/redeliver``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Make a delivery once more, whatever has become of it, with the same id.",
        answers={202: Redelivered},
        errors=(
            WebhookError.NOT_FOUND,
            WebhookError.DELIVERY_NOT_FOUND,
            WebhookError.DISABLED,
            WebhookError.UNDER_WAY,
            StorageError.UNAVAILABLE,
        ),
        audit="delivery.redeliver",
    )
    async def post(self, name: str, event_id: str) -> None:
        self.audit("webhook", name, after={"event_id": event_id[:100]})
        before, _ = await _delivery(self.dependencies, name, event_id)
        with _told():
            count = await self.dependencies.webhooks.redeliver(name, (event_id,))
        if not count:
            raise ManagementError(
                WebhookError.UNDER_WAY,
                f"The delivery of `{before.event_id}` is being made: wait for what becomes of it.",
            )
        self.audit("webhook", name, before={"state": before.state}, after={"event_id": event_id})
        self.write_json(Redelivered(count), HTTPStatus.ACCEPTED)


class WebhookRedelivery(ManagementHandler):
    """``/api/v1/webhooks/{name}/redeliver``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Make some deliveries once more, or all that were given up since a time.",
        body=RedeliveryDraft,
        answers={202: Redelivered},
        errors=(RequestError.INVALID_BODY, WebhookError.NOT_FOUND, WebhookError.DISABLED, StorageError.UNAVAILABLE),
        audit="webhook.redeliver",
    )
    async def post(self, name: str) -> None:
        asked = self.read_body(RedeliveryDraft)
        service = self.dependencies.webhooks
        match asked.event_ids, asked.since:
            case tuple() as event_ids, UnsetType():
                if any("\0" in each for each in event_ids):
                    # PostgreSQL takes none, to compare with neither.
                    raise ManagementError(
                        RequestError.INVALID_BODY, "`event_ids` holds a NUL: nothing is called so.", param="event_ids"
                    )
                audited: dict[str, Any] = {"event_ids": event_ids[:_AUDITED_IDS], "of": len(event_ids)}
                redelivered = service.redeliver(name, event_ids)
            case UnsetType(), datetime() as since:
                audited = {"since": since}
                redelivered = service.redeliver_dead(name, microseconds(since))
            case _:
                raise ManagementError(RequestError.INVALID_BODY, "Send `event_ids` or `since`, and not both.")
        self.audit("webhook", name, after=audited)
        with _told():
            count = await redelivered
        self.audit("webhook", name, after=audited | {"count": count})
        self.write_json(Redelivered(count), HTTPStatus.ACCEPTED)


class WebhookTest(ManagementHandler):
    """``/api/v1/webhooks/{name}/test``."""

    __test__ = False  # pytest takes it for a test

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Send a webhook the event `webhook.test`, once and now; tell what came of it.",
        answers={200: DeliveryShown},
        errors=(WebhookError.NOT_FOUND, StorageError.UNAVAILABLE),
        audit="webhook.test",
    )
    async def post(self, name: str) -> None:
        self.audit("webhook", name)
        with _told():
            found = await self.dependencies.webhooks.test(name)
        shown = DeliveryShown(**_fields(self.dependencies, found))
        self.audit("webhook", name, after={"event_id": shown.event_id, "state": shown.state, "failure": shown.failure})
        self.write_json(shown)


async def _delivery(dependencies: Dependencies, webhook: str, event_id: str) -> tuple[StoredDelivery, str]:
    try:
        return await dependencies.webhooks.delivery(webhook, event_id)
    except NotFound as error:
        raise ManagementError(WebhookError.DELIVERY_NOT_FOUND, _sentence(error)) from error


def _fields(dependencies: Dependencies, found: StoredDelivery) -> dict[str, Any]:
    """Of a :class:`DeliveryShown`."""
    pending = found.state == PENDING
    since = moment(found.state_at)
    failure = found.failure
    return {
        "event_id": found.event_id,
        "type": found.type,
        "at": moment(found.at),
        "state": found.state,
        "under_way": pending and found.claimed,
        "next_try_at": since if pending else None,
        "ended_at": None if pending else since,
        "attempts": found.attempts,
        "attempted_at": moment(found.attempted_at),
        "status": found.status,
        "took_seconds": None if found.took is None else found.took / MICROSECONDS,
        "failure": failure,
        "failure_message": None if failure is None else dependencies.webhooks.failure_words(failure),
    }


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
