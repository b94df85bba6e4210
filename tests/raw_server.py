"""A TCP server whose every byte a test decides, and requests to it: for the tests of the HTTP client."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from core.headers import Headers
from core.tasks import Tasks
from tests.clock_by_hand import ClockByHand
from transport.clock import LazyTimer
from transport.messages import STRAIGHT, Clocks, ConnectionOptions, UpstreamRequest, UpstreamResponse

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
ANSWER = OK + b"content-length: 2\r\n\r\nok"

AT_ONCE_SECONDS = 20.0
"""What does not wait for anything is over within it, on any machine. What waits by mistake takes longer: TLS's farewell 30 s
(``ssl_shutdown_timeout``), the clocks of :func:`post` 60 s."""
CLOCKS = Clocks(60, 60, 60)
"""They run out for nobody but who waits without end."""


class Line:
    """A connection as the server sees it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> bytes:
        """Head and body of a request with a Content-Length."""
        head = await self.head()
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        return head + await self.reader.readexactly(int(length.split(b":")[1]))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Until the client has closed the connection."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        self.writer.transport.abort()


Behaviour = Callable[[Line], Awaitable[None]]


class Server:
    """A raw TCP server: ``behave`` has each connection to itself."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.connections = 0
        self.gone = asyncio.Event()
        self.port = 0
        self.scheme = "http"

    @property
    def base(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    async def left(self) -> None:
        """Until a connection has ended: at once."""
        await asyncio.wait_for(self.gone.wait(), AT_ONCE_SECONDS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.behave(Line(self.connections, reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def served(
    behave: Behaviour, tls: ssl.SSLContext | None = None, host: str = "localhost"
) -> AsyncIterator[Server]:
    server = Server(behave)
    tasks = Tasks()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.spawn(server.serve(reader, writer), "connection")

    listener = await asyncio.start_server(accept, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    server.scheme = "https" if tls else "http"
    try:
        yield server
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()


def replies(*answers: bytes) -> Behaviour:
    """One answer to each request on a connection, then its end."""

    async def behave(line: Line) -> None:
        for answer in answers:
            await line.request()
            await line.send(answer)

    return behave


async def answers_all(line: Line) -> None:
    """``ok`` to each request on a connection."""
    while True:
        await line.request()
        await line.send(ANSWER)


def post(
    url: str,
    body: bytes | AsyncIterator[bytes] | None = b"{}",
    *,
    method: str = "POST",
    headers: tuple[tuple[str, str], ...] = (),
    length: int | None = None,
    clocks: Clocks | None = None,
    options: ConnectionOptions = STRAIGHT,
) -> UpstreamRequest:
    return UpstreamRequest(method, url, Headers(headers), body, length, clocks or CLOCKS, options)


async def body_of(answer: UpstreamResponse) -> bytes:
    data = b""
    while piece := await answer.read():
        data += piece
    return data


class Taker:
    """What ``pass_on`` gives its pieces to; wants no more after each of which ``full`` says so."""

    def __init__(self, full: Callable[[bytes], bool] = lambda _: False) -> None:
        self.pieces: list[bytes] = []
        self.waits = 0
        self.room = asyncio.Event()
        self._full = full

    def take(self, piece: bytes) -> bool:
        self.pieces.append(piece)
        return not self._full(piece)

    async def ready(self) -> None:
        self.waits += 1
        await self.room.wait()


def clock_by_hand(monkeypatch: pytest.MonkeyPatch) -> ClockByHand:
    """What the clocks of connections to providers go by (first byte, idle, keep-alive), those that are made from now on: no
    machine is too slow for them. The connect clock is none of them."""
    clock = ClockByHand()

    def timer(_loop: object, expired: Callable[[], None]) -> LazyTimer:
        return LazyTimer(clock, expired)  # type: ignore[arg-type]  # as much of a loop as a timer needs

    monkeypatch.setattr("transport.provider_connection.LazyTimer", timer)
    return clock


async def settled(value: Callable[[], int]) -> int:
    """``value()`` once it has stopped growing: for thirty turns of the event loop that had time for whatever there was."""
    seen, same = value(), 0
    while same < 30:
        await asyncio.sleep(0.01)
        same = same + 1 if value() == seen else 0
        seen = value()
    return seen
