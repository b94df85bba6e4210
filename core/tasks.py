"""Background tasks with an owner: none is lost to the garbage collector, no failure is silent."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger("sluice.tasks")


class Tasks:
    """A set of running tasks that is cancelled and awaited together.

    asyncio keeps only weak references to tasks; this keeps strong ones until they end
    (https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task).
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start ``coroutine``; an exception that nobody awaits is logged when the task ends."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("background task %s failed", task.get_name(), exc_info=error)

    async def join(self, timeout_seconds: float) -> bool:
        """Wait for every task to end by itself; whether all did within ``timeout_seconds``."""
        running = list(self._running)
        if not running:
            return True
        _, pending = await asyncio.wait(running, timeout=timeout_seconds)
        return not pending

    async def cancel(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)
