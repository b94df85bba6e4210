"""How the HTTP client reaches providers: TLS with certificates of all kinds, proxies, addresses; over real sockets."""

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from core.errors import ConnectFailed, ConnectTimeout, Delivered, UpstreamError
from core.secret import Secret
from core.tasks import Tasks
from tests import virtual_time
from tests.connect_proxy import connect_proxy
from tests.gateway_process import until
from tests.planted import planted
from tests.raw_server import ANSWER, AT_ONCE_SECONDS, Line, answers_all, body_of, post, served
from transport.client import HttpClient
from transport.dialing import Address, Names, connect_first
from transport.messages import Clocks, ConnectionOptions
from transport.options import CannotConnect, check_connection_options

CERTIFICATES = Path(__file__).parents[1] / "certificates"
AUTHORITY = str(CERTIFICATES / "authority.pem")
TRUSTING = ConnectionOptions(ca_file=AUTHORITY)
ENCRYPTED_KEY = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgVDT7/cO/WcQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEIKwXnaM05HZ/3OtyUUhaJIEgZB6
en2qscSc5DRpm6kVMwm6iMglZQwd76Y9cSdWAXqNiLTpr8g8GtqAc1xCx55WP01S
3rZLE+HIzEg9yQwN3dOvlw3ALfbQTKu46INFryLyq4ZT71XoewZZM2LEp0BILdpr
hOaz3aYl9k6h0gTwr+h8APwPekM+qAxh2qAEEXJt+X8I8YlNbQ6MBtUn6LD7VWc=
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def server_tls(*, ask_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(AUTHORITY)
    return context


# TLS


async def test_an_authority_of_ones_own_is_trusted_where_it_is_named_alone(client: HttpClient) -> None:
    async with served(answers_all, server_tls()) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, options=TRUSTING)))
        with pytest.raises(ConnectFailed, match="certificate could not be verified"):
            await client.send(post(server.base))
        assert b"ok" == await body_of(await client.send(post(server.base, options=TRUSTING)))
        assert 1 == server.connections  # of those that came to speak HTTP


@pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_a_certificate_may_be_for_an_address(client: HttpClient, host: str, written: str) -> None:
    async with served(answers_all, server_tls(), host) as server:
        assert b"ok" == await body_of(await client.send(post(f"https://{written}:{server.port}/", options=TRUSTING)))


async def test_a_certificate_for_another_name_is_refused(client: HttpClient) -> None:
    async with served(answers_all, server_tls(), "127.0.0.2") as server:
        with pytest.raises(ConnectFailed, match="certificate could not be verified"):
            await client.send(post(f"https://127.0.0.2:{server.port}/", options=TRUSTING))


async def test_the_server_is_told_the_name_and_that_http_1_is_spoken(client: HttpClient) -> None:
    names: list[str | None] = []
    protocols: list[str | None] = []
    tls = server_tls()
    tls.set_alpn_protocols(["h2", "http/1.1"])
    tls.sni_callback = lambda _socket, name, _context: names.append(name)

    async def behave(line: Line) -> None:
        protocols.append(line.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answers_all(line)

    async with served(behave, tls) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, options=TRUSTING)))
        assert (["localhost"], ["http/1.1"]) == (names, protocols)


async def test_a_client_certificate_is_shown_and_a_renewed_one_without_a_restart(
    client: HttpClient, tmp_path: Path
) -> None:
    both = tmp_path / "client.pem"
    shutil.copy(CERTIFICATES / "client.pem", both)
    shown: list[str] = []

    async def behave(line: Line) -> None:
        subject: Any = line.writer.get_extra_info("peercert")["subject"]
        shown.append(subject[0][0][1])
        await line.request()
        await line.send(ANSWER)

    options = ConnectionOptions(ca_file=AUTHORITY, cert_file=str(both))
    async with served(behave, server_tls(ask_client=True)) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, options=options)))
        await until(lambda: "0 open" in repr(client))
        shutil.copy(CERTIFICATES / "client-renewed.pem", both)
        assert b"ok" == await body_of(await client.send(post(server.base, options=options)))
        assert ["gateway one", "gateway two"] == shown
        with pytest.raises(UpstreamError):
            await client.send(post(server.base, options=TRUSTING))


async def test_certificate_and_key_may_be_apart(client: HttpClient, tmp_path: Path) -> None:
    key, end, certificate = (CERTIFICATES / "client.pem").read_text().partition("-----END PRIVATE KEY-----\n")
    (tmp_path / "key.pem").write_text(key + end)
    (tmp_path / "cert.pem").write_text(certificate)
    options = ConnectionOptions(None, AUTHORITY, str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    check_connection_options(options)
    async with served(answers_all, server_tls(ask_client=True)) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, options=options)))


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ({"ca_file": "absent.pem"}, "ca", "no such file"),
        ({"ca_file": "text.pem"}, "ca", "no certificate"),
        ({"cert_file": "absent.pem"}, "cert", "no such file"),
        ({"cert_file": "text.pem"}, "cert", "not in PEM form"),
        ({"cert_file": "certificate.pem"}, "cert", "key cannot be used"),
        ({"cert_file": "certificate.pem", "key_file": "absent.pem"}, "key", "no such file"),
        ({"cert_file": "certificate.pem", "key_file": "other.pem"}, "key", "mismatch"),
        ({"cert_file": "certificate.pem", "key_file": "encrypted.pem"}, "key", "encrypted"),
        ({"proxy_url": "localhost:3128"}, "proxy_url", "not the address of a proxy"),
        ({"proxy_url": f"http://u:{planted('secret')}@h:99999"}, "proxy_url", "not the address of a proxy"),
        ({"proxy_url": f"http://u:{planted('secret')}@[::1"}, "proxy_url", "not the address of a proxy"),
        ({"proxy_url": "socks5://h:1"}, "proxy_url", "not the address of a proxy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_options_that_cannot_work_are_named(
    tmp_path: Path, given: dict[str, Any], key: str, words: str, planted_secret: str
) -> None:
    _, _, certificate = (CERTIFICATES / "client.pem").read_text().partition("-----END PRIVATE KEY-----\n")
    (tmp_path / "certificate.pem").write_text(certificate)
    (tmp_path / "text.pem").write_text("text\n")
    shutil.copy(CERTIFICATES / "server.pem", tmp_path / "other.pem")
    (tmp_path / "encrypted.pem").write_text(ENCRYPTED_KEY)
    options = {
        name: Secret.literal(value) if name == "proxy_url" else str(tmp_path / value) for name, value in given.items()
    }
    with pytest.raises(CannotConnect, match=words) as refused:
        check_connection_options(ConnectionOptions(**options))  # type: ignore[arg-type]  # of several types
    assert key == refused.value.key
    assert str(tmp_path) not in str(refused.value)
    assert planted_secret not in str(refused.value)


async def test_files_that_are_gone_fail_new_connections_and_not_the_client(client: HttpClient, tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    shutil.copy(AUTHORITY, authority)
    options = ConnectionOptions(ca_file=str(authority))

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(ANSWER)

    async with served(behave, server_tls()) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, options=options)))
        await until(lambda: "0 open" in repr(client))
        authority.unlink()
        with pytest.raises(ConnectFailed, match="own settings") as failed:
            await client.send(post(server.base, options=options))
        assert Delivered.NO is failed.value.delivered
        shutil.copy(AUTHORITY, authority)
        assert b"ok" == await body_of(await client.send(post(server.base, options=options)))


# Proxies


@pytest.mark.parametrize("tls", [False, True], ids=["http origin", "https origin"])
@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
@pytest.mark.parametrize("user", [None, "user:p@ss word"], ids=["open", "with a password"])
async def test_a_proxy_is_asked_for_a_tunnel(client: HttpClient, tls: bool, proxy_tls: bool, user: str | None) -> None:
    async with (
        served(answers_all, server_tls() if tls else None) as server,
        connect_proxy(user_password=user, tls=server_tls() if proxy_tls else None) as proxy,
    ):
        credentials = "" if user is None else "user:p%40ss%20word@"
        url = f"http{'s' if proxy_tls else ''}://{credentials}localhost:{proxy.port}"
        options = ConnectionOptions(Secret.literal(url), AUTHORITY)
        for _ in range(2):
            assert b"ok" == await body_of(await client.send(post(server.base, options=options)))
        assert (1, 1) == (len(proxy.heads), server.connections)
        assert proxy.heads[0].startswith(
            b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost:%d\r\n" % (server.port, server.port)
        )
        assert (user is not None) == (b"Proxy-Authorization: Basic " in proxy.heads[0])
        assert (b"a" * 300_000) == await echoed(client, server.port, options, tls)


async def echoed(client: HttpClient, port: int, options: ConnectionOptions, tls: bool) -> bytes:
    """A large body, there and back, over the same way."""
    seen: list[bytes] = []

    async def behave(line: Line) -> None:
        body = (await line.request()).partition(b"\r\n\r\n")[2]
        seen.append(body)
        await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await line.gone()

    async with served(behave, server_tls() if tls else None) as server:
        assert port != server.port
        return await body_of(await client.send(post(server.base, b"a" * 300_000, options=options)))


async def test_an_ipv6_address_is_asked_for_in_brackets(client: HttpClient) -> None:
    async with served(answers_all, host="::1") as server, connect_proxy() as proxy:
        options = ConnectionOptions(Secret.literal(f"http://localhost:{proxy.port}/"))
        assert b"ok" == await body_of(await client.send(post(f"http://[::1]:{server.port}/", options=options)))
        assert proxy.heads[0].startswith(b"CONNECT [::1]:%d HTTP/1.1\r\n" % server.port)


async def test_connections_by_different_ways_are_kept_apart(client: HttpClient) -> None:
    async with served(answers_all) as server, connect_proxy() as proxy:
        by_proxy = ConnectionOptions(Secret.literal(f"http://localhost:{proxy.port}"))
        for _ in range(2):
            assert b"ok" == await body_of(await client.send(post(server.base)))
            assert b"ok" == await body_of(await client.send(post(server.base, options=by_proxy)))
        assert (2, 1) == (server.connections, len(proxy.heads))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\nno", "refused the connection to the provider with status 403"),
        (b"HTTP/1.1 407 Who\r\n\r\n", "wants other credentials"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "bytes that do not belong there"),
        (b"SSH-2.0-server\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 20_000, "too large"),
        (b"HTTP/1.1 200 OK\r\n", "proxy closed the connection"),
        (b"", "proxy closed the connection"),
    ],
    ids=["403", "407", "bytes too early", "no HTTP", "long head", "half a head", "nothing"],
)
async def test_a_proxy_that_does_not_do_it_is_named(
    client: HttpClient, answer: bytes, words: str, planted_secret: str
) -> None:
    async with connect_proxy(answer=answer) as proxy:
        options = ConnectionOptions(Secret.literal(f"http://user:{planted_secret}@localhost:{proxy.port}"))
        with pytest.raises(ConnectFailed, match=words) as failed:
            await client.send(post("https://provider.invalid/", options=options))
        assert Delivered.NO is failed.value.delivered
        error: BaseException | None = failed.value
        while error is not None:
            assert planted_secret not in repr(error) + str(error)
            error = error.__cause__


async def test_a_tunnel_that_ends_at_once_is_not_asked_for_without_end(client: HttpClient) -> None:
    async with connect_proxy(answer=b"HTTP/1.1 200 OK\r\n\r\n") as proxy:
        options = ConnectionOptions(Secret.literal(f"http://localhost:{proxy.port}"))
        with pytest.raises(UpstreamError):
            await client.send(post("http://provider.invalid/", options=options))
        assert len(proxy.heads) <= 3


async def test_wrong_credentials_are_the_proxys_complaint(client: HttpClient) -> None:
    async with connect_proxy(user_password="user:right") as proxy:
        options = ConnectionOptions(Secret.literal(f"http://user:wrong@localhost:{proxy.port}"))
        with pytest.raises(ConnectFailed, match="other credentials"):
            await client.send(post("http://provider.invalid/", options=options))


async def test_a_proxy_that_is_not_there_is_named(client: HttpClient) -> None:
    options = ConnectionOptions(Secret.literal("http://localhost:1"))
    with pytest.raises(ConnectFailed, match="The proxy refused the connection"):
        await client.send(post("http://provider.invalid/", options=options))


async def test_a_proxys_certificate_is_checked(client: HttpClient) -> None:
    async with connect_proxy(tls=server_tls()) as proxy:
        options = ConnectionOptions(Secret.literal(f"https://localhost:{proxy.port}"))
        with pytest.raises(ConnectFailed, match="The proxy's TLS certificate could not be verified"):
            await client.send(post("http://provider.invalid/", options=options))


async def test_the_providers_certificate_is_checked_behind_a_proxy(client: HttpClient) -> None:
    async with served(answers_all, server_tls()) as server, connect_proxy() as proxy:
        options = ConnectionOptions(Secret.literal(f"http://localhost:{proxy.port}"))
        with pytest.raises(ConnectFailed, match="The provider's TLS certificate could not be verified"):
            await client.send(post(server.base, options=options))


async def test_a_proxy_that_says_nothing_is_on_the_connect_clock(client: HttpClient) -> None:
    async with served(Line.gone) as proxy:
        options = ConnectionOptions(Secret.literal(f"http://localhost:{proxy.port}"))
        with pytest.raises(ConnectTimeout):
            await client.send(post("https://provider.invalid/", clocks=Clocks(0.1, 60, 60), options=options))
        assert "0 open" in repr(client)
        # On a slow machine it may not have come there.
        if proxy.connections:
            await proxy.left()


# Addresses


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address where nobody answers: a listener whose backlog is full."""
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = open_.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield Address(socket.AF_INET, listener.getsockname())


@pytest.fixture
async def listening() -> AsyncIterator[Address]:
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    yield Address(socket.AF_INET, listener.sockets[0].getsockname())
    listener.close()
    await listener.wait_closed()


REFUSING = Address(socket.AF_INET, ("127.0.0.1", 1))


async def test_an_address_that_does_not_answer_costs_the_stagger_alone(silent: Address, listening: Address) -> None:
    tasks = Tasks()
    begun = perf_counter()
    way = await connect_first([silent, silent, listening], tasks, 0.05)
    assert 0.09 < perf_counter() - begun < AT_ONCE_SECONDS  # the system tries for two minutes
    assert listening.address == way.getpeername()
    way.close()
    assert await tasks.join(AT_ONCE_SECONDS)


async def test_an_address_that_refuses_costs_nothing(listening: Address) -> None:
    tasks = Tasks()
    begun = perf_counter()
    way = await connect_first([REFUSING, REFUSING, listening], tasks, 60)
    assert perf_counter() - begun < AT_ONCE_SECONDS
    way.close()
    assert await tasks.join(AT_ONCE_SECONDS)


async def test_the_first_refusal_is_told_when_none_answers() -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect_first([REFUSING, REFUSING], Tasks(), 0.01)
    with pytest.raises(OSError, match="no address"):
        await connect_first([], Tasks(), 0.01)


async def test_giving_up_leaves_no_attempt_behind(silent: Address) -> None:
    tasks = Tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await connect_first([silent, silent], tasks, 0.02)
    assert await tasks.join(AT_ONCE_SECONDS)


class Resolver:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        await asyncio.sleep(0.01)
        if host == "nobody":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        six = [Address(socket.AF_INET6, (f"::{number}", port, 0, 0)) for number in (1, 2, 3)]
        return [*six, *[Address(socket.AF_INET, (f"127.0.0.{number}", port)) for number in (1, 2)]]


def test_names_are_looked_up_once_for_all_that_ask_and_remembered_for_a_while() -> None:
    async def main() -> None:
        resolver = Resolver()
        names = Names(Tasks(), resolver)
        found = await asyncio.gather(*[names.addresses("host", 80, 5) for _ in range(5)])
        assert ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"] == [one.address[0] for one in found[0]]
        assert 1 == len(resolver.asked)
        await asyncio.sleep(4.9)
        await names.addresses("host", 80, 5)
        assert 1 == len(resolver.asked)
        await asyncio.sleep(0.2)
        await names.addresses("host", 80, 0)
        await names.addresses("host", 80, 0)
        assert 3 == len(resolver.asked)

    virtual_time.run(main())


async def test_a_failed_look_up_is_told_to_all_that_wait_and_not_remembered() -> None:
    resolver = Resolver()
    names = Names(Tasks(), resolver)
    failed = await asyncio.gather(*[names.addresses("nobody", 80, 5) for _ in range(3)], return_exceptions=True)
    assert [socket.gaierror] * 3 == [type(one) for one in failed]
    assert 1 == len(resolver.asked)
    with pytest.raises(socket.gaierror):
        await names.addresses("nobody", 80, 5)
    assert 2 == len(resolver.asked)


async def test_who_gives_up_a_look_up_does_not_spoil_it_for_others() -> None:
    resolver = Resolver()
    names = Names(Tasks(), resolver)
    first, second = (asyncio.ensure_future(names.addresses("host", 80, 5)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert 5 == len(await second)
    assert 1 == len(resolver.asked)
