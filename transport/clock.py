"""A deadline that is moved thousands of times for each time that it passes."""

import asyncio
from collections.abc import Callable
from typing import Final

_NEVER: Final = float("inf")

# What is left of a deadline may be this little when the loop, whose clock ticks in milliseconds, calls for it.
_TICK_SECONDS: Final = 0.001


class LazyTimer:
    """Calls ``expired`` once when the time set last has passed. Not a context: one object serves a connection for life.

    Setting is the storing of a number: the one handle in the event loop is moved only when it would come too late.
    One that comes too early sets itself anew for the rest, and one that finds no deadline goes away.

    ::

        set(5)      set(60)    clear()    set(7)
          │           │          │          │
        handle at +5 ─┴──────────┴──────────┴──▶ fires: 7 s are not over yet, again for the rest
    """

    __slots__ = ("_deadline", "_expired", "_fires_at", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        """``expired`` is called by ``loop`` and must not raise."""
        self._loop = loop
        self._expired: Callable[[], None] | None = expired
        self._deadline = _NEVER
        self._fires_at = _NEVER
        self._handle: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        if self._expired is None:
            return "<timer closed>"
        left = self._deadline - self._loop.time()
        return "<timer off>" if left == _NEVER else f"<timer {left:.3f} s left>"

    def set(self, seconds: float | None) -> None:
        """Expire ``seconds`` from now instead of at any time set before; None: not at all."""
        if seconds is None:
            self._deadline = _NEVER
            return
        self._deadline = deadline = self._loop.time() + seconds
        if deadline < self._fires_at:
            self._arm(deadline)

    def clear(self) -> None:
        """Do not expire until it is set again."""
        self._deadline = _NEVER

    def close(self) -> None:
        """Never expire again. Lets go of ``expired``, whose owner often holds this timer."""
        self._deadline = _NEVER
        self._fires_at = -_NEVER  # no later `set` arms anything
        self._expired = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._fires_at = when
        self._handle = self._loop.call_at(when, self._fired)

    def _fired(self) -> None:
        self._handle = None
        deadline = self._deadline
        if deadline == _NEVER:
            self._fires_at = _NEVER
        elif deadline - self._loop.time() > _TICK_SECONDS:
            self._arm(deadline)
        else:
            self._deadline = self._fires_at = _NEVER
            if self._expired is not None:
                self._expired()
