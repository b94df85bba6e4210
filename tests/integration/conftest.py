"""Gateways and providers for the tests over real sockets."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway_process import ACCESS, TOKEN, Gateway, document, gateway
from tests.planted import search

StartGateway = Callable[..., Gateway]


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
    timeout = aiohttp.ClientTimeout(total=30)
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
