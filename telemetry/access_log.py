"""The access log: one JSON line for each request of the data plane. No bodies, no secrets.

Lines are made a few at a time, on the event loop, and written by a thread of its own, many at a time. So a pipe that
nobody reads delays no request: lines are kept up to a bound, and beyond it they are dropped and counted.

Measured on a loaded loop, a line costs a third less when sixteen are made in a row than each at its request's end:
code and tables are in the processor's cache then. A thread that made all of them would save no more, and would hold
the interpreter for so long that the loop's 99th percentile rose from 1.0 to 1.7 ms.
"""

import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from core.clock import Clock
from core.events import Event, Events, RequestCompleted, RequestFailed
from core.usage import Usage

_log = logging.getLogger("sluice.access_log")

BATCH_SECONDS = 0.1
"""A line is written at most this long after its request ended."""
LINES_AT_ONCE = 16
"""So many lines are made in a row; it delays the event loop by some 40 µs."""
MAX_PENDING_BYTES = 8 * 1024 * 1024
MAX_TEXT_CHARACTERS = 256
"""Texts of the client's choosing are cut after this many characters."""
PIPE_BUF = 4096
"""The longest write to a pipe that cannot be mixed with another process's (POSIX `write`; Linux's value, pipe(7))."""
MAX_WRITE_BYTES = 65536
"""The longest write where there is no other process; also what a pipe of Linux holds."""


class Writer(Protocol):
    """An unbuffered binary stream, such as ``io.FileIO``."""

    def write(self, data: bytes, /) -> int | None:
        """How many bytes were taken; None when the stream is non-blocking and full."""
        ...


class Line(msgspec.Struct, frozen=True, gc=False):
    """The members of a line, in their order. Durations are seconds; what does not apply is null."""

    time: str
    """When the request ended, RFC 3339 in UTC."""
    request_id: str
    client_request_id: str | None
    token: str | None
    remote_ip: str
    method: str
    endpoint: str
    requested_model: str | None
    route: str | None
    target: str | None
    """``provider/model``, as dialled."""
    credential: str | None
    status: int
    error_code: str | None
    stream: bool
    attempts: int
    duration_seconds: float
    overhead_seconds: float
    ttft_seconds: float | None
    upstream_seconds: float | None
    usage: Usage | None
    cost_usd: float | None
    """Null where nothing was used that has a known price."""
    bytes_in: int
    bytes_out: int
    revision: str


def line(event: RequestCompleted | RequestFailed, time: str) -> Line:
    """The line for a request that ended at ``time``."""
    target = event.provider
    if target is not None and event.model is not None:
        target = f"{target}/{event.model}"
    # By position: names would double the cost.
    return Line(
        time,
        event.request_id,
        event.client_request_id and cut(event.client_request_id),
        event.token,
        event.remote_ip,
        cut(event.method),
        event.endpoint,
        event.requested_model and cut(event.requested_model),
        event.route,
        target and cut(target),
        event.credential,
        event.status,
        event.error_code,
        event.stream,
        event.attempts,
        _rounded(event.duration_seconds),
        _rounded(event.overhead_seconds),
        None if event.ttft_seconds is None else _rounded(event.ttft_seconds),
        None if event.upstream_seconds is None else _rounded(event.upstream_seconds),
        event.usage,
        # Division rounds to the nearest double, whose shortest text is the decimal number itself up to 15 digits.
        None if event.cost_nano_usd is None else event.cost_nano_usd / 1e9,
        event.bytes_in,
        event.bytes_out,
        event.revision,
    )


class Timestamps:
    """Renders times as RFC 3339 does, in UTC with microseconds. What changes once a second is rendered once."""

    __slots__ = ("_second", "_until_second")

    def __init__(self) -> None:
        self._second = -1
        self._until_second = ""

    def render(self, now: float) -> str:
        """``now`` is in seconds since the epoch, not negative."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._until_second = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._until_second}{int((now - second) * 1e6):06}Z"


class AccessLog:
    """Writes lines to ``writer`` from a thread of its own. Make it in each worker, after the fork."""

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        enabled: Callable[[], bool] = lambda: True,
        *,
        shared: bool = True,
    ) -> None:
        """``enabled`` is asked for every request, so that `telemetry.access_log` takes effect at once.

        ``shared``: other processes write to the same stream and could cut into a long write (:func:`mixes_writes`),
        so writes are short. It costs a quarter more CPU on a loaded loop.
        """
        self._writer = writer
        self._clock = clock
        self._enabled = enabled
        self._max_write_bytes = PIPE_BUF if shared else MAX_WRITE_BYTES
        self._timestamps = Timestamps()
        self._encode = msgspec.json.Encoder().encode
        # The event loop adds at the end and whoever makes lines takes from the front, without a lock.
        self._ended: deque[tuple[float, RequestCompleted | RequestFailed]] = deque()
        # For whoever makes lines, so that they stay in order: seldom, and for some 40 µs.
        self._making = threading.Lock()
        # Makers add at the end, the thread takes from the front. Each of the numbers is written by one of the two.
        self._pending: deque[bytes] = deque()
        self._made_bytes = 0
        self._taken_bytes = 0
        self._not_kept = 0
        self._not_written = 0
        self._failing = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        # A daemon: a pipe that is never read must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that could not be kept or written so far."""
        return self._not_kept + self._not_written

    def subscribe(self, events: Events) -> None:
        """Have a line for each request whose end ``events`` tells of."""
        events.subscribe(self.ended, RequestCompleted)
        events.subscribe(self.ended, RequestFailed)

    def observe(self, event: Event) -> None:
        """Write a line if ``event`` ends a request."""
        if isinstance(event, RequestCompleted | RequestFailed):
            self.ended(event)

    def ended(self, event: RequestCompleted | RequestFailed) -> None:
        """Write a line. From the event loop's thread alone."""
        if not self._enabled():
            return
        self._ended.append((self._clock.time(), event))
        if len(self._ended) >= LINES_AT_ONCE:
            self._make_lines()
        # After the event is there: the thread clears this before it looks for events.
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Write what is pending and end the thread, or give up after ``timeout_seconds``. May be called again."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            # Let a batch gather: one write for many lines.
            self._closing.wait(BATCH_SECONDS)
            self._wake.clear()
            self._flush()
        self._flush()

    def _make_lines(self) -> None:
        ended, encode, render = self._ended, self._encode, self._timestamps.render
        with self._making:
            while ended:
                now, event = ended.popleft()
                encoded = encode(line(event, render(now)))
                size = len(encoded) + 1
                if self._made_bytes - self._taken_bytes + size > MAX_PENDING_BYTES:
                    self._not_kept += 1
                else:
                    self._made_bytes += size
                    self._pending.append(encoded)

    def _flush(self) -> None:
        self._make_lines()
        # What comes in meanwhile waits for its batch, or under load each write would be of a line or two.
        left = len(self._pending)
        while left > 0:
            lines = self._take()
            left -= len(lines)
            data = b"\n".join((*lines, b""))
            try:
                self._write(data)
            # ValueError: the stream was closed. The rest is tried all the same: a disk may have room again.
            except (OSError, ValueError) as error:
                self._failed(len(lines), error)
            else:
                self._failing = False

    def _take(self) -> list[bytes]:
        """The next lines, at least one, together no longer than one write may be.

        A write is of whole lines, so that workers that share a pipe do not cut into each other.
        """
        pending = self._pending
        lines = [pending.popleft()]
        size = len(lines[0]) + 1
        while pending and size + len(pending[0]) < self._max_write_bytes:
            lines.append(pending.popleft())
            size += len(lines[-1]) + 1
        self._taken_bytes += size
        return lines

    def _write(self, data: bytes) -> None:
        while data:
            taken = self._writer.write(data)
            if taken is None:
                if self._closing.wait(0.01):
                    raise BlockingIOError("the stream takes nothing and the gateway is ending")
                continue
            data = data[taken:]

    def _failed(self, count: int, error: Exception) -> None:
        self._not_written += count
        if not self._failing:
            # Once for a run of failures: the gateway's own log must not grow by a line a request.
            self._failing = True
            _log.warning("the access log cannot be written, its lines are lost until it can: %s", error)


def mixes_writes(descriptor: int) -> bool:
    """Whether long writes of several processes to what is open there may be mixed: not in files and on devices.

    Linux holds a regular file's lock, or the terminal's, for the length of a write; pipes and sockets pass it on in
    parts.
    """
    mode = os.fstat(descriptor).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISCHR(mode))


def cut(text: str) -> str:
    """``text``, of at most :data:`MAX_TEXT_CHARACTERS`."""
    return text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…"


def _rounded(seconds: float) -> float:
    # To microseconds, as `round(seconds, 6)`, in a fifth of its time.
    return int(seconds * 1e6 + 0.5) / 1e6
