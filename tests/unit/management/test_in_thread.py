"""Work beside the event loop."""

import asyncio
import threading
import time

from management.handler.in_thread import in_thread


async def test_many_callers_have_one_thread_between_them_and_leave_the_loops_own_alone() -> None:
    running: set[str] = set()
    most = 0
    go_on = threading.Event()

    def work(number: int) -> int:
        nonlocal most
        running.add(f"{number}")
        most = max(most, len(running))
        assert go_on.wait(60)
        time.sleep(0.005)
        running.discard(f"{number}")
        return number

    waiting = asyncio.gather(*(in_thread(work, number) for number in range(20)))
    # What the loop itself has to do, such as looking up names, waits for none of them.
    assert "management" not in await asyncio.to_thread(lambda: threading.current_thread().name)
    assert not waiting.done()
    go_on.set()
    assert list(range(20)) == await waiting
    assert 1 == most
