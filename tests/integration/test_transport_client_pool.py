"""Which connection of the HTTP client a request gets, over real sockets."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.errors import ConnectFailed, ConnectTimeout, Delivered
from tests.clock_by_hand import ClockByHand
from tests.gateway_process import until
from tests.raw_server import (
    ANSWER,
    AT_ONCE_SECONDS,
    CHUNKED,
    OK,
    Line,
    answers_all,
    body_of,
    clock_by_hand,
    post,
    served,
)
from transport.client import HttpClient, PoolLimits
from transport.messages import Clocks, ConnectionOptions, UpstreamResponse
from transport.provider_connection import ProviderConnection


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> ClockByHand:
    """The clocks of connections, but for the connect clock."""
    return clock_by_hand(monkeypatch)


def state(client: HttpClient) -> str:
    return repr(client).removeprefix("<HttpClient <pool ").removesuffix(">>")


async def says_its_number(line: Line) -> None:
    while True:
        await line.request()
        await asyncio.sleep(0.01)
        await line.send(OK + b"content-length: 1\r\n\r\n%d" % line.number)


async def streams(line: Line) -> None:
    """An answer that ends when it is given up."""
    await line.request()
    await line.send(CHUNKED + b"3\r\none\r\n")
    await line.gone()


async def numbers(client: HttpClient, url: str, times: int) -> set[bytes]:
    return {await body_of(await client.send(post(url))) for _ in range(times)}


async def test_the_connection_that_was_used_last_is_used_first(client: HttpClient) -> None:
    async with served(says_its_number) as server:
        assert 3 == len(set(await asyncio.gather(*[send_read(client, server.base) for _ in range(3)])))
        assert "3 open, 3 idle, 0 waiting" == state(client)
        assert 1 == len(await numbers(client, server.base, 5))
        assert 3 == server.connections


async def send_read(client: HttpClient, url: str) -> bytes:
    return await body_of(await client.send(post(url)))


async def test_idle_connections_are_closed_after_a_while(by_hand: ClockByHand) -> None:
    client = HttpClient(PoolLimits(keep_alive_seconds=10))
    async with served(answers_all) as server:
        assert b"ok" == await send_read(client, server.base)
        by_hand.pass_on(9)
        assert "1 open, 1 idle, 0 waiting" == state(client)
        by_hand.pass_on(1)
        await server.left()
        assert "0 open, 0 idle, 0 waiting" == state(client)
        await client.close()


async def test_no_connection_is_kept_when_none_shall_be() -> None:
    client = HttpClient(PoolLimits(keep_alive_seconds=0))
    async with served(answers_all) as server:
        for number in (1, 2):
            assert b"ok" == await send_read(client, server.base)
            assert (number, "0 open, 0 idle, 0 waiting") == (server.connections, state(client))
        await client.close()


@pytest.mark.parametrize(("said", "idle"), [(b"timeout=1", 0), (b"max=5, Timeout=100", 1), (b"timeout=soon", 1)])
async def test_a_provider_that_says_how_long_it_keeps_connections_is_believed(
    client: HttpClient, by_hand: ClockByHand, said: bytes, idle: int
) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(OK + b"keep-alive: %b\r\ncontent-length: 2\r\n\r\nok" % said)
        await line.gone()

    async with served(behave) as server:
        assert b"ok" == await send_read(client, server.base)
        by_hand.pass_on(0.6)
        assert f"{idle} open, {idle} idle, 0 waiting" == state(client)


@pytest.mark.parametrize("limits", [PoolLimits(connections=2), PoolLimits(connections_per_origin=2)], ids=str)
async def test_requests_beyond_the_limit_wait_their_turn(limits: PoolLimits) -> None:
    client = HttpClient(limits)
    async with served(says_its_number) as server:
        got = await asyncio.gather(*[send_read(client, server.base) for _ in range(20)])
        assert {b"1", b"2"} == set(got)
        assert (2, "2 open, 2 idle, 0 waiting") == (server.connections, state(client))
        await client.close()


async def test_the_queue_is_bounded() -> None:
    client = HttpClient(PoolLimits(connections=1, waiting=1))
    async with served(streams) as server:
        held = await client.send(post(server.base))
        waits = asyncio.ensure_future(client.send(post(server.base)))
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectFailed, match="Too many requests wait") as failed:
            await client.send(post(server.base))
        assert Delivered.NO is failed.value.delivered
        held.close()
        (await waits).close()
        await client.close()


async def test_who_gives_up_waiting_leaves_the_turn_to_the_next() -> None:
    client = HttpClient(PoolLimits(connections=1))
    async with served(streams) as server:
        held = await client.send(post(server.base))
        first, second = (asyncio.ensure_future(client.send(post(server.base))) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        held.close()
        # Its turn comes in the very moment in which it is given up, too.
        (await asyncio.wait_for(second, AT_ONCE_SECONDS)).close()
        held = await client.send(post(server.base))
        first, second = (asyncio.ensure_future(client.send(post(server.base))) for _ in range(2))
        await asyncio.sleep(0.01)
        held.close()
        first.cancel()
        (await asyncio.wait_for(second, AT_ONCE_SECONDS)).close()
        assert "0 open, 0 idle, 0 waiting" == state(client)
        await client.close()


async def test_a_connection_that_comes_back_to_nobody_serves_the_next_that_waits() -> None:
    client = HttpClient(PoolLimits(connections=1))
    go_on = asyncio.Event()

    async def behave(line: Line) -> None:
        while True:
            await line.request()
            await go_on.wait()
            await line.send(ANSWER)

    async with served(behave) as server:
        sending = asyncio.ensure_future(client.send(post(server.base)))
        await asyncio.sleep(0.02)
        waiting = [asyncio.ensure_future(client.send(post(server.base))) for _ in range(3)]
        await asyncio.sleep(0.02)
        go_on.set()
        while len(client._pool.waiting) == 3:
            await asyncio.sleep(0)
        waiting[0].cancel()  # in the turn of the loop in which it got the connection
        await sending
        done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), AT_ONCE_SECONDS)
        assert [asyncio.CancelledError, 200, 200] == [getattr(one, "status", type(one)) for one in done]
        assert (1, "1 open, 1 idle, 0 waiting") == (server.connections, state(client))
        await client.close()


async def test_an_idle_connection_gives_way_to_another_origin() -> None:
    client = HttpClient(PoolLimits(connections=1))
    async with served(answers_all) as one, served(answers_all) as other:
        for _ in range(2):
            assert b"ok" == await send_read(client, one.base)
            assert b"ok" == await send_read(client, other.base)
        assert (2, 2, "1 open, 1 idle, 0 waiting") == (one.connections, other.connections, state(client))
        got = await asyncio.gather(*[send_read(client, server.base) for server in (one, other) * 5])
        assert [b"ok"] * 10 == got
        await client.close()


async def test_limits_may_change_while_requests_wait() -> None:
    client = HttpClient(PoolLimits(connections=1))
    async with served(streams) as server:
        held = await client.send(post(server.base))
        waits = asyncio.ensure_future(client.send(post(server.base)))
        await asyncio.sleep(0.02)
        assert "1 open, 0 idle, 1 waiting" == state(client)
        client.limits = PoolLimits(connections=2)
        (await asyncio.wait_for(waits, AT_ONCE_SECONDS)).close()
        held.close()
        await client.close()


async def test_a_failed_connection_gives_its_place_back() -> None:
    client = HttpClient(PoolLimits(connections=1))

    async def hangs_up(_: Line) -> None: ...

    async with served(answers_all) as server, served(hangs_up) as rude:
        for _ in range(3):
            with pytest.raises(ConnectFailed, match="refused"):
                await client.send(post("http://localhost:1/"))
            with pytest.raises(ConnectFailed, match="closed the connection while it was being made"):
                await client.send(post(f"https://localhost:{rude.port}/"))
        assert b"ok" == await send_read(client, server.base)
        await client.close()


async def test_a_connection_attempt_is_cancelled_with_its_request(client: HttpClient) -> None:
    async with served(Line.gone) as server:
        sending = asyncio.ensure_future(client.send(post(f"https://localhost:{server.port}/")))
        await until(lambda: server.connections)
        assert "1 open, 0 idle, 0 waiting" == state(client)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert "0 open, 0 idle, 0 waiting" == state(client)
        await server.left()


async def test_closing_the_client_ends_connection_attempts() -> None:
    client = HttpClient()
    async with served(Line.gone) as server:
        url = f"https://localhost:{server.port}/"
        sending = asyncio.ensure_future(client.send(post(url, clocks=Clocks(None, None, None))))
        await until(lambda: server.connections)
        await client.close()
        with pytest.raises(ConnectFailed, match="closing"):
            await asyncio.wait_for(sending, AT_ONCE_SECONDS)
        with pytest.raises(ConnectFailed, match="closing"):
            await client.send(post(url))


async def test_the_connect_clock_may_be_off_and_end_while_waiting() -> None:
    client = HttpClient(PoolLimits(connections=1))
    async with served(streams) as server:
        held = await client.send(post(server.base, clocks=Clocks(None, None, None)))
        with pytest.raises(ConnectTimeout) as failed:
            await client.send(post(server.base, clocks=Clocks(0.05, None, None)))
        assert Delivered.NO is failed.value.delivered
        assert "1 open, 0 idle, 0 waiting" == state(client)
        held.close()
        await client.close()


async def test_a_cancelled_send_whose_answer_was_there_spares_the_connection(client: HttpClient) -> None:
    """The answer comes and the request is given up in the same turn of the loop."""
    go_on = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await go_on.wait()
        await line.send(ANSWER)
        await answers_all(line)

    async with served(behave) as server:
        sending = asyncio.ensure_future(client.send(post(server.base)))
        await asyncio.sleep(0.02)
        go_on.set()
        while "1 open, 0 idle, 0 waiting" == state(client):
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert b"ok" == await send_read(client, server.base)
        assert 1 == server.connections


async def test_origins_that_nobody_needs_are_forgotten() -> None:
    client = HttpClient(PoolLimits(keep_alive_seconds=0))
    async with served(answers_all) as server:
        for number in range(1200):
            # Addresses are remembered by their URLs, up to a number, and keep what they lead to.
            options = ConnectionOptions(key_file=f"{number}")
            request = post(f"http://localhost:1/{number}", options=options)
            assert client._address(request)[0].options is options
        assert b"ok" == await send_read(client, server.base)
        gc.collect()
        assert len(client._addresses) <= 1024
        assert len(client._pool._origins) <= 1024
        await client.close()


async def test_a_stream_costs_little_memory(client: HttpClient) -> None:
    async with served(streams) as server:

        async def open_streams(count: int) -> list[UpstreamResponse]:
            return [await client.send(post(server.base)) for _ in range(count)]

        first = await open_streams(5)
        gc.collect()
        tracemalloc.start()
        more = await open_streams(50)
        for answer in more:
            assert b"one" == await answer.read()
        gc.collect()
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/transport/*")])
        tracemalloc.stop()
        assert sum(entry.size for entry in ours.statistics("filename")) / 50 < 4096
        for answer in [*first, *more]:
            answer.close()


@pytest.mark.parametrize("end", ["eof", "reset", "unasked bytes"])
async def test_a_connection_that_ends_before_a_byte_was_written_costs_the_request_nothing(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    begin = ProviderConnection.begin
    ended: list[ProviderConnection] = []

    def begin_too_late(connection: ProviderConnection, *arguments: Any) -> "asyncio.Future[Any]":
        head = begin(connection, *arguments)
        if not ended:
            # In the turn of the event loop in which the request was to be written.
            ended.append(connection)
            match end:
                case "eof":
                    connection.eof_received()
                case "reset":
                    connection.connection_lost(ConnectionResetError())
                case _:
                    connection.data_received(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        return head

    async with served(says_its_number) as server:
        assert b"1" == await send_read(client, server.base)
        monkeypatch.setattr(ProviderConnection, "begin", begin_too_late)
        assert b"2" == await send_read(client, server.base)
        assert (1, "1 open, 1 idle, 0 waiting") == (len(ended), state(client))


async def test_after_408_a_connection_is_not_used_again(client: HttpClient) -> None:
    async def gives_up(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 2\r\n\r\nno")
        await line.gone()

    async with served(gives_up) as server:
        assert [b"no", b"no"] == [await send_read(client, server.base) for _ in range(2)]
        assert 2 == server.connections
