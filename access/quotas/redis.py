"""The store that many processes share: Redis counts, exactly, and everything that it does for a decision is one script.

Decisions that come together travel together. Nothing but ``admit`` waits for Redis, and that for a bounded time.

While Redis is away each process counts for itself (`local`), from where it has last seen the shared counters, or refuses
(`refuse`). Once Redis is back, it is told what was counted meanwhile and, if it has started anew, what it was last seen to
know; then decisions go to it again. Until then it is asked at least once a second.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable

from access.quotas.alone import Alone, Change
from access.quotas.amounts import NOTHING, Amounts
from access.quotas.calls import Calls, changed, decision
from access.quotas.channel import Channel, ChannelFailed
from access.quotas.counters import MOST_MADE_UP
from access.quotas.limits import Limits
from access.quotas.outage import Observer, OnFailure, Reason
from access.quotas.outcomes import Admission, Lease, Unavailable
from access.quotas.scripts import Scripts
from core.clock import Clock
from core.tasks import Tasks

_log = logging.getLogger("sluice.quotas")

PREFIX = "{sluice}:"
LEASE_SECONDS = 15.0
_BATCH = 1024
_MOST_ASKED = 8192
_MOST_FORMER = 8
_FIRST_PAUSE_SECONDS = 0.1
_LAST_PAUSE_SECONDS = 1.0
# A Redis that goes again so soon after it came is asked at longer and longer intervals, as if it had not come.
_STEADY_SECONDS = 10.0


class _Asked:
    """A decision that waits for Redis."""

    __slots__ = ("answer", "charges", "limits")

    def __init__(self, limits: Limits, charges: Amounts) -> None:
        self.limits = limits
        self.charges = charges
        self.answer: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()


class RedisStore:
    """As of :class:`access.quotas.store.QuotaStore`."""

    def __init__(
        self,
        channel: Channel,
        clock: Clock,
        *,
        on_failure: OnFailure = OnFailure.LOCAL,
        observer: Observer | None = None,
        prefix: str = PREFIX,
        lease_seconds: float = LEASE_SECONDS,
        most_made_up: int = MOST_MADE_UP,
        scripts: Scripts | None = None,
        new_name: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        """``prefix``: of all keys, with a hash tag. ``lease_seconds``: so long what is under way counts after its process died.

        ``most_made_up``: so many counters are kept of names that clients make up. ``new_name``: for processes, each another.
        """
        self._channel = channel
        self._clock = clock
        self._on_failure = on_failure
        self._observer = observer if observer is not None else Observer()
        self._scripts = scripts if scripts is not None else Scripts()
        self._calls = Calls(self._scripts, prefix, int(lease_seconds * 1000), most_made_up)
        self._beat_seconds = lease_seconds / 3
        self._new_name = new_name
        self._tasks = Tasks()
        self._working: asyncio.Task[None] | None = None

        self._up = self._closing = False
        self._down_since: float | None = None
        self._up_since = clock.monotonic()
        self._pause = 0.0
        self._name = ""
        self._former: deque[str] = deque(maxlen=_MOST_FORMER)
        self._run_id: str | None = None

        self._asked: deque[_Asked] = deque()
        self._changes: list[Change] = []
        self._beat_due = False
        self._wanted = asyncio.Event()

        self._alone = Alone(clock, most_made_up)
        self._told: dict[str, int] = {}  # how much Redis has been told is under way here
        self._untold: set[str] = set()  # where that is not so any more

    @property
    def up(self) -> bool:
        """Whether Redis decides."""
        return self._up

    async def start(self) -> None:
        """Ask Redis for the first time. Where it does not answer, the store begins without it."""
        await self._step()
        self._working = self._tasks.spawn(self._work(), "quotas: redis")
        self._tasks.spawn(self._beat(), "quotas: heartbeat")

    async def close(self) -> None:
        """Tell Redis what has ended, and that this process has; a Redis that is away finds out by itself."""
        self._closing = True
        if self._up and self._working is not None:
            self._wanted.set()
            await asyncio.wait([self._working], timeout=_LAST_PAUSE_SECONDS)
        await self._tasks.cancel()
        self._answer_alone()
        self._up = False
        await self._channel.close()

    def decide(self, limits: Limits, charges: Amounts) -> Admission | None:
        if not limits.checks or not self._up or len(self._asked) >= _MOST_ASKED:
            return self._decide_alone(limits, charges)
        return None

    async def admit(self, limits: Limits, charges: Amounts) -> Admission:
        decided = self.decide(limits, charges)
        if decided is not None:
            return decided
        asked = _Asked(limits, charges)
        self._asked.append(asked)
        self._wanted.set()
        try:
            return await asked.answer
        except asyncio.CancelledError:
            # The answer may have come just before: nobody else would end its lease.
            if asked.answer.done() and not asked.answer.cancelled():
                self._take_back(asked.answer.result())
            raise

    def settle(self, lease: Lease, actual: Amounts) -> None:
        if not lease.open:
            return
        lease.open = False
        for check, counter in zip(lease.limits.checks, lease.counters, strict=True):
            reserved = lease.reserved[check.place]
            if check.window is None:
                self._alone.let_go(check.key, reserved)
                self._untold.add(check.key)
            elif amount := actual[check.place] - reserved:
                change = Change(check, check.window, counter.key, counter.end, amount)
                if self._up:
                    self._changes.append(change)
                else:
                    self._alone.change(change)
        if self._up:
            self._wanted.set()

    def release(self, lease: Lease) -> None:
        self.settle(lease, NOTHING)

    def __repr__(self) -> str:
        return f"<RedisStore {'up' if self._up else 'down'}, {len(self._asked)} asked, {self._alone!r}>"

    # One round trip

    async def _send(self) -> None:
        """All that has come together; first what makes room."""
        batch: list[_Asked] = []
        while self._asked and len(batch) < _BATCH:
            asked = self._asked.popleft()
            if not asked.answer.done():  # else nobody waits for it any more
                batch.append(asked)
        changes, self._changes = self._changes, []
        beat, self._beat_due = self._beat_due, False
        calls = [*self._calls.change(self._name, changes, self._difference())]
        told = len(calls)
        if beat:
            calls.append(self._calls.beat(self._name, self._alone.held()))
        calls += [self._calls.admit(self._name, asked.limits, asked.charges) for asked in batch]
        try:
            answers = await self._channel.run(calls) if calls else []
        except ChannelFailed as failure:
            self._asked.extendleft(reversed(batch))
            # What is not known to have arrived is counted where that is the safe side.
            self._changes = [change for change in changes if change.amount > 0] + self._changes
            await self._lose(failure)
            return
        except BaseException:
            self._asked.extendleft(reversed(batch))
            raise
        # Behind what was changed in windows is what is under way.
        for change, (used, end, now) in zip(changes, changed(answers[:told]), strict=False):
            self._alone.saw(change.check, change.key, end, used, now)
        forgotten = [
            asked for asked, answer in zip(batch, answers[told + beat :], strict=True) if not self._take(asked, answer)
        ]
        if forgotten or (beat and answers[told] == b"0"):
            self._asked.extendleft(reversed(forgotten))
            self._fail(ChannelFailed(Reason.FORGETFUL, "it does not know this process any more"))

    def _difference(self) -> dict[str, int]:
        """By how much more is under way here than Redis was told, which it is told now."""
        held = self._alone.held() if self._untold else {}
        difference = {}
        for key in self._untold:
            count, told = held.get(key, 0), self._told.pop(key, 0)
            if count != told:
                difference[key] = count - told
            if count:
                self._told[key] = count
        self._untold.clear()
        return difference

    def _take(self, asked: _Asked, answer: bytes) -> bool:
        """Hand the answer to who has asked. False: Redis does not know this process."""
        limits = asked.limits
        found = decision(limits, answer)
        if found is None:
            return False
        self._alone.synchronise(found.now)
        for check, counter in zip(limits.checks, found.counters, strict=True):
            if check.window is not None:
                self._alone.saw(check, counter.key, counter.end, counter.used, found.now)
            elif found.fits:
                charge = asked.charges[check.place]
                self._alone.hold(check.key, charge)
                self._told[check.key] = self._told.get(check.key, 0) + charge
        outcome = found.outcome(limits, asked.charges)
        if asked.answer.done():
            self._take_back(outcome)
        else:
            asked.answer.set_result(outcome)
        return True

    def _take_back(self, outcome: Admission) -> None:
        if isinstance(outcome, Lease):
            self.release(outcome)

    # Redis's coming and going

    async def _work(self) -> None:
        while not (self._closing and self._up and not self._busy() and not self._alone.owed):
            try:
                await self._step()
            except Exception as error:  # a fault of ours must not leave those waiting who ask
                _log.exception("counting in Redis failed")
                self._fail(ChannelFailed(Reason.FAILING, repr(error)))
        await self._leave()

    async def _step(self) -> None:
        if not self._up:
            await asyncio.sleep(self._pause)
            try:
                await self._meet()
            except ChannelFailed as failure:
                self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LAST_PAUSE_SECONDS)
                self._note_down(failure)
        elif self._alone.owed:
            # What was counted alone while Redis was told of what had been counted alone before.
            await self._pay_rest()
        elif self._busy():
            await self._send()
        else:
            self._wanted.clear()
            await self._wanted.wait()

    def _busy(self) -> bool:
        return bool(self._asked or self._changes or self._untold or self._beat_due)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            self._beat_due = True
            self._wanted.set()

    async def _meet(self) -> None:
        """Make Redis know what this process knows, and let it decide from then on."""
        run_id = await self._channel.meet(self._scripts.all)
        if run_id is None or run_id != self._run_id:
            # It has started anew, or another has taken its place: it may have lost what it knew.
            for call in self._calls.restore(run_id, self._alone.seen()):
                await self._channel.run([call])
        await self._pay()
        held = self._alone.held()
        await self._join(held)
        self._run_id = run_id
        self._told = held
        self._up, self._up_since = True, self._clock.monotonic()
        if self._down_since is not None:
            down_seconds, self._down_since = self._up_since - self._down_since, None
            self._observer.up(down_seconds)

    async def _lose(self, failure: ChannelFailed) -> None:
        """The connection is lost. Where another can be had at once, as when it was idle for too long, that is all."""
        if failure.reason is Reason.UNREACHABLE:
            try:
                async with asyncio.timeout(_FIRST_PAUSE_SECONDS):
                    await self._meet()
            except (ChannelFailed, TimeoutError):
                pass
            else:
                return
        self._fail(failure)

    async def _pay(self) -> None:
        """Tell Redis what was counted without it."""
        owed = self._alone.owed
        debts = owed.payment(self._new_name())
        for call in self._calls.pay(owed.name, debts):
            await self._channel.run([call])
        owed.paid()

    async def _pay_rest(self) -> None:
        try:
            await self._pay()
        except ChannelFailed as failure:
            self._fail(failure)

    async def _join(self, held: dict[str, int]) -> None:
        """Be alive, by a new name: what is still on its way under the old one, or lost, counts for nothing."""
        if self._name:
            self._former.append(self._name)
        self._name = self._new_name()
        for call in self._calls.join(self._name, held, self._former):
            await self._channel.run([call])
        self._former.clear()

    async def _leave(self) -> None:
        try:
            await self._channel.run([self._calls.leave(self._name)])
        except ChannelFailed:
            pass  # Its heartbeat has ended: Redis finds out by itself.

    def _fail(self, failure: ChannelFailed) -> None:
        if self._clock.monotonic() - self._up_since >= _STEADY_SECONDS:
            self._pause = 0.0
        self._up = False
        self._note_down(failure)
        changes, self._changes = self._changes, []
        for change in changes:
            self._alone.change(change)
        self._answer_alone()

    def _note_down(self, failure: ChannelFailed) -> None:
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
            self._observer.down(failure.reason, failure.detail)

    def _answer_alone(self) -> None:
        asked, self._asked = self._asked, deque()
        for each in asked:
            if not each.answer.done():
                each.answer.set_result(self._decide_alone(each.limits, each.charges))

    def _decide_alone(self, limits: Limits, charges: Amounts) -> Admission:
        if self._on_failure is OnFailure.REFUSE and limits.enforcing:
            return Unavailable(_LAST_PAUSE_SECONDS)
        outcome = self._alone.admit(limits, charges)
        if isinstance(outcome, Lease):
            self._untold.update(check.key for check in limits.checks if check.window is None)
            self._wanted.set()  # Redis is to be told, if it is there
        return outcome
