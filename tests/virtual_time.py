"""An event loop whose time runs only while everybody waits: hours pass in moments, and in the same order each time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_EPOCH = 1_700_000_000.0


class _Selector(selectors.SelectSelector):
    """Waits for nothing: tells how long it would have."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("everybody waits for something that nobody does")
            self.waited += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """For what neither waits for sockets nor works in threads."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.waited


class VirtualClock:
    """:class:`core.clock.Clock` of the loop that runs."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        return _EPOCH + self.monotonic()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """What ``main`` gives, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
