"""The deliveries of one webhook: how many at a time, and what is said of them."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from core.clock import Clock
from storage.errors import StorageUnavailable
from storage.webhook_records import DEAD, DELIVERED, PENDING, ClaimedDelivery, SettledDelivery
from transport.messages import UpstreamClient
from webhooks.endpoint import Endpoint
from webhooks.schedule import Failure, Outcome, Pace, next_try_seconds
from webhooks.sending import send

MOST_AT_ONCE = 64
"""Deliveries that are taken together: as many may be made twice when the process is killed."""
_QUICK_SECONDS = 0.5
_SLOW_SECONDS = 2.0
_MARGIN_SECONDS = 15.0
_FIRST_RETRY_SECONDS = 0.25
_LAST_RETRY_SECONDS = 15.0
_SECOND = 1_000_000

_log = logging.getLogger("sluice.webhooks")


class QueueStore(Protocol):
    """The part of :class:`storage.webhooks.WebhookStore` that deliveries are taken from."""

    async def claim(self, webhook: str, most: int, seconds: float) -> tuple[ClaimedDelivery, ...]: ...
    async def settle(self, settled: Sequence[SettledDelivery]) -> None: ...
    async def give_up(self, webhook: str, failure: str, before: int | None = None) -> int: ...


class Owner(Protocol):
    """Whose queues they are."""

    @property
    def client(self) -> UpstreamClient: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def chance(self) -> Callable[[], float]:
        """Gives numbers in [0, 1)."""
        ...

    async def store(self) -> QueueStore: ...

    def look(self, at: float) -> None:
        """See at ``at`` (seconds since the Unix epoch) which queues have something to do, and wake them."""
        ...

    def disabled(self, webhook: str) -> bool:
        """Whether its endpoint wants nothing more."""
        ...

    def ended(self, webhook: str, outcome: Outcome) -> None:
        """One try has ended."""
        ...

    def given_up(self, webhook: str, failure: str, count: int) -> None:
        """So many deliveries more are dead letters."""
        ...

    async def gone(self, endpoint: Endpoint) -> None:
        """It has answered 410: whatever waits for it is given up, and nothing more comes.

        Raises:
            StorageUnavailable: the database does not take it.
        """
        ...

    async def keeps_failing(self, endpoint: Endpoint) -> None:
        """It was asked once more and failed: what has waited too long for it is given up.

        Raises:
            StorageUnavailable: the database does not take it.
        """
        ...


class Queue:
    """One webhook's. ``run`` goes on until ``stop``."""

    def __init__(self, owner: Owner, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.pace = Pace()
        self._owner = owner
        self._clock = owner.clock
        self._work = asyncio.Event()
        self._stopped = False
        self._gone = False
        self._at_once = endpoint.concurrency
        """So many are taken next: the quicker they go, the more."""

    def wake(self) -> None:
        """Something may be due."""
        self._work.set()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        self._work.set()

    async def run(self) -> None:
        while not self._stopped:
            await self._work.wait()
            self._work.clear()
            try:
                while self._open() and await self._some():
                    pass
            except StorageUnavailable:
                # Whoever looks what is due meets it too, tells of it, and wakes us when it is over.
                continue
            except Exception:
                _log.exception("webhook `%s`: deliveries have failed within the gateway", self.endpoint.name)
                await asyncio.sleep(_FIRST_RETRY_SECONDS)

    def _open(self) -> bool:
        if self._stopped:
            return False
        wait = self.pace.wait_seconds(self._clock.monotonic())
        if wait > 0:
            self._owner.look(self._clock.time() + wait)
        return wait <= 0

    async def _some(self) -> bool:
        """Make the deliveries that are due, up to a number; whether there were any."""
        endpoint = self.endpoint
        most = 1 if self.pace.failing else max(self._at_once, endpoint.concurrency)
        store = await self._owner.store()
        if self._owner.disabled(endpoint.name):
            # It was on its way into the outbox when the endpoint said so.
            self._owner.given_up(endpoint.name, Failure.DISABLED, await store.give_up(endpoint.name, Failure.DISABLED))
            return False
        # The seconds are for two rounds of slow tries. Whatever has no time left by then goes back untried.
        claimed = await store.claim(endpoint.name, most, 2 * (endpoint.timeout_seconds + _MARGIN_SECONDS))
        if not claimed:
            return False
        was_failing = self.pace.failing
        began = self._clock.monotonic()
        settled = await self._make(endpoint, claimed)
        took = self._clock.monotonic() - began
        if took < _QUICK_SECONDS and len(claimed) == most:
            self._at_once = min(self._at_once * 2, MOST_AT_ONCE)
        elif took > _SLOW_SECONDS:
            self._at_once = max(self._at_once // 2, endpoint.concurrency)
        if self.pace.failing and not was_failing:
            _log.warning(
                "webhook `%s` keeps failing (%s): it is asked once in a while until it answers",
                endpoint.name,
                next((one.failure for one in reversed(settled) if one.failure), None),
            )
        elif was_failing and not self.pace.failing:
            _log.info("webhook `%s` answers again", endpoint.name)
        await self._until_taken(lambda: store.settle(settled))
        dead = Counter(one.failure for one in settled if one.state == DEAD)
        for failure, count in dead.items():
            self._owner.given_up(endpoint.name, failure or "", count)
        if self._gone:
            self._gone = False
            await self._until_taken(lambda: self._owner.gone(endpoint))
        elif self.pace.failing:
            await self._until_taken(lambda: self._owner.keeps_failing(endpoint))
        retries = [one.state_at for one in settled if one.state == PENDING]
        if retries:
            self._owner.look(min(retries) / _SECOND)
        return True

    async def _make(self, endpoint: Endpoint, claimed: Sequence[ClaimedDelivery]) -> list[SettledDelivery]:
        left = deque(claimed)
        settled: list[SettledDelivery] = []

        async def lane() -> None:
            while left and self._may_begin(endpoint, left[0]):
                one = left.popleft()
                outcome = await send(self._owner.client, endpoint, one.event_id, one.payload, self._clock)
                settled.append(self._judged(one, outcome))

        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(endpoint.concurrency, len(claimed))):
                lanes.create_task(lane())
                # One at a time: what else the event loop has to do does not wait for all of them.
                await asyncio.sleep(0)
        now = self._now()
        settled += (
            SettledDelivery(
                webhook=one.webhook,
                event_id=one.event_id,
                claim=one.claim,
                state=PENDING,
                state_at=now,
                attempts=one.attempts,
                attempted_at=None,
            )
            for one in left
        )
        return settled

    def _may_begin(self, endpoint: Endpoint, one: ClaimedDelivery) -> bool:
        in_time = self._now() + round(endpoint.timeout_seconds * _SECOND) < one.until
        return in_time and not self._stopped and not self._gone and not self.pace.wait_seconds(self._clock.monotonic())

    def _judged(self, one: ClaimedDelivery, outcome: Outcome) -> SettledDelivery:
        self.pace.ended(outcome, self._clock.monotonic())
        self._owner.ended(one.webhook, outcome)
        attempts = one.attempts + 1
        now = state_at = self._now()
        state = DELIVERED
        if not outcome.delivered:
            self._gone = self._gone or outcome.failure is Failure.GONE
            seconds = next_try_seconds(outcome, attempts, self._owner.chance())
            state = DEAD if seconds is None else PENDING
            state_at = now if seconds is None else now + round(seconds * _SECOND)
        return SettledDelivery(
            webhook=one.webhook,
            event_id=one.event_id,
            claim=one.claim,
            state=state,
            state_at=state_at,
            attempts=attempts,
            attempted_at=now,
            status=outcome.status,
            failure=outcome.failure,
            took=round(outcome.seconds * _SECOND),
        )

    async def _until_taken(self, write: Callable[[], Awaitable[None]]) -> None:
        """What was delivered must not be delivered again for the lack of a word, as long as there is time."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                return await write()
            except StorageUnavailable:
                if self._stopped:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_RETRY_SECONDS)

    def _now(self) -> int:
        return round(self._clock.time() * _SECOND)
