"""A server on a real socket with delegates that a test writes, and a client that sends bytes and reads answers."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from transport.server import ServerConnection, ServerLimits, WireHeaders


class Request(HTTPMessageDelegate):
    """Keeps what it gets; ``act`` says what to do when the request is complete."""

    def __init__(self, connection: ServerConnection, act: "Act") -> None:
        self.connection = connection
        self.act = act
        self.line = RequestStartLine("", "", "")
        self.headers: WireHeaders
        self.body = b""
        self.calls: list[str] = []
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> Any:
        assert isinstance(start_line, RequestStartLine)
        assert isinstance(headers, WireHeaders)
        self.calls.append("head")
        self.line, self.headers = start_line, headers
        self.arrived.set()

    def data_received(self, chunk: bytes) -> Any:
        self.calls.append("data")
        self.body += chunk

    def finish(self) -> None:
        self.calls.append("finish")
        self.ended.set()
        self.act(self)

    def on_connection_close(self) -> None:
        self.calls.append("close")
        self.ended.set()


Act = Callable[[Request], object]


def answer_ok(request: Request) -> None:
    body = f"{request.line.method} {request.line.path} {request.body.decode('latin-1')}".encode()
    request.connection.start_answer(200, [("content-type", "text/plain")], body, complete=True)


def answer_nothing(request: Request) -> None:
    """The test answers."""


class Door(HTTPServerConnectionDelegate):
    def __init__(self, act: Act = answer_ok, kind: type[Request] = Request) -> None:
        self.act = act
        self.kind = kind
        self.requests: list[Request] = []
        self.closed = 0

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        assert isinstance(request_conn, ServerConnection)
        self.requests.append(self.kind(request_conn, self.act))
        return self.requests[-1]

    def on_close(self, server_conn: object) -> None:
        self.closed += 1

    async def request(self, number: int = 0) -> Request:
        """The request of that number, once its head is there."""
        async with asyncio.timeout(60):
            while len(self.requests) <= number:
                await asyncio.sleep(0.001)
        await self.requests[number].arrived.wait()
        return self.requests[number]


class Answer:
    def __init__(self, status: int, headers: HTTPHeaders, body: bytes, raw: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.raw = raw


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer, read by its framing; a body without any is read to the end of the connection."""
        async with asyncio.timeout(60):
            raw = await self.reader.readuntil(b"\r\n\r\n")
            line, _, rest = raw.decode("latin-1").partition("\r\n")
            headers = HTTPHeaders.parse(rest)
            status = int(line.split(" ")[1])
            body = b""
            if head_only or status in (101, 204, 304) or status < 200:
                pass
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                assert b"\r\n" == await self.reader.readexactly(2)
            else:
                body = await self.reader.read()
            return Answer(status, headers, body, raw)

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(60):
            return await self.reader.read()

    async def lost(self) -> None:
        """Returns when the connection is closed or reset, whatever came before."""
        with contextlib.suppress(ConnectionResetError):
            await self.rest()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Wire:
    """Servers and clients of one test; all are closed at its end."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.over: list[ServerConnection] = []
        self._servers: list[asyncio.Server] = []
        self._clients: list[Client] = []
        self.port = 0

    async def serve(
        self, door: HTTPServerConnectionDelegate, tls: ssl.SSLContext | None = None, **limits: float
    ) -> None:
        settings = ServerLimits(**limits)  # type: ignore[arg-type]  # numbers of either kind

        def connection() -> ServerConnection:
            made = ServerConnection(door, settings, self.over.append, "http" if tls is None else "https")
            self.connections.append(made)
            return made

        server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0, ssl=tls)
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]

    async def client(self, tls: ssl.SSLContext | None = None) -> Client:
        name = None if tls is None else "localhost"
        client = Client(
            *await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name, limit=1 << 24)
        )
        self._clients.append(client)
        return client

    async def exchange(self, *pieces: bytes) -> Answer:
        """One answer on a connection of its own."""
        client = await self.client()
        client.send(*pieces)
        return await client.answer()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        for server in self._servers:
            server.close()
        for connection in self.connections:
            if connection not in self.over:
                connection.abort()
        await self.until(lambda: len(self.over) == len(self.connections))


@contextlib.asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    try:
        yield made
    finally:
        await made.close()
