"""The wait for a limit, where it asks for that (`max_wait_seconds`): in lines, of which each is as fair as it is long.

There is one line for each counter that refuses. Who comes while others wait goes behind them, though there might be room at
the moment; who is at the head asks again when the window ends, when a lease here gives something back, and, as leases
elsewhere may too, every now and then. Nobody waits for what cannot come in time. Lines are bounded, all together and each by
the room that is left: who finds them full is refused at once. Each process has lines of its own.
"""

import asyncio
from collections import deque
from math import inf

from access.quotas.amounts import Amounts, Metric
from access.quotas.limits import Limit, Limits
from access.quotas.outcomes import HELD_RETRY_SECONDS, Admission, Counter, Lease, Refused
from access.quotas.store import QuotaStore

MOST_WAITING = 1000
POLL_SECONDS = 0.1


class _Line:
    """Those who wait for one counter, first come first."""

    __slots__ = ("_told", "_told_at", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Event] = deque()
        self._told: Refused | None = None
        self._told_at = 0.0

    def tell(self, refused: Refused) -> None:
        """The one at the head was refused."""
        self._told, self._told_at = refused, _now()

    def refusal(self, limit: Limit) -> Refused:
        """As for the one at the head, for another who has this ``limit`` of the same counter."""
        assert self._told is not None
        told, since = self._told, _now() - self._told_at
        reset = max(told.reset_seconds - since, 0.0)
        retry = HELD_RETRY_SECONDS if limit.metric is Metric.CONCURRENCY else reset
        now = told.now + int(since * 1000)
        counter = Counter(limit.key, 0 if limit.window is None else now + int(reset * 1000), told.used)
        return Refused(limit, told.used, reset, retry, Limits([limit]), (counter,), now)

    def wake(self) -> None:
        """Something may have changed for the one at the head, or there is another one."""
        if self.waiting:
            self.waiting[0].set()


class WaitingStore:
    """A :class:`access.quotas.store.QuotaStore` before another, in which requests wait."""

    __slots__ = ("_count", "_lines", "_most", "_poll", "_store")

    def __init__(self, store: QuotaStore, most: int = MOST_WAITING, poll_seconds: float = POLL_SECONDS) -> None:
        """``most`` requests wait at a time, in all lines together."""
        self._store = store
        self._most = most
        self._poll = poll_seconds
        self._lines: dict[str, _Line] = {}
        self._count = 0

    @property
    def inner(self) -> QuotaStore:
        """The store behind this one: whose limits let nobody wait may as well ask there."""
        return self._store

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._count

    async def admit(self, limits: Limits, charges: Amounts) -> Admission:
        key = self._line_before(limits) if self._lines and limits.patient else None
        if key is None:
            outcome = await self._store.admit(limits, charges)
            if not isinstance(outcome, Refused) or outcome.limit.max_wait_seconds <= 0:
                return outcome
            return await self._wait(limits, charges, outcome)
        mine = next(each for each in limits.all if each.key == key and each.max_wait_seconds > 0)
        return await self._wait(limits, charges, self._lines[key].refusal(mine))

    def decide(self, limits: Limits, charges: Amounts) -> Admission | None:
        if self._lines and limits.patient:
            return None
        outcome = self._store.decide(limits, charges)
        # Who may wait asks again, in its turn: nothing was counted.
        return None if type(outcome) is Refused and outcome.limit.max_wait_seconds > 0 else outcome

    def settle(self, lease: Lease, actual: Amounts) -> None:
        self._store.settle(lease, actual)
        if self._lines:
            self._wake(lease.limits)

    def release(self, lease: Lease) -> None:
        self._store.release(lease)
        if self._lines:
            self._wake(lease.limits)

    async def start(self) -> None:
        await self._store.start()

    async def close(self) -> None:
        await self._store.close()

    def _line_before(self, limits: Limits) -> str | None:
        """The counter at which others wait already."""
        for each in limits.all:
            if each.max_wait_seconds > 0 and each.key in self._lines:
                return each.key
        return None

    def _full(self, key: str) -> bool:
        """Whether nobody more may wait for this counter. A line is never longer than the room that is left: so who floods one
        leaves others half of all."""
        line = self._lines.get(key)
        return (0 if line is None else len(line.waiting)) >= self._most - self._count

    def _wake(self, limits: Limits) -> None:
        for check in limits.checks:
            if check.key in self._lines:
                self._lines[check.key].wake()

    async def _wait(self, limits: Limits, charges: Amounts, refused: Refused) -> Admission:
        """Stand in the line of what refuses, and in the next where another limit does then."""
        began = now = _now()
        deadline = inf
        while True:
            deadline = min(deadline, began + refused.limit.max_wait_seconds)
            if self._full(refused.limit.key) or not _in_time(refused, now, deadline):
                return refused
            outcome = await self._stand(limits, charges, refused, deadline)
            if isinstance(outcome, Lease):
                outcome.waited = True
            if not isinstance(outcome, Refused) or outcome.limit.key == refused.limit.key:
                return outcome
            refused, now = outcome, _now()

    async def _stand(self, limits: Limits, charges: Amounts, refused: Refused, deadline: float) -> Admission:
        """Until it is admitted, its time is over, or another limit refuses."""
        key = refused.limit.key
        line = self._lines.setdefault(key, _Line())
        if not line.waiting:
            line.tell(refused)
        turn = asyncio.Event()
        line.waiting.append(turn)
        self._count += 1
        try:
            if line.waiting[0] is turn:
                await self._pause(turn, refused, deadline)
            else:
                await _until(turn, deadline)
                if line.waiting[0] is not turn:
                    return line.refusal(refused.limit)
            while True:
                turn.clear()
                outcome = await self._store.admit(limits, charges)
                if not isinstance(outcome, Refused) or outcome.limit.key != key:
                    return outcome
                line.tell(outcome)
                if not _in_time(outcome, _now(), deadline):
                    return outcome
                await self._pause(turn, outcome, deadline)
        finally:
            self._count -= 1
            line.waiting.remove(turn)
            line.wake()
            if not line.waiting:
                del self._lines[key]

    async def _pause(self, turn: asyncio.Event, refused: Refused, deadline: float) -> None:
        wait = self._poll if refused.limit.metric is Metric.CONCURRENCY else refused.reset_seconds
        await _until(turn, min(_now() + wait, deadline))

    def __repr__(self) -> str:
        return f"<WaitingStore {self._count} in {len(self._lines)} lines, before {self._store!r}>"


def _in_time(refused: Refused, now: float, deadline: float) -> bool:
    """Whether it may still come to be admitted."""
    if now >= deadline or refused.retry_after_seconds is None:
        return False
    return refused.limit.metric is Metric.CONCURRENCY or now + refused.reset_seconds <= deadline


async def _until(turn: asyncio.Event, deadline: float) -> None:
    try:
        async with asyncio.timeout_at(deadline):
            await turn.wait()
    except TimeoutError:
        pass  # who waited looks for itself


def _now() -> float:
    return asyncio.get_running_loop().time()
