"""Gateways, providers and databases for the tests over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from core.clock import ManualClock, SystemClock
from storage.database import Database, migrate
from tests.databases import KINDS, PostgreSQL, postgresql
from tests.gateway_process import ACCESS, TOKEN, Gateway, document, gateway
from tests.planted import search
from tests.vault_server import PreparedVault, prepared, real_server
from tests.vault_stand_in import VaultStandIn, vault_stand_in

StartGateway = Callable[..., Gateway]
NewDatabase = Callable[..., Database]
"""``new_database(kind, url=None)``: one that is closed at the end of the test."""
NewUrl = Callable[..., str]
"""``new_url(kind, empty=False)``: the URL of a new database of ``kind``, which has the newest schema or is empty."""


def _starter(running: contextlib.ExitStack, place: Path) -> StartGateway:
    count = 0

    def start(text: str, *, access: str = ACCESS, **options: Any) -> Gateway:
        nonlocal count
        count += 1
        return running.enter_context(gateway(document(text, access), place / f"gateway-{count}", **options))

    return start


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """``start_gateway(text)``: a gateway with the access of the tests and the rest of its document from ``text``.

    Its further arguments are ``access`` and those of :func:`tests.gateway_process.gateway`.
    """
    with contextlib.ExitStack() as running:
        yield _starter(running, tmp_path)


@pytest.fixture(scope="module")
def start_shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartGateway]:
    """The same, for a gateway that all tests of a module talk to."""
    with contextlib.ExitStack() as running:
        yield _starter(running, tmp_path_factory.mktemp("shared"))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that presents the tests' token and neither retries nor decompresses."""
    timeout = aiohttp.ClientTimeout(total=120)
    headers = {"authorization": f"Bearer {TOKEN}"}
    connector = aiohttp.TCPConnector(force_close=True)
    traces = [_searched_answers()]
    async with aiohttp.ClientSession(
        headers=headers, timeout=timeout, connector=connector, auto_decompress=False, trace_configs=traces
    ) as session:
        yield session


def _searched_answers() -> aiohttp.TraceConfig:
    """What a client gets, searched for planted secrets: heads, and bodies that it reads whole."""

    async def head(_session: object, _context: object, ended: aiohttp.TraceRequestEndParams) -> None:
        search(repr(ended.response.headers), f"the fields of the answer to {ended.method} {ended.url}")

    async def body(_session: object, _context: object, received: aiohttp.TraceResponseChunkReceivedParams) -> None:
        search(received.chunk, f"the answer to {received.method} {received.url}")

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(head)
    trace.on_response_chunk_received.append(body)
    return trace


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A real PostgreSQL. A test that stops it starts it again."""
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgresql_server: PostgreSQL) -> str:
    """A database that others are copied from: a migration each would take ten times as long."""
    name = postgresql_server.new_database()
    # In a thread: the first test that wants it may be running on a loop.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, migrate(postgresql_server.url(name), SystemClock())).result()
    return name


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewUrl]:
    count = 0
    with contextlib.ExitStack() as made:

        def make(kind: str, *, empty: bool = False) -> str:
            nonlocal count
            count += 1
            if kind == "sqlite":
                # That one makes its schema within milliseconds.
                return f"sqlite:///{tmp_path}/sluice-{count}.db"
            server: PostgreSQL = request.getfixturevalue("postgresql_server")
            name = server.new_database("template0" if empty else request.getfixturevalue("migrated_template"))
            made.callback(server.drop, name)
            return server.url(name)

        yield make


@pytest.fixture
def clock() -> ManualClock:
    """The time of the databases under test."""
    return ManualClock()


@pytest.fixture
async def new_database(new_url: NewUrl, clock: ManualClock) -> AsyncIterator[NewDatabase]:
    async with contextlib.AsyncExitStack() as opened:

        def make(kind: str, *, url: str | None = None) -> Database:
            database = Database(url or new_url(kind), clock)
            opened.push_async_callback(database.close)
            return database

        yield make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Of a database: the test runs once on each."""
    return str(request.param)


@pytest.fixture
def database(new_database: NewDatabase, kind: str) -> Database:
    """An empty one with the newest schema, of either kind."""
    return new_database(kind)


@pytest.fixture
def stand_in() -> Iterator[VaultStandIn]:
    """For what only a stand-in can do."""
    with vault_stand_in() as vault:
        yield vault


@pytest.fixture
def vault() -> Iterator[PreparedVault]:
    """A real server where there is one; else a stand-in, prepared through the same adapter."""
    real = real_server()
    if real is not None:
        with prepared(*real) as server:
            yield server
        return
    with vault_stand_in() as behind, prepared(behind.address, behind.root_token) as server:
        server.advance = behind.advance  # type: ignore[method-assign]  # what a real server must be waited for
        yield server
