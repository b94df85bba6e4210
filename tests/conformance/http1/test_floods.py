"""Input without an end is either refused or passed over: none of it is kept."""

import tracemalloc

import pytest

from core.tasks import Tasks
from tests.conformance.http1.server import Recorder
from tests.conformance.http1.wire import MemoryTransport
from transport.server import ServerConnection, ServerLimits

FLOOD_BYTES = 2 << 20
MAX_KEPT_BYTES = 1 << 20
"""What a connection may hold at any time: its limit of a head or of waiting requests, some copies, and a piece."""

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "empty lines": (b"", b"\r\n"),
    "a method": (b"", b"A"),
    "a target": (b"GET /", b"a"),
    "a field": (HEAD + b"X-One: ", b"1"),
    "a name of a field": (HEAD, b"X"),
    "fields": (HEAD, b"X-One: 1\r\n"),
    "a chunk size": (CHUNKED, b"0"),
    "a chunk extension": (CHUNKED + b"5;", b"x"),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n"),
    "requests that wait": (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "half a request that waits": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"x"),
}


@pytest.mark.parametrize("piece_bytes", [1000, 60000])
@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_not_kept(name: str, piece_bytes: int) -> None:
    begin, more = FLOODS[name]
    piece = more * (piece_bytes // len(more))
    tasks = Tasks()
    # No turn of the loop goes by, so no request is answered.
    transport = MemoryTransport(ServerConnection(Recorder(later=tasks), ServerLimits()))
    tracemalloc.start()
    try:
        transport.feed(begin)
        for _ in range(FLOOD_BYTES // piece_bytes):
            if transport.is_closing():
                break
            transport.feed(piece)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        transport.abort()
        await tasks.cancel()
    assert peak_bytes < MAX_KEPT_BYTES
