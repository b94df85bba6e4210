"""The keys of `server:`, `transport:` and `providers[]` that rule the transport, in a running gateway."""

import asyncio
import http.client
import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.connect_proxy import connect_proxy
from tests.gateway_process import TOKEN, Gateway, run_cli, until
from tests.integration.conftest import StartGateway
from tests.planted import planted
from tests.ports import closed_port
from tests.provider import Call, completion, entry, provider

HERE = Path(__file__).parent
ECHO = "providers:\n  - {name: e, type: echo, models: ['*']}\n"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

# Gateways of their own: a short clock would run out for a client that is but slow, and the connections of the test before
# are gone a moment later than their client.
LIMITED = """
server:
  max_header_bytes: 1024
  max_header_fields: 8
  max_url_bytes: 256
  max_requests_per_connection: 3
  max_body_bytes: 1024
  max_decompressed_bytes: 2048
"""
HURRIED = """
server:
  header_seconds: 0.3
  body_idle_seconds: 0.3
  keep_alive_seconds: 0.5
"""
FEW = "server: {max_connections: 2}\n"
WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def limited(start_shared_gateway: StartGateway) -> Gateway:
    return start_shared_gateway(LIMITED + ECHO)


@pytest.fixture(scope="module")
def hurried(start_shared_gateway: StartGateway) -> Gateway:
    return start_shared_gateway(HURRIED + ECHO)


def told(gateway: Gateway, sent: bytes) -> bytes:
    """Everything that comes back until the gateway closes."""
    with socket.create_connection((gateway.host, gateway.port), timeout=WAIT_SECONDS) as link:
        link.sendall(sent)
        pieces = []
        while piece := link.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + TOKEN.encode() + b"\r\n"
LIMITS: dict[str, tuple[bytes, bytes]] = {
    "header bytes": (HEAD + b"x: " + b"y" * 1024 + b"\r\n\r\n", b"HTTP/1.1 431 "),
    "header fields": (HEAD + b"x: y\r\n" * 7 + b"\r\n", b"HTTP/1.1 431 "),
    "URL": (b"GET /v1/" + b"x" * 256 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"HTTP/1.1 414 "),
    "a long body": (HEAD + b"connection: close\r\ncontent-length: 1025\r\n\r\n" + b" " * 1025, b"HTTP/1.1 413 "),
}
CLOCKS: dict[str, tuple[bytes, bytes]] = {
    "a slow head": (HEAD, b"HTTP/1.1 408 "),
    "a silent client": (b"", b""),
    "a slow body": (HEAD + b'content-length: 9\r\n\r\n{"m', b"HTTP/1.1 408 "),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_each_limit_of_the_listener_is_a_key_and_has_its_answer(limited: Gateway, limit: str) -> None:
    sent, answer = LIMITS[limit]
    assert told(limited, sent).startswith(answer)


@pytest.mark.parametrize("clock", CLOCKS)
def test_each_clock_of_the_listener_is_a_key_and_has_its_answer(hurried: Gateway, clock: str) -> None:
    sent, answer = CLOCKS[clock]
    got = told(hurried, sent)
    assert got.startswith(answer)
    assert bool(answer) == bool(got)


def test_a_kept_connection_serves_so_many_requests(limited: Gateway) -> None:
    connection = http.client.HTTPConnection(limited.host, limited.port, timeout=WAIT_SECONDS)
    said = []
    for _ in range(3):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        said.append(answer.getheader("connection"))
    assert [None, None, "close"] == said
    connection.close()


async def test_connections_beyond_the_limit_are_told_so(start_gateway: StartGateway) -> None:
    few = start_gateway(FEW + ECHO)

    def admitted() -> socket.socket | None:
        """A connection that is counted: a request on it has been answered."""
        link = socket.create_connection((few.host, few.port), timeout=WAIT_SECONDS)
        link.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        if link.recv(65536).startswith(b"HTTP/1.1 200 "):
            return link
        link.close()
        return None

    open_: list[socket.socket] = []

    def two_are_open() -> bool:
        # What it was asked as it started may be there still.
        open_.extend(link for link in [admitted()] if link is not None)
        return len(open_) == 2

    await until(two_are_open)
    assert told(few, b"").startswith(b"HTTP/1.1 503 ")
    for link in open_:
        link.close()
    await until(lambda: few.request("GET", "/healthz").status == 200)


async def test_limits_of_the_listener_follow_a_reload(start_gateway: StartGateway) -> None:
    running = start_gateway("server: {max_url_bytes: 256}\n" + ECHO)
    long = "/v1/models/" + "x" * 300
    assert 414 == running.request("GET", long).status
    running.rewrite(running.config.read_text().replace("max_url_bytes: 256", "max_url_bytes: 1024"))
    await until(lambda: running.request("GET", long).status != 414)


def test_https_serves_and_takes_a_renewed_certificate(start_gateway: StartGateway, tmp_path: Path) -> None:
    file = tmp_path / "site.pem"
    shutil.copy(HERE / "localhost.pem", file)
    running = start_gateway(f"server: {{tls: {{cert: {file}, key: {file}}}}}\n" + ECHO, tls=True)

    def answer(trusted: Path) -> int:
        context = ssl.create_default_context(cafile=str(trusted))
        connection = http.client.HTTPSConnection("localhost", running.port, timeout=WAIT_SECONDS, context=context)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status
        finally:
            connection.close()

    assert 200 == answer(HERE / "localhost.pem")
    with pytest.raises(ssl.SSLError):
        answer(HERE / "renewed.pem")
    new = tmp_path / "new.pem"
    shutil.copy(HERE / "renewed.pem", new)
    new.rename(file)
    time.sleep(1.1)
    assert 200 == answer(HERE / "renewed.pem")
    assert 0 == run_cli("health", "--address", f"127.0.0.1:{running.port}", cwd=tmp_path)[0]


async def test_a_certificate_that_cannot_be_used_is_a_fault_with_its_place(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    running = start_gateway(ECHO)
    running.expect_log("configuration refused: .*server.tls.cert: cannot read|stays: ")
    text = running.config.read_text()
    running.rewrite(f"server: {{tls: {{cert: {tmp_path}/no.pem, key: {tmp_path}/no.pem}}}}\n{text}")
    await until(lambda: "cannot read" in running.err)
    assert 200 == running.request("POST", "/v1/chat/completions", CHAT).status


async def answer(call: Call) -> None:
    await call.body()
    await call.answer(completion("hello"))


async def test_a_provider_is_reached_through_its_proxy(start_gateway: StartGateway, tmp_path: Path) -> None:
    password = planted("proxy-password")
    with closed_port() as nobody:
        async with connect_proxy(user_password=f"user:{password}") as proxy, provider(answer) as real:
            providers = "\n".join(
                f"  - {one}"
                for one in (
                    real.entry("proxied"),
                    real.entry("straight", "proxy_url: direct"),
                    entry(nobody, "gone"),
                )
            )
            running = start_gateway(
                f"transport: {{proxy_url: 'http://user:{password}@127.0.0.1:{proxy.port}'}}\nproviders:\n{providers}\n"
            )
            running.expect_log("attempt")

            async def ask(model: str) -> int:
                return (await asyncio.to_thread(running.chat, model)).status

            assert 200 == await ask("straight/m")
            assert [] == proxy.heads
            assert 200 == await ask("proxied/m")
            assert [f"CONNECT 127.0.0.1:{real.port} HTTP/1.1".encode()] == [
                head.split(b"\r\n")[0] for head in proxy.heads
            ]
            assert 502 == await ask("gone/m")
            assert password not in running.err + running.out
