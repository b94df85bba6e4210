"""Eight processes that share an account whose refresh token is good once, and whose access token ends under load."""

import asyncio
import base64
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest

from config.master_key import VARIABLE
from tests import redis_server
from tests.gateway_process import ADMIN_KEY, TOKEN, Gateway, until
from tests.integration.conftest import StartGateway
from tests.oauth_server import REDIRECT_URL, OAuthServerProcess, browser, oauth_server
from tests.planted import planted_key
from tests.provider import Call, completion, error, provider

WORKERS = 4
CLIENTS = 2 * WORKERS
"""Of each gateway, each on a connection of its own; they are spread over its workers evenly."""
ENDS_SECONDS = 3.0
PAUSE_SECONDS = 0.04
PATIENCE_SECONDS = 90.0


class Guarded:
    """A provider that takes the tokens that the server says are active, and the ``first`` one until it ends."""

    def __init__(self, server: OAuthServerProcess, first: str) -> None:
        self.first = first
        self.ends_at = float("inf")
        self.taken: Counter[str] = Counter()
        self.refused = 0
        self._server = server
        self._active: dict[str, asyncio.Task[bool]] = {}

    @property
    def later(self) -> set[str]:
        """Those that were taken, but for the first."""
        return {*self.taken} - {self.first}

    async def behave(self, call: Call) -> None:
        await call.body()
        token = call.headers["authorization"].removeprefix("Bearer ")
        if token == self.first:
            good = time.time() < self.ends_at
        else:
            if token not in self._active:
                self._active[token] = asyncio.get_running_loop().create_task(self._server.is_active(token))
            good = await self._active[token]
        if good:
            self.taken[token] += 1
            await call.answer(completion("hello"))
        else:
            self.refused += 1
            await call.answer(error("invalid_api_key"), 401)


async def signed_in(server: OAuthServerProcess) -> dict[str, Any]:
    """The server's tokens for a person, got without a gateway."""
    verifier = secrets.token_urlsafe(32)
    asked = {
        "client_id": "public",
        "response_type": "code",
        "redirect_uri": REDIRECT_URL,
        "scope": "openid offline_access",
        "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("="),
        "code_challenge_method": "S256",
    }
    async with browser() as person:
        back = await person.sign_in(f"{server.url}/auth?{urlencode(asked)}")
    form = {
        "grant_type": "authorization_code",
        "client_id": "public",
        "redirect_uri": REDIRECT_URL,
        "code": parse_qs(urlsplit(back).query)["code"][0],
        "code_verifier": verifier,
    }
    async with aiohttp.ClientSession() as session, session.post(f"{server.url}/token", data=form) as answer:
        found: dict[str, Any] = await answer.json()
        return found


class Client:
    """Asks one worker of a gateway, on one connection."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.statuses: Counter[int] = Counter()
        self.after = 0
        """Requests that were begun after the first token had ended."""

    async def knows(self, account: str) -> bool:
        """Whether its worker knows the account; it looks."""
        path = f"/api/v1/credentials/{account}"
        async with self._session.get(path, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as answer:
            await answer.read()
            return answer.status == 200

    async def ask_until_after(self, ends_at: float, another: asyncio.Event) -> None:
        """Ask again and again: until a while after the end of the first token, and until ``another`` has served."""
        body = {"model": "up/model", "messages": [{"role": "user", "content": "hi"}]}
        while self.after < 5 or not another.is_set():
            self.after += time.time() > ends_at
            async with self._session.post(
                "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {TOKEN}"}
            ) as answer:
                await answer.read()
                self.statuses[answer.status] += 1
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def clients(*gateways: Gateway) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as opened:
        sessions = [
            await opened.enter_async_context(
                aiohttp.ClientSession(
                    running.url,
                    connector=aiohttp.TCPConnector(limit=1),
                    timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
                )
            )
            for running in gateways
            for _ in range(CLIENTS)
        ]
        yield [Client(session) for session in sessions]


@pytest.fixture(scope="module")
def redis() -> Iterator[redis_server.Redis]:
    with redis_server.redis(keeps=True) as server:
        yield server


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServerProcess]:
    with oauth_server(tmp_path_factory.mktemp("oauth")) as server:
        yield server


async def test_an_account_that_eight_processes_share_is_refreshed_once_and_no_request_fails(
    redis: redis_server.Redis, strict: OAuthServerProcess, start_gateway: StartGateway
) -> None:
    tokens = await signed_in(strict)
    guarded = Guarded(strict, tokens["access_token"])
    async with provider(guarded.behave) as there:
        text = f"""
        server: {{workers: {WORKERS}}}
        redis: {{url: "${{env:REDIS_URL}}", timeout_seconds: 60}}
        oauth:
          store: redis
          refresh_ahead_seconds: 1
          providers: [{{name: strict, issuer: "{strict.url}", client_id: public, scopes: [openid]}}]
        providers: [{there.entry("up", "oauth: strict")}]
        """
        extra = {"REDIS_URL": redis.url, VARIABLE: f"shared:{planted_key('shared').hex()}"}
        gateways = [await asyncio.to_thread(start_gateway, text, extra=extra) for _ in range(2)]
        await until(lambda: all(each.err.count("listening on") == 1 + WORKERS for each in gateways), PATIENCE_SECONDS)
        guarded.ends_at = time.time() + ENDS_SECONDS
        await add(gateways[0], tokens, guarded.ends_at)
        async with clients(*gateways) as asking:
            assert [True] * len(asking) == await asyncio.gather(*(each.knows("up%2Fada") for each in asking))
            another = asyncio.Event()
            loads = [asyncio.ensure_future(each.ask_until_after(guarded.ends_at, another)) for each in asking]
            await until(lambda: guarded.later or any(map(asyncio.Future.done, loads)), PATIENCE_SECONDS)
            another.set()
            await asyncio.gather(*loads)
        assert {200} == set().union(*(each.statuses for each in asking))
    assert {"given": 1, "refused": 0} == (await strict.grants())["refresh_token"]
    # Before it the first one has served, unless the machine was too slow for that.
    assert 1 == len(guarded.later), "the token that came of the first serves, and no other"
    assert 1 == sum(each.metric("sluice_credential_refreshes_total", outcome="refreshed") for each in gateways)
    for running in gateways:
        # Whichever worker has served nobody since hears of it a little later.
        await until(partial(needs_no_login, running))
        assert not any(token in running.err + running.out for token in guarded.taken)


def needs_no_login(running: Gateway) -> bool:
    return running.metric("sluice_credential_state", provider="up", credential="ada") == 0


async def add(running: Gateway, tokens: dict[str, Any], ends_at: float) -> None:
    body = {
        "provider": "up",
        "name": "ada",
        "access_token": {"action": "set", "value": tokens["access_token"]},
        "refresh_token": {"action": "set", "value": tokens["refresh_token"]},
        "expires_at": datetime.fromtimestamp(ends_at, UTC).isoformat(),
    }
    answer = await asyncio.to_thread(running.request, "POST", "/api/v1/credentials", body, None, ADMIN_KEY)
    assert 201 == answer.status, answer
