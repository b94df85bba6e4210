import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.clock_by_hand import ClockByHand
from transport.clock import LazyTimer


@pytest.fixture
def loop() -> Any:
    return ClockByHand()


def timer(loop: Any) -> tuple[LazyTimer, list[float]]:
    expired: list[float] = []
    return LazyTimer(loop, lambda: expired.append(loop.time())), expired


def test_it_expires_once_at_its_time(loop: Any) -> None:
    clock, expired = timer(loop)
    clock.set(5)
    loop.pass_to(104.9)
    assert [] == expired
    loop.pass_to(200)
    assert [105.0] == expired
    assert 0 == loop.waiting


def test_a_deadline_that_is_put_off_costs_no_new_handle_until_the_first_one_fires(loop: Any) -> None:
    clock, expired = timer(loop)
    for second in range(50):
        loop.now = 100 + second / 100
        clock.set(5)
    assert 1 == loop.made
    loop.pass_to(105.48)
    assert ([], 2) == (expired, loop.made)
    loop.pass_to(106)
    assert [105.49] == expired


def test_a_nearer_deadline_is_kept(loop: Any) -> None:
    clock, expired = timer(loop)
    clock.set(60)
    clock.set(2)
    assert 1 == loop.waiting
    loop.pass_to(200)
    assert [102.0] == expired


@pytest.mark.parametrize("stop", [LazyTimer.clear, lambda clock: clock.set(None)], ids=["clear", "set(None)"])
def test_a_cleared_deadline_does_not_expire_and_its_handle_goes_away(
    loop: Any, stop: Callable[[LazyTimer], None]
) -> None:
    clock, expired = timer(loop)
    clock.set(5)
    stop(clock)
    loop.pass_to(200)
    assert ([], 0) == (expired, loop.waiting)
    clock.set(1)
    loop.pass_to(300)
    assert [201.0] == expired


def test_it_may_be_set_again_where_it_expires(loop: Any) -> None:
    expired: list[float] = []

    def again() -> None:
        expired.append(loop.time())
        if len(expired) < 3:
            clock.set(1)

    clock = LazyTimer(loop, again)
    clock.set(1)
    loop.pass_to(200)
    assert [101.0, 102.0, 103.0] == expired


def test_a_closed_one_is_silent_whatever_is_set(loop: Any) -> None:
    clock, expired = timer(loop)
    clock.set(5)
    clock.close()
    clock.set(1)
    clock.close()
    loop.pass_to(200)
    assert ([], 0) == (expired, loop.waiting)
    assert "<timer closed>" == repr(clock)


def test_it_says_how_long_it_has_to_go(loop: Any) -> None:
    clock, _ = timer(loop)
    assert "<timer off>" == repr(clock)
    clock.set(2.5)
    assert "<timer 2.500 s left>" == repr(clock)


def test_a_closed_one_keeps_nothing_alive() -> None:
    by_hand: Any = ClockByHand()

    class Owner:
        def __init__(self) -> None:
            self.timer = LazyTimer(by_hand, self.expired)

        def expired(self) -> None:
            raise AssertionError

    owner = Owner()
    owner.timer.set(5)
    owner.timer.close()
    by_hand.armed.clear()
    gone = weakref.ref(owner)
    gc.disable()
    try:
        del owner
        assert gone() is None
    finally:
        gc.enable()


async def test_it_keeps_time_on_the_real_loop() -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    clock = LazyTimer(loop, lambda: done.set_result(loop.time()))
    begun = loop.time()
    clock.set(0.02)
    clock.set(0.05)
    await asyncio.wait_for(done, 60)
    assert 0.045 <= done.result() - begun
