"""Keeps the event loop going while a thread beside it builds a generation.

Two things would stop it. The interpreter lets a thread go on for 5 ms before another gets its turn, and the loop asks
for a turn after every wait. And the garbage collector, which stops all threads, looks at every object of the program
in its oldest generation: some 50 ns each, 100,000 of them with a configuration of 1,000 routes.
"""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH_SECONDS = 0.0005
_NEVER = 1_000_000_000


class _BriefPauses:
    """Settings of the whole process, so threads that want them at the same time share one change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._interval = sys.getswitchinterval()
        self._thresholds = gc.get_threshold()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """While any thread is inside, threads take short turns, and only young objects are looked at for garbage."""
        with self._lock:
            if self._inside == 0:
                self._interval = sys.getswitchinterval()
                self._thresholds = gc.get_threshold()
                sys.setswitchinterval(_SWITCH_SECONDS)
                gc.set_threshold(*self._thresholds[:2], _NEVER)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    gc.set_threshold(*self._thresholds)
                    sys.setswitchinterval(self._interval)


brief_pauses = _BriefPauses()


def keep_out_of_collections() -> None:
    """Leave everything that exists now out of garbage collections.

    To be called when a generation is in force. What it is made of has no cycles (a test says so), so that it goes
    when its last reference goes, without the collector.
    """
    gc.freeze()


def take_apart(pieces: list[object]) -> None:
    """Drop ``pieces`` one by one, for a thread: freeing one large object is a single step that nothing interrupts."""
    with brief_pauses():
        while pieces:
            pieces.pop()
