"""The access log: one JSON line for each request of the data plane. No bodies, no secrets.

The line is made at once, on the event loop; a thread of its own writes, in batches. So a pipe that nobody reads
delays no request: lines are kept up to a bound, and beyond it they are dropped and counted.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from core.clock import Clock
from core.events import Event, RequestCompleted, RequestFailed
from core.usage import Usage

_log = logging.getLogger("sluice.access_log")

BATCH_SECONDS = 0.1
"""A line is written at most this long after its request ended."""
MAX_PENDING_BYTES = 8 * 1024 * 1024
MAX_TEXT_CHARACTERS = 256
"""Texts of the client's choosing are cut after this many characters."""
PIPE_BUF = 4096
"""The longest write to a pipe that cannot be mixed with another process's (POSIX `write`; Linux's value, pipe(7))."""


class Writer(Protocol):
    """An unbuffered binary stream, such as ``io.FileIO``."""

    def write(self, data: bytes, /) -> int | None:
        """How many bytes were taken; None when the stream is non-blocking and full."""
        ...


class Line(msgspec.Struct, frozen=True):
    """The members of a line, in their order. Durations are seconds; what does not apply is null."""

    time: datetime
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
    bytes_in: int
    bytes_out: int
    revision: str


def line(event: RequestCompleted | RequestFailed, now: float) -> Line:
    """The line for a request that ended at ``now`` (seconds since the epoch)."""
    target = None
    if event.provider is not None:
        target = event.provider if event.model is None else f"{event.provider}/{event.model}"
    return Line(
        time=datetime.fromtimestamp(now, UTC),
        request_id=event.request_id,
        client_request_id=event.client_request_id and cut(event.client_request_id),
        token=event.token,
        remote_ip=event.remote_ip,
        method=cut(event.method),
        endpoint=event.endpoint,
        requested_model=event.requested_model and cut(event.requested_model),
        route=event.route,
        target=target and cut(target),
        credential=event.credential,
        status=event.status,
        error_code=event.error_code if isinstance(event, RequestFailed) else None,
        stream=event.stream,
        attempts=event.attempts,
        duration_seconds=round(event.duration_seconds, 6),
        overhead_seconds=round(event.overhead_seconds, 6),
        ttft_seconds=_rounded(event.ttft_seconds),
        upstream_seconds=_rounded(event.upstream_seconds),
        usage=event.usage,
        bytes_in=event.bytes_in,
        bytes_out=event.bytes_out,
        revision=event.revision,
    )


class AccessLog:
    """Writes lines to ``writer`` from a thread of its own. Make it in each worker, after the fork."""

    def __init__(self, writer: Writer, clock: Clock, enabled: Callable[[], bool] = lambda: True) -> None:
        """``enabled`` is asked for every request, so that `telemetry.access_log` takes effect at once."""
        self._writer = writer
        self._clock = clock
        self._enabled = enabled
        self._encode = msgspec.json.Encoder().encode
        self._lock = threading.Lock()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._lost = 0
        self._failing = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        # A daemon: a pipe that is never read must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that could not be kept or written so far."""
        return self._lost

    def observe(self, event: Event) -> None:
        """Write a line if ``event`` ends a request; an observer of :class:`core.events.Events`."""
        if not isinstance(event, RequestCompleted | RequestFailed) or not self._enabled():
            return
        encoded = self._encode(line(event, self._clock.time())) + b"\n"
        with self._lock:
            if self._pending_bytes + len(encoded) > MAX_PENDING_BYTES:
                self._lost += 1
                return
            first = not self._pending
            self._pending.append(encoded)
            self._pending_bytes += len(encoded)
        if first:
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

    def _flush(self) -> None:
        with self._lock:
            batch, self._pending, self._pending_bytes = self._pending, [], 0
        for lines in _chunks(batch):
            try:
                self._write(b"".join(lines))
            # ValueError: the stream was closed. The rest is tried all the same: a disk may have room again.
            except (OSError, ValueError) as error:
                self._failed(lines, error)
            else:
                self._failing = False

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            taken = self._writer.write(bytes(rest))
            if taken is None:
                if self._closing.wait(0.01):
                    raise BlockingIOError("the stream takes nothing and the gateway is ending")
                continue
            rest = rest[taken:]

    def _failed(self, lines: list[bytes], error: Exception) -> None:
        with self._lock:
            self._lost += len(lines)
        if not self._failing:
            # Once for a run of failures: the gateway's own log must not grow by a line a request.
            self._failing = True
            _log.warning("the access log cannot be written, its lines are lost until it can: %s", error)


def _chunks(batch: list[bytes]) -> list[list[bytes]]:
    """Runs of whole lines of at most PIPE_BUF bytes, so that workers that share a pipe do not cut into each other."""
    chunks: list[list[bytes]] = []
    size = PIPE_BUF
    for encoded in batch:
        if size + len(encoded) > PIPE_BUF:
            chunks.append([])
            size = 0
        chunks[-1].append(encoded)
        size += len(encoded)
    return chunks


def cut(text: str) -> str:
    """``text``, of at most :data:`MAX_TEXT_CHARACTERS`."""
    return text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
