"""What is written in one turn of the event loop goes out together, at the turn's end.

Each sending to a receiver that sleeps wakes it, which costs several times the sending itself, and more so on a virtual
machine. Of several in a row only the first finds it asleep. One connection's pieces become one sending besides.
"""

import asyncio
import logging
import weakref
from typing import Protocol

_log = logging.getLogger("sluice.transport")


class Writer(Protocol):
    """A connection with something to send."""

    def send_out(self) -> None:
        """Hand to the socket what has been gathered; nothing may be left by now. Must not raise."""
        ...


class Turn:
    """The connections of one event loop that have something to send."""

    __slots__ = ("__weakref__", "_loop", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._writers: list[Writer] = []

    def join(self, writer: Writer) -> None:
        """Call ``writer`` at the end of this turn. To be asked once for each time."""
        if not self._writers:
            loop = self._loop()
            assert loop is not None, "somebody runs in it"
            loop.call_soon(self._end)
        self._writers.append(writer)

    def _end(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            try:
                writer.send_out()
            except Exception:  # one connection's fault is not the others'
                _log.exception("a connection failed to send")


_turns: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turn]" = weakref.WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """The one of ``loop``."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = Turn(loop)
    return turn
