"""The wait for a limit."""

import asyncio
import time

import pytest

from access.quotas.amounts import NOTHING, estimated, used
from access.quotas.limits import Limits, Scope, ScopeKind, limit, parse_terms
from access.quotas.memory import MemoryStore
from access.quotas.outcomes import Admission, Lease, Refused
from access.quotas.waiting import WaitingStore
from core.clock import ManualClock, SystemClock

LONG_SECONDS = 60.0
SOON_SECONDS = 20.0
"""Longer than any machine takes to do what it can do now, and far shorter than what nobody is to wait for."""
ONE_AT_A_TIME: dict[str, object] = {"concurrency": 1, "max_wait_seconds": LONG_SECONDS}


def of(*entries: dict[str, object]) -> Limits:
    return Limits(limit(parse_terms(entry)) for entry in entries)


@pytest.fixture
def store() -> WaitingStore:
    return WaitingStore(MemoryStore(SystemClock()), most=8, poll_seconds=LONG_SECONDS)


async def asked(store: WaitingStore, limits: Limits) -> asyncio.Task[Admission]:
    """A request that has got as far as it can."""
    task = asyncio.get_running_loop().create_task(store.admit(limits, estimated()))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def lease_of(outcome: Admission) -> Lease:
    assert isinstance(outcome, Lease), outcome
    return outcome


async def test_who_waits_is_admitted_when_another_ends(store: WaitingStore) -> None:
    limits = of(ONE_AT_A_TIME)
    first = lease_of(await store.admit(limits, estimated()))
    second = await asked(store, limits)
    assert 1 == store.waiting
    began = time.monotonic()
    store.settle(first, used())
    store.release(lease_of(await second))
    assert time.monotonic() - began < SOON_SECONDS
    assert 0 == store.waiting
    assert {} == store._lines


async def test_the_first_to_come_is_the_first_to_go(store: WaitingStore) -> None:
    limits = of(ONE_AT_A_TIME)
    lease = lease_of(await store.admit(limits, estimated()))
    order: list[int] = []

    async def one(number: int) -> None:
        mine = lease_of(await store.admit(limits, estimated()))
        order.append(number)
        await asyncio.sleep(0)
        store.settle(mine, used())

    tasks = [asyncio.get_running_loop().create_task(one(number)) for number in range(4)]
    await asyncio.sleep(0)
    store.settle(lease, used())
    # There is room at this moment, but others were here before.
    late = lease_of(await store.admit(limits, estimated())) if store.waiting < 4 else None
    assert late is None
    await asyncio.gather(*tasks)
    assert [0, 1, 2, 3] == order


async def test_nobody_overtakes_who_waits(store: WaitingStore) -> None:
    limits = of(ONE_AT_A_TIME)
    first = lease_of(await store.admit(limits, estimated()))
    second = await asked(store, limits)
    store.settle(first, used())
    third = asyncio.get_running_loop().create_task(store.admit(limits, estimated()))
    lease = lease_of(await second)
    assert not third.done()
    store.settle(lease, used())
    store.settle(lease_of(await third), used())


async def test_who_finds_the_lines_full_is_refused_at_once(store: WaitingStore) -> None:
    limits = of(ONE_AT_A_TIME)
    lease = lease_of(await store.admit(limits, estimated()))
    tasks = [await asked(store, limits) for _ in range(4)]
    refused = await store.admit(limits, estimated())
    assert isinstance(refused, Refused)
    assert ("concurrency", 1, 1.0) == (refused.limit.metric.word, refused.used, refused.retry_after_seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 0 == store.waiting
    store.release(lease)
    store.release(lease_of(await store.admit(limits, estimated())))


async def test_a_line_that_is_flooded_leaves_room_for_others(store: WaitingStore) -> None:
    """As a token that sends ever more than it may would keep all others from waiting."""
    terms = parse_terms(ONE_AT_A_TIME)
    flooded, other = (Limits([limit(terms, Scope(((ScopeKind.TOKEN, name),)))]) for name in ("flooded", "other"))
    leases = [lease_of(await store.admit(limits, estimated())) for limits in (flooded, other)]
    tasks = [await asked(store, flooded) for _ in range(20)]
    assert 4 == store.waiting
    waits = await asked(store, other)
    assert not waits.done()
    assert [False] * 4 + [True] * 16 == [task.done() for task in tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for lease in leases:
        store.release(lease)
    store.release(lease_of(await waits))


async def test_who_leaves_the_head_of_the_line_makes_way(store: WaitingStore) -> None:
    limits = of(ONE_AT_A_TIME)
    lease = lease_of(await store.admit(limits, estimated()))
    second, third = await asked(store, limits), await asked(store, limits)
    second.cancel()
    await asyncio.sleep(0)
    store.release(lease)
    store.release(lease_of(await third))


async def test_the_wait_ends_with_its_time(store: WaitingStore) -> None:
    limits = of({"concurrency": 1, "max_wait_seconds": 0.15})
    lease = lease_of(await store.admit(limits, estimated()))
    began = time.monotonic()
    outcomes = await asyncio.gather(store.admit(limits, estimated()), store.admit(limits, estimated()))
    assert 0.1 < time.monotonic() - began < SOON_SECONDS
    assert [Refused, Refused] == [type(outcome) for outcome in outcomes]
    assert {} == store._lines
    store.release(lease)


async def test_nobody_waits_for_a_window_that_ends_too_late(store: WaitingStore) -> None:
    limits = of({"requests": 1, "per": "hour", "max_wait_seconds": LONG_SECONDS})
    await store.admit(limits, estimated())
    began = time.monotonic()
    refused = await store.admit(limits, estimated())
    assert isinstance(refused, Refused)
    assert time.monotonic() - began < SOON_SECONDS


async def test_nobody_waits_for_what_is_too_large(store: WaitingStore) -> None:
    limits = of({"tokens": 10, "per": "minute", "max_wait_seconds": 100})
    refused = await store.admit(limits, estimated(11))
    assert isinstance(refused, Refused)
    assert refused.retry_after_seconds is None


async def test_who_waits_for_a_window_is_admitted_when_it_ends() -> None:
    clock = ManualClock()
    store = WaitingStore(MemoryStore(clock))
    limits = of({"requests": 1, "per": "minute", "max_wait_seconds": 50})
    await store.admit(limits, estimated())
    clock.advance(59.9)
    waiting, behind = await asked(store, limits), await asked(store, limits)
    clock.advance(0.1)
    assert isinstance(await waiting, Lease)
    # It hears as soon as it is known: the window that has begun ends too late for it.
    refused = await asyncio.wait_for(behind, SOON_SECONDS)
    assert isinstance(refused, Refused)
    assert 60.0 == refused.retry_after_seconds


async def test_a_limit_that_asks_for_no_wait_refuses_at_once(store: WaitingStore) -> None:
    limits = of({"concurrency": 1})
    lease = lease_of(await store.admit(limits, estimated()))
    assert isinstance(await store.admit(limits, estimated()), Refused)
    store.release(lease)


async def test_who_gets_past_one_limit_stands_in_the_line_of_the_next(store: WaitingStore) -> None:
    terms = parse_terms(ONE_AT_A_TIME)
    shared, own = limit(terms), limit(terms, Scope(((ScopeKind.TOKEN, "a"),)))
    all_of_it = lease_of(await store.admit(Limits([shared]), estimated()))
    of_a = lease_of(await store.admit(Limits([own]), estimated()))
    both, only_shared = await asked(store, Limits([shared, own])), await asked(store, Limits([shared]))
    store.release(all_of_it)
    # The one at the head is held up by its own limit: it keeps nobody from the shared one.
    lease = lease_of(await asyncio.wait_for(only_shared, SOON_SECONDS))
    store.release(of_a)
    await asyncio.sleep(0.01)
    assert not both.done()
    store.release(lease)
    store.settle(lease_of(await asyncio.wait_for(both, SOON_SECONDS)), NOTHING)
    assert {} == store._lines
