"""The delivery of what is in the outbox: a queue for each webhook, so that a slow or dead endpoint delays only itself.

Each process takes some deliveries at a time, for a while (storage/webhooks.py), makes them and says what became of them.
What it does not come to within that while, it gives back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from core.clock import Clock
from core.tasks import Tasks
from storage.errors import StorageUnavailable
from storage.webhook_records import DisabledWebhook, DueDeliveries
from transport.messages import UpstreamClient
from webhooks.endpoint import Endpoint
from webhooks.observer import Observer, Shed
from webhooks.queue import Queue, QueueStore
from webhooks.schedule import HORIZON_SECONDS, Failure, Outcome
from webhooks.tally import Tally

POLL_SECONDS = 5.0
"""So often each process looks what is due: for tries that are to come, and for what ended processes had taken."""
SWEEP_SECONDS = 60.0

_log = logging.getLogger("sluice.webhooks")


class Limits(msgspec.Struct, frozen=True):
    """Of what the database has for webhooks."""

    pending: int = 100_000
    """Deliveries of one webhook that are to be made; beyond it, events are shed for it."""
    delivered: int = 10_000
    """Deliveries of one webhook that were made and are kept to be looked at."""
    kept_seconds: float = 7 * 86400.0
    """So long a delivery is kept that was made or given up."""


class Store(QueueStore, Protocol):
    """Fits :class:`storage.webhooks.WebhookStore`, which is imported only when it is needed."""

    async def due(self) -> tuple[DueDeliveries, ...]: ...
    async def disable(self, webhook: str, address: bytes) -> None: ...
    async def enable(self, webhook: str) -> None: ...
    async def disabled(self) -> tuple[DisabledWebhook, ...]: ...
    async def prune(self, *, ended_before: int, most_delivered: int) -> int: ...


class Deliverer:
    """For one event loop; fulfils :class:`webhooks.queue.Owner`. Until there are endpoints nothing is looked for."""

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        client: UpstreamClient,
        clock: Clock,
        chance: Callable[[], float],
        observer: Observer | None = None,
        exists: Callable[[], bool] = lambda: True,
        *,
        limits: Limits | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """``chance`` gives numbers in [0, 1). ``exists`` tells whether there is a database: to look makes none."""
        self._store = store
        self._client = client
        self._clock = clock
        self._chance = chance
        self._observer = observer or Observer()
        self._exists = exists
        self._limits = limits or Limits()
        self._poll_seconds = poll_seconds
        self._tasks = Tasks()
        self._queues: dict[str, Queue] = {}
        self._watching: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._next = 0.0
        """When it looks again, in seconds since the Unix epoch."""
        self._sweep_at = clock.monotonic() + SWEEP_SECONDS
        self._disabled: dict[str, DisabledWebhook] = {}
        self._knows_disabled = False
        """They have been read once; nothing is sent before that."""
        self._dead = Tally("webhook deliveries are given up, and kept as dead letters: %s")
        self.refused: dict[str, Shed] = {}
        """Webhooks that take nothing now, and why."""
        self.trouble: str | None = None
        """Why the database was not read the last time; None where it was."""

    @property
    def limits(self) -> Limits:
        """May be changed at any time."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        return {name: queue.endpoint for name, queue in self._queues.items()}

    def disabled_since(self, webhook: str) -> int | None:
        """Since when its endpoint wants nothing more, in microseconds since the Unix epoch; None where that is not so."""
        found = self._disabled.get(webhook)
        return found.at if found is not None and self.disabled(webhook) else None

    def disabled(self, webhook: str) -> bool:
        """Whether its endpoint wants nothing more."""
        return self.refused.get(webhook) is Shed.DISABLED

    def failing(self, webhook: str) -> bool:
        """Whether its endpoint has failed several times in a row, as far as this process knows."""
        queue = self._queues.get(webhook)
        return queue is not None and queue.pace.failing

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """From now on these count. Tries that are under way end as they began."""
        wanted = {endpoint.name: endpoint for endpoint in endpoints}
        for name in self._queues.keys() - wanted.keys():
            self._queues.pop(name).stop()
        for name, endpoint in wanted.items():
            if name in self._queues:
                self._queues[name].endpoint = endpoint
            else:
                queue = self._queues[name] = Queue(self, endpoint)
                self._tasks.spawn(queue.run(), f"webhook {name}")
        for name in tuple(self.refused):
            self._judge(name, None)
        if self._queues and self._watching is None:
            self._watching = self._tasks.spawn(self._watch(), "webhooks")
        self.look()

    def wake(self, webhooks: Iterable[str]) -> None:
        """There is something new for these."""
        for name in webhooks:
            if (queue := self._queues.get(name)) is not None:
                queue.wake()

    def look(self, at: float = 0.0) -> None:
        """Look at ``at`` (seconds since the Unix epoch) what is due, or before."""
        if at < self._next:
            self._next = at
            self._look.set()

    async def close(self, within_seconds: float) -> None:
        """Begin nothing more, and wait for what is under way; what takes longer is tried again later, by whoever comes."""
        if self._watching is not None:
            self._watching.cancel()
        for queue in self._queues.values():
            queue.stop()
        await self._tasks.join(within_seconds)
        await self._tasks.cancel()
        self._dead.close()

    async def enable(self, webhook: str) -> None:
        """Its endpoint wants to be told again."""
        if self._disabled.pop(webhook, None) is not None:
            self._judge(webhook, None)
            await (await self._store()).enable(webhook)
        self.look()

    @property
    def client(self) -> UpstreamClient:
        return self._client

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def chance(self) -> Callable[[], float]:
        return self._chance

    async def store(self) -> Store:
        store = await self._store()
        if not self._knows_disabled:
            # What is to be delivered may be there before the first look.
            self._note_disabled(await store.disabled())
        return store

    def ended(self, webhook: str, outcome: Outcome) -> None:
        """One try has ended."""
        self._observer.tried(webhook, outcome)

    def given_up(self, webhook: str, failure: str, count: int) -> None:
        """So many deliveries more are dead letters."""
        if count:
            self._dead.add(f"webhook `{webhook}` ({failure})", count)
            self._observer.given_up(webhook, failure, count)

    async def gone(self, endpoint: Endpoint) -> None:
        """It has answered 410: whatever waits for it is given up, and nothing more comes.

        Raises:
            StorageUnavailable: the database does not take it.
        """
        store = await self._store()
        await store.disable(endpoint.name, endpoint.address)
        self._note_disabled(await store.disabled())
        _log.warning(
            "webhook `%s` answered 410: it gets nothing until its url changes or a test succeeds", endpoint.name
        )
        self.given_up(endpoint.name, Failure.DISABLED, await store.give_up(endpoint.name, Failure.DISABLED))

    async def keeps_failing(self, endpoint: Endpoint) -> None:
        """It was asked once more and failed: what has waited too long for it is given up.

        Raises:
            StorageUnavailable: the database does not take it.
        """
        before = round((self._clock.time() - HORIZON_SECONDS) * 1_000_000)
        count = await (await self._store()).give_up(endpoint.name, Failure.OVERDUE, before)
        self.given_up(endpoint.name, Failure.OVERDUE, count)

    async def _watch(self) -> None:
        while True:
            self._look.clear()
            self._next = self._clock.time() + self._poll_seconds
            try:
                await self._look_once()
                if self.trouble is not None:
                    _log.info("the outbox of webhooks is read again")
                    self.trouble = None
            except StorageUnavailable as error:
                if self.trouble is None:
                    _log.warning("webhooks wait for the database: %s", error)
                self.trouble = str(error)
            except Exception:
                _log.exception("the outbox of webhooks cannot be looked at")
            try:
                # By the look of the clock, but never less than a moment: another process may be about to take it.
                async with asyncio.timeout(min(max(self._next - self._clock.time(), 0.01), self._poll_seconds)):
                    await self._look.wait()
            except TimeoutError:
                pass

    async def _look_once(self) -> None:
        if not self._exists():
            return
        store = await self._store()
        self._note_disabled(await store.disabled())
        for known in tuple(self._disabled.values()):
            queue = self._queues.get(known.webhook)
            if queue is not None and queue.endpoint.address != known.address:
                _log.info("webhook `%s` has another url now, and is told again", known.webhook)
                await self.enable(known.webhook)
        now = self._clock.time()
        counts = dict.fromkeys(self._queues, 0)
        for due in await store.due():
            if (queue := self._queues.get(due.webhook)) is None:
                continue
            counts[due.webhook] = due.pending
            at = max(due.at / 1_000_000, now + queue.pace.wait_seconds(self._clock.monotonic()))
            if at <= now:
                queue.wake()
            elif at < self._next:
                self._next = at
        for name, pending in counts.items():
            self._observer.pending(name, pending)
            self._judge(name, pending)
        if self._clock.monotonic() >= self._sweep_at:
            self._sweep_at = self._clock.monotonic() + SWEEP_SECONDS
            await self._sweep(store)

    async def _sweep(self, store: Store) -> None:
        now = self._clock.time()
        for due in await store.due():
            if due.webhook not in self._queues:
                # For a while: another node may not have the newest configuration, or have it first.
                before = round((now - HORIZON_SECONDS) * 1_000_000)
                count = await store.give_up(due.webhook, Failure.REMOVED, before)
                self.given_up(due.webhook, Failure.REMOVED, count)
        before = round((now - self._limits.kept_seconds) * 1_000_000)
        while True:
            if not await store.prune(ended_before=before, most_delivered=self._limits.delivered):
                return
            # Others want to write too.
            await asyncio.sleep(0.05)

    def _note_disabled(self, disabled: Iterable[DisabledWebhook]) -> None:
        self._knows_disabled = True
        former, self._disabled = self._disabled, {one.webhook: one for one in disabled}
        for name in former.keys() | self._disabled.keys():
            self._judge(name, None)

    def _judge(self, webhook: str, pending: int | None) -> None:
        """Whether it takes anything; ``pending`` of it, where that is known."""
        queue, disabled = self._queues.get(webhook), self._disabled.get(webhook)
        if queue is None:
            self.refused.pop(webhook, None)
        elif disabled is not None and disabled.address == queue.endpoint.address:
            self.refused[webhook] = Shed.DISABLED
        elif pending is not None and pending > self._limits.pending:
            if self.refused.get(webhook) is not Shed.BACKLOG:
                _log.warning("webhook `%s`: %d deliveries wait for it, so further events are shed", webhook, pending)
            self.refused[webhook] = Shed.BACKLOG
        elif pending is not None or self.refused.get(webhook) is Shed.DISABLED:
            self.refused.pop(webhook, None)
