"""Webhooks for the tests of handlers: what is asked of them is answered from what a test has put here."""

from collections.abc import Collection

import msgspec

from storage.errors import BadCursor, NotFound
from storage.records import Page
from storage.webhook_records import DEAD, DELIVERED, PENDING, StoredDelivery
from webhooks.schedule import WORDS, Failure
from webhooks.service import WebhookDisabled, WebhookState

AT = 1_767_323_045_000_000
"""2026-01-02T03:04:05Z."""
PAYLOAD = '{"type":"config.applied","timestamp":"2026-01-02T03:04:05Z","data":{"duration_seconds":0.1234567890123}}'


def delivery(event_id: str, state: str = DELIVERED, **changes: object) -> StoredDelivery:
    one = StoredDelivery(
        webhook="ops",
        event_id=event_id,
        type="config.applied",
        at=AT,
        state=state,
        state_at=AT + 1_000_000,
        claimed=False,
        attempts=1,
        attempted_at=AT + 1_000_000,
        status=204,
        failure=None,
        took=2_500,
    )
    return msgspec.structs.replace(one, **changes)


class WebhooksStandIn:
    """:class:`webhooks.service.WebhookService` with the webhooks `ops`, and `gone`, whose endpoint has answered 410."""

    def __init__(self) -> None:
        self.states = {"ops": WebhookState(True, None), "gone": WebhookState(False, AT)}
        failed = delivery("evt_2", DEAD, status=500, failure=Failure.STATUS, attempts=10)
        waiting = delivery("evt_3", PENDING, status=None, failure=None, attempts=0, attempted_at=None, took=None)
        self.kept = {
            ("ops", each.event_id): each
            for each in (
                delivery("evt_1"),
                failed,
                waiting,
                msgspec.structs.replace(waiting, event_id="evt_4", claimed=True),
            )
        }
        self.kept["removed", "evt_5"] = delivery("evt_5", webhook="removed")
        self.asked: list[object] = []
        self.test_failure: Failure | None = None

    def _require(self, webhook: str) -> None:
        if webhook not in self.states:
            raise NotFound(f"there is no webhook `{webhook}`")

    def state(self, webhook: str) -> WebhookState:
        self._require(webhook)
        return self.states[webhook]

    async def deliveries(
        self, webhook: str, *, state: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[StoredDelivery]:
        if cursor is not None and not cursor.isdecimal():
            raise BadCursor("not a cursor")
        found = [each for (name, _), each in self.kept.items() if name == webhook and state in (None, each.state)]
        begin = int(cursor or 0)
        more = str(begin + limit) if len(found) > begin + limit else None
        return Page(tuple(found[begin : begin + limit]), more)

    async def delivery(self, webhook: str, event_id: str) -> tuple[StoredDelivery, str]:
        if (webhook, event_id) not in self.kept:
            raise NotFound(f"there is no delivery of `{event_id}` to the webhook `{webhook}`, or no longer")
        return self.kept[webhook, event_id], PAYLOAD

    async def redeliver(self, webhook: str, event_ids: Collection[str]) -> int:
        self._require_enabled(webhook)
        self.asked.append(tuple(event_ids))
        return sum((webhook, each) in self.kept and not self.kept[webhook, each].claimed for each in event_ids)

    async def redeliver_dead(self, webhook: str, since: int) -> int:
        self._require_enabled(webhook)
        self.asked.append(since)
        return sum(each.state == DEAD and each.state_at >= since for each in self.kept.values())

    def _require_enabled(self, webhook: str) -> None:
        self._require(webhook)
        if self.states[webhook].disabled_since is not None:
            raise WebhookDisabled(f"webhook `{webhook}` has answered 410: change its url")

    async def test(self, webhook: str) -> StoredDelivery:
        self._require(webhook)
        failure = self.test_failure
        return delivery("evt_6", DELIVERED if failure is None else DEAD, type="webhook.test", failure=failure)

    def failure_words(self, failure: str) -> str:
        return WORDS[Failure(failure)]
