"""Who is let in: limits, turns among workers, the end of a listener."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.listeners import CannotListen, Listener, bind, own_url, shown_address
from tests.conftest import ExpectLog
from tests.wire import Client, Door, answer_nothing
from transport.server import ServerLimits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Turns:
    """A Spread that says what the test says."""

    def __init__(self, *, mine: bool) -> None:
        self.mine = mine
        self.asked = 0
        self.counts: list[int] = []

    def may_accept(self) -> bool:
        self.asked += 1
        return self.mine

    def changed(self, open_connections: int) -> None:
        self.counts.append(open_connections)


class House:
    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.clients: list[Client] = []
        self.port = 0

    def listen(self, door: Door, most: int = 100, spread: Turns | None = None) -> Listener:
        sockets = bind("127.0.0.1:0", "")
        self.port = sockets[0].getsockname()[1]
        made = Listener(sockets, door, ServerLimits, max_connections=lambda: most, spread=spread)
        self.listeners.append(made)
        made.start()
        return made

    async def client(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.001)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    for client in made.clients:
        await client.close()
    for listener in made.listeners:
        listener.stop_accepting()
        await listener.close()


async def ask(client: Client) -> int:
    client.send(GET)
    return (await client.answer()).status


async def test_connections_are_counted(house: House) -> None:
    turns = Turns(mine=True)
    listener = house.listen(Door(), spread=turns)
    clients = [await house.client() for _ in range(3)]
    assert [200, 200, 200] == [await ask(client) for client in clients]
    assert 3 == listener.open
    await clients[0].close()
    await house.until(lambda: listener.open == 2)
    assert [1, 2, 3, 2] == turns.counts


async def test_a_connection_beyond_the_limit_is_told_to_come_back(house: House) -> None:
    listener = house.listen(Door(), most=2)
    inside = [await house.client() for _ in range(2)]
    await house.until(lambda: listener.open == 2)
    outside = await house.client()
    outside.send(GET)
    answer = await outside.answer()
    assert 503 == answer.status
    assert "1" == answer.headers["retry-after"]
    assert b"too_many_connections" in answer.body
    assert b"" == await outside.rest()
    assert [200, 200] == [await ask(client) for client in inside]
    await inside[0].close()
    await house.until(lambda: listener.open == 1)
    assert 200 == await ask(await house.client())


async def test_a_flood_beyond_the_limit_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners._FAREWELLS", 2)
    monkeypatch.setattr("gateway.listeners._FAREWELL_SECONDS", 0.05)
    listener = house.listen(Door(), most=0)
    clients = [await house.client() for _ in range(6)]
    for client in clients:
        await client.lost()
    await house.until(lambda: not listener._farewells)


async def test_another_workers_turn_is_respected_for_a_while(house: House) -> None:
    turns = Turns(mine=False)
    listener = house.listen(Door(), spread=turns)
    loop = asyncio.get_running_loop()
    began = loop.time()
    client = await house.client()
    assert 200 == await ask(client)
    assert 0.008 < loop.time() - began
    assert 2 <= turns.asked
    turns.mine = True
    assert 200 == await ask(await house.client())
    assert 2 == listener.open


async def test_a_turn_that_another_worker_took_is_forgotten(house: House) -> None:
    taken: list[socket.socket] = []

    class Taking(Turns):
        """Another worker takes the connection while this one leaves it to others."""

        def may_accept(self) -> bool:
            if not taken:
                taken.append(other.accept()[0])
            return super().may_accept()

    listener = house.listen(Door(), spread=Taking(mine=False))
    other = listener._sockets[0].dup()
    other.setblocking(False)
    client = await house.client()
    await house.until(lambda: bool(taken))
    with contextlib.closing(other), contextlib.closing(taken[0]):
        await asyncio.sleep(0.05)
        assert 0 == listener.open
    await client.lost()


async def test_who_waits_in_the_backlog_is_served_before_the_end(house: House) -> None:
    listener = house.listen(Door(), spread=Turns(mine=False))
    with socket.create_connection(("127.0.0.1", house.port)) as waiting:
        listener.stop_accepting()
        assert 1 == listener.open
        waiting.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(waiting, GET)
        assert (await loop.sock_recv(waiting, 1000)).startswith(b"HTTP/1.1 200")
    with pytest.raises(ConnectionRefusedError):
        await house.client()


async def test_no_more_descriptors_is_waited_out(
    house: House, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.listeners._ACCEPT_PAUSE_SECONDS", 0.01)
    listener = house.listen(Door())
    failures = 2

    class Exhausted:
        def __init__(self, listening: socket.socket) -> None:
            self.listening = listening

        def accept(self) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listening.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.listening, name)

    loop = asyncio.get_running_loop()
    real = listener._sockets[0]
    loop.remove_reader(real)
    listener._sockets = [Exhausted(real)]  # type: ignore[list-item]  # as far as it is used
    listener.start()
    with expect_log("Too many open files; trying again", level=logging.ERROR):
        assert 200 == await ask(await house.client())
    assert 0 == failures


async def test_the_end_lets_what_is_written_be_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners._CLOSE_SECONDS", 60)
    door = Door(answer_nothing)
    listener = house.listen(door)
    client = await house.client()
    client.send(GET)
    request = await door.request()
    await request.ended.wait()
    request.connection.start_answer(200, [], b"x" * 3_000_000, complete=True)
    closing = asyncio.ensure_future(listener.close())
    assert 3_000_000 == len((await client.answer()).body)
    await closing
    assert 0 == listener.open


async def test_the_end_waits_for_nobody_for_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners._CLOSE_SECONDS", 0.05)
    door = Door(answer_nothing)
    listener = house.listen(door)
    client = await house.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(GET)
    request = await door.request()
    await request.ended.wait()
    request.connection.start_answer(200, [], b"x" * 30_000_000, complete=True)
    await listener.close()
    assert 0 == listener.open


# tornado.netutil.bind_sockets leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")
def test_an_address_in_use_is_named_with_the_mend() -> None:
    [taken] = bind("127.0.0.1:0", "")
    with contextlib.closing(taken):
        address = shown_address([taken])
        with pytest.raises(CannotListen, match=rf"{address}: Address already in use; take another"):
            bind(address, "take another")
    with pytest.raises(CannotListen, match="cannot listen on `nonsense`"):
        bind("nonsense", "")


def test_an_address_of_ipv6_is_shown_in_brackets() -> None:
    try:
        sockets = bind("[::1]:0", "")
    except CannotListen:
        pytest.skip("no IPv6 on this machine")
    try:
        assert shown_address(sockets).startswith("[::1]:")
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "http://127.0.0.1:"), ("[::]", "http://[::1]:"), ("127.0.0.1", "http://127.0.0.1:")]
)
def test_a_browser_on_this_machine_goes_to_an_address_of_its_own(host: str, shown: str) -> None:
    with contextlib.ExitStack() as opened:
        try:
            sockets = [opened.enter_context(each) for each in bind(f"{host}:0", "no mend")]
        except CannotListen:
            pytest.skip("no IPv6 on this machine")
        assert own_url(sockets, tls=False).startswith(shown)
        assert own_url(sockets, tls=True).startswith("https://")
