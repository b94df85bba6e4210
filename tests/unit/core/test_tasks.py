"""Tasks with an owner."""

import asyncio
from typing import Any

import pytest

from core.tasks import Tasks


async def test_a_task_is_kept_until_it_ends() -> None:
    tasks = Tasks()
    gate = asyncio.Event()
    task = tasks.spawn(gate.wait(), "waits")
    assert (1, "waits") == (len(tasks), task.get_name())
    gate.set()
    assert await tasks.join(60)
    assert 0 == len(tasks)


async def test_a_failure_that_nobody_awaits_is_logged(expect_log: Any) -> None:
    async def broken() -> None:
        raise RuntimeError("broken task")

    tasks = Tasks()
    with expect_log("background task of mine failed(.|\n)*broken task", level=40):
        tasks.spawn(broken(), "of mine")
        assert await tasks.join(60)
    assert 0 == len(tasks)


async def test_joining_ends_with_its_time() -> None:
    tasks = Tasks()
    assert await tasks.join(0)
    tasks.spawn(asyncio.sleep(60), "long")
    assert not await tasks.join(0.01)
    assert 1 == len(tasks)
    await tasks.cancel()


async def test_cancelling_waits_for_what_tasks_still_do() -> None:
    tasks = Tasks()
    cleaned: list[str] = []

    async def careful() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("done")

    task = tasks.spawn(careful(), "careful")
    tasks.spawn(asyncio.sleep(60), "other")
    await asyncio.sleep(0)
    await tasks.cancel()
    assert (["done"], 0, True) == (cleaned, len(tasks), task.cancelled())
    await tasks.cancel()


async def test_cancelling_survives_a_task_that_fails_meanwhile(expect_log: Any) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("on the way out") from None

    tasks = Tasks()
    tasks.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    with expect_log("background task stubborn failed", level=40):
        await tasks.cancel()


def test_a_task_needs_a_running_loop() -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        Tasks().spawn(coroutine, "nowhere")
    coroutine.close()
