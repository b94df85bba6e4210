import asyncio

import pytest

from core.clock import ManualClock, SystemClock
from core.tasks import Tasks
from telemetry.loop_lag import LoopLag


async def test_a_blocked_loop_is_measured() -> None:
    clock = SystemClock()
    measured: list[float] = []
    tasks = Tasks()
    tasks.spawn(LoopLag(clock, measured.append, interval_seconds=0.01).run(), "loop-lag")
    await asyncio.sleep(0)
    until = clock.monotonic() + 0.1
    while clock.monotonic() < until:
        pass
    await asyncio.sleep(0.02)
    await tasks.cancel()
    assert max(measured) >= 0.08


async def test_a_timer_that_is_early_counts_as_on_time() -> None:
    measured: asyncio.Queue[float] = asyncio.Queue()
    tasks = Tasks()
    # A clock that stands still: seen from it every timer is early.
    tasks.spawn(LoopLag(ManualClock(), measured.put_nowait, interval_seconds=0.001).run(), "loop-lag")
    assert 0.0 == await asyncio.wait_for(measured.get(), 60)
    await tasks.cancel()


async def test_it_ends_when_it_is_cancelled() -> None:
    task = asyncio.ensure_future(LoopLag(ManualClock(), lambda _: None).run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
