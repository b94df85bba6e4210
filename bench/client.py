"""The bench's own HTTP client: many keep-alive connections on one epoll loop, each answer timed to the microsecond.

wrk gives rates; this gives what wrk cannot: a constant rate that waits for no answer (a slow one delays no later
request, so a stall shows in every request that it hits), the time to the first event, and streams that are held open.
"""

import gc
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.workload import Ask
from core.clock import SystemClock

_RECEIVE_BYTES = 262144
_LAST_CHUNK = b"0\r\n\r\n"
_GRACE_SECONDS = 10.0
"""How long answers may be late after the last request has been sent; then they count as failed."""
_now: Callable[[], float] = SystemClock().monotonic


@dataclass(slots=True)
class Samples:
    """Times of the answers to a constant rate of requests, in seconds from when each request was sent."""

    first_body: list[float] = field(default_factory=list)
    """To the first byte of the body: of a stream, its first event."""
    whole: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """How long after its due time each request was sent: the load generator's own fault, so not in the other times."""
    failed: int = 0
    problem: str = ""
    """What was wrong with the last one that failed, where that is known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer: its body (chunk framing left in) and its size on the wire, head included."""

    body: bytes
    wire_bytes: int


class _Connection:
    """A keep-alive connection and the answer that it is reading."""

    __slots__ = ("begun", "closes", "counted", "first_body_at", "head_bytes", "received", "sock", "whole_bytes")

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.closes = False
        """Whether the peer has said that it closes the connection after this answer."""
        self.begin(0.0, False)

    def begin(self, begun: float, counted: bool) -> None:
        self.begun = begun
        self.counted = counted
        self.first_body_at = 0.0
        self.received = b""
        self.head_bytes = 0
        self.whole_bytes = 0
        """0 while unknown, and for an answer in chunks."""

    def take(self, data: bytes, at: float) -> bool:
        """Read on; True when the answer is complete. Raises ValueError on any status but 200."""
        self.received += data
        if not self.head_bytes:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            if not self.received.startswith(b"HTTP/1.1 200 "):
                raise ValueError(self.received[: self.received.find(b"\r\n")])
            self.head_bytes = end + 4
            head = self.received[:end].lower()
            self.closes = b"\r\nconnection: close" in head
            start = head.find(b"\r\ncontent-length:")
            if start >= 0:
                self.whole_bytes = self.head_bytes + int(head[start + 17 :].split(b"\r\n", 1)[0])
        if not self.first_body_at and len(self.received) > self.head_bytes:
            self.first_body_at = at
        if self.whole_bytes:
            return len(self.received) >= self.whole_bytes
        return self.received.endswith(_LAST_CHUNK)


class _Loop:
    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._where = (host, int(port))
        self._epoll = select.epoll()
        self.connections: dict[int, _Connection] = {}

    def connect(self) -> _Connection:
        connection = _Connection(*self._where)
        self.connections[connection.sock.fileno()] = connection
        self._epoll.register(connection.sock.fileno(), select.EPOLLIN)
        return connection

    def drop(self, connection: _Connection) -> None:
        del self.connections[connection.sock.fileno()]
        connection.sock.close()

    def arrived(self, wait_seconds: float) -> list[tuple[_Connection, bytes]]:
        """What came within ``wait_seconds``; empty bytes mean that the peer closed."""
        # select() waits in microseconds, where epoll_wait() rounds up to milliseconds.
        select.select([self._epoll], [], [], max(wait_seconds, 0.0))
        arrivals = []
        for fd, _ in self._epoll.poll(0):
            connection = self.connections[fd]
            try:
                arrivals.append((connection, connection.sock.recv(_RECEIVE_BYTES)))
            except BlockingIOError:
                continue
            except OSError:
                arrivals.append((connection, b""))
        return arrivals

    def close(self) -> None:
        for connection in list(self.connections.values()):
            self.drop(connection)
        self._epoll.close()


def once(address: str, ask: Ask) -> Answer:
    """Send one request. Raises ValueError on any status but 200, OSError when cut or silent for ten seconds."""
    connection = _patient(address)
    with connection.sock:
        _exchange(connection, ask.raw(address))
    return Answer(connection.received[connection.head_bytes :], len(connection.received))


def one_by_one(address: str, ask: Ask, count: int) -> Samples:
    """Send ``ask`` as often, each once the one before it is answered, on one connection; the first is not counted."""
    request = ask.raw(address)
    samples = Samples()
    connection = _patient(address)
    gc.collect()
    gc.disable()
    try:
        for number in range(count + 1):
            connection.begin(_now(), number > 0)
            try:
                _exchange(connection, request)
            except (OSError, ValueError) as error:
                samples.failed += 1
                samples.problem = str(error)
                connection.closes = True
            else:
                if connection.counted:
                    samples.first_body.append(connection.first_body_at - connection.begun)
                    samples.whole.append(_now() - connection.begun)
            if connection.closes:
                connection.sock.close()
                connection = _patient(address)
    finally:
        gc.enable()
        connection.sock.close()
    return samples


def _patient(address: str) -> _Connection:
    """A connection to use with :func:`_exchange`."""
    host, _, port = address.rpartition(":")
    connection = _Connection(host, int(port))
    connection.sock.settimeout(_GRACE_SECONDS)
    return connection


def _exchange(connection: _Connection, request: bytes) -> None:
    """Send and read the answer. Raises ValueError on any status but 200, OSError when cut or silent."""
    connection.sock.sendall(request)
    complete = False
    while not complete:
        data = connection.sock.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError(f"cut after {len(connection.received)} bytes")
        complete = connection.take(data, _now())


def constant_rate(address: str, ask: Ask, per_second: float, seconds: float, warm_up_seconds: float = 0.5) -> Samples:
    """Send ``ask`` at fixed times, ``per_second`` for ``seconds`` after a warm-up that is not counted."""
    loop = _Loop(address)
    request = ask.raw(address)
    samples = Samples()
    uncounted = int(per_second * warm_up_seconds)
    total = uncounted + int(per_second * seconds)
    idle = [loop.connect() for _ in range(16)]
    sent = 0
    gc.collect()
    gc.disable()  # A collection here would look like a pause of the proxy.
    try:
        start = _now() + 0.05
        end = start + total / per_second + _GRACE_SECONDS
        while True:
            now = _now()
            while sent < total and start + sent / per_second <= now:
                connection = idle.pop() if idle else loop.connect()
                at = _now()
                connection.begin(at, sent >= uncounted)
                connection.sock.send(request)
                if connection.counted:
                    samples.late.append(at - (start + sent / per_second))
                sent += 1
            if (sent == total and len(idle) == len(loop.connections)) or now > end:
                break
            wait_seconds = start + sent / per_second - now if sent < total else end - now
            for connection, data in loop.arrived(wait_seconds):
                _arrive(loop, connection, data, samples, idle)
        samples.failed += len(loop.connections) - len(idle)
    finally:
        gc.enable()
        loop.close()
    return samples


def _arrive(loop: _Loop, connection: _Connection, data: bytes, samples: Samples, idle: list[_Connection]) -> None:
    at = _now()
    if not data:
        if connection in idle:  # An idle connection may be closed at any time: no fault.
            idle.remove(connection)
        else:
            samples.failed += 1
        loop.drop(connection)
        return
    try:
        complete = connection.take(data, at)
    except ValueError:
        samples.failed += 1
        loop.drop(connection)
        return
    if complete:
        if connection.counted:
            samples.first_body.append(connection.first_body_at - connection.begun)
            samples.whole.append(at - connection.begun)
        if connection.closes:  # It may have had all the requests that the proxy allows on one: no fault either.
            loop.drop(connection)
        else:
            idle.append(connection)


class HeldStreams:
    """Streams that are opened and left open while they trickle."""

    def __init__(self, address: str, ask: Ask) -> None:
        self._loop = _Loop(address)
        self._request = ask.raw(address)
        self.flowing = 0
        """How many are open and have had their first event."""
        self.lost = 0

    def open(self, count: int, deadline: float) -> None:
        """Open until ``count`` are open and each has had its first event, or until the time is ``deadline``."""
        while (missing := count - len(self._loop.connections)) > 0 and _now() < deadline:
            for _ in range(min(missing, 50)):  # In small groups: this is no test of the accept queue.
                connection = self._loop.connect()
                connection.sock.send(self._request)
            while self.flowing < len(self._loop.connections) and _now() < deadline:
                self._read(0.05)

    def trickle(self, seconds: float) -> None:
        """Go on reading for a while."""
        end = _now() + seconds
        while (left := end - _now()) > 0:
            self._read(left)

    def close(self) -> None:
        """Hang up on all of them."""
        self._loop.close()

    def _read(self, wait_seconds: float) -> None:
        for connection, data in self._loop.arrived(wait_seconds):
            flowed = connection.first_body_at > 0
            try:
                ended = not data or connection.take(data, _now())
            except ValueError:
                ended = True
            self.flowing += (connection.first_body_at > 0 and not ended) - flowed
            if ended:
                self.lost += 1
                self._loop.drop(connection)
