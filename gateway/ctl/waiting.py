"""Waiting at a terminal, or without one: a spinner, and lines that come in meanwhile."""

import os
import select
import time
from types import TracebackType
from typing import Self, TextIO

from core.clock import Clock

_FRAMES = "|/-\\"
_TURN_SECONDS = 0.2
_MOST_BYTES = 65_536


class Lines:
    """Lines of a file that are taken as they come, without waiting for any."""

    def __init__(self, file: TextIO | None) -> None:
        self._pending = b""
        try:
            self._descriptor = None if file is None else file.fileno()
        except (OSError, ValueError):  # closed, or none of the system's
            self._descriptor = None

    def next(self, seconds: float) -> str | None:
        """A whole line, or what stands at the end of the file; None: none has come within ``seconds``."""
        if b"\n" not in self._pending:
            self._read(seconds)
        line, separator, rest = self._pending.partition(b"\n")
        if not separator and self._descriptor is not None:
            return None
        self._pending = rest
        return line.decode(errors="replace") if line else None

    def _read(self, seconds: float) -> None:
        if self._descriptor is None:
            time.sleep(seconds)
            return
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return
        try:
            data = os.read(self._descriptor, _MOST_BYTES)
        except OSError:
            data = b""  # the terminal is gone
        if not data:
            self._descriptor = None
        self._pending = (self._pending + data)[-_MOST_BYTES:]


class Spinner:
    """Turns on a terminal; on anything else it says once what is waited for."""

    def __init__(self, file: TextIO, text: str, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._text = text
        self._turns = file.isatty()
        self._frame = 0

    def __enter__(self) -> Self:
        if not self._turns:
            print(self._text, file=self._file, flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def wait(self, seconds: float, lines: Lines | None) -> str | None:
        """Wait for a line of ``lines``, ``seconds`` at most."""
        ends = self._clock.monotonic() + seconds
        while (left := ends - self._clock.monotonic()) > 0:
            self._turn()
            part = min(left, _TURN_SECONDS)
            if lines is None:
                time.sleep(part)
            elif (line := lines.next(part)) is not None:
                return line
        return None

    def say(self, text: str) -> None:
        """A line of its own."""
        self._clear()
        print(text, file=self._file, flush=True)

    def _turn(self) -> None:
        if self._turns:
            self._frame = (self._frame + 1) % len(_FRAMES)
            self._file.write(f"\r{_FRAMES[self._frame]} {self._text} ")
            self._file.flush()

    def _clear(self) -> None:
        if self._turns:
            # Erase the line (ECMA-48 EL).
            self._file.write("\r\x1b[K")
            self._file.flush()
