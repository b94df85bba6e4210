"""Answers: their framing, their fields, and a client that takes them slowly."""

import asyncio
import socket

import pytest
from tornado.httputil import HTTPHeaders, HTTPOutputError, ResponseStartLine

from tests.conftest import ExpectLog
from tests.wire import Door, Request, Wire, answer_nothing, answer_ok
from transport.server import ServerConnection

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_an_answer_of_unknown_length_is_chunked(wire: Wire) -> None:
    def act(request: Request) -> None:
        connection = request.connection
        connection.start_answer(200, [("transfer-encoding", "gzip")], b"first", complete=False)
        connection.send(b"")
        connection.send(b"x" * 20_000)
        connection.send(b"last")
        connection.finish()

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET + GET)
    for _ in range(2):
        answer = await client.answer()
        assert ["chunked"] == answer.headers.get_list("transfer-encoding")
        assert b"first" + b"x" * 20_000 + b"last" == answer.body


async def test_an_answer_of_unknown_length_to_http_1_0_ends_with_the_connection(wire: Wire) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [], b"first", complete=False)
        request.connection.send(b"last")
        request.connection.finish()

    await wire.serve(Door(act))
    answer = await wire.exchange(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"firstlast" == answer.body
    assert "close" == answer.headers["connection"]
    assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"HEAD", 404)])
@pytest.mark.parametrize("complete", [True, False])
async def test_answers_without_a_body(wire: Wire, method: bytes, status: int, complete: bool) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(status, [("content-length", "5")], b"hello", complete=complete)
        if not complete:
            request.connection.send(b"more")
            request.connection.finish()

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET.replace(b"GET", method) * 2)
    for _ in range(2):
        answer = await client.answer(head_only=True)
        assert status == answer.status
        assert (None if status == 204 else "5") == answer.headers.get("content-length")
        assert "transfer-encoding" not in answer.headers


async def test_a_body_longer_than_stated_aborts_the_connection(wire: Wire) -> None:
    raised = []

    def act(request: Request) -> None:
        request.connection.start_answer(200, [("content-length", "5")], b"123", complete=False)
        with pytest.raises(HTTPOutputError) as error:
            request.connection.send(b"456")
        raised.append(error)

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET)
    await client.lost()
    assert raised


async def test_a_body_shorter_than_stated_aborts_the_connection(wire: Wire, expect_log: ExpectLog) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [("content-length", "5")], b"123", complete=False)
        request.connection.finish()

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET)
    with expect_log("2 bytes short"):
        await client.lost()


@pytest.mark.parametrize("field", [("x-a", "b\r\nc: d"), ("x-a", "b\nc"), ("x\0", "b"), ("x", "b\r"), ("x", "\u20ac")])
async def test_a_field_that_could_end_its_line_is_not_written(wire: Wire, field: tuple[str, str]) -> None:
    def act(request: Request) -> None:
        with pytest.raises(ValueError):  # UnicodeEncodeError is one
            request.connection.start_answer(200, [field], complete=True)
        answer_ok(request)

    await wire.serve(Door(act))
    assert 200 == (await wire.exchange(GET)).status


async def test_a_field_without_a_number_where_one_belongs_is_not_written(wire: Wire) -> None:
    def act(request: Request) -> None:
        with pytest.raises(ValueError, match="not a number"):
            request.connection.start_answer(200, [("content-length", "+5")], complete=False)
        with pytest.raises(RuntimeError):
            request.connection.finish()
        answer_ok(request)
        with pytest.raises(RuntimeError):
            request.connection.start_answer(200, [], complete=True)

    await wire.serve(Door(act))
    assert 200 == (await wire.exchange(GET)).status


async def test_cutting_an_answer_shows(wire: Wire) -> None:
    def act(request: Request) -> None:
        fields = [("content-length", "100")] if request.line.path == "/length" else []
        request.connection.start_answer(200, fields, b"beginning", complete=False)
        request.connection.cut()
        request.connection.cut()
        request.connection.finish()

    await wire.serve(Door(act))
    for path in (b"/", b"/length"):
        client = await wire.client()
        client.send(GET.replace(b"/ ", path + b" "))
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()
    client = await wire.client()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await client.answer()


async def test_a_client_that_reads_slowly_makes_the_answer_wait(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(GET)
    request = await door.request()
    connection = request.connection
    await request.ended.wait()
    connection.start_answer(200, [], complete=False)
    sent = 0
    while connection.send(b"x" * 65536):
        sent += 65536
        await connection.drained()
    waiting = [asyncio.ensure_future(connection.drained()) for _ in range(2)]
    flushed = connection.write(b"last")
    await asyncio.sleep(0.02)
    assert not any(future.done() for future in (*waiting, flushed))
    waiting[0].cancel()
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
    answered = asyncio.ensure_future(client.answer())
    await waiting[1]
    await flushed
    connection.finish()
    assert sent + 65536 + 4 == len((await answered).body)


async def test_whoever_waits_for_a_client_that_goes_is_told(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    request = await door.request()
    await request.ended.wait()
    request.connection.start_answer(200, [], complete=False)
    while request.connection.send(b"x" * 65536):
        pass
    client.writer.transport.abort()
    with pytest.raises(ConnectionError):
        await request.connection.drained()


async def test_tornados_futures(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    connection = (await door.request()).connection
    await door.requests[0].ended.wait()
    headers = HTTPHeaders({"X-A": "b"})
    headers.add("Set-Cookie", "a=b")
    headers.add("Set-Cookie", "c=d")
    await connection.write_headers(ResponseStartLine("", 299, "Fine"), headers, b"one")
    await connection.write(b"two")
    connection.finish()
    answer = await client.answer()
    assert answer.raw.startswith(b"HTTP/1.1 299 Fine\r\nX-A: b\r\n")
    assert ["a=b", "c=d"] == answer.headers.get_list("set-cookie")
    assert b"onetwo" == answer.body


async def test_small_writes_go_out_at_once(wire: Wire) -> None:
    door = Door()
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    await client.answer()
    accepted: socket.socket = wire.connections[0]._transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_certificate_is_not_there_without_tls(wire: Wire) -> None:
    seen = []

    def act(request: Request) -> None:
        stream = request.connection.stream
        seen.append((stream.closed(), stream.socket.getpeercert(binary_form=True)))
        answer_ok(request)

    await wire.serve(Door(act))
    await wire.exchange(GET)
    assert [(False, None)] == seen
    assert isinstance(wire.connections[0], ServerConnection)
