"""What every store of counters does (access/quotas/store.py), asked of each of them: in memory, and in a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from access.quotas.amounts import Amounts, estimated, used
from access.quotas.channel import Channel
from access.quotas.limits import Limits, Scope, ScopeKind, limit, parse_terms
from access.quotas.memory import MemoryStore
from access.quotas.outcomes import Lease, Refused
from access.quotas.redis import RedisStore
from access.quotas.scripts import Scripts
from access.quotas.standings import standings
from access.quotas.store import QuotaStore
from access.quotas.waiting import WaitingStore
from core.clock import ManualClock
from tests import redis_server

MARCH = 1_709_251_200.0  # 2024-03-01T00:00Z


class World:
    """A store, and the time that it goes by."""

    def __init__(self, store: QuotaStore, clock: ManualClock, server: redis_server.Redis | None) -> None:
        self.store = store
        self._clock = clock
        self._server = server

    async def advance(self, seconds: float) -> None:
        # What was settled before is counted at its own time.
        await self.admitted(Limits([limit(parse_terms({"concurrency": 1000}), Scope(((ScopeKind.OWNER, "nobody"),)))]))
        self._clock.advance(seconds)
        if self._server is not None:
            self._server.set_clock(self._clock.time())

    def set_back(self, seconds: float) -> None:
        self._clock._time -= seconds
        if self._server is not None:
            self._server.set_clock(self._clock.time())

    async def admitted(self, limits: Limits, charges: Amounts | None = None) -> Lease:
        outcome = await self.store.admit(limits, charges if charges is not None else estimated())
        assert isinstance(outcome, Lease), outcome
        return outcome

    async def refused(self, limits: Limits, charges: Amounts | None = None) -> Refused:
        outcome = await self.store.admit(limits, charges if charges is not None else estimated())
        assert isinstance(outcome, Refused), outcome
        return outcome


@pytest.fixture(scope="module")
def server() -> Iterator[redis_server.Redis]:
    with redis_server.redis() as running:
        yield running


@pytest.fixture(params=["memory", "redis", "waiting"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = ManualClock(time=MARCH - 90.0)
    if request.param == "redis":
        if redis_server.program() is None:
            pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
        server: redis_server.Redis = request.getfixturevalue("server")
        server.empty()
        server.set_clock(clock.time())
        store: QuotaStore = RedisStore(
            Channel(lambda: server.url, 60.0),
            clock,
            scripts=Scripts(redis_server.PAUSED_CLOCK),
            lease_seconds=1e9,
            most_made_up=3,
        )
        world = World(store, clock, server)
    else:
        store = MemoryStore(clock, most_made_up=3)
        world = World(WaitingStore(store) if request.param == "waiting" else store, clock, None)
    await world.store.start()
    yield world
    assert not isinstance(store, RedisStore) or store.up
    await world.store.close()


def of(*entries: dict[str, object]) -> Limits:
    return Limits(limit(parse_terms(entry)) for entry in entries)


def keys(lease: Lease) -> list[str]:
    return [each.key for each in lease.counters]


def each_model(name: str) -> Limits:
    terms = parse_terms({"requests": 3, "per": "minute"})
    return Limits([limit(terms, Scope(((ScopeKind.MODEL, name),)), [ScopeKind.MODEL])])


async def test_no_more_than_the_amount_is_admitted_in_a_window(world: World) -> None:
    limits = of({"requests": 3, "per": "minute"})
    outcomes = await asyncio.gather(*(world.store.admit(limits, estimated()) for _ in range(10)))
    assert 3 == sum(isinstance(outcome, Lease) for outcome in outcomes)
    await world.advance(59.999)
    refused = await world.refused(limits)
    assert (3, 0, 0.001, 0.001) == (
        refused.used,
        refused.remaining,
        refused.reset_seconds,
        refused.retry_after_seconds,
    )
    await world.advance(0.001)
    assert [60.0] == [each.reset_seconds for each in (await world.admitted(limits)).standings()]


async def test_a_window_begins_with_its_first_request(world: World) -> None:
    limits = of({"requests": 1, "per": "hour"})
    await world.admitted(limits)
    await world.advance(3600 + 1234.5)
    await world.admitted(limits)
    assert 3600.0 == (await world.refused(limits)).retry_after_seconds


async def test_a_month_is_the_calendar_s(world: World) -> None:
    limits = of({"usd": 20, "per": "month"})
    await world.admitted(limits, estimated(nano_usd=20 * 10**9))
    assert 90.0 == (await world.refused(limits)).retry_after_seconds
    await world.advance(90)
    await world.admitted(limits, estimated(nano_usd=20 * 10**9))
    assert 31 * 86400.0 == (await world.refused(limits)).retry_after_seconds


async def test_a_decision_on_several_limits_is_all_or_nothing(world: World) -> None:
    limits = of({"requests": 9, "per": "minute"}, {"tokens": 100, "per": "day"}, {"concurrency": 5})
    await world.admitted(limits, estimated(70, 10))
    refused = await world.refused(limits, estimated(21))
    assert ("tokens", 20) == (refused.limit.metric.word, refused.remaining)
    assert [1, 80, 1] == [each.used for each in refused.standings]
    assert [2, 100, 2] == [each.used for each in (await world.admitted(limits, estimated(20))).standings()]


async def test_what_was_used_replaces_what_was_reserved(world: World) -> None:
    limits = of({"tokens": 1000, "per": "minute"}, {"usd": 1, "per": "day"}, {"concurrency": 1})
    lease = await world.admitted(limits, estimated(100, 200, 5000))
    await world.refused(limits)
    world.store.settle(lease, used(100, 50, 7000))
    world.store.release(lease)  # does nothing any more
    assert [150, 7000, 1] == [each.used for each in (await world.admitted(limits)).standings()]


async def test_a_request_that_failed_gives_everything_back(world: World) -> None:
    limits = of({"requests": 1, "per": "month"}, {"tokens": 100, "per": "day"}, {"concurrency": 1})
    for _ in range(3):
        world.store.release(await world.admitted(limits, estimated(100)))


async def test_what_comes_late_is_counted_late_and_not_given_back(world: World) -> None:
    limits = of({"tokens": 100, "per": "minute"})
    less, more = await world.admitted(limits, estimated(40)), await world.admitted(limits, estimated(10))
    await world.advance(61)
    world.store.settle(more, used(35))
    world.store.settle(less, used(1))
    assert [26] == [each.used for each in (await world.admitted(limits, estimated(1))).standings()]


async def test_more_may_be_used_than_there_was(world: World) -> None:
    limits = of({"tokens": 100, "per": "day"})
    world.store.settle(await world.admitted(limits, estimated(10)), used(1000, 10**12))
    refused = await world.refused(limits)
    assert (10**12 + 1000, 0) == (refused.used, refused.remaining)


async def test_a_new_amount_takes_effect_at_once(world: World) -> None:
    await world.admitted(of({"requests": 1, "per": "day"}))
    await world.refused(of({"requests": 1, "per": "day"}))
    await world.admitted(of({"requests": 2, "per": "day"}))
    assert 2 == (await world.refused(of({"requests": 1, "per": "day"}))).used


async def test_limits_of_one_counter_count_once(world: World) -> None:
    limits = of({"requests": 2, "per": "day"}, {"requests": 1, "per": "day", "shadow": True})
    assert [1, 1] == [each.used for each in (await world.admitted(limits)).standings()]
    assert [False, True] == [each.exceeded for each in (await world.admitted(limits)).standings()]
    await world.refused(limits)


async def test_made_up_names_share_a_counter_when_there_is_no_room(world: World) -> None:
    for name in ("a", "b", "c"):
        assert [f"requests/minute/model={name}"] == keys(await world.admitted(each_model(name)))
    await world.advance(30)
    for name in ("d", "e"):
        assert ["requests/minute/model=~"] == keys(await world.admitted(each_model(name)))
    for _ in range(2):
        await world.admitted(each_model("a"))
    await world.refused(each_model("a"))
    await world.advance(31)
    # The first three windows have ended, that of the others has not: who is counted there does not begin anew beside it.
    assert ["requests/minute/model=~"] == keys(await world.admitted(each_model("d")))
    await world.refused(each_model("a"))
    await world.advance(30)
    assert ["requests/minute/model=d"] == keys(await world.admitted(each_model("d")))


async def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_a_window(world: World) -> None:
    limits = of({"requests": 1, "per": "minute"})
    await world.admitted(limits)
    world.set_back(86400)
    assert 60.0 == (await world.refused(limits)).retry_after_seconds
    month = of({"requests": 1, "per": "month"})
    await world.admitted(month)
    world.set_back(40 * 86400)
    assert 0 < ((await world.refused(month)).retry_after_seconds or 0) <= 31 * 86400


async def test_no_limits_are_no_obstacle(world: World) -> None:
    lease = await world.admitted(Limits(()))
    assert [] == [*lease.standings()]
    world.store.settle(lease, used(1, 1, 1))


async def test_a_request_that_goes_away_holds_nothing(world: World) -> None:
    limits = of({"concurrency": 1}, {"requests": 1, "per": "day"})
    for turns in range(6):
        task = asyncio.get_running_loop().create_task(world.store.admit(limits, estimated()))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():
            outcome = task.result()
            assert isinstance(outcome, Lease)
            world.store.release(outcome)
        await asyncio.gather(task, return_exceptions=True)
    world.store.release(await world.admitted(limits))


async def test_to_ask_how_limits_stand_charges_nothing(world: World) -> None:
    entries = ({"requests": 3, "per": "hour"}, {"usd": 1, "per": "day", "shadow": True}, {"concurrency": 2})
    terms = [parse_terms(each) for each in (*entries, {"requests": 9, "per": "hour", "max_wait_seconds": 60})]
    asked = [limit(each, Scope(((ScopeKind.TOKEN, "alice"),))) for each in terms]

    async def told() -> list[tuple[int, int, float]]:
        found = await standings(world.store, asked)
        assert found is not None
        assert asked == [each.limit for each in found]
        return [(each.used, each.remaining, each.reset_seconds) for each in found]

    for _ in range(5):
        assert [(0, 3, 0), (0, 1_000_000_000, 0), (0, 2, 0), (0, 9, 0)] == await told()
    lease = await world.admitted(Limits(asked), estimated(nano_usd=1_500_000_000))
    await world.advance(60)
    for _ in range(5):
        assert [(1, 2, 3540.0), (1_500_000_000, 0, 86_340.0), (1, 1, 0), (1, 8, 3540.0)] == await told()
    world.store.settle(lease, used())
    world.store.settle(await world.admitted(Limits(asked)), used())
    assert [(2, 1, 3540.0), (0, 1_000_000_000, 86_340.0), (0, 2, 0), (2, 7, 3540.0)] == await told()
    assert () == await standings(world.store, ())
