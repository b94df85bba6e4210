"""One gateway with every feature on, and real servers around it: what it is made of works together."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from config.master_key import VARIABLE
from tests import redis_server
from tests.gateway_process import ADMIN_KEY, TOKEN, Answer, Gateway, until
from tests.integration.conftest import StartGateway
from tests.oauth_server import OAuthServerProcess, browser, oauth_server
from tests.openapi_answers import check_answer
from tests.planted import planted, planted_key
from tests.provider import Call, Provider, completion, error, provider
from tests.vault_stand_in import VaultStandIn, vault_stand_in
from tests.webhook_receiver import SECRET, Receiver, receiver

SECONDS = 60.0
VAULT_KEY = planted("vault-key", "sk-")
ACCOUNT = "/api/v1/credentials/hub%2Fada"


@pytest.fixture
def vault() -> Iterator[VaultStandIn]:
    with vault_stand_in() as running:
        running.put("secret/llm/keyed", api_key=VAULT_KEY)
        yield running


@pytest.fixture
def redis() -> Iterator[redis_server.Redis]:
    with redis_server.redis() as running:
        yield running


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[OAuthServerProcess]:
    # Half of that time after it was given a token is exchanged for the next.
    with oauth_server(tmp_path, lifetimes={"AccessToken": 4}) as running:
        yield running


class Hub:
    """Two providers in one: takes the key that is in Vault, and the tokens that the OAuth server says are active."""

    def __init__(self, server: OAuthServerProcess) -> None:
        self.tokens: list[str] = []
        self.models: list[str] = []
        self._server = server

    async def behave(self, call: Call) -> None:
        await call.body()
        token = call.headers["authorization"].removeprefix("Bearer ")
        if call.method == "GET":
            await call.answer({"object": "list", "data": []})
            return
        if token != VAULT_KEY and not await self._server.is_active(token):
            await call.answer(error("invalid_api_key"), 401)
            return
        self.tokens.append(token)
        self.models.append(call.json()["model"])
        await call.answer(completion("hello"))


@pytest.fixture
async def hub(strict: OAuthServerProcess) -> AsyncIterator[tuple[Hub, Provider]]:
    made = Hub(strict)
    async with provider(made.behave) as there:
        yield made, there


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


def document(strict: OAuthServerProcess, there: Provider, vault: VaultStandIn, hook: Receiver) -> str:
    return f"""
        server: {{workers: 2}}
        secrets:
          vault: {{address: "{vault.address}", auth: {{method: token, token: "${{env:VAULT_TOKEN}}"}}}}
        redis: {{url: "${{env:REDIS_URL}}", timeout_seconds: 5}}
        oauth:
          refresh_ahead_seconds: 60
          providers:
            - {{name: strict, issuer: "{strict.url}", client_id: public, scopes: [openid, email, offline_access]}}
        prices:
          - {{model: "hub/*", input_usd: 1000000, output_usd: 0}}
        limits:
          - {{requests: 4, per: day, match: {{model: limited}}}}
          - {{requests: 100000, per: day}}
        providers:
          - {there.entry("hub", "oauth: strict")}
          - {there.entry("keyed", 'credentials: [{name: main, api_key: "${vault:secret/llm/keyed#api_key}"}]')}
          - {{name: echo, type: echo, models: [echo-small]}}
        model_aliases:
          - {{from: fast, to: hub/real}}
          - {{from: kept, to: keyed/real}}
          - {{from: limited, to: echo/echo-small}}
        routes:
          - {{name: twice, match: {{requested_model: safe}}, targets: [echo/status-503], fallbacks: [[hub/real]]}}
        webhooks:
          - name: ops
            url: http://127.0.0.1:{hook.port}/hook
            secret: ${{env:HOOK_SECRET}}
            events: ["credential.*", "config.*"]
        route_tests:
          - {{request: {{model: fast, token: tester}}, expect: {{provider: hub, model: real}}}}
    """


async def asked(running: Gateway, method: str, path: str, body: object = None, key: str | None = ADMIN_KEY) -> Answer:
    """In a thread, as the servers around the gateway answer in this one; held against the API's document."""
    answer = await asyncio.to_thread(running.request, method, path, body, None, key)
    check_answer(method, path, answer.status, answer.headers, answer.body)
    return answer


async def chat(running: Gateway, model: str) -> Answer:
    return await asyncio.to_thread(running.chat, model)


async def told(running: Gateway, part: str) -> Any:
    return (await asked(running, "GET", "/api/v1/health")).json()[part]


async def sign_in(running: Gateway) -> set[str]:
    """What of it is to be seen nowhere."""
    begun = await asked(
        running, "POST", "/api/v1/credentials/login", {"provider": "hub", "name": "ada", "note": "hers"}
    )
    assert 200 == begun.status, begun
    state = begun.json()["state"]
    async with browser() as person:
        back = await person.sign_in(begun.json()["authorization_url"])
    assert running.url == "{0.scheme}://{0.netloc}".format(urlsplit(back))
    assert "pending" == (await asked(running, "GET", f"/api/v1/credentials/login/{state}")).json()["status"]
    callback = back.removeprefix(running.url)
    # A person's browser has no key.
    came = await asked(running, "GET", callback, key=None)
    assert (200, "text/html") == (came.status, came.headers["content-type"].partition(";")[0]), came
    assert 410 == (await asked(running, "GET", callback, key=None)).status
    assert "complete" == (await asked(running, "GET", f"/api/v1/credentials/login/{state}")).json()["status"]
    return {state, *parse_qs(urlsplit(back).query)["code"]}


async def test_a_gateway_with_every_feature_on(
    redis: redis_server.Redis,
    vault: VaultStandIn,
    strict: OAuthServerProcess,
    hub: tuple[Hub, Provider],
    hook: Receiver,
    start_gateway: StartGateway,
) -> None:
    there, server = hub
    extra = {
        "VAULT_TOKEN": vault.root_token,
        "REDIS_URL": redis.url,
        "HOOK_SECRET": SECRET,
        VARIABLE: f"main:{planted_key('everything').hex()}",
    }
    running = await asyncio.to_thread(start_gateway, document(strict, server, vault, hook), extra=extra)
    await until(lambda: running.err.count("listening on") == 3, SECONDS)

    # Management is there and guarded, and the callback answers truly without a sign-in.
    for path in ("/api/v1/credentials", "/api/v1/health", "/api/v1/no-such-thing", "/metrics"):
        assert 401 == (await asked(running, "GET", path, key=None)).status, path
    assert 403 == (await asked(running, "GET", "/api/v1/credentials", key=TOKEN)).status
    listed = (await asked(running, "GET", "/api/v1/credentials")).json()["data"]
    assert [("keyed/main", "api_key")] == [(each["id"], each["kind"]) for each in listed]
    assert 400 == (await asked(running, "GET", "/oauth/callback", key=None)).status
    assert 400 == (await asked(running, "GET", "/oauth/callback?state=a&code=b", key=None)).status

    # Nobody has signed in: the provider cannot be called. Then somebody does, and both workers serve by it.
    refused = await chat(running, "fast")
    assert (503, "no_target_available") == (refused.status, refused.code), refused
    secret = await sign_in(running)
    answers = [await chat(running, model) for model in ("fast", "safe") * 4]
    assert [200] * 8 == [answer.status for answer in answers], answers
    assert ["real"] * 8 == there.models

    # The key of the other provider is in Vault.
    kept = await chat(running, "kept")
    assert (200, VAULT_KEY) == (kept.status, there.tokens[-1])

    # Limits, in Redis: the same for both workers.
    limited = [(await chat(running, "limited")).status for _ in range(6)]
    assert Counter({200: 4, 429: 2}) == Counter(limited)
    with redis.client() as client:
        assert client.keys("{sluice}:*")

    # The token is exchanged ahead of its end, though nobody asks for anything; a reload keeps what there is.
    await until(lambda: heard(hook, "credential.refreshed"), SECONDS)
    account = await planned(running)
    assert ("ready", "oauth", "hers") == (account["state"], account["kind"], account["note"])
    assert account["created_at"] < account["refreshed_at"] < account["next_refresh_at"] < account["expires_at"]
    assert 200 == (await asked(running, "POST", "/api/v1/config/reload")).status
    assert [200] * 4 == [(await chat(running, "fast")).status for _ in range(4)]
    assert 1 == (await strict.grants())["authorization_code"]["given"]

    # What was used is in the ledger, with its cost.
    await paid(running, {("hub", "ada", 3), ("keyed", "main", None)})

    # The server takes the sign-in back: that is told everywhere, until somebody signs in again.
    running.expect_log("hub/ada")
    await strict.answer_next("/token", 400, {"error": "invalid_grant"})
    await until(lambda: heard(hook, "credential.refresh_failed"), SECONDS)
    assert [{"provider": "hub", "credential": "ada", "reason": "needs_login", "needs_login": True}] == heard(
        hook, "credential.refresh_failed"
    )
    await until(lambda: 1 == running.metric("sluice_credential_state", provider="hub", credential="ada"), SECONDS)
    async with asyncio.timeout(SECONDS):
        while ["hub/ada"] != (await told(running, "credentials"))["needs_login"]:
            await asyncio.sleep(0.05)
    refused = await until_refused(running, "fast")
    assert (503, "no_target_available") == (refused.status, refused.code)
    await sign_in(running)
    assert [200] * 4 == [(await chat(running, "fast")).status for _ in range(4)]

    # All of it stands well, and no secret is where it should not be.
    health = await settled_health(running)
    assert (1, []) == (health["credentials"]["ready"], health["credentials"]["needs_login"])
    assert ("ok", "ok", True) == (health["storage"]["state"], health["ledger"]["state"], health["quotas"]["up"])
    assert ("redis", [], []) == (health["quotas"]["store"], health["stale_secrets"], health["webhooks"]["failing"])
    written = running.out + running.err + running.metrics() + repr(hook.got)
    stored = b"".join(path.read_bytes() for path in (running.config.parent / "data").iterdir() if path.is_file())
    for text in {*there.tokens, *secret}:
        assert text not in written
        assert text.encode() not in stored


async def planned(running: Gateway) -> Any:
    """The account, with its next refresh ahead: while one goes on, none is planned."""
    async with asyncio.timeout(SECONDS):
        while (account := (await asked(running, "GET", ACCOUNT)).json())["next_refresh_at"] is None:
            await asyncio.sleep(0.05)
    return account


async def until_refused(running: Gateway, model: str) -> Answer:
    """The token that there is serves to its end, and no further; the provider may see that first, which is a 502."""
    async with asyncio.timeout(SECONDS):
        while (answer := await chat(running, model)).status != 503:
            await asyncio.sleep(0.1)
    return answer


def heard(hook: Receiver, name: str) -> list[Any]:
    """What events of that name tell; their signatures have been verified."""
    return [payload["data"] for _, payload in hook.got if payload["type"] == name]


async def paid(running: Gateway, wanted: set[tuple[str, str, float | None]]) -> None:
    """Wait for rows of the ledger with these providers, credentials and costs."""
    async with asyncio.timeout(SECONDS):
        while True:
            rows = (await asked(running, "GET", "/api/v1/requests?limit=100")).json()["data"]
            found = {(row["provider"], row["credential"], row["cost_usd"]) for row in rows if row["status"] == 200}
            if wanted <= found and "echo" in {provider for provider, _, _ in found}:
                return
            await asyncio.sleep(0.05)


async def settled_health(running: Gateway) -> Any:
    """When the database has what came last: a slow one leaves it to the disk for a while."""
    async with asyncio.timeout(SECONDS):
        while True:
            health = (await asked(running, "GET", "/api/v1/health")).json()
            if {"ok"} == {health[part]["state"] for part in ("storage", "ledger")}:
                return health
            await asyncio.sleep(0.05)
