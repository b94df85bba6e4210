"""`allow_private: false` at the HTTP client: no address of a private network is ever connected to; over real sockets."""

import socket
from collections.abc import AsyncIterator, Sequence

import pytest

from core.errors import ConnectFailed, Delivered, PrivateAddressRefused, RetryScope
from core.secret import Secret
from core.tasks import Tasks
from tests.connect_proxy import connect_proxy
from tests.raw_server import Line, answers_all, body_of, post, served
from transport import dialing
from transport.client import HttpClient, PoolLimits
from transport.dialing import Address, Names
from transport.messages import ConnectionOptions

GUARDED = ConnectionOptions(allow_private=False)
PUBLIC = Address(socket.AF_INET, ("198.41.0.4", 80))


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpClient]:
    # A name that is not known in time is the proxy's matter: here none is late but the one that says so.
    monkeypatch.setattr(dialing, "NAME_CHECK_SECONDS", 60.0)
    client = HttpClient(PoolLimits(dns_cache_seconds=0))
    yield client
    await client.close()


class Zone:
    """A resolver whose answers a test decides: one after the other, the last for ever."""

    def __init__(self, *answers: Sequence[Address]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def resolving(client: HttpClient, zone: Zone) -> None:
    client._dialer._names = Names(Tasks(), zone)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """Where sockets were to connect to; those on the internet, where tests have no business, are refused at once."""
    seen: list[Address] = []
    connect = dialing._connect

    async def recorded(address: Address) -> socket.socket:
        seen.append(address)
        if address == PUBLIC:
            raise ConnectionRefusedError(111, "refused")
        return await connect(address)

    monkeypatch.setattr(dialing, "_connect", recorded)
    return seen


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0"])
async def test_a_private_address_is_not_connected_to(client: HttpClient, connected: list[Address], host: str) -> None:
    with pytest.raises(PrivateAddressRefused, match="allow_private") as refused:
        await client.send(post(f"http://{host}:1/", options=GUARDED))
    assert [] == connected
    assert (Delivered.NO, RetryScope.OTHER_TARGET, 502) == (
        refused.value.delivered,
        refused.value.retry,
        refused.value.client_status,
    )
    assert "127.0" not in refused.value.message  # which the client gets


async def test_without_the_guard_it_is(client: HttpClient) -> None:
    async with served(answers_all, host="127.0.0.1") as server:
        assert b"ok" == await body_of(await client.send(post(f"http://127.0.0.1:{server.port}/")))


async def test_a_name_is_judged_by_all_its_addresses_at_each_connection(
    client: HttpClient, connected: list[Address]
) -> None:
    async with served(answers_all, host="127.0.0.1") as server:
        private = Address(socket.AF_INET, ("127.0.0.1", server.port))
        # First as it should be, then rebound, then both at once.
        zone = Zone([PUBLIC], [private], [PUBLIC, private])
        resolving(client, zone)
        url = f"http://rebinding.example.com:{server.port}/"
        with pytest.raises(ConnectFailed, match="refused the connection"):
            await client.send(post(url, options=GUARDED))
        for _ in range(2):
            with pytest.raises(PrivateAddressRefused):
                await client.send(post(url, options=GUARDED))
        # What was judged is what was connected to: one look-up each.
        assert ([PUBLIC], 3, 0) == (connected, zone.asked, server.connections)


async def test_a_connection_made_without_the_guard_serves_nobody_with_it(client: HttpClient) -> None:
    async with served(answers_all) as server:
        for _ in range(2):
            assert b"ok" == await body_of(await client.send(post(server.base)))
            with pytest.raises(PrivateAddressRefused):
                await client.send(post(server.base, options=GUARDED))
        assert 1 == server.connections


async def test_a_redirect_is_an_answer_and_no_way_to_go(client: HttpClient) -> None:
    async with served(answers_all) as inner:
        location = f"location: {inner.base}/latest/meta-data/\r\n".encode()

        async def redirects(line: Line) -> None:
            for status in (b"301 Moved", b"302 Found", b"303 See Other", b"307 Temporary", b"308 Permanent"):
                await line.request()
                await line.send(b"HTTP/1.1 " + status + b"\r\n" + location + b"content-length: 0\r\n\r\n")

        async with served(redirects) as server:
            answers = [await client.send(post(server.base)) for _ in range(5)]
            assert [301, 302, 303, 307, 308] == [answer.status for answer in answers]
        assert 0 == inner.connections


# Through a proxy


def by_proxy(port: int, *, allow_private_proxy: bool = True) -> ConnectionOptions:
    return ConnectionOptions(
        Secret.literal(f"http://localhost:{port}"), allow_private=False, allow_private_proxy=allow_private_proxy
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0x7f.1", "[::1]", "metadata.google.internal", "intranet"])
async def test_a_proxy_is_not_asked_for_a_private_target(client: HttpClient, host: str) -> None:
    async with connect_proxy() as proxy:
        with pytest.raises(PrivateAddressRefused, match="The provider's address"):
            await client.send(post(f"http://{host}:1/", options=by_proxy(proxy.port)))
        assert [] == proxy.heads


async def test_a_proxy_is_not_asked_for_a_name_that_leads_to_a_private_network_here(
    client: HttpClient, connected: list[Address]
) -> None:
    resolving(client, Zone([Address(socket.AF_INET, ("10.0.0.1", 80))]))
    with pytest.raises(PrivateAddressRefused, match="The provider's address"):
        await client.send(post("http://rebinding.example.com/", options=by_proxy(1)))
    assert [] == connected


class UnknownHere(Zone):
    """Knows `localhost` alone, where the proxy is, as resolvers behind a proxy often do."""

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        if host != "localhost":
            raise socket.gaierror(-2, "Name or service not known")
        return [Address(socket.AF_INET, ("127.0.0.1", port)), Address(socket.AF_INET6, ("::1", port, 0, 0))]


class Silent(UnknownHere):
    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        if host != "localhost":
            raise TimeoutError
        return await super().__call__(host, port)


@pytest.mark.parametrize("zone", [UnknownHere([]), Silent([])], ids=["unknown", "silent"])
async def test_a_name_that_the_proxy_alone_knows_is_the_proxys_matter(client: HttpClient, zone: Zone) -> None:
    resolving(client, zone)
    async with connect_proxy(answer=b"HTTP/1.1 502 Bad Gateway\r\n\r\n") as proxy:
        with pytest.raises(ConnectFailed, match="status 502"):
            await client.send(post("http://api.example.com/", options=by_proxy(proxy.port)))
        assert 1 == len(proxy.heads)


async def test_a_proxy_of_the_providers_own_is_judged_too(client: HttpClient) -> None:
    resolving(client, UnknownHere([]))
    async with connect_proxy() as proxy:
        with pytest.raises(PrivateAddressRefused, match="The proxy's address"):
            await client.send(post("http://api.example.com/", options=by_proxy(proxy.port, allow_private_proxy=False)))
        assert [] == proxy.heads
