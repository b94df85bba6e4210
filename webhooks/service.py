"""Webhooks as one thing: what the gateway starts, tells of events and closes, and what the management API asks."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from core.clock import Clock
from core.events import Event
from core.ids import new_event_id
from storage.errors import NotFound
from storage.records import Page
from storage.webhook_records import DEAD, DELIVERED, OutboxEvent, SettledDelivery, StoredDelivery
from transport.messages import UpstreamClient
from webhooks.delivery import Deliverer, Limits
from webhooks.endpoint import Endpoint
from webhooks.observer import Observer
from webhooks.outbox import Bounds, Outbox
from webhooks.payload import WebhookTest, render_payload
from webhooks.schedule import WORDS, Failure
from webhooks.sending import send
from webhooks.subscriptions import Subscriptions

if TYPE_CHECKING:
    # At run time it is imported by whoever uses it first.
    from storage.webhooks import WebhookStore

_SECOND = 1_000_000
_CLOSE_SECONDS = 5.0


class WebhookDisabled(Exception):
    """The endpoint has answered 410, so nothing is sent to it."""


class WebhookState(msgspec.Struct, frozen=True):
    """How a webhook is, as far as this process knows."""

    failing: bool
    """Its endpoint has failed several times in a row, and is asked once in a while."""
    disabled_since: int | None
    """Microseconds since the Unix epoch; None where its endpoint has not answered 410."""


class WebhookService(Protocol):
    """What the management API asks. Names are of webhooks of the configuration in force.

    Every method that is awaited may raise :class:`storage.errors.StorageUnavailable`.
    """

    def state(self, webhook: str) -> WebhookState:
        """
        Raises:
            NotFound: there is no such webhook.
        """
        ...

    async def deliveries(
        self, webhook: str, *, state: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[StoredDelivery]:
        """Newest event first; also of a webhook that the configuration has no more.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        ...

    async def delivery(self, webhook: str, event_id: str) -> tuple[StoredDelivery, str]:
        """One of them, and the JSON text that is sent.

        Raises:
            NotFound: there is no such delivery.
        """
        ...

    async def redeliver(self, webhook: str, event_ids: Collection[str]) -> int:
        """Deliver these once more, with the same ids, whatever has become of them; how many that are. Those that are being
        delivered are not among them.

        Raises:
            NotFound: there is no such webhook.
            WebhookDisabled: a test must arrive first, or its url change.
        """
        ...

    async def redeliver_dead(self, webhook: str, since: int) -> int:
        """The same for all that have been given up since a time (microseconds since the Unix epoch). Raises alike."""
        ...

    async def test(self, webhook: str) -> StoredDelivery:
        """Send it the event `webhook.test`, once and now; gives what came of it. One that arrives at an endpoint that was
        disabled enables it.

        Raises:
            NotFound: there is no such webhook.
        """
        ...

    def failure_words(self, failure: str) -> str:
        """What a failure means, in words."""
        ...


class Webhooks:
    """Fulfils :class:`WebhookService`; for one event loop."""

    def __init__(
        self,
        store: "Callable[[], Awaitable[WebhookStore]]",
        exists: Callable[[], bool],
        spool: Path,
        client: UpstreamClient,
        clock: Clock,
        chance: Callable[[], float],
        observer: Observer | None = None,
        *,
        limits: Limits | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """``store`` opens the outbox's database, and ``exists`` tells whether there is one; ``spool`` is a directory for what
        waits for it; ``chance`` gives numbers in [0, 1)."""
        self._store = store
        self._exists = exists
        self._client = client
        self._clock = clock
        self._deliverer = Deliverer(store, client, clock, chance, observer, exists, limits=limits)
        self._outbox = Outbox(
            store, spool, clock, self._deliverer.wake, observer, refused=self._deliverer.refused, bounds=bounds
        )

    @property
    def outbox(self) -> Outbox:
        return self._outbox

    @property
    def deliverer(self) -> Deliverer:
        return self._deliverer

    def start(self) -> None:
        """Write what ended processes have left on the disk."""
        self._outbox.start()

    def follow(self, endpoints: Sequence[Endpoint], limits: Limits | None = None) -> frozenset[type[Event]]:
        """From now on these count; gives the kinds of events that anybody wants: no others need be offered.

        Raises:
            SubscriptionFault: one of them can match nothing. Nothing has changed then.
        """
        subscriptions = Subscriptions(endpoint.subscription for endpoint in endpoints)
        if limits is not None:
            self._deliverer.limits = limits
        self._deliverer.follow(endpoints)
        self._outbox.follow(subscriptions)
        return subscriptions.kinds

    def offer(self, event: Event) -> None:
        """An observer of all events (:meth:`core.events.Events.subscribe`)."""
        self._outbox.offer(event)

    async def commit_now(self) -> bool:
        """See :meth:`webhooks.outbox.Outbox.commit_now`."""
        return await self._outbox.commit_now()

    async def close(self) -> None:
        """Write what has come, and let tries end that are under way."""
        await self._outbox.close()
        await self._deliverer.close(_CLOSE_SECONDS)

    def state(self, webhook: str) -> WebhookState:
        self._endpoint(webhook)
        return WebhookState(self._deliverer.failing(webhook), self._deliverer.disabled_since(webhook))

    async def deliveries(
        self, webhook: str, *, state: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[StoredDelivery]:
        if not self._exists():
            return Page(())
        return await (await self._store()).list(webhook, state=state, cursor=cursor, limit=limit)

    async def delivery(self, webhook: str, event_id: str) -> tuple[StoredDelivery, str]:
        found = await (await self._store()).get(webhook, event_id) if self._exists() else None
        if found is None:
            raise NotFound(f"there is no delivery of `{event_id}` to the webhook `{webhook}`, or no longer")
        return found

    async def redeliver(self, webhook: str, event_ids: Collection[str]) -> int:
        self._require_enabled(webhook)
        count = await (await self._store()).redeliver(webhook, event_ids) if self._exists() else 0
        self._deliverer.wake((webhook,))
        return count

    async def redeliver_dead(self, webhook: str, since: int) -> int:
        self._require_enabled(webhook)
        count = await (await self._store()).redeliver_dead(webhook, since) if self._exists() else 0
        self._deliverer.wake((webhook,))
        return count

    async def test(self, webhook: str) -> StoredDelivery:
        endpoint = self._endpoint(webhook)
        at, event_id = self._now(), new_event_id()
        event = WebhookTest(webhook=webhook)
        payload = render_payload(event, at)
        outcome = await send(self._client, endpoint, event_id, payload, self._clock)
        now = self._now()
        settled = SettledDelivery(
            webhook=webhook,
            event_id=event_id,
            claim="",
            state=DELIVERED if outcome.delivered else DEAD,
            state_at=now,
            attempts=1,
            attempted_at=now,
            status=outcome.status,
            failure=outcome.failure,
            took=round(outcome.seconds * _SECOND),
        )
        store = await self._store()
        told = OutboxEvent(id=event_id, type=event.name, at=at, payload=payload, webhooks=(webhook,))
        await store.keep_tried(told, settled)
        if outcome.delivered:
            await self._deliverer.enable(webhook)
        found = await store.get(webhook, event_id)
        assert found is not None
        return found[0]

    def failure_words(self, failure: str) -> str:
        return WORDS[Failure(failure)]

    def _endpoint(self, webhook: str) -> Endpoint:
        endpoint = self._deliverer.endpoints.get(webhook)
        if endpoint is None:
            raise NotFound(f"there is no webhook `{webhook}`")
        return endpoint

    def _require_enabled(self, webhook: str) -> None:
        self._endpoint(webhook)
        if self._deliverer.disabled(webhook):
            raise WebhookDisabled(
                f"webhook `{webhook}` has answered 410: change its url, or test it until it answers 2xx"
            )

    def _now(self) -> int:
        return round(self._clock.time() * _SECOND)
