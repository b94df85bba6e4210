"""A program that is run to its end: without a shell, in a process group of its own, for a bounded time."""

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Final

import msgspec

OUTPUT_BYTES: Final = 64 * 1024
"""A program that prints more is ended."""
ERROR_BYTES: Final = 4 * 1024
"""What is kept of its error output; the rest is read and forgotten."""

_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.05
_LOOKS_AFTER_A_KILL = 100
_PIECE_BYTES = 64 * 1024
_PIECES_AT_ONCE = 16

_log = logging.getLogger("sluice.credentials")


class Ended(msgspec.Struct, frozen=True):
    """A program that has ended by itself."""

    status: int
    """Below 0: the signal that ended it."""
    output: bytes
    errors: bytes

    def __repr__(self) -> str:
        # What it printed is a secret.
        return f"Ended({self.status})"

    def __rich_repr__(self) -> list[tuple[str, int]]:
        return [("status", self.status)]


class CannotRun(Exception):
    """A program that does not come to an end of its own; the message ends a sentence that begins with its name."""

    def __init__(self, message: str, output: bytes = b"", errors: bytes = b"") -> None:
        """``output``, ``errors``: what it has written."""
        super().__init__(message)
        self.output = output
        self.errors = errors


class NotStarted(CannotRun):
    """The operating system does not run it."""


class TookTooLong(CannotRun):
    """It was ended by the clock."""


class SaidTooMuch(CannotRun):
    """It was ended for its output."""


async def run(arguments: Sequence[str], environment: Mapping[str, str], timeout_seconds: float) -> Ended:
    """Start a program and wait for its end; what it has started and left behind in its group is killed then.

    Whoever cancels this kills it too.

    Raises:
        CannotRun: the class tells why.
    """
    try:
        # Some milliseconds, once in a token's life: as an own start of asyncio's takes them too, which then takes the
        # status at once, and with it the number by which the group is killed.
        process = subprocess.Popen(  # noqa: ASYNC220  see above
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            # The same wherever the gateway was started.
            cwd="/",
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise NotStarted(f"cannot be started: {(error.strerror or 'unknown cause').lower()}") from None
    except (ValueError, subprocess.SubprocessError):
        raise NotStarted(
            "cannot be started: its arguments or its environment have characters that none may have"
        ) from None
    output, errors = _Pipe(process.stdout, OUTPUT_BYTES + 1), _Pipe(process.stderr, ERROR_BYTES)
    try:
        await _until_ended(process.pid, output, errors, timeout_seconds)
    finally:
        try:
            await _end(process)
            # Whoever wrote is dead by now, or has left the group: there is nothing to wait for.
            output.take()
            errors.take()
        finally:
            output.close()
            errors.close()
    if output.full:
        raise SaidTooMuch(f"prints more than {OUTPUT_BYTES} bytes", output.data, errors.data)
    assert process.returncode is not None
    return Ended(process.returncode, output.data, errors.data)


class _Pipe:
    """What comes out of a program, up to a bound."""

    def __init__(self, file: IO[bytes] | None, most_bytes: int) -> None:
        assert file is not None
        os.set_blocking(file.fileno(), False)
        self._file = file
        self._most_bytes = most_bytes
        self._taken = bytearray()

    @property
    def full(self) -> bool:
        return len(self._taken) >= self._most_bytes

    @property
    def data(self) -> bytes:
        return bytes(self._taken[: self._most_bytes])

    def take(self) -> int:
        """Read what is there now, of which what is too much is forgotten; how many bytes there were."""
        taken = 0
        for _ in range(_PIECES_AT_ONCE):
            # None: there is nothing yet; b"": nothing will come.
            piece = self._file.read(_PIECE_BYTES)
            if not piece:
                break
            taken += len(piece)
            self._taken += piece[: self._most_bytes - len(self._taken)]
        return taken

    def close(self) -> None:
        self._file.close()


async def _until_ended(pid: int, output: _Pipe, errors: _Pipe, timeout_seconds: float) -> None:
    """Until the program has ended, and no longer: others may hold its output open for ever."""
    pause = _FIRST_PAUSE_SECONDS
    try:
        async with asyncio.timeout(timeout_seconds):
            while not _has_ended(pid):
                taken = output.take() + errors.take()
                if output.full:
                    raise SaidTooMuch(f"prints more than {OUTPUT_BYTES} bytes", output.data, errors.data)
                pause = _FIRST_PAUSE_SECONDS if taken else min(2 * pause, _LONGEST_PAUSE_SECONDS)
                await asyncio.sleep(pause)
    except TimeoutError:
        raise TookTooLong(f"has not ended within {timeout_seconds:g} seconds", output.data, errors.data) from None


def _has_ended(pid: int) -> bool:
    """Asked without taking its status: as long as nobody has, no other process and no group gets its number."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # where SIGCHLD is ignored, the system takes the status itself
        return True


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and its group, and take its status."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # PermissionError: a program that has become another user's, which the loop below sees.
        pass
    for _ in range(_LOOKS_AFTER_A_KILL):
        if process.poll() is not None:
            return
        await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
    _log.warning("a program that gives a token (process %d) cannot be ended: end it by hand", process.pid)
