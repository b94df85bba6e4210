"""Limits that processes share through a real Redis: exact while it is there, as configured while it is not."""

import asyncio
import datetime
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

import pytest

from access.quotas.amounts import estimated, used
from access.quotas.calls import Call, Calls, decision
from access.quotas.channel import Channel, ChannelFailed, UrlFault
from access.quotas.limits import Limits, Scope, ScopeKind, limit, parse_terms
from access.quotas.outage import Observer, OnFailure, Reason
from access.quotas.outcomes import Admission, Lease, Refused, Unavailable
from access.quotas.owed import Debt
from access.quotas.redis import LEASE_SECONDS, PREFIX, RedisStore
from access.quotas.scripts import Scripts, script
from access.quotas.windows import Window, window_end
from core.clock import SystemClock
from tests import redis_server
from tests.planted import planted
from tests.servers import ROOT

REQUESTS = int(os.environ.get("SLUICE_QUOTA_REQUESTS", "10000"))
PROCESSES = 8
AT_ONCE = 16

PAUSED = Scripts(redis_server.PAUSED_CLOCK)
PAUSED_AT = 1_800_000_000.0
HELD_SECONDS = 4.0
"""A lease, whose process tells thrice as often that it lives. By the system's clock Redis forgets all of it after twice as
long without a word."""

ONE = {"requests": 1, "per": "day"}


def of(*entries: Mapping[str, object], token: str = "a") -> Limits:
    return Limits(limit(parse_terms(entry), Scope(((ScopeKind.TOKEN, token),))) for entry in entries)


class Heard(Observer):
    """What was told of Redis's going and coming."""

    def __init__(self) -> None:
        self.facts: list[Reason | str] = []
        self.details: list[str] = []
        self.away_seconds = 0.0

    def down(self, reason: Reason, detail: str) -> None:
        self.facts.append(reason)
        self.details.append(detail)

    def up(self, down_seconds: float) -> None:
        self.facts.append("up")
        self.away_seconds = down_seconds


@pytest.fixture(scope="module")
def running() -> Iterator[redis_server.Redis]:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis() as server:
        yield server


@pytest.fixture
def server(running: redis_server.Redis) -> redis_server.Redis:
    running.empty()
    return running


class Stores:
    """Starts stores, as so many processes would have them."""

    def __init__(self, server: redis_server.Redis, ending: AsyncExitStack) -> None:
        self._server = server
        self._ending = ending

    async def __call__(
        self, observer: Observer | None = None, timeout_seconds: float = 60.0, url: str | None = None, **options: Any
    ) -> RedisStore:
        channel = Channel(lambda: url or self._server.url, timeout_seconds)
        store = RedisStore(channel, SystemClock(), observer=observer, **options)
        await store.start()
        self._ending.push_async_callback(store.close)
        return store


@pytest.fixture
async def stores(server: redis_server.Redis) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as ending:
        yield Stores(server, ending)


async def admitted(store: RedisStore, limits: Limits) -> Lease:
    outcome = await store.admit(limits, estimated())
    assert isinstance(outcome, Lease), outcome
    return outcome


def set_timeout(store: RedisStore, seconds: float) -> None:
    """For what is to be slow, and afterwards again for what is not to be."""
    store._channel._timeout = seconds


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def count(store: RedisStore, limits: Limits, requests: int) -> int:
    """How many of so many requests are admitted."""
    left = iter(range(requests))

    async def some() -> int:
        return sum([isinstance(await store.admit(limits, estimated()), Lease) for _ in left])

    return sum(await asyncio.gather(*(some() for _ in range(AT_ONCE))))


# Exact


def test_many_processes_admit_exactly_the_amount(server: redis_server.Redis) -> None:
    amount = REQUESTS // 3
    command = [sys.executable, "-m", "tests.integration.test_quotas_redis", "count", str(amount)]
    processes = [worker(command, server) for _ in range(PROCESSES)]
    answers = [json.loads(process.communicate(timeout=50 + REQUESTS / 100)[0]) for process in processes]
    assert amount == sum(answer["admitted"] for answer in answers)
    assert [REQUESTS // PROCESSES] * PROCESSES == [answer["asked"] for answer in answers]
    assert [[]] * PROCESSES == [answer["heard"] for answer in answers]


def worker(command: list[str], server: redis_server.Redis) -> subprocess.Popen[bytes]:
    # The address has a password: it is no argument, which everybody may read.
    environment = os.environ | {"SLUICE_TEST_REDIS": server.url, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)


async def test_processes_share_what_is_under_way(stores: Stores) -> None:
    one, other = await stores(), await stores()
    limits = of({"concurrency": 3})
    leases = [await admitted(one, limits), await admitted(one, limits), await admitted(other, limits)]
    assert isinstance(await one.admit(limits, estimated()), Refused)
    assert isinstance(await other.admit(limits, estimated()), Refused)
    one.settle(leases[0], used())
    await admitted(one, limits)
    assert isinstance(await other.admit(limits, estimated()), Refused)


async def test_nothing_stays_in_redis_for_ever_and_all_of_it_is_ours(
    stores: Stores, server: redis_server.Redis
) -> None:
    store = await stores()
    every = of(
        ONE,
        *(
            {metric: 100, "per": window}
            for metric in ("tokens", "usd")
            for window in ("minute", "hour", "day", "month")
        ),
        {"concurrency": 1},
    )
    named = limit(parse_terms({"requests": 5, "per": "hour"}), Scope(((ScopeKind.MODEL, "m {x}"),)), [ScopeKind.MODEL])
    store.settle(await admitted(store, every), used(3, 3, 3))
    await admitted(store, Limits([named, *of({"concurrency": 5}).all]))
    with server.client() as client:
        found: list[bytes] = list(client.scan_iter())
        lives = {key.decode(): client.pttl(key) for key in found}
    assert len(lives) > 10
    assert {key for key, life in lives.items() if life <= 0 or life > 31 * 86_400_000} == set()
    # One hash tag, so that a cluster has all of them on one node.
    assert all(key.startswith(PREFIX) for key in lives)
    assert 1 == len({key[key.index("{") : key.index("}")] for key in lives})


async def test_redis_s_clock_rules(stores: Stores) -> None:
    class Wrong(SystemClock):
        def time(self) -> float:
            return time.time() + 1e6

    store = await stores()
    wrong = RedisStore(store._channel, Wrong())
    assert 86400.0 == next((await admitted(store, of(ONE))).standings()).reset_seconds
    wrong._alone.synchronise(int(time.time() * 1000))
    assert abs(wrong._alone._now() - time.time() * 1000) < 1e9 / 10


# Leases


async def test_what_a_killed_process_had_under_way_ends_with_its_lease(
    server: redis_server.Redis, stores: Stores
) -> None:
    """By a clock that the test sets: leases end when it says so, however slow a machine is."""
    server.set_clock(PAUSED_AT)
    command = [sys.executable, "-m", "tests.integration.test_quotas_redis", "hold", "4"]
    process = worker(command, server)
    limits = of({"concurrency": 4})
    with server.client() as client:
        try:
            assert process.stdout is not None
            assert b"holding\n" == await asyncio.to_thread(process.stdout.readline)
            ((name, first_end),) = client.zrange(f"{PREFIX}living", 0, -1, withscores=True)
            store = await stores(lease_seconds=3600.0, scripts=PAUSED)
            end = first_end
            # Its heartbeat keeps them for longer than a lease lasts.
            for _ in range(2):
                now = end - 1000 * HELD_SECONDS / 4
                server.set_clock(now / 1000)
                assert isinstance(await store.admit(limits, estimated()), Refused)
                await until(lambda before=end: client.zscore(f"{PREFIX}living", name) > before)  # type: ignore[misc]  # mypy infers no lambda with a default
                end = client.zscore(f"{PREFIX}living", name)
            assert now > first_end
            assert isinstance(await store.admit(limits, estimated()), Refused)
        finally:
            process.kill()
            process.communicate()
        end = client.zscore(f"{PREFIX}living", name)
    server.set_clock((end - 0.5) / 1000)
    assert isinstance(await store.admit(limits, estimated()), Refused)
    server.set_clock((end + 0.5) / 1000)
    for _ in range(4):
        await admitted(store, limits)


@pytest.fixture
def closes_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be told at the end has time for it on a machine that stands still for a while."""
    monkeypatch.setattr("access.quotas.redis._LAST_PAUSE_SECONDS", 60.0)


@pytest.mark.usefixtures("closes_patiently")
async def test_who_closes_in_order_leaves_nothing_behind(stores: Stores) -> None:
    limits = of({"concurrency": 1})
    store = await stores()
    await admitted(store, limits)
    await store.close()
    await admitted(await stores(), limits)


@pytest.mark.usefixtures("closes_patiently")
async def test_what_is_settled_last_is_told_before_the_end(stores: Stores) -> None:
    limits = of({"tokens": 100, "per": "day"})
    store = await stores()
    store.settle(await admitted(store, limits), used(100))
    await store.close()
    assert isinstance(await (await stores()).admit(limits, estimated()), Refused)


async def test_who_stood_still_for_longer_than_its_lease_is_counted_again(
    stores: Stores, server: redis_server.Redis
) -> None:
    heard = Heard()
    server.set_clock(PAUSED_AT)
    store, other = await stores(heard, scripts=PAUSED), await stores(lease_seconds=3600.0, scripts=PAUSED)
    limits = of({"concurrency": 1})
    lease = await admitted(store, limits)
    server.set_clock(PAUSED_AT + 2 * LEASE_SECONDS)
    await admitted(other, limits)
    # It goes on with its next heartbeat.
    store._beat_due = True
    store._wanted.set()
    await until(lambda: ["forgetful", "up"] == heard.facts)
    # Two are under way now, and both must end before another may begin.
    assert isinstance(await other.admit(limits, estimated()), Refused)
    store.settle(lease, used())
    assert isinstance(await store.admit(limits, estimated()), Refused)


# Without Redis


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_killed_redis_changes_no_exact_count_where_requests_are_refused_meanwhile(keeps: bool) -> None:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis(keeps=keeps) as server:
        async with AsyncExitStack() as ending:
            heard = [Heard() for _ in range(3)]
            make = Stores(server, ending)
            all_stores = [await make(each, on_failure=OnFailure.REFUSE) for each in heard]
            limits = of({"requests": 500, "per": "day"})
            outcomes: list[Admission] = []

            async def traffic(store: RedisStore) -> None:
                while len(outcomes) < 3000 or not store.up:
                    outcomes.append(await store.admit(limits, estimated()))
                    await asyncio.sleep(0.001)

            asking = [asyncio.ensure_future(traffic(store)) for store in all_stores for _ in range(2)]
            await until(lambda: len(outcomes) > 200)
            server.kill()
            await until(lambda: sum(isinstance(outcome, Unavailable) for outcome in outcomes) > 50)
            server.start()
            back = time.monotonic()
            await until(lambda: all(store.up for store in all_stores))
            # It is asked once a second at least.
            assert time.monotonic() - back < 20
            await asyncio.gather(*asking)
            assert [["unreachable", "up"]] * 3 == [each.facts for each in heard]
            # What Redis had counted without its answer arriving is lost to nobody but those who asked.
            counted = sum(isinstance(outcome, Lease) for outcome in outcomes)
            assert 500 - 3 * 2 <= counted <= 500


@pytest.mark.parametrize("keeps", [True, False])
async def test_while_redis_is_away_each_process_goes_on_from_what_it_has_seen(keeps: bool) -> None:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis(keeps=keeps) as server:
        async with AsyncExitStack() as ending:
            make, heard = Stores(server, ending), Heard()
            one, other = await make(heard), await make()
            limits = of({"requests": 100, "per": "day"}, {"tokens": 1000, "per": "day"})
            before = [await admitted(one, limits) for _ in range(40)]
            assert 20 == await count(other, limits, 20)
            await admitted(one, limits)
            server.kill()
            assert isinstance(await one.admit(limits, estimated()), Lease)  # 62
            assert not one.up
            assert 38 == await count(one, limits, 50)
            for lease in before[:10]:
                one.settle(lease, used(3))
            assert 40 == await count(other, limits, 50)  # it had seen 60
            server.start()
            await until(lambda: one.up and other.up)
            refused = await one.admit(limits, estimated())
            assert isinstance(refused, Refused)
            # All that each admitted is known to all, and what Redis has lost too: one had seen 61 of it, the other 60.
            assert [61 + 39 + 40, 30] == [each.used for each in refused.standings]
            assert [Reason.UNREACHABLE, "up"] == heard.facts
            assert heard.away_seconds > 0


async def test_what_is_under_way_is_right_again_when_redis_is_back() -> None:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis() as server:
        async with AsyncExitStack() as ending:
            make = Stores(server, ending)
            one, other = await make(), await make()
            limits = of({"concurrency": 4})
            ended, lasting = await admitted(one, limits), await admitted(one, limits)
            await admitted(other, limits)
            server.kill()
            begun = await admitted(one, limits)
            one.settle(ended, used())
            server.start()
            await until(lambda: one.up and other.up)
            await admitted(other, limits)  # the fourth
            assert isinstance(await one.admit(limits, estimated()), Refused)
            one.settle(lasting, used())
            one.settle(begun, used())
            assert 2 == await count(one, limits, 5)


async def test_a_redis_that_stands_still_holds_nobody_up_and_confuses_no_answers(
    server: redis_server.Redis, stores: Stores
) -> None:
    heard = Heard()
    store = await stores(heard)
    limits = [of({"requests": number, "per": "day"}, token=f"t{number}") for number in range(1, 300)]
    await asyncio.gather(*(store.admit(each, estimated()) for each in limits))
    server.pause()
    set_timeout(store, 0.2)
    try:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(store.admit(each, estimated()) for each in limits))
        # One after the other they would be held up for a minute.
        assert time.monotonic() - began < 20
        assert [False] + [True] * 298 == [isinstance(outcome, Lease) for outcome in outcomes]
        assert Reason.SLOW == heard.facts[0]
    finally:
        server.resume()
    set_timeout(store, 60.0)
    await until(lambda: store.up)
    # Late answers to what was asked before are not taken for answers to this.
    for each in limits:
        outcome = await store.admit(each, estimated())
        found = outcome.standings() if isinstance(outcome, Lease) else outcome.standings  # type: ignore[union-attr]  # either has them
        assert [each.all[0].amount] == [standing.limit.amount for standing in found]


async def test_a_redis_that_is_slow_again_and_again_is_not_told_twice(
    server: redis_server.Redis, stores: Stores
) -> None:
    store = await stores()
    limits = of({"requests": 1000, "per": "day"})
    await admitted(store, limits)
    lost = 0
    for _ in range(3):
        server.pause()
        set_timeout(store, 0.1)
        await admitted(store, limits)  # it is counted here, and by Redis too, as soon as it can
        lost += 1
        await asyncio.sleep(0.25)
        server.resume()
        set_timeout(store, 60.0)
        await until(lambda: store.up)
    await until(lambda: not store._busy() and not store._alone.owed)
    (standing,) = (await admitted(store, limits)).standings()
    assert 1 + 3 + 1 <= standing.used <= 1 + 3 + lost + 1


async def test_what_may_have_arrived_is_not_given_back_twice(server: redis_server.Redis, stores: Stores) -> None:
    store = await stores()
    limits = of({"tokens": 100, "per": "day"})
    lease = (await store.admit(limits, estimated(50)), await store.admit(limits, estimated(50)))[0]
    assert isinstance(lease, Lease)
    server.pause()
    set_timeout(store, 0.2)
    store.release(lease)
    await until(lambda: not store.up)
    server.resume()
    set_timeout(store, 60.0)
    await until(lambda: store.up)
    outcome = await store.admit(limits, estimated(50))
    (standing,) = outcome.standings if isinstance(outcome, Refused) else admission(outcome).standings()
    assert standing.used == 100


def admission(outcome: Admission) -> Lease:
    assert isinstance(outcome, Lease), outcome
    return outcome


async def test_what_comes_and_goes_while_redis_is_met_is_told_after_it(
    server: redis_server.Redis, stores: Stores
) -> None:
    scripts, limits = Scripts(), of({"concurrency": 9})

    class Interrupted(Channel):
        async def run(self, calls: Sequence[Call]) -> list[bytes]:
            answers = await super().run(calls)
            if calls[0].script is scripts.join:
                store.settle(leases.pop(), used())
                leases.extend([await admitted(store, limits) for _ in range(3)])
            return answers

    leases: list[Lease] = []
    store = RedisStore(Interrupted(lambda: server.url, 60.0), SystemClock(), scripts=scripts)
    leases.append(await admitted(store, limits))
    await store.start()
    assert store.up
    await until(lambda: not store._busy())
    assert 9 - len(leases) == await count(await stores(), limits, 10)
    assert 3 == len(leases)
    for lease in leases:
        store.settle(lease, used())
    await store.close()


async def test_who_finds_too_many_asking_is_counted_here_and_told_to_redis(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = await stores(), await stores()
    monkeypatch.setattr("access.quotas.redis._MOST_ASKED", 0)
    limits = of({"requests": 9, "per": "day"}, {"concurrency": 9})
    for _ in range(2):
        await admitted(store, limits)
    monkeypatch.undo()
    await until(lambda: not store._busy() and not store._alone.owed)
    assert [2 + 1, 2 + 1] == [each.used for each in (await admitted(other, limits)).standings()]


async def test_what_is_told_again_is_counted_once(server: redis_server.Redis) -> None:
    calls = Calls(Scripts(), PREFIX, 60_000, 10)
    channel = Channel(lambda: server.url, 60.0)
    held, requests = of({"concurrency": 9}), of({"requests": 99, "per": "day"})
    debts = {requests.all[0].key: Debt(Window.DAY, int(time.time() * 1000) + 3_600_000, 30, made_up=False)}
    for _ in range(2):
        await channel.run([*calls.pay("one", debts)])
    await channel.run([*calls.pay("other", debts)])
    # A join whose answer was lost, and what is tried after it.
    await channel.run([*calls.join("first", {held.all[0].key: 2}, [])])
    for _ in range(2):
        await channel.run([*calls.join("second", {held.all[0].key: 3}, ["first"])])
    (answer,) = await channel.run([calls.admit("second", both := Limits([*held.all, *requests.all]), estimated())])
    decided = decision(both, answer)
    assert decided is not None
    assert [4, 61] == [each.used for each in decided.counters]
    await channel.close()


async def test_redis_knows_when_months_end(server: redis_server.Redis) -> None:
    asked = script("return string.format('%.0f', window_end(4))", "local now = tonumber(ARGV[1])\n")
    channel = Channel(lambda: server.url, 60.0)
    begins = [
        int(datetime.datetime(year, month, 1, tzinfo=datetime.UTC).timestamp()) * 1000
        for year in (*range(1996, 2040), 2099, 2100, 2101, 2400)
        for month in range(1, 13)
    ]
    moments = [begin + shift for begin in begins for shift in (-1, 0, 1)]
    answers = await channel.run([Call(asked, [], [moment]) for moment in moments])
    assert [window_end(Window.MONTH, moment) for moment in moments] == [int(answer) for answer in answers]
    await channel.close()


async def test_an_emptied_redis_is_met_anew(server: redis_server.Redis, stores: Stores) -> None:
    heard = Heard()
    store = await stores(heard)
    held, limits = of({"concurrency": 1}), of(ONE)
    lease = await admitted(store, held)
    await admitted(store, limits)
    server.empty()
    # Whoever empties it means it: what it had counted is not brought back, but what is under way is.
    await admitted(store, limits)
    await store.admit(held, estimated())
    await until(lambda: ["forgetful", "up"] == heard.facts)
    assert isinstance(await store.admit(held, estimated()), Refused)
    store.settle(lease, used())
    await admitted(store, held)


async def test_forgotten_scripts_are_brought_again(server: redis_server.Redis, stores: Stores) -> None:
    heard = Heard()
    store = await stores(heard)
    with server.client() as client:
        client.script_flush()
    limits = of(ONE, {"concurrency": 1})
    store.release(await admitted(store, limits))
    assert 1 == await count(store, limits, 20)
    assert [] == heard.facts


async def test_a_gateway_starts_without_its_redis(stores: Stores) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        heard = Heard()
        store = await stores(heard, url=f"redis://:{planted('redis-url')}@127.0.0.1:{unused.getsockname()[1]}/0")
        assert 1 == await count(store, of(ONE), 5)
        assert ["unreachable"] == heard.facts
        assert "redis-url" not in "".join(heard.details)


async def test_a_wrong_password_is_said_as_such(server: redis_server.Redis, stores: Stores) -> None:
    heard = Heard()
    url = server.url.replace(redis_server.PASSWORD, planted("redis-wrong"))
    store = await stores(heard, url=url, on_failure=OnFailure.REFUSE)
    assert ["denied"] == heard.facts
    assert "redis-wrong" not in repr(store) + "".join(heard.details)
    assert isinstance(await store.admit(of(ONE), estimated()), Unavailable)
    # Where nothing could be refused, nothing is.
    shadow = of({"requests": 1, "per": "day", "shadow": True})
    assert isinstance(await store.admit(shadow, estimated()), Lease)
    assert isinstance(await store.admit(Limits(()), estimated()), Lease)


def test_an_address_that_is_none_is_refused_without_being_repeated() -> None:
    with pytest.raises(UrlFault, match="redis://HOST:PORT/DATABASE") as caught:
        Channel(lambda: f"http://{planted('redis-url')}@host", 1)
    assert "redis-url" not in str(caught.value)


async def test_an_answer_that_nobody_waits_for_any_more_harms_no_other(server: redis_server.Redis) -> None:
    channel = Channel(lambda: server.url, 60.0)
    scripts = Scripts()
    run_id = await channel.meet(scripts.all)
    assert run_id is not None
    for turns in range(12):
        call = Call(scripts.leave, ["{sluice}:living"], [f"p{turns}"])
        task = asyncio.ensure_future(channel.run([call] * 3))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert run_id == await channel.meet(())
    with pytest.raises(ChannelFailed, match="failing"):
        await channel.run([Call(scripts.join, ["{sluice}:living"], ["p", "no number", "1"])])
    await channel.close()


# What other processes do


@asynccontextmanager
async def own_store(heard: Observer, **options: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(Channel(lambda: os.environ["SLUICE_TEST_REDIS"], 60.0), SystemClock(), observer=heard, **options)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def count_here(amount: int) -> None:
    heard = Heard()
    async with own_store(heard) as store:
        limits = of({"requests": amount, "per": "day"}, {"concurrency": 10**6}, {"tokens": 10**9, "per": "month"})
        asked = REQUESTS // PROCESSES
        print(json.dumps({"asked": asked, "admitted": await count(store, limits, asked), "heard": heard.facts}))


async def hold_here(amount: int) -> None:
    async with own_store(Heard(), lease_seconds=HELD_SECONDS, scripts=PAUSED) as store:
        for _ in range(amount):
            await admitted(store, of({"concurrency": amount}))
        print("holding", flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run({"count": count_here, "hold": hold_here}[sys.argv[1]](int(sys.argv[2])))
