"""The mock provider: answers chat completions as fast as one process can, as JSON or as a paced stream.

Run as `python -m bench.upstream`: it prints its port and serves until its standard input ends, so that it cannot
outlive the run. It is a bare epoll loop over non-blocking sockets, because it must be faster than all that is measured;
one ticker serves all streams. When it falls behind, events come later but never closer together and never merged:
one write each, as a provider's would.

It reads just enough HTTP/1.1 for well-behaved proxies (a body by `Content-Length` or in chunks, one request at a time
on a connection) and is no example of a server.
"""

import gc
import select
import socket
import sys
from collections.abc import Callable

from bench.workload import ANSWER, EVENT_GAP_SECONDS, EVENTS, SLOW_EVENT_GAP_SECONDS, SLOW_MARK
from core.clock import SystemClock

_RECEIVE_BYTES = 262144
_READABLE = select.EPOLLIN | select.EPOLLRDHUP
_SLOW_MARK = SLOW_MARK.encode()

_LONG_BYTES = 65536
"""When more than this is missing of a body, it is not kept: it is a long prompt, which is answered as JSON."""

_JSON_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nx-request-id: req_bench\r\n\r\n"
    % len(ANSWER)
) + ANSWER
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\nx-request-id: req_bench\r\n\r\n"
)


def _chunks() -> tuple[bytes, ...]:
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS]
    chunks[0] = _STREAM_HEAD + chunks[0]
    chunks[-1] += b"0\r\n\r\n"
    return tuple(chunks)


_STREAM = _chunks()


class _Connection:
    """One client's socket: what has been read of a request, what could not be written yet, where its stream is."""

    __slots__ = ("closed", "next_event", "received", "sock", "unread_bytes", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.unread_bytes = 0
        """How much is still to come of a body that is not kept."""
        self.unsent = b""
        self.next_event = 0
        self.closed = False


class _Streams:
    """The open streams of one pace."""

    __slots__ = ("due", "gap_seconds", "open")

    def __init__(self, gap_seconds: float) -> None:
        self.gap_seconds = gap_seconds
        self.due = 0.0
        self.open: list[_Connection] = []


class Upstream:
    """The server; :meth:`serve` runs until standard input ends."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._paced = _Streams(EVENT_GAP_SECONDS)
        self._slow = _Streams(SLOW_EVENT_GAP_SECONDS)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)

    @property
    def port(self) -> int:
        """The port that the system chose."""
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Answer until standard input ends."""
        listener, stdin = self._listener.fileno(), sys.stdin.fileno()
        self._epoll.register(listener, select.EPOLLIN)
        self._epoll.register(stdin, select.EPOLLIN)
        while True:
            for fd, mask in self._wait():
                connection = self._connections.get(fd)
                if connection is None:
                    if fd == stdin:
                        return
                    if fd == listener:
                        self._accept()
                    continue
                if mask & select.EPOLLOUT:
                    self._flush(connection)
                if mask & ~select.EPOLLOUT:
                    self._read(connection)
            for streams in (self._paced, self._slow):
                if streams.open and streams.due <= self._now():
                    self._tick(streams)

    def _wait(self) -> list[tuple[int, int]]:
        dues = [streams.due for streams in (self._paced, self._slow) if streams.open]
        if not dues:
            return self._epoll.poll()
        wait_seconds = min(dues) - self._now()
        if wait_seconds > 0:
            # select() waits in microseconds, where epoll_wait() rounds up to milliseconds: a whole gap.
            select.select([self._epoll], [], [], wait_seconds)
        return self._epoll.poll(0)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[sock.fileno()] = _Connection(sock)
            self._epoll.register(sock.fileno(), _READABLE)

    def _close(self, connection: _Connection) -> None:
        if not connection.closed:
            connection.closed = True
            del self._connections[connection.sock.fileno()]
            connection.sock.close()

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if connection.unread_bytes:
            # Else a proxy that does not switch Nagle's algorithm off would now and then be measured by our kernel's timer
            # for delayed acknowledgements, 40 ms. The kernel forgets this, so it is said again and again.
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            connection.unread_bytes -= len(data)
            if connection.unread_bytes <= 0:
                connection.unread_bytes = 0
                self._send(connection, _JSON_ANSWER)
            return
        if connection.received:
            connection.received += data
            data = bytes(connection.received)
        missing_bytes = _missing_bytes(data)
        if missing_bytes > _LONG_BYTES:
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            connection.unread_bytes = missing_bytes
            connection.received.clear()
        elif missing_bytes:
            if not connection.received:
                connection.received += data
        else:
            connection.received.clear()
            self._answer(connection, data)

    def _answer(self, connection: _Connection, request: bytes) -> None:
        if b'"stream":true' not in request and b'"stream": true' not in request:
            self._send(connection, _JSON_ANSWER)
            return
        streams = self._slow if _SLOW_MARK in request else self._paced
        connection.next_event = 1
        self._send(connection, _STREAM[0])
        if not streams.open:
            streams.due = self._now() + streams.gap_seconds
        streams.open.append(connection)

    def _tick(self, streams: _Streams) -> None:
        streams.due = self._now() + streams.gap_seconds
        ended = len(_STREAM)
        for connection in streams.open:
            if not connection.closed:
                self._send(connection, _STREAM[connection.next_event])
                connection.next_event += 1
        streams.open = [each for each in streams.open if not each.closed and each.next_event < ended]

    def _send(self, connection: _Connection, data: bytes) -> None:
        if connection.unsent:
            connection.unsent += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self._epoll.modify(connection.sock.fileno(), _READABLE | select.EPOLLOUT)

    def _flush(self, connection: _Connection) -> None:
        data, connection.unsent = connection.unsent, b""
        self._epoll.modify(connection.sock.fileno(), _READABLE)
        self._send(connection, data)


def _missing_bytes(request: bytes) -> int:
    """How much of the request is still to come: 0 when it is complete, 1 when nobody can tell yet."""
    head_end = request.find(b"\r\n\r\n")
    if head_end < 0:
        return 1
    head = request[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        line_end = head.find(b"\r\n", at + 2)
        value = head[at + 17 :] if line_end < 0 else head[at + 17 : line_end]
        return max(0, head_end + 4 + int(value) - len(request))
    if b"\r\ntransfer-encoding:" in head:
        return 0 if request.endswith(b"0\r\n\r\n") else 1
    return 0


def main() -> None:
    """Serve on a free port of 127.0.0.1, which is printed."""
    upstream = Upstream(SystemClock().monotonic)
    print(upstream.port, flush=True)
    gc.disable()  # The loop makes no cycles; a collection would show as a pause of every row.
    upstream.serve()


if __name__ == "__main__":
    main()
