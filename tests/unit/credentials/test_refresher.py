import asyncio

import hypothesis.strategies as some
from hypothesis import given, settings

from core.tasks import Tasks
from credentials.errors import CredentialFault, CredentialUnavailable
from credentials.live import LiveCredential, Wanted
from credentials.refresher import MOST_AT_ONCE, Refresher
from tests import virtual_time
from tests.virtual_time import VirtualClock


class Fleet:
    """Credentials whose exchanges take a second; when each began is written down."""

    def __init__(self, count: int) -> None:
        self.clock = VirtualClock()
        self.flights = Tasks()
        self.began: list[tuple[int, float]] = []
        self.most = 0
        self._running = 0
        self.lives = [self._live(number) for number in range(count)]

    def _live(self, number: int) -> LiveCredential:
        async def obtain(wanted: Wanted) -> bool:
            self.began.append((number, asyncio.get_running_loop().time()))
            self._running += 1
            self.most = max(self.most, self._running)
            await asyncio.sleep(1.0)
            self._running -= 1
            raise CredentialUnavailable("503")

        live = LiveCredential(
            "openai", str(number), "oauth", self, clock=self.clock, random=lambda: 0.0, flights=self.flights
        )
        live.obtain = obtain
        return live

    def renewed(self, live: LiveCredential) -> None: ...

    def refreshed(self, live: LiveCredential, *, exchanged: bool, recovers: bool) -> None: ...

    def failed(self, live: LiveCredential, fault: CredentialFault, *, begins: bool) -> None: ...


@settings(deadline=None)
@given(
    plans=some.lists(some.tuples(some.integers(0, 4), some.none() | some.integers(0, 50)), max_size=30),
)
def test_each_is_begun_when_it_was_planned_last(plans: list[tuple[int, int | None]]) -> None:
    async def play() -> list[tuple[int, float]]:
        fleet = Fleet(5)
        start = fleet.clock.time()
        refresher = Refresher(fleet.clock)
        running = asyncio.ensure_future(refresher.run())
        for number, at in plans:
            refresher.plan(fleet.lives[number], None if at is None else start + at)
        await asyncio.sleep(200.0)
        running.cancel()
        return sorted(fleet.began)

    expected = {number: at for number, at in plans if at is not None}
    for number, at in plans:
        if at is None:
            expected.pop(number, None)
        else:
            expected[number] = at
    found = virtual_time.run(play())
    assert sorted(expected) == [number for number, _ in found]
    for number, began in found:
        assert expected[number] <= began < expected[number] + 0.01


def test_of_many_that_are_due_at_once_some_wait() -> None:
    async def play() -> Fleet:
        fleet = Fleet(50)
        refresher = Refresher(fleet.clock)
        running = asyncio.ensure_future(refresher.run())
        await asyncio.sleep(3.0)
        for live in fleet.lives:
            refresher.plan(live, fleet.clock.time() - 1.0)
        await asyncio.sleep(100.0)
        running.cancel()
        return fleet

    fleet = virtual_time.run(play())
    assert 50 == len(fleet.began)
    assert MOST_AT_ONCE == fleet.most


def test_who_is_not_planned_any_more_is_not_begun() -> None:
    async def play() -> tuple[float | None, Fleet]:
        fleet = Fleet(1)
        refresher = Refresher(fleet.clock)
        refresher.plan(fleet.lives[0], fleet.clock.time() - 1.0)
        refresher.plan(fleet.lives[0], None)
        refresher.plan(fleet.lives[0], None)
        assert refresher.planned(fleet.lives[0]) is None
        return refresher.look(), fleet

    seconds, fleet = virtual_time.run(play())
    assert seconds is None
    assert [] == fleet.began


def test_plans_that_do_not_count_any_more_are_forgotten() -> None:
    # A server fails that a thousand have signed in at: at each change of one, all are planned anew.
    async def play() -> tuple[Refresher, Fleet]:
        fleet = Fleet(10)
        refresher = Refresher(fleet.clock)
        for turn in range(1000):
            for number, live in enumerate(fleet.lives):
                refresher.plan(live, fleet.clock.time() + 3600.0 + number + turn / 1000)
        assert 100 > len(refresher._heap)
        running = asyncio.ensure_future(refresher.run())
        await asyncio.sleep(4000.0)
        running.cancel()
        return refresher, fleet

    refresher, fleet = virtual_time.run(play())
    assert list(range(10)) == [number for number, _ in fleet.began]
    assert 0 == len(refresher._heap)
