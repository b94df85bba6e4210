"""The live stream of events over real gateways: nothing is lost and nothing comes twice, or it says so."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.gateway_process import ADMIN_KEY, Gateway, until
from tests.integration.conftest import StartGateway

ECHO = "providers: [{name: echo, type: echo}]\n"
SECONDS = 60.0


class Stream:
    """What comes, event by event; ``last_id`` as a browser would have it."""

    def __init__(self, answer: aiohttp.ClientResponse, last_id: str | None) -> None:
        self.answer = answer
        self.last_id = last_id

    async def next(self) -> tuple[str, dict[str, Any]] | None:
        """Its name and its payload; None at the orderly end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(SECONDS):
            while line := (await self.answer.content.readline()).decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                    continue
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return fields["event"], json.loads(fields["data"])["data"]
                fields = {}
        return None

    async def requests(self, count: int) -> list[str]:
        """The ids of the next ``count`` requests."""
        found: list[str] = []
        while len(found) < count:
            told = await self.next()
            assert told is not None
            assert "request.completed" == told[0], told
            found.append(told[1]["request_id"])
        return found


@asynccontextmanager
async def listening(
    gateway: Gateway, http: aiohttp.ClientSession, query: str = "", *, key: str = ADMIN_KEY, last_id: str | None = None
) -> AsyncIterator[Stream]:
    headers = {"authorization": f"Bearer {key}"} | ({} if last_id is None else {"last-event-id": last_id})
    timeout = aiohttp.ClientTimeout(total=None)
    async with http.get(f"{gateway.url}/api/v1/events{query}", headers=headers, timeout=timeout) as answer:
        assert 200 == answer.status, await answer.text()
        stream = Stream(answer, last_id)
        # The place at which it begins comes first of all: from then on nothing is missed.
        while not (await answer.content.readline()).startswith(b"id: "):
            pass
        yield stream


async def send(gateway: Gateway, http: aiohttp.ClientSession, count: int) -> list[str]:
    """The ids of ``count`` requests, each on a connection of its own."""
    body = {"model": "echo/x", "messages": [{"role": "user", "content": "Hi"}]}

    async def one() -> str:
        async with http.post(f"{gateway.base_url}/chat/completions", json=body) as answer:
            assert 200 == answer.status, await answer.text()
            await answer.read()
            return answer.headers["x-request-id"]

    return list(await asyncio.gather(*(one() for _ in range(count))))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_cut_stream_goes_on_without_loss_or_repetition(
    start_gateway: StartGateway, http: aiohttp.ClientSession, workers: int
) -> None:
    gateway = start_gateway(f"server: {{workers: {workers}}}\n{ECHO}")
    await until(lambda: gateway.err.count("listening on") >= workers)
    if workers > 1:
        await until(lambda: gateway.err.count("listening on") > workers)
    got: list[str] = []
    async with listening(gateway, http, "?events=request.*") as stream:
        # Those that begin are told of because they were asked for.
        await send(gateway, http, 1)
        assert {"request.started", "request.completed"} == {(await stream.next() or ("",))[0] for _ in range(2)}
    async with listening(gateway, http, "?events=request.completed") as stream:
        sent = await send(gateway, http, 20)
        # In the middle of them.
        got += await stream.requests(7)
        last_id = stream.last_id
    for _ in range(4):
        # Whichever worker it comes to.
        sending = asyncio.ensure_future(send(gateway, http, 20))
        async with listening(gateway, http, "?events=request.completed", last_id=last_id) as stream:
            got += await stream.requests(15)
            last_id = stream.last_id
        sent += await sending
    async with listening(gateway, http, "?events=request.completed", last_id=last_id) as stream:
        got += await stream.requests(len(sent) - len(got))
        assert await send(gateway, http, 1) == await stream.requests(1)
    assert sorted(sent) == sorted(got)


async def test_a_token_sees_its_own_until_it_is_revoked(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(ECHO)
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    made = {"name": "mine", "scope": "scope_token_power_user", "models": ["*"]}
    async with http.post(f"{gateway.url}/api/v1/tokens", json=made, headers=admin) as answer:
        assert 201 == answer.status, await answer.text()
        token = await answer.json()
    body = {"model": "echo/x", "messages": [{"role": "user", "content": "Hi"}]}
    async with listening(gateway, http, key=token["token"]) as mine, listening(gateway, http) as all_of_it:
        await send(gateway, http, 1)
        headers = {"authorization": f"Bearer {token['token']}"}
        async with http.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers) as answer:
            own = answer.headers["x-request-id"]
            await answer.read()
        assert [own] == await mine.requests(1)
        assert own == (await all_of_it.requests(2))[1]
        async with http.delete(f"{gateway.url}/api/v1/tokens/{token['id']}", headers=admin) as answer:
            assert answer.status < 300, await answer.text()
        assert None is await mine.next()
        told = await all_of_it.next()
        assert told is not None
        assert ("token.revoked", "mine") == (told[0], told[1]["token"])


async def test_draining_ends_the_stream_in_good_order(start_gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    gateway = start_gateway(f"server: {{drain_seconds: 20}}\n{ECHO}")
    async with listening(gateway, http) as stream:
        gateway.signal(signal.SIGTERM)
        told = await stream.next()
        assert told is not None
        assert ("gateway.stopping", {"reason": "signal"}) == told
        assert None is await stream.next()
    assert 0 == await gateway.ended(SECONDS)


async def test_a_gateway_that_was_started_again_begins_with_a_gap(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(ECHO)
    async with listening(gateway, http, last_id="evt_0a1b2c3d11") as stream:
        told = await stream.next()
        assert ("stream.gap", {"reason": "unknown_id", "events": None}) == told
        assert await send(gateway, http, 1) == await stream.requests(1)
