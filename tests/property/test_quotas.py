"""Counters in memory do what plain lists of charges say, and those in a real Redis do what those in memory do."""

import asyncio
import calendar
import datetime
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule

from access.quotas.amounts import NOTHING, Amounts, Metric, estimated, used
from access.quotas.channel import Channel
from access.quotas.limits import Limits, Scope, ScopeKind, Terms, limit
from access.quotas.memory import MemoryStore
from access.quotas.outcomes import Admission, Lease, Refused, Unavailable
from access.quotas.redis import RedisStore
from access.quotas.scripts import Scripts
from access.quotas.windows import Window
from core.clock import ManualClock
from tests import redis_server

T = TypeVar("T")

START = 1_709_247_600.0  # an hour before March 2024
SECONDS = {Window.MINUTE: 60, Window.HOUR: 3600, Window.DAY: 86400}

# Few scopes, small amounts: requests must meet, and meet the limits.
scopes = st.sampled_from([Scope(), Scope(((ScopeKind.TOKEN, "a"),)), Scope(((ScopeKind.MODEL, "m"),))])
terms = st.builds(
    Terms,
    st.sampled_from([metric for metric in Metric if metric is not Metric.CONCURRENCY]),
    st.sampled_from(Window),
    st.integers(1, 12),
    st.booleans(),
) | st.builds(Terms, st.just(Metric.CONCURRENCY), st.none(), st.integers(1, 3), st.booleans())
limits_of_one = st.lists(st.builds(limit, terms, scopes), min_size=1, max_size=4).map(Limits)
small = st.integers(0, 6)
charges = st.builds(estimated, small, small, small)
usages = st.builds(used, small, small, small) | st.just(NOTHING)
pauses = st.sampled_from([0.001, 1.0, 59.999, 60.0, 61.0, 3599.0, 3600.0, 86400.0, 5 * 86400.0])


@dataclass
class Charge:
    """What one request has taken from one counter."""

    amount: int


@dataclass
class Span:
    """A window, and all that was taken in it."""

    end: float
    charges: list[Charge] = field(default_factory=list)

    @property
    def used(self) -> int:
        return sum(charge.amount for charge in self.charges)


class Book:
    """Counters as plain lists of what was charged."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        self.held: dict[str, int] = {}

    def used(self, key: str, window: Window | None, now: float) -> int:
        if window is None:
            return self.held.get(key, 0)
        span = self.spans.get(key)
        return span.used if span is not None and now < span.end else 0

    def charge(self, key: str, window: Window, amount: int, now: float) -> tuple[Span, Charge]:
        span = self.spans.get(key)
        if span is None or now >= span.end:
            span = self.spans[key] = Span(end_of(window, now))
        charge = Charge(amount)
        span.charges.append(charge)
        return span, charge

    def settle(self, key: str, window: Window, taken: tuple[Span, Charge], amount: int, now: float) -> None:
        span, charge = taken
        if now < span.end:
            charge.amount = amount
        elif amount > charge.amount:
            self.charge(key, window, amount - charge.amount, now)


def end_of(window: Window, now: float) -> float:
    if window is not Window.MONTH:
        return now + SECONDS[window]
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    begin = datetime.datetime(moment.year, moment.month, 1, tzinfo=datetime.UTC).timestamp()
    return begin + 86400.0 * calendar.monthrange(moment.year, moment.month)[1]


@dataclass(eq=False)
class Taken:
    """A lease and what the book has for it."""

    lease: Lease
    charges: dict[str, tuple[Span, Charge]]


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


class InMemory(RuleBasedStateMachine):
    """Requests come, end and fail, and time passes."""

    leases: Bundle[Taken] = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(time=START)
        self.store = MemoryStore(self.clock)
        self.book = Book()

    @rule(target=leases, limits=limits_of_one, charges=charges)
    def request(self, limits: Limits, charges: Amounts) -> Any:
        now = self.clock.time()
        before = {each.key: self.book.used(each.key, each.window, now) for each in limits.all}
        refusing = {
            each.key
            for each in limits.all
            if not each.shadow and before[each.key] + max(charges[each.metric], 1) > each.amount
        }
        outcome = at_once(self.store.admit(limits, charges))
        if refusing:
            assert isinstance(outcome, Refused)
            assert outcome.limit.key in refusing
            assert [before[each.key] for each in limits.all] == [each.used for each in outcome.standings]
            return multiple()
        assert isinstance(outcome, Lease)
        taken: dict[str, tuple[Span, Charge]] = {}
        for each in limits.all:
            if each.window is None:
                self.book.held[each.key] = before[each.key] + 1
            elif each.key not in taken:
                taken[each.key] = self.book.charge(each.key, each.window, charges[each.metric], now)
        for standing in outcome.standings():
            each = standing.limit
            assert self.book.used(each.key, each.window, now) == standing.used
            assert each.shadow or standing.used <= each.amount
            if each.window is not None:
                assert abs(taken[each.key][0].end - now - standing.reset_seconds) < 0.002
        return Taken(outcome, taken)

    @rule(taken=consumes(leases), usage=usages)
    def end(self, taken: Taken, usage: Amounts) -> None:
        if usage is NOTHING:
            self.store.release(taken.lease)
        else:
            self.store.settle(taken.lease, usage)
        for check in taken.lease.limits.checks:
            if check.window is None:
                self.book.held[check.key] -= 1
            else:
                amount = usage[check.metric]
                self.book.settle(check.key, check.window, taken.charges[check.key], amount, self.clock.time())

    @rule(seconds=pauses)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# What a sequence is made of: a request, the end of one of those under way, or a while.
Step = tuple[Limits, Amounts] | tuple[int, Amounts] | float
made_up = st.sampled_from("vwxyz").map(
    lambda name: Limits(
        [limit(Terms(Metric.TOKENS, Window.MINUTE, 5), Scope(((ScopeKind.MODEL, name),)), [ScopeKind.MODEL])]
    )
)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(limits_of_one | made_up, charges) | st.tuples(st.integers(0, 9), usages) | pauses, max_size=40
)


@pytest.fixture(scope="module")
def server() -> Iterator[redis_server.Redis]:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis() as running:
        yield running


@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_redis_decides_as_memory_does(server: redis_server.Redis, steps: list[Step]) -> None:
    asyncio.run(decide_alike(server, steps))


async def decide_alike(server: redis_server.Redis, steps: list[Step]) -> None:
    clock = ManualClock(time=START)
    server.empty()
    server.set_clock(START)
    memory = MemoryStore(clock, most_made_up=2)
    redis = RedisStore(
        Channel(lambda: server.url, 10.0),
        clock,
        scripts=Scripts(redis_server.PAUSED_CLOCK),
        lease_seconds=1e9,
        most_made_up=2,
    )
    await redis.start()
    nobody = Limits([limit(Terms(Metric.CONCURRENCY, None, 1000), Scope(((ScopeKind.OWNER, "nobody"),)))])
    leases: list[tuple[Lease, Lease]] = []
    for step in steps:
        if isinstance(step, float):
            await redis.admit(nobody, estimated())  # behind which nothing is left that belongs to the time before
            clock.advance(step)
            server.set_clock(clock.time())
        elif isinstance(step[0], int):
            if leases:
                here, there = leases.pop(step[0] % len(leases))
                memory.settle(here, step[1])
                redis.settle(there, step[1])
        else:
            one, other = await memory.admit(*step), await redis.admit(*step)
            assert plain(one) == plain(other)
            if isinstance(one, Lease) and isinstance(other, Lease):
                leases.append((one, other))
    assert redis.up
    await redis.close()


def plain(outcome: Admission) -> object:
    assert not isinstance(outcome, Unavailable)
    counters = [(each.key, each.end, each.used) for each in outcome.counters]
    if isinstance(outcome, Lease):
        return counters, outcome.now
    return counters, outcome.now, outcome.limit, outcome.used, outcome.reset_seconds, outcome.retry_after_seconds
