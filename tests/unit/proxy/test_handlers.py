"""The data plane on the gateway's HTTP server, over real sockets, byte by byte."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerConnectionDelegate

from core.headers import Headers
from core.tasks import Tasks
from gateway.listeners import Listener
from proxy.exchange import ClientGone, RequestHead
from proxy.handlers import DataPlaneDelegate, HttpExchange
from proxy.intake import Limits
from tests.clock_by_hand import ClockByHand, connections_by_hand
from tests.exchange import DONE, JSON, SHARED, SSE, TOKEN, Plane, Provider, answer, stream, until
from transport.messages import UpstreamRequest
from transport.script import Cut, Head, Receive, Script, Send, Stall, Step
from transport.server import ServerConnection, ServerLimits

KIBIBYTE = 1024
MEBIBYTE = 1024 * 1024


class Served(HTTPServerConnectionDelegate):
    """A plane on a socket."""

    def __init__(self, plane: Plane, limits: ServerLimits) -> None:
        self.plane = plane
        self.tasks = Tasks()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.port: int = listening.getsockname()[1]
        self._listener = Listener([listening], self, lambda: limits, max_connections=lambda: 100)
        self._listener.start()

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        plane = self.plane
        assert isinstance(request_conn, ServerConnection)
        return DataPlaneDelegate(request_conn, plane.pipeline, plane.plane, plane.clock, self.tasks)

    @property
    def connections(self) -> int:
        return self._listener.open

    @property
    def connection(self) -> ServerConnection:
        """The only one."""
        (found,) = self._listener._connections
        return found

    async def close(self) -> None:
        self._listener.stop_accepting()
        await self.tasks.cancel()
        await self._listener.close()


Serve = Callable[..., Served]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``serve(*providers, **clocks)``: of :class:`transport.server.ServerLimits`."""
    async with contextlib.AsyncExitStack() as open_ones:

        def start(*providers: Provider, limits: Limits | None = None, **clocks: float) -> Served:
            plane = Plane(*providers, body_limits=limits)
            if "body_idle_seconds" in clocks:
                plane.plane = dataclasses.replace(plane.plane, body_idle_seconds=clocks["body_idle_seconds"])
            served = Served(plane, msgspec.structs.replace(ServerLimits(keep_alive_seconds=60), **clocks))
            open_ones.push_async_callback(served.close)
            return served

        yield start


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> ClockByHand:
    """What the clocks of the connections go by."""
    return connections_by_hand(monkeypatch)


class Client:
    """A client that sends and reads what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_for_ever(self, data: bytes) -> None:
        while True:
            await self.send(data)

    async def send_for_ever_slowly(self, data: bytes, pause_seconds: float) -> None:
        """Byte by byte."""
        while True:
            for at in range(len(data)):
                await self.send(data[at : at + 1])
                await asyncio.sleep(pause_seconds)

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        return int(first.split()[1]), fields

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        assert b"\r\n" == await self.reader.readexactly(2)
        return data

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One whole answer."""
        status, fields = await self.head()
        if "content-length" in fields:
            return status, fields, await self.reader.readexactly(int(fields["content-length"]))
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while chunk := await self.chunk():
                body += chunk
        return status, fields, body

    async def gone(self) -> bytes:
        """What is left until the other side closes."""
        return await self.reader.read()


@contextlib.asynccontextmanager
async def connected(served: Served, buffer_bytes: int | None = None) -> AsyncIterator[Client]:
    link = socket.create_connection(("127.0.0.1", served.port))
    if buffer_bytes is not None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    reader, writer = await asyncio.open_connection(sock=link, limit=buffer_bytes or 64 * KIBIBYTE)
    try:
        async with asyncio.timeout(60):
            yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def head(
    method: str = "POST",
    path: str = "/v1/chat/completions",
    length: int | None = None,
    version: str = "1.1",
    token: str = TOKEN,
    **fields: str,
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "host: x", f"authorization: Bearer {token}"]
    if method == "POST" and "content_type" not in fields:
        lines.append("content-type: application/json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if length is not None:
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(body: bytes = b'{"model":"m"}', **more: Any) -> bytes:
    return head(length=len(body), **more) + body


# Framing and keep-alive


async def test_a_whole_answer_has_its_length_and_the_connection_serves_the_next(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b'{"a":1}'), answer(b'{"b":2}')]))
    async with connected(served) as client:
        for expected in (b'{"a":1}', b'{"b":2}'):
            await client.send(post())
            status, fields, body = await client.answer()
            assert (200, "7", expected) == (status, fields["content-length"], body)
            assert fields["x-request-id"].startswith("req_")


async def test_a_stream_is_chunked_event_by_event_and_the_connection_serves_the_next(serve: Serve) -> None:
    served = serve(Provider("up", [stream(b"data: 1\n\n", b"data: 2\n\n", DONE)]))
    async with connected(served) as client:
        for _ in range(2):
            await client.send(post())
            status, fields = await client.head()
            assert (200, "chunked") == (status, fields["transfer-encoding"])
            assert [b"data: 1\n\n", b"data: 2\n\n", DONE, b""] == [await client.chunk() for _ in range(4)]


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    def named(request: UpstreamRequest) -> tuple[Any, ...]:
        assert isinstance(request.body, bytes)
        return answer(request.body)

    served = serve(Provider("up", [named]))
    bodies = [b'{"model":"m","n":%d}' % number for number in range(5)]
    async with connected(served) as client:
        await client.send(b"".join(post(body) for body in bodies) + head("GET", "/v1/nothing"))
        assert bodies == [(await client.answer())[2] for _ in bodies]
        assert 404 == (await client.answer())[0]


async def test_a_chunked_body_in_small_pieces_is_read_whole(serve: Serve) -> None:
    provider = Provider("up", [answer(b"{}")])
    served = serve(provider)
    body = b'{"model":"m","x":"%s"}' % (b"y" * 500)
    async with connected(served) as client:
        await client.send(head(transfer_encoding="chunked"))
        for at in range(0, len(body), 100):
            piece = body[at : at + 100]
            await client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
        await client.send(b"0\r\n\r\n")
        assert 200 == (await client.answer())[0]
    assert body == provider.body


async def test_the_answer_to_head_has_no_body_and_the_connection_goes_on(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]))
    async with connected(served) as client:
        await client.send(head("HEAD", "/v1/models") + head("GET", "/v1/models"))
        status, fields = await client.head()
        assert 405 == status
        assert int(fields["content-length"]) > 0
        assert 200 == (await client.answer())[0]


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_states_no_length(serve: Serve, status: int) -> None:
    served = serve(Provider("up", [(Head(status),)]))
    async with connected(served) as client:
        await client.send(head("GET", "/v1/files/f", token=SHARED, x_sluice_provider="up") * 2)
        for _ in range(2):
            got, fields = await client.head()
            assert (status, None, None) == (got, fields.get("content-length"), fields.get("transfer-encoding"))


async def test_the_end_of_a_stream_shows_to_a_client_of_http_1_0(serve: Serve) -> None:
    served = serve(Provider("up", [stream(b"data: 1\n\n", DONE)]))
    async with connected(served) as client:
        await client.send(post(version="1.0", connection="keep-alive"))
        status, fields = await client.head()
        assert (200, None, "close") == (status, fields.get("transfer-encoding"), fields.get("connection"))
        assert b"data: 1\n\n" + DONE == await client.gone()


async def test_a_client_of_http_1_0_may_keep_its_connection_where_the_length_is_stated(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]))
    async with connected(served) as client:
        for _ in range(2):
            await client.send(post(version="1.0", connection="keep-alive"))
            status, fields, body = await client.answer()
            assert (200, "keep-alive", b"{}") == (status, fields["connection"].lower(), body)


async def test_a_cut_body_ends_without_its_final_chunk(serve: Serve) -> None:
    served = serve(Provider("up", [(Head(200), Send(b"abc"), Cut())]))
    async with connected(served) as client:
        await client.send(post(path="/v1/audio/speech"))
        assert 200 == (await client.head())[0]
        assert b"3\r\nabc\r\n" == await client.gone()


async def test_a_broken_stream_ends_with_its_error_event_and_final_chunk(serve: Serve) -> None:
    served = serve(Provider("up", [stream(b"data: 1\n\n", Cut()), answer(b"{}")]))
    async with connected(served) as client:
        await client.send(post())
        _, _, body = await client.answer()
        assert body.startswith(b'data: 1\n\ndata: {"error":')
        await client.send(post())
        assert 200 == (await client.answer())[0]


# Bodies that are refused or do not come


async def test_a_large_upload_that_is_refused_early_gets_its_answer_and_no_reset(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]), limits=Limits(KIBIBYTE, KIBIBYTE, KIBIBYTE))
    body = b" " * (4 * MEBIBYTE)
    async with connected(served) as client:
        await client.send(head(length=len(body)))
        assert 413 == (await client.head())[0]
        # The client goes on to send, and reads afterwards as simple clients do.
        await client.send(body)
        error = msgspec.json.decode(await client.reader.readuntil(b"}}"))
        assert "request_too_large" == error["error"]["code"]
        await client.send(post())
        assert 200 == (await client.answer())[0]


async def test_a_chunked_upload_that_is_refused_while_it_comes_gets_its_answer(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]), limits=Limits(KIBIBYTE, KIBIBYTE, KIBIBYTE))
    async with connected(served) as client:
        await client.send(head(transfer_encoding="chunked"))
        for _ in range(32):
            await client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        await client.send(b"0\r\n\r\n")
        assert 413 == (await client.answer())[0]


async def test_a_refused_body_that_does_not_end_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transport.server._LINGER_SECONDS", 0.05)
    served = serve(Provider("up", [answer(b"{}")]))
    async with connected(served) as client:
        await client.send(head("POST", "/v1/nothing", length=9999) + b"some")
        status, _, _ = await client.answer()
        assert 404 == status
        assert b"" == await client.gone()


async def test_of_a_refused_body_only_so_much_is_taken(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transport.server._LINGER_BYTES", 100 * KIBIBYTE)
    served = serve(Provider("up", [answer(b"{}")]))
    async with connected(served) as client:
        await client.send(head("POST", "/v1/nothing", length=1 << 30))
        assert 404 == (await client.answer())[0]
        with pytest.raises(ConnectionError):
            await client.send_for_ever(b" " * 65536)


async def test_a_client_that_goes_after_its_refusal_is_nobodys_loss(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]))
    async with connected(served) as client:
        await client.send(head("POST", "/v1/nothing", length=99) + b"some")
        assert 404 == (await client.answer())[0]
    await until(lambda: not served.connections and len(served.plane.told) > 1)
    await asyncio.sleep(0.02)
    assert ["unknown_url"] == [getattr(told, "error_code", None) for told in served.plane.told[1:]]


async def test_a_body_that_stalls_is_refused(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]), body_idle_seconds=0.05)
    async with connected(served) as client:
        await client.send(head(length=99) + b'{"model"')
        status, _, body = await client.answer()
        assert 408 == status
        assert b"0.05 s" in body


async def test_a_body_may_take_longer_than_its_pauses_may(serve: Serve, by_hand: ClockByHand) -> None:
    served = serve(Provider("up", [answer(b"{}")]), body_idle_seconds=10)
    body = b'{"model":"m"}'
    async with connected(served) as client:
        await client.send(head(length=len(body)))

        async def has(length: int) -> None:
            await until(lambda: served.connection._received == length)

        for at in range(len(body)):
            await client.send(body[at : at + 1])
            await has(at + 1)
            by_hand.pass_on(6)
        assert 200 == (await client.answer())[0]


async def test_a_client_that_goes_while_it_sends_is_recorded(serve: Serve) -> None:
    provider = Provider("up", [answer(b"{}")])
    served = serve(provider)
    async with connected(served) as client:
        await client.send(head(length=99) + b'{"model"')
        await until(lambda: served.plane.told)
    await until(lambda: len(served.plane.told) > 1)
    assert ("client_closed", 499) == (served.plane.record.error_code, served.plane.record.status)
    assert [] == provider.requests


async def test_an_upload_is_taken_no_faster_than_the_provider_takes_it(serve: Serve) -> None:
    release = asyncio.Event()
    taken = 0

    class Slow:
        """A provider that takes one piece, and the rest when it is told to."""

        async def send(self, request: UpstreamRequest) -> Any:
            nonlocal taken
            assert request.body is not None
            assert not isinstance(request.body, bytes | tuple)
            async for piece in request.body:
                taken += len(piece)
                await release.wait()
            return await inner.send(msgspec.structs.replace(request, body=None))

    served = serve(Provider("up", [answer(b"{}")]), limits=Limits(MEBIBYTE, 64 * MEBIBYTE, MEBIBYTE))
    bound = served.plane.plane.providers["up"]
    inner = bound.client
    served.plane.plane.providers["up"] = type(bound)(bound.adapter, Slow())  # type: ignore[arg-type]
    size = 32 * MEBIBYTE  # more than the system's own buffers hold
    async with connected(served) as client:
        form = {"content_type": "multipart/form-data; boundary=b", "token": SHARED, "x_sluice_provider": "up"}
        await client.send(head(path="/v1/files", length=size, **form))
        sending = asyncio.ensure_future(client.send(b"x" * size))
        await until(lambda: taken)
        await asyncio.sleep(0.1)
        assert taken < 256 * KIBIBYTE
        assert not sending.done() or client.writer.transport.get_write_buffer_size() > 0
        release.set()
        await sending
        assert 200 == (await client.answer())[0]
    await until(lambda: len(served.plane.told) > 1)
    assert size == taken == served.plane.record.bytes_in


# Clients that leave or do not read


async def test_a_client_that_goes_within_a_stream_cancels_it_at_once(serve: Serve) -> None:
    served = serve(Provider("up", [stream(b"data: 1\n\n", Stall())]))
    async with connected(served) as client:
        await client.send(post())
        await client.head()
        await client.chunk()
    # Nothing else would end it.
    await until(lambda: len(served.plane.told) > 1)
    assert ("client_closed", 200) == (served.plane.record.error_code, served.plane.record.status)
    await until(lambda: not len(served.tasks))


async def test_a_client_that_goes_before_the_answer_cancels_it(serve: Serve) -> None:
    provider = Provider("up", [(Stall(),)])
    served = serve(provider)
    async with connected(served) as client:
        await client.send(post())
        await until(lambda: provider.requests)
    await until(lambda: len(served.plane.told) > 1)
    assert ("client_closed", 499) == (served.plane.record.error_code, served.plane.record.status)


def flood(count: list[int]) -> Callable[[UpstreamRequest], Script]:
    piece = b"data: " + b"x" * 65536 + b"\n\n"

    def steps() -> Iterator[Step]:
        yield Head(200, Headers(SSE))
        for _ in range(400):
            count[0] += 1
            yield Send(piece)
        yield Send(DONE)

    return lambda _request: Script(steps())


async def test_a_client_that_does_not_take_a_complete_answer_is_cut(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b'"' + b"x" * 250 * KIBIBYTE + b'"')]), send_idle_seconds=0.1)
    async with connected(served, buffer_bytes=4096) as client:
        # So many answers that the buffers of the system are full.
        await client.send(post() * 200)
        await client.head()
        await until(lambda: not served.connections)
    assert len(served.plane.told) < 400


async def test_what_was_written_before_a_cut_arrives(serve: Serve) -> None:
    piece = b"x" * 200_000
    served = serve(Provider("up", [(Head(200), *[Send(piece)] * 40, Cut())]))
    async with connected(served, buffer_bytes=128 * KIBIBYTE) as client:
        await client.send(post(path="/v1/audio/speech"))
        await client.head()
        await asyncio.sleep(0.1)
        assert 40 * len(piece) == (await client.gone()).count(b"x")


async def test_of_requests_in_advance_none_is_sent_on_once_the_client_has_gone(serve: Serve) -> None:
    provider = Provider("up", [flood([0])])
    served = serve(provider)
    async with connected(served) as client:
        await client.send(post() * 50)
        await client.head()
    await until(lambda: not served.connections and len(served.plane.told) > 1)
    assert 1 == len(provider.requests)
    assert ["request.started", "request.failed"] == [told.name for told in served.plane.told]


@pytest.mark.parametrize("shape", ["stream", "whole"])
async def test_a_client_that_takes_nothing_is_given_up(serve: Serve, shape: str) -> None:
    provider = Provider("up", [flood([0])] if shape == "stream" else [answer(b'"' + b"x" * (30 * MEBIBYTE) + b'"')])
    served = serve(provider, send_idle_seconds=0.1)
    async with connected(served, buffer_bytes=4096) as client:
        await client.send(post())
        await client.head()
        await until(lambda: len(served.plane.told) > 1)
        assert ("request.failed", "client_closed") == (served.plane.record.name, served.plane.record.error_code)
        await until(lambda: not served.connections)
        if shape == "stream":
            assert served.plane.record.bytes_out < 20 * MEBIBYTE


async def test_a_slow_client_holds_the_provider_back_and_gets_it_all(serve: Serve) -> None:
    count = [0]
    served = serve(Provider("up", [flood(count)]))
    async with connected(served, buffer_bytes=128 * KIBIBYTE) as client:
        await client.send(post())
        await client.head()
        await asyncio.sleep(0.2)
        held = count[0]
        assert held < 150
        total = 0
        while chunk := await client.chunk():
            total += len(chunk)
    assert 400 * (65536 + 8) + len(DONE) == total
    await until(lambda: len(served.plane.told) > 1)
    assert "request.completed" == served.plane.record.name


async def test_a_large_answer_arrives_whole_and_the_connection_goes_on(serve: Serve) -> None:
    body = b'"' + bytes(range(97, 123)) * 100_000 + b'"'
    served = serve(Provider("up", [answer(body)]))
    async with connected(served) as client:
        for _ in range(2):
            await client.send(post())
            assert body == (await client.answer())[2]


async def test_a_task_that_ends_without_an_answer_leaves_the_connection_to_be_closed(serve: Serve) -> None:
    served = serve(Provider("up", [(Stall(),)]))
    async with connected(served) as client:
        await client.send(post())
        await until(lambda: len(served.tasks))
        await until(lambda: served.plane.told)
        await served.tasks.cancel()
        status, _, body = await client.answer()
        assert (503, True) == (status, b"gateway_draining" in body)


# What the server refuses by itself, and bytes at the edges of the grammar


@pytest.mark.parametrize(
    "sent",
    [
        head(length=5, transfer_encoding="chunked"),
        head().replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"),
        head(transfer_encoding="gzip, chunked"),
        head().replace(b"\r\n\r\n", b"\r\nx: a\x00b\r\n\r\n"),
        b"nonsense\r\n\r\n",
    ],
    ids=["two framings", "two lengths", "another coding", "NUL", "nonsense"],
)
async def test_what_is_no_http_never_reaches_a_provider(serve: Serve, sent: bytes) -> None:
    provider = Provider("up", [answer(b"{}")])
    served = serve(provider)
    async with connected(served) as client:
        await client.send(sent)
        assert (await client.gone()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    await until(lambda: not len(served.tasks))
    assert [] == provider.requests


async def test_fields_with_any_bytes_that_http_allows_cross(serve: Serve) -> None:
    provider = Provider("up", [answer(b"{}", [*JSON, ("x-back", "a\xe4\tb")])])
    served = serve(provider)
    value = "".join(map(chr, [*range(0x21, 0x7F), *range(0x80, 0x100)]))
    async with connected(served) as client:
        await client.send(post(x_any=value))
        status, fields, _ = await client.answer()
        assert (200, "a\xe4\tb") == (status, fields["x-back"])
    assert value == provider.last.headers.get("x-any")


async def test_the_clients_address_is_that_behind_trusted_proxies(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]))
    async with connected(served) as client:
        await client.send(post(x_forwarded_for="192.0.2.7"))
        await client.answer()
    await until(lambda: len(served.plane.told) > 1)
    assert "127.0.0.1" == served.plane.record.remote_ip


async def test_bodies_and_answers_are_counted(serve: Serve) -> None:
    served = serve(Provider("up", [Receive(lambda _: Script(answer(b"[234]")), 0)]))
    async with connected(served) as client:
        await client.send(post(b'{"model":"m"}  '))
        await client.answer()
    await until(lambda: len(served.plane.told) > 1)
    assert (15, 5) == (served.plane.record.bytes_in, served.plane.record.bytes_out)


# A connection that ends at the worst moment


async def test_after_the_client_has_gone_nothing_is_done_to_its_connection() -> None:
    connection = ServerConnection(Served.__new__(Served), ServerLimits())  # never connected: a call would fail
    exchange = HttpExchange(connection, RequestHead("GET", "/", "", Headers(), "192.0.2.1", 0.0), 1.0)
    gone: list[bool] = []
    exchange.on_close(lambda: gone.append(True))
    exchange.client_gone()
    exchange.client_gone()
    with pytest.raises(ClientGone):
        exchange.write(b"x")
    exchange.finish()
    exchange.abort()
    exchange.receive_end()
    assert ([True], 0) == (gone, exchange.bytes_out)


async def test_a_long_body_that_is_answered_early_leaves_the_connection_to_the_next_request(serve: Serve) -> None:
    # The provider answers before the gateway has read on: the reading of the client is paused at that moment.
    provider = Provider("up", [answer(b"{}", status=500), answer(b"{}")])
    served = serve(provider, limits=Limits(MEBIBYTE, 64 * MEBIBYTE, MEBIBYTE))
    size = 700 * KIBIBYTE
    form = {"content_type": "multipart/form-data; boundary=b", "token": SHARED, "x_sluice_provider": "up"}
    async with connected(served) as client:
        await client.send(head(path="/v1/files", length=size, **form) + b"x" * size)
        await client.answer()
        await client.send(post())
        async with asyncio.timeout(20):
            assert 200 == (await client.answer())[0]


async def test_empty_lines_do_not_prolong_the_time_for_a_head(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]), header_seconds=0.2)
    async with connected(served) as client:
        sending = asyncio.ensure_future(client.send_for_ever_slowly(b"\r\n", 0.03))
        try:
            # It would go on for ever. What is sent at that moment may have it reset.
            with contextlib.suppress(ConnectionResetError):
                await client.gone()
        finally:
            sending.cancel()


async def test_a_client_that_takes_little_is_not_given_up(serve: Serve, by_hand: ClockByHand) -> None:
    count = [0]
    served = serve(Provider("up", [flood(count)]), send_idle_seconds=10)
    async with connected(served, buffer_bytes=16 * KIBIBYTE) as client:
        await client.send(post())
        await until(lambda: served.connections and served.connection._full)
        connection = served.connection
        for _ in range(20):
            taken = connection._taken()
            while connection._taken() == taken:
                assert await client.reader.read(16 * KIBIBYTE)
                await asyncio.sleep(0.001)
            by_hand.pass_on(6)
        assert 1 == served.connections


async def test_an_answer_that_cannot_be_begun_is_refused_and_does_not_hang(serve: Serve) -> None:
    served = serve(Provider("up", [answer(b"{}")]))
    async with connected(served) as client:
        await client.send(post())
        await client.answer()
    exchange = HttpExchange(
        ServerConnection(Served.__new__(Served), ServerLimits()),
        RequestHead("GET", "/", "", Headers(), "192.0.2.1", 0.0),
        1.0,
    )
    with pytest.raises(RuntimeError):  # no request is under way
        exchange.start(200, (), complete=True)
    assert (False, False) == (exchange.started, exchange.finished)
