"""tornado.websocket on a connection that began as HTTP here, plain and over TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tornado.httpclient import HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClientConnection, WebSocketHandler, websocket_connect

from tests.wire import Client, Wire, wire
from transport.handover import HandedOverStream

CERTIFICATE = Path(__file__).parent / "localhost.pem"
UPGRADE = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Echo(WebSocketHandler):
    closed: "asyncio.Future[int | None]"

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        Echo.closed.set_result(self.close_code)


class Flood(WebSocketHandler):
    written = 0

    async def open(self, *args: str, **kwargs: str) -> None:
        try:
            while True:
                await self.write_message(b"x" * 65536, binary=True)
                Flood.written += 65536
        except Exception:  # however the end shows
            Flood.written = -1


class Raw(RequestHandler):
    """Whatever protocol it likes."""

    stream: "asyncio.Future[HandedOverStream]"

    def get(self) -> None:
        stream = self.detach()
        assert isinstance(stream, HandedOverStream)
        Raw.stream.set_result(stream)


@pytest.fixture(params=["plain", "tls"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Wire, ssl.SSLContext | None]]:
    loop = asyncio.get_running_loop()
    Echo.closed, Raw.stream, Flood.written = loop.create_future(), loop.create_future(), 0
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE)) if request.param == "tls" else None
    async with wire() as made:
        routes = [("/echo", Echo), ("/raw", Raw)]
        await made.serve(
            Application(routes, log_function=lambda _: None), tls=serving_tls(trusting), send_idle_seconds=120
        )
        yield made, trusting


def serving_tls(trusting: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """What a server has whose clients are ``trusting``."""
    if trusting is None:
        return None
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(CERTIFICATE)
    return serving


async def connect(server: tuple[Wire, ssl.SSLContext | None], path: str) -> WebSocketClientConnection:
    made, trusting = server
    scheme = "ws" if trusting is None else "wss"
    request = HTTPRequest(f"{scheme}://localhost:{made.port}{path}", ssl_options=trusting)
    return await websocket_connect(request, max_message_size=1 << 24)


async def raw(server: tuple[Wire, ssl.SSLContext | None]) -> tuple[Client, HandedOverStream]:
    made, trusting = server
    client = await made.client(trusting)
    client.send(b"GET /raw HTTP/1.1\r\nHost: x\r\n\r\nfirst")
    return client, await Raw.stream


async def test_messages_go_both_ways_and_the_end_is_agreed(server: tuple[Wire, ssl.SSLContext | None]) -> None:
    socket = await connect(server, "/echo")
    for message in ("hello", b"\0\1", "x" * 1_000_000, b"y" * 5_000_000, ""):
        await socket.write_message(message, binary=isinstance(message, bytes))
        assert message == await socket.read_message()
    socket.close(1000, "done")
    assert await socket.read_message() is None
    assert 1000 == await Echo.closed
    await server[0].until(lambda: len(server[0].over) == 1)


async def test_frames_that_came_with_the_upgrade_request_are_read_first(
    server: tuple[Wire, ssl.SSLContext | None],
) -> None:
    made, trusting = server
    client = await made.client(trusting)
    frame = b"\x81\x85\0\0\0\0hello"
    client.send(UPGRADE + frame, frame[:3])
    answer = await client.answer()
    assert 101 == answer.status
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == answer.headers["sec-websocket-accept"]
    assert ["Upgrade"] == answer.headers.get_list("connection")
    assert "content-length" not in answer.headers
    assert "transfer-encoding" not in answer.headers
    assert b"\x81\x05hello" == await client.reader.readexactly(7)
    client.send(frame[3:])
    assert b"\x81\x05hello" == await client.reader.readexactly(7)
    await client.close()
    assert await Echo.closed is None


async def test_a_client_that_does_not_read_makes_the_sender_wait_and_is_given_up(
    server: tuple[Wire, ssl.SSLContext | None],
) -> None:
    made, trusting = server
    await made.serve(Application([("/flood", Flood)]), tls=serving_tls(trusting), send_idle_seconds=1)
    client = await made.client(trusting)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(UPGRADE.replace(b"/echo", b"/flood"))
    await made.until(lambda: Flood.written > 0)
    await made.until(lambda: Flood.written < 0)
    await made.until(lambda: len(made.over) == 1)


async def test_a_reader_that_does_not_read_makes_the_client_wait(server: tuple[Wire, ssl.SSLContext | None]) -> None:
    client, stream = await raw(server)
    sent = 64 * 1024 * 1024
    client.send(b"x" * sent)
    await asyncio.sleep(0.3)
    assert len(stream._tunnel._buffer) < 1 << 20
    assert b"first" == await stream.read_bytes(5)
    taken = 0
    while taken < sent:
        taken += len(await stream.read_bytes(1 << 20, partial=True))
    stream.close()


async def test_the_stream_reads_as_tornados_does(server: tuple[Wire, ssl.SSLContext | None]) -> None:
    client, stream = await raw(server)
    closed: list[bool] = []
    stream.set_close_callback(lambda: closed.append(True))
    stream.set_nodelay(True)
    assert not stream.closed()
    assert b"fi" == await stream.read_bytes(2)
    assert b"rst" == await stream.read_bytes(100, partial=True)
    reading = stream.read_bytes(4)
    assert stream.reading()
    client.send(b"ab")
    await asyncio.sleep(0.02)
    assert not reading.done()
    client.send(b"cdef")
    assert b"abcd" == await reading
    assert not stream.reading()
    abandoned = stream.read_bytes(10)
    abandoned.cancel()
    client.send(b"gh")
    await asyncio.sleep(0.02)
    assert b"efgh" == await stream.read_bytes(4)
    await stream.write(b"answer")
    assert b"answer" == await client.reader.readexactly(6)
    assert not stream.writing()
    last = stream.read_bytes(2)
    client.send(b"z")
    await client.close()
    with pytest.raises(StreamClosedError):
        await last
    assert stream.closed()
    await asyncio.sleep(0)
    assert [True] == closed
    assert b"z" == await stream.read_bytes(1)
    with pytest.raises(StreamClosedError):
        await stream.read_bytes(1)
    with pytest.raises(StreamClosedError):
        await stream.write(b"x")
    stream.set_close_callback(lambda: closed.append(False))
    await asyncio.sleep(0)
    assert [True, False] == closed


async def test_closing_sends_what_is_written(server: tuple[Wire, ssl.SSLContext | None]) -> None:
    client, stream = await raw(server)
    stream.write(b"x" * 3_000_000)
    stream.close()
    stream.close()
    assert 3_000_000 == len(await client.rest())
    await server[0].until(lambda: len(server[0].over) == 1)


async def test_a_server_that_ends_takes_handed_over_connections_along(
    server: tuple[Wire, ssl.SSLContext | None],
) -> None:
    client, stream = await raw(server)
    server[0].connections[0].close()
    await client.lost()
    await server[0].until(stream.closed)


async def test_an_upgrade_that_nobody_takes_ends(server: tuple[Wire, ssl.SSLContext | None]) -> None:
    made, _ = server

    class Forgetful(RequestHandler):
        def get(self) -> None:
            self.set_status(101)

    await made.serve(Application([("/", Forgetful)], log_function=lambda _: None), header_seconds=1)
    client = await made.client()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert 101 == (await client.answer()).status
    await client.lost()
