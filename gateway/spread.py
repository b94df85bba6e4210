"""Even spread of connections over workers that accept from the same sockets.

The kernel wakes whichever worker it likes, and one that is awake already takes all that waits. So the workers count
their open connections where all can see them, and one that has more than another leaves the next to it. The hashing
of SO_REUSEPORT would not do: it is even over many connections only (64 over two workers come out worse than 3:2 in
one run of nine), and what waits for a worker that is stuck waits with it.
"""

import asyncio
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable

_NONE = -1
"""The count of a slot in which no worker accepts."""

# A slot is two words: the open connections, and when its worker last had a turn (milliseconds, monotonic).
_SLOT_WORDS = 2
_WORD_BYTES = 8

_SLACK_SHARE = 8
_SLACK_FEWEST = 2
_BEAT_SECONDS = 0.25
_STUCK_MILLISECONDS = 1000


def is_turn(own: int, counts: Iterable[int]) -> bool:
    """Whether a worker with ``own`` open connections takes the next one, where the workers have ``counts``.

    A little more than the others may have is left to it: else each connection would have to find the one worker
    whose turn it is.
    """
    return own <= min(counts, default=own) + max(_SLACK_FEWEST, own // _SLACK_SHARE)


class Board:
    """The supervisor's side: the counts of all slots, in memory that workers are given by its descriptor."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.descriptor = _shared_memory(slots * _SLOT_WORDS * _WORD_BYTES)
        self._words = _Words(self.descriptor, slots)
        for slot in range(slots):
            self.vacate(slot)

    def vacate(self, slot: int) -> None:
        """No worker accepts in ``slot``: nobody need wait for one."""
        self._words.view[slot * _SLOT_WORDS] = _NONE

    def counts(self) -> tuple[int, ...]:
        """Open connections in each slot, -1 where no worker accepts."""
        return tuple(self._words.view[::_SLOT_WORDS])

    def close(self) -> None:
        self._words.close()
        os.close(self.descriptor)


class Spread:
    """A worker's side. Each word has one writer and is written whole, being aligned: nothing has to be locked."""

    def __init__(self, descriptor: int, slots: int, slot: int, monotonic: Callable[[], float]) -> None:
        """``descriptor`` is the :class:`Board`'s, and is closed here; ``monotonic`` gives seconds, alike in all."""
        self._words = _Words(descriptor, slots)
        os.close(descriptor)
        self._counts = slice(0, slots * _SLOT_WORDS, _SLOT_WORDS)
        self._beats = slice(1, slots * _SLOT_WORDS, _SLOT_WORDS)
        self._slot = slot * _SLOT_WORDS
        self._monotonic = monotonic
        self._own = 0
        self._present = False

    def join(self) -> None:
        """From now on this worker accepts."""
        self._present = True
        self.beat()
        self._words.view[self._slot] = self._own

    def leave(self) -> None:
        """This worker is going: the others need not wait for it, and it waits for none of them."""
        if self._present:
            self._present = False
            self._words.view[self._slot] = _NONE

    def beat(self) -> None:
        """Say that this worker is not stuck."""
        self._words.view[self._slot + 1] = self._now()

    async def keep_beating(self) -> None:
        """Say so as long as it is true, until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(_BEAT_SECONDS)

    def may_accept(self) -> bool:
        """Whether the next connection is this worker's turn. One that is stuck is not waited for."""
        if not self._present:
            return True
        view, since = self._words.view, self._now() - _STUCK_MILLISECONDS
        return is_turn(
            self._own,
            [
                count
                for count, beat in zip(view[self._counts], view[self._beats], strict=True)
                if count >= 0 and beat >= since
            ],
        )

    def changed(self, open_connections: int) -> None:
        """This worker has so many open connections now."""
        self._own = open_connections
        if self._present:
            self._words.view[self._slot] = open_connections

    def close(self) -> None:
        self.leave()
        self._words.close()

    def _now(self) -> int:
        return int(self._monotonic() * 1000)


class _Words:
    def __init__(self, descriptor: int, slots: int) -> None:
        self._memory = mmap.mmap(descriptor, slots * _SLOT_WORDS * _WORD_BYTES)
        self.view = memoryview(self._memory).cast("q")

    def close(self) -> None:
        self.view.release()
        self._memory.close()


def _shared_memory(size: int) -> int:
    """A descriptor of anonymous memory; of a file without a name where the system has none."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sluice-spread")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
