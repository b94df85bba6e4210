"""An unchanged tornado.web.Application on our connections: handlers, streams, uploads, files, WebSockets."""

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import Application, GZipContentEncoding, RequestHandler, StaticFileHandler, stream_request_body

from tests.raw_server import settled
from tests.wire import Wire, wire

CERTIFICATE = Path(__file__).parent / "localhost.pem"


class Json(RequestHandler):
    def get(self) -> None:
        self.write({"ok": True, "host": self.request.host, "ip": self.request.remote_ip})

    def post(self, *args: str) -> None:
        self.set_cookie("a", "b")
        self.write({"body": self.request.body.decode(), "header": self.request.headers.get_list("X-Many")})

    def delete(self) -> None:
        self.set_status(204)


class Stream(RequestHandler):
    async def get(self) -> None:
        for number in range(5):
            self.write(f"piece {number}\n")
            await self.flush()


class Endless(RequestHandler):
    written = 0
    gone: "asyncio.Future[int]"

    async def get(self) -> None:
        with contextlib.suppress(StreamClosedError):
            while True:
                self.write(b"x" * 65536)
                await self.flush()
                Endless.written += 65536

    def on_connection_close(self) -> None:
        if not self.gone.done():
            self.gone.set_result(self.written)


@stream_request_body
class Upload(RequestHandler):
    def initialize(self) -> None:
        self.taken = 0
        self.pieces = 0

    async def prepare(self) -> None:
        await asyncio.sleep(0.01)
        if self.request.path == "/upload/refused":
            self.set_status(403)
            self.finish("no")

    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        self.taken += len(chunk)
        self.pieces += 1

    def put(self) -> None:
        self.write({"taken": self.taken, "pieces": self.pieces})


class Broken(RequestHandler):
    def get(self) -> None:
        raise ZeroDivisionError


class Aware(RequestHandler):
    def get(self) -> None:
        assert isinstance(self.request, HTTPServerRequest)
        self.write(
            {
                "certificate": self.request.get_ssl_certificate(),
                "url": self.request.full_url(),
                "old": self.request.version,
            }
        )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Wire]:
    (tmp_path / "file.txt").write_bytes(bytes(range(256)) * 2000)
    application = Application(
        [
            ("/json", Json),
            ("/stream", Stream),
            ("/endless", Endless),
            ("/upload(?:/refused)?", Upload),
            ("/broken", Broken),
            ("/aware", Aware),
            ("/files/(.*)", StaticFileHandler, {"path": str(tmp_path)}),
        ],
        log_function=lambda _: None,
    )
    async with wire() as made:
        await made.serve(application)
        yield made


def get(path: bytes, *more: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: localhost", *more]) + b"\r\n\r\n"


async def test_json_on_one_connection(server: Wire) -> None:
    client = await server.client()
    for _ in range(3):
        client.send(get(b"/json"))
        answer = await client.answer()
        assert b'{"ok": true, "host": "localhost", "ip": "127.0.0.1"}' == answer.body
        assert 1 == len(answer.headers.get_list("date"))
        assert "application/json; charset=UTF-8" == answer.headers["content-type"]
    client.send(get(b"/json", b"X-Many: a", b"x-many: b", b"Content-Length: 5", method=b"POST") + b"hello")
    answer = await client.answer()
    assert b'{"body": "hello", "header": ["a", "b"]}' == answer.body
    assert ["a=b; Path=/"] == answer.headers.get_list("set-cookie")
    client.send(get(b"/json", method=b"DELETE"), get(b"/json", method=b"PATCH"), get(b"/nothing"))
    assert [204, 405, 404] == [(await client.answer()).status for _ in range(3)]


async def test_pipelined_requests_of_an_application(server: Wire) -> None:
    client = await server.client()
    client.send(get(b"/stream") + get(b"/json") + get(b"/stream"))
    bodies = [(await client.answer()).body for _ in range(3)]
    assert b"".join(b"piece %d\n" % number for number in range(5)) == bodies[0] == bodies[2]
    assert bodies[1].startswith(b'{"ok": true')


async def test_a_stream_to_http_1_0(server: Wire) -> None:
    answer = await server.exchange(b"GET /stream HTTP/1.0\r\n\r\n")
    assert answer.body.endswith(b"piece 4\n")


async def test_a_client_that_reads_slowly_or_goes_is_noticed(server: Wire) -> None:
    Endless.gone = asyncio.get_running_loop().create_future()
    client = await server.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(get(b"/endless"))
    await server.until(lambda: Endless.written > 0)
    seen = await settled(lambda: Endless.written)
    client.writer.transport.abort()
    assert seen == await Endless.gone


async def test_an_upload_comes_in_pieces(server: Wire) -> None:
    client = await server.client()
    body = b"x" * 3_000_000
    client.send(get(b"/upload", b"Content-Length: %d" % len(body), method=b"PUT"), body)
    answer = await client.answer()
    assert answer.body.startswith(b'{"taken": 3000000')
    chunks = b"".join(b"%x\r\n%b\r\n" % (1000, b"y" * 1000) for _ in range(100))
    client.send(get(b"/upload", b"Transfer-Encoding: chunked", method=b"PUT"), chunks, b"0\r\n\r\n")
    assert (await client.answer()).body.startswith(b'{"taken": 100000')


async def test_an_upload_may_be_refused_early(server: Wire) -> None:
    client = await server.client()
    client.send(get(b"/upload/refused", b"Content-Length: 10", method=b"PUT"), b"x" * 5)
    answer = await client.answer()
    assert 403 == answer.status
    client.send(b"x" * 5 + get(b"/json"))
    assert 200 == (await client.answer()).status


async def test_an_upload_that_expects_continue(server: Wire) -> None:
    client = await server.client()
    client.send(get(b"/upload", b"Content-Length: 10", b"Expect: 100-continue", method=b"PUT"))
    assert 100 == (await client.answer(head_only=True)).status
    client.send(b"x" * 10)
    assert (await client.answer()).body.startswith(b'{"taken": 10')
    client.send(get(b"/upload/refused", b"Content-Length: 10", b"Expect: 100-continue", method=b"PUT"))
    assert 403 == (await client.answer()).status


async def test_files_with_ranges_and_validators(server: Wire) -> None:
    client = await server.client()
    client.send(get(b"/files/file.txt"))
    whole = await client.answer()
    assert bytes(range(256)) * 2000 == whole.body
    client.send(get(b"/files/file.txt", b"Range: bytes=10-19"))
    part = await client.answer()
    assert (206, whole.body[10:20]) == (part.status, part.body)
    assert "bytes 10-19/512000" == part.headers["content-range"]
    client.send(get(b"/files/file.txt", b"If-None-Match: " + whole.headers["etag"].encode()))
    assert 304 == (await client.answer()).status
    client.send(get(b"/files/file.txt", method=b"HEAD"))
    head = await client.answer(head_only=True)
    assert (200, "512000") == (head.status, head.headers["content-length"])
    client.send(get(b"/files/file.txt", b"Range: bytes=999999-"), get(b"/files/none"))
    assert [416, 404] == [(await client.answer()).status for _ in range(2)]


async def test_what_tornado_itself_calls_malformed(server: Wire) -> None:
    answer = await server.exchange(get(b"/json?" + b"&".join([b"a=b"] * 1100)))
    assert 400 == answer.status


async def test_a_request_knows_its_certificate_and_url(server: Wire) -> None:
    answer = await server.exchange(get(b"/aware"))
    assert b'{"certificate": null, "url": "http://localhost/aware", "old": "HTTP/1.1"}' == answer.body


async def test_a_compressing_application() -> None:
    async with wire() as made:
        await made.serve(
            Application([("/stream", Stream)], transforms=[GZipContentEncoding], log_function=lambda _: None)
        )
        answer = await made.exchange(get(b"/stream", b"Accept-Encoding: gzip"))
        assert "gzip" == answer.headers["content-encoding"]
        assert gzip.decompress(answer.body).startswith(b"piece 0\n")


def certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


async def test_an_application_over_tls(tmp_path: Path) -> None:
    async with wire() as made:
        await made.serve(Application([("/json", Json), ("/aware", Aware), ("/upload", Upload)]), tls=certificate())
        client = await made.client(trusting())
        client.send(get(b"/json"), get(b"/aware"))
        assert 200 == (await client.answer()).status
        assert b'"url": "https://localhost/aware"' in (await client.answer()).body
        client.send(get(b"/upload", b"Content-Length: 3000000", method=b"PUT"), b"x" * 3_000_000)
        assert (await client.answer()).body.startswith(b'{"taken": 3000000')
        client.send(get(b"/json", b"Connection: close"))
        assert 200 == (await client.answer()).status
        assert b"" == await client.rest()
