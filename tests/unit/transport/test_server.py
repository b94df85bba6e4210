"""Requests on one connection: order, persistence, who is told what."""

import asyncio
import re

import pytest

from tests.wire import Door, Request, Wire, answer_nothing, answer_ok

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, *more: bytes) -> bytes:
    head = [b"POST /p HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_a_request_and_its_answer(wire: Wire) -> None:
    door = Door()
    await wire.serve(door)
    answer = await wire.exchange(post(b"hello", b"X-Name:  value "))
    assert 200 == answer.status
    assert b"POST /p hello" == answer.body
    assert "13" == answer.headers["content-length"]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.headers["date"])
    assert "connection" not in answer.headers
    [request] = door.requests
    assert ["head", "data", "finish"] == request.calls
    assert ("x-name", "value") in tuple(request.headers.fields)
    assert "127.0.0.1" == request.connection.context.remote_ip == str(request.connection.context)
    assert "http" == request.connection.context.protocol


async def test_a_request_may_come_byte_by_byte(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    for byte in post(b"hello"):
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert b"POST /p hello" == (await client.answer()).body


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(*(post(b"%d" % number) for number in range(3)))
    for number in range(3):
        request = await door.request(number)
        await asyncio.sleep(0.02)
        assert number + 1 == len(door.requests)
        answer_ok(request)
    assert [b"POST /p 0", b"POST /p 1", b"POST /p 2"] == [(await client.answer()).body for _ in range(3)]


async def test_a_thousand_pipelined_requests_are_no_recursion(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    client.send(GET * 1000)
    for _ in range(1000):
        assert 200 == (await client.answer()).status


async def test_too_much_behind_an_unanswered_request_closes_the_connection(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    request = await door.request()
    client.send(GET * 4000)
    await client.lost()
    assert ["head", "finish", "close"] == request.calls


async def test_empty_lines_before_a_request_are_skipped(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    for piece in (b"\r\n\r\n" + GET, b"\r", b"\n", b"\r\n", GET):
        client.send(piece)
        await asyncio.sleep(0.005)
    assert [200, 200] == [(await client.answer()).status for _ in range(2)]


@pytest.mark.parametrize("how", ["callback", "close"])
async def test_a_client_that_goes_is_told_to_the_one_who_answers(wire: Wire, how: str) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(post(b"x"))
    request = await door.request()
    await request.ended.wait()
    if how == "callback":
        request.connection.set_close_callback(lambda: request.calls.append("callback"))
    await client.close()
    await wire.until(lambda: request.connection.closed)
    assert ["head", "data", "finish", how] == request.calls
    # Nothing of this reaches anybody, and nothing is raised.
    request.connection.start_answer(200, [], b"x", complete=False)
    request.connection.send(b"y")
    with pytest.raises(ConnectionError):
        await request.connection.drained()
    request.connection.finish()
    request.connection.cut()


async def test_a_client_that_goes_inside_its_body(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(post(b"hello")[:-2])
    request = await door.request()
    await client.close()
    await request.ended.wait()
    assert ["head", "data", "close"] == request.calls
    await wire.until(lambda: door.closed == 1)


async def test_a_client_that_closes_its_half_has_gone_with_all_that_it_pipelined(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET + GET)
    request = await door.request()
    client.writer.write_eof()
    assert b"" == await client.rest()
    assert ["head", "finish", "close"] == request.calls
    assert 1 == len(door.requests)


@pytest.mark.parametrize(
    ("request_head", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x, close\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", True),
    ],
)
async def test_the_request_says_whether_the_connection_stays(wire: Wire, request_head: bytes, closes: bool) -> None:
    await wire.serve(Door())
    client = await wire.client()
    client.send(request_head)
    answer = await client.answer()
    old = b"HTTP/1.0" in request_head
    assert ("close" if closes else "keep-alive" if old else None) == answer.headers.get("connection")
    if closes:
        assert b"" == await client.rest()
    else:
        client.send(GET)
        assert 200 == (await client.answer()).status


async def test_a_draining_server_announces_the_end_with_its_answer(wire: Wire) -> None:
    def act(request: Request) -> None:
        request.connection.close_after_answer()
        answer_ok(request)

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET)
    assert "close" == (await client.answer()).headers["connection"]
    assert b"" == await client.rest()


async def test_a_handler_may_close_the_connection(wire: Wire) -> None:
    await wire.serve(
        Door(lambda request: request.connection.start_answer(200, [("Connection", "close")], complete=True))
    )
    client = await wire.client()
    client.send(GET)
    assert ["close"] == (await client.answer()).headers.get_list("connection")
    assert b"" == await client.rest()


async def test_a_connection_ends_after_its_last_request(wire: Wire) -> None:
    await wire.serve(Door(), requests_per_connection=2)
    client = await wire.client()
    client.send(GET * 3)
    assert [None, "close"] == [(await client.answer()).headers.get("connection") for _ in range(2)]
    assert b"" == await client.rest()


async def test_closing_a_server_cuts_what_is_under_way(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    request = await door.request()
    await request.ended.wait()
    idle = await wire.client()
    await wire.until(lambda: len(wire.connections) == 2)
    request.connection.start_answer(200, [], b"beginning", complete=False)
    for connection in wire.connections:
        connection.close()
        connection.close()
    assert (await client.rest()).endswith(b"9\r\nbeginning\r\n")
    assert b"" == await idle.rest()
    assert ["head", "finish", "close"] == request.calls
