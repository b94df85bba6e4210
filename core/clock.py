"""Time, passed in: the one module that reads the system's clocks."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the program knows of time."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For durations and deadlines."""
        ...

    def time(self) -> float:
        """Seconds since the Unix epoch. For timestamps that leave the process."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    # Bound once: a method that calls a function would double the cost of a reading.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class ManualClock:
    """A clock that moves only when told to. For tests and rehearsals."""

    __slots__ = ("_monotonic", "_time")

    def __init__(self, monotonic: float = 1000.0, time: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._time = time

    def monotonic(self) -> float:
        return self._monotonic

    def time(self) -> float:
        return self._time

    def advance(self, seconds: float) -> None:
        """Move both readings forward by ``seconds`` (not negative)."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds}")
        self._monotonic += seconds
        self._time += seconds
