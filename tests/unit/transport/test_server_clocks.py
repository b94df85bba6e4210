"""What a client may take its time with, and what happens when it takes longer."""

import asyncio
import socket
import time
import tracemalloc

import pytest

from tests.clock_by_hand import ClockByHand
from tests.wire import Client, Door, Request, Wire, answer_nothing

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
SOON = 0.1


async def test_a_connection_that_sends_nothing_is_closed_silently(wire: Wire) -> None:
    await wire.serve(Door(), header_seconds=SOON)
    assert b"" == await (await wire.client()).rest()


async def test_a_head_that_never_ends_is_answered_with_408(wire: Wire) -> None:
    await wire.serve(Door(), header_seconds=SOON)
    client = await wire.client()

    async def drip() -> None:
        for byte in GET * 2:
            client.send(bytes([byte]))
            await asyncio.sleep(SOON / 10)

    dripping = asyncio.ensure_future(drip())
    answer = await client.answer()
    dripping.cancel()
    assert 408 == answer.status
    assert b"request_timeout" in answer.body
    assert "close" == answer.headers["connection"]
    assert b"" == await client.rest()


async def test_an_idle_connection_is_closed_silently(wire: Wire) -> None:
    await wire.serve(Door(), keep_alive_seconds=SOON, header_seconds=30)
    client = await wire.client()
    client.send(GET)
    assert 200 == (await client.answer()).status
    assert b"" == await client.rest()


async def test_a_second_head_that_never_ends_is_answered_with_408(wire: Wire, by_hand: ClockByHand) -> None:
    await wire.serve(Door(), keep_alive_seconds=30, header_seconds=10)
    client = await wire.client()
    client.send(GET + GET[:-1])
    assert 200 == (await client.answer()).status
    await wire.until(lambda: wire.connections[0]._heading)
    by_hand.pass_on(10)
    assert 408 == (await client.answer()).status


async def test_a_body_that_stalls_is_answered_with_408(wire: Wire) -> None:
    door = Door()
    await wire.serve(door, body_idle_seconds=SOON)
    for sent in (POST, POST + b"1"):
        client = await wire.client()
        client.send(sent)
        answer = await client.answer()
        assert 408 == answer.status
        assert b"" == await client.rest()
    assert [["head", "close"], ["head", "data", "close"]] == [request.calls for request in door.requests]


async def test_a_body_that_drips_is_not_stalled(wire: Wire, by_hand: ClockByHand) -> None:
    door = Door()
    await wire.serve(door, body_idle_seconds=10)
    client = await wire.client()
    client.send(POST)
    request = await door.request()

    async def has(length: int) -> None:
        await wire.until(lambda: len(request.body) == length)

    for number in range(5):
        by_hand.pass_on(6)
        client.send(b"x")
        await has(number + 1)
    assert b"POST /p xxxxx" == (await client.answer()).body


async def test_a_delegate_may_answer_a_stalled_body_itself(wire: Wire) -> None:
    class Own(Request):
        def body_stalled(self) -> None:
            self.connection.start_answer(400, [], b"mine", complete=True)

    await wire.serve(Door(kind=Own), body_idle_seconds=SOON)
    assert b"mine" == (await wire.exchange(POST)).body


async def test_a_body_that_stalls_inside_the_answer_cuts_it(wire: Wire) -> None:
    class Early(Request):
        def data_received(self, chunk: bytes) -> None:
            self.connection.start_answer(200, [], b"beginning", complete=False)

    await wire.serve(Door(kind=Early), body_idle_seconds=SOON)
    client = await wire.client()
    client.send(POST + b"1")
    with pytest.raises(asyncio.IncompleteReadError):
        await client.answer()


async def test_no_clock_runs_while_an_answer_is_awaited(wire: Wire, by_hand: ClockByHand) -> None:
    door = Door(answer_nothing)
    await wire.serve(door, header_seconds=10, body_idle_seconds=10, keep_alive_seconds=10, send_idle_seconds=10)
    client = await wire.client()
    client.send(POST + b"hello")
    request = await door.request()
    await request.ended.wait()
    by_hand.pass_on(1000)
    request.connection.start_answer(200, [], b"at last", complete=True)
    assert b"at last" == (await client.answer()).body


async def fill(wire: Wire, door: Door) -> tuple[Client, Request]:
    client = await wire.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(GET)
    request = await door.request()
    await request.ended.wait()
    request.connection.start_answer(200, [], complete=False)
    while request.connection.send(b"x" * 65536):
        pass
    return client, request


async def test_a_client_that_takes_nothing_is_given_up(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door, send_idle_seconds=SOON)
    _, request = await fill(wire, door)
    with pytest.raises(ConnectionError):
        await request.connection.drained()
    assert ["head", "finish", "close"] == request.calls


async def test_a_client_that_takes_something_is_waited_for(wire: Wire, by_hand: ClockByHand) -> None:
    door = Door(answer_nothing)
    await wire.serve(door, send_idle_seconds=10)
    loop = asyncio.get_running_loop()
    began = by_hand.now
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", wire.port))
        client.send(GET)
        request = await door.request()
        await request.ended.wait()
        request.connection.start_answer(200, [], b"x" * 4_000_000, complete=False)
        drained = asyncio.ensure_future(request.connection.drained())
        connection = request.connection

        async def takes_more_than(taken: int) -> None:
            await wire.until(lambda: connection._taken() > taken)

        while not drained.done():
            taken = connection._taken()
            await loop.sock_recv(client, 100_000)
            await takes_more_than(taken)
            by_hand.pass_on(6)
        await drained
    assert by_hand.now - began > 10


@pytest.mark.parametrize("how", ["cut", "close", "complete"])
async def test_closing_waits_no_longer_for_a_client_that_takes_nothing(wire: Wire, how: str) -> None:
    door = Door(answer_nothing)
    await wire.serve(door, send_idle_seconds=SOON)
    _, request = await fill(wire, door)
    connection = request.connection
    if how == "complete":
        connection.close_after_answer()
        connection.finish()
    else:
        getattr(connection, how)()
    await wire.until(lambda: bool(wire.over))


async def test_a_silent_connection_costs_little(wire: Wire) -> None:
    await wire.serve(Door())
    await (await wire.client()).close()
    await wire.until(lambda: len(wire.over) == 1)
    tracemalloc.start()
    try:
        for _ in range(200):
            await wire.client()
        await wire.until(lambda: len(wire.connections) == 201)
        await asyncio.sleep(0.05)
        snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/transport/*")])
    finally:
        tracemalloc.stop()
    assert sum(line.size for line in snapshot.statistics("filename")) / 200 < 1500


async def test_no_request_is_begun_for_a_client_that_does_not_take_its_answers(wire: Wire) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [], b"x" * 1_000_000, complete=True)

    door = Door(act)
    await wire.serve(door, keep_alive_seconds=SOON)
    client = await wire.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(GET * 100)
    await wire.until(lambda: wire.connections[0]._full)
    begun = len(door.requests)
    assert begun < 20
    await asyncio.sleep(SOON * 3)
    assert begun == len(door.requests)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
    for _ in range(100):
        assert 1_000_000 == len((await client.answer()).body)
    assert b"" == await client.rest()


async def test_a_request_that_waits_while_the_gateway_is_busy_is_not_late(wire: Wire) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [], b"x", complete=True)
        time.sleep(SOON * 2)  # the event loop stands still

    await wire.serve(Door(act), keep_alive_seconds=SOON)
    client = await wire.client()
    client.send(GET * 3)
    assert [b"x"] * 3 == [(await client.answer()).body for _ in range(3)]
    assert b"" == await client.rest()


async def test_empty_lines_behind_a_request_keep_no_connection_open(wire: Wire) -> None:
    await wire.serve(
        Door(lambda request: request.connection.start_answer(200, [], b"x", complete=True)), keep_alive_seconds=SOON
    )
    client = await wire.client()
    client.send(GET + b"\r\n\r\n")
    assert b"x" == (await client.answer()).body
    assert b"" == await client.rest()


async def test_a_client_that_asks_on_and_on_and_takes_nothing_is_closed(wire: Wire) -> None:
    door = Door(lambda request: request.connection.start_answer(200, [], b"x" * 9_000_000, complete=True))
    await wire.serve(door)
    client = await wire.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(GET)
    await door.request()
    client.send(GET * 5000)
    await wire.until(lambda: bool(wire.over))
    assert 1 == len(door.requests)
