"""TLS at the listener: versions, protocols, renewed certificates, clients that are no TLS clients."""

import asyncio
import logging
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.clock import ManualClock
from gateway.listeners import Listener, bind
from tests.conftest import ExpectLog
from tests.wire import Client, Door
from transport.server import ServerLimits
from transport.tls import CannotUseCertificate, ServerTls

HERE = Path(__file__).parent
FIRST = HERE / "localhost.pem"
RENEWED = HERE / "renewed.pem"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Site:
    """A listener with TLS, whose files the test may exchange."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "server.pem"
        shutil.copy(FIRST, self.file)
        self.clock = ManualClock()
        self.tls = ServerTls(self.file, self.file, "1.2", self.clock.monotonic)
        sockets = bind("127.0.0.1:0", "")
        self.port: int = sockets[0].getsockname()[1]
        self.listener = Listener(sockets, Door(), ServerLimits, tls=self.tls.context, max_connections=lambda: 10)
        self.listener.start()

    def replace(self, content: bytes) -> None:
        new = self.file.with_suffix(".new")
        new.write_bytes(content)
        new.rename(self.file)

    async def client(self, trusted: Path, **settings: Any) -> Client:
        context = ssl.create_default_context(cafile=str(trusted))
        context.set_alpn_protocols(["h2", "http/1.1"])
        for name, value in settings.items():
            setattr(context, name, value)
        return Client(*await asyncio.open_connection("localhost", self.port, ssl=context))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    made.listener.stop_accepting()
    await made.listener.close()


async def ask(client: Client) -> int:
    client.send(GET)
    return (await client.answer()).status


async def test_http_1_1_over_tls(site: Site) -> None:
    client = await site.client(FIRST)
    assert 200 == await ask(client)
    session: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
    assert "http/1.1" == session.selected_alpn_protocol()
    assert "TLSv1.3" == session.version()
    await client.close()


async def test_old_versions_of_tls_are_not_spoken(site: Site) -> None:
    client = await site.client(FIRST, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert 200 == await ask(client)
    await client.close()
    assert ssl.TLSVersion.TLSv1_2 == site.tls.context().minimum_version
    assert ssl.TLSVersion.TLSv1_3 == ServerTls(FIRST, FIRST, "1.3").context().minimum_version


async def test_a_renewed_certificate_is_for_new_connections(site: Site) -> None:
    before = await site.client(FIRST)
    assert 200 == await ask(before)
    site.replace(RENEWED.read_bytes())
    early = await site.client(FIRST)
    site.clock.advance(1)
    with pytest.raises(ssl.SSLCertVerificationError):
        await site.client(FIRST)
    after = await site.client(RENEWED)
    assert [200, 200, 200] == [await ask(client) for client in (before, early, after)]
    for client in (before, early, after):
        await client.close()


async def test_a_broken_renewal_keeps_the_former_and_is_told_once(site: Site, expect_log: ExpectLog) -> None:
    for content in (b"nonsense", RENEWED.read_bytes()[:400]):
        site.replace(content)
        site.clock.advance(1)
        with expect_log("cannot use the certificate .*server.pem", level=logging.ERROR):
            await (await site.client(FIRST)).close()
        site.clock.advance(1)
        await (await site.client(FIRST)).close()
    site.file.unlink()
    site.clock.advance(1)
    with expect_log("cannot read .*server.pem", level=logging.ERROR):
        await (await site.client(FIRST)).close()
    site.replace(RENEWED.read_bytes())
    site.clock.advance(1)
    await (await site.client(RENEWED)).close()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(CannotUseCertificate, match=r"cannot read .*missing.pem: No such file"):
        ServerTls(tmp_path / "missing.pem", FIRST)
    with pytest.raises(CannotUseCertificate, match=r"localhost.pem with the key .*renewed.pem: KEY_VALUES_MISMATCH"):
        ServerTls(FIRST, RENEWED)


async def test_who_speaks_no_tls_or_nothing_at_all_is_let_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners._HANDSHAKE_SECONDS", 0.1)
    plain = Client(*await asyncio.open_connection("localhost", site.port))
    plain.send(GET)
    await plain.lost()
    silent = Client(*await asyncio.open_connection("localhost", site.port))
    await asyncio.sleep(0)
    await silent.lost()
    gone = Client(*await asyncio.open_connection("localhost", site.port))
    await gone.close()
    async with asyncio.timeout(60):
        while site.listener.open:
            await asyncio.sleep(0.01)
    for client in (plain, silent):
        await client.close()


async def test_a_refusal_over_tls(site: Site) -> None:
    client = await site.client(FIRST)
    client.send(b"nonsense\r\n\r\n")
    assert 400 == (await client.answer()).status
    await client.close()


async def test_the_look_at_the_files_is_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    tls = ServerTls(FIRST, FIRST, "1.2", clock.monotonic)
    looks = 0
    stat = os.stat

    def counted(*args: Any, **kwargs: Any) -> os.stat_result:
        nonlocal looks
        looks += 1
        return stat(*args, **kwargs)

    monkeypatch.setattr("pathlib.os.stat", counted)
    first = tls.context()
    for _ in range(100):
        clock.advance(0.01)
        assert first is tls.context()
    assert 2 >= looks


async def test_closing_ends_handshakes_that_are_under_way(site: Site) -> None:
    silent = Client(*await asyncio.open_connection("localhost", site.port))
    async with asyncio.timeout(60):
        while not site.listener.open:
            await asyncio.sleep(0.01)
    await site.listener.close()
    assert 0 == site.listener.open
    await silent.lost()
    await silent.close()
