"""Limits of a real gateway: by the official SDK, over reloads, by several workers and a real Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import openai
import pytest
from openai import OpenAI

from tests import redis_server
from tests.gateway_process import ADMIN_KEY_HASH, TOKEN, Gateway, sha256, until
from tests.integration.conftest import StartGateway
from tests.planted import planted

OTHER = planted("token-other")
CHAT = "/v1/chat/completions"
HELLO: Any = {"model": "echo-small", "messages": [{"role": "user", "content": "Hello"}]}
DOCUMENT = """\
providers:
  - {name: echo, type: echo, models: ["echo-*"], options: {interval_seconds: 0.02}}
"""


def access(limits: str = "", other: str = "") -> str:
    """Two tokens of one owner, each with its own limits."""
    return f"""\
tokens:
  - {{name: tester, sha256: {sha256(TOKEN)}, models: ["*"], owner: alice, limits: [{limits}]}}
  - {{name: other, sha256: {sha256(OTHER)}, models: ["*"], owner: alice, limits: [{other}]}}
management:
  admin_key_hash: "{ADMIN_KEY_HASH}"
"""


def statuses(running: Gateway, count: int, key: str = TOKEN) -> list[int]:
    return [running.request("POST", CHAT, HELLO, key=key).status for _ in range(count)]


def fields(running: Gateway, key: str = TOKEN) -> dict[str, str]:
    headers = running.request("POST", CHAT, HELLO, key=key).headers
    return {name: value for name, value in headers.items() if name.startswith("x-ratelimit-")}


def test_the_sdk_sees_a_limit_as_what_it_is(start_gateway: StartGateway) -> None:
    running = start_gateway(DOCUMENT, access=access("{requests: 2, per: day}", "{usd: 0.000001, per: day}"))
    with OpenAI(base_url=running.base_url, api_key=TOKEN, max_retries=0) as client:
        told = [client.chat.completions.with_raw_response.create(**HELLO).headers for _ in range(2)]
        assert ["1", "0"] == [headers["x-ratelimit-remaining-requests"] for headers in told]
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(**HELLO, stream=stream)
            error = caught.value
            assert ("rate_limit_exceeded", "rate_limit_error") == (error.code, error.type)
            assert 86_000 < int(error.response.headers["retry-after"]) <= 86_400
        # What is not sent on is not counted.
        assert client.models.list().data is not None
    # One token's use is not another's.
    assert [200] == statuses(running, 1, OTHER)


def test_a_shared_limit_counts_by_what_it_says(start_gateway: StartGateway) -> None:
    kinds = {"token": 200, "owner": 429, "model": 429, "path": 429, "": 429}
    limits = "".join(
        f"  - {{requests: 2, per: day, each: [{kind}], match: {{model: echo-{kind or 'all'}}}}}\n" for kind in kinds
    )
    running = start_gateway(DOCUMENT + "limits:\n" + limits, access=access())
    for kind, another in kinds.items():
        body = HELLO | {"model": f"echo-{kind or 'all'}"}
        answers = [running.request("POST", CHAT, body, key=key) for key in (TOKEN, TOKEN, TOKEN, OTHER)]
        assert [200, 200, 429, another] == [answer.status for answer in answers], kind


async def test_a_reload_keeps_what_was_counted_and_a_changed_amount_counts_at_once(start_gateway: StartGateway) -> None:
    running = start_gateway(DOCUMENT, access=access("{requests: 3, per: day}"))
    assert [200, 200] == statuses(running, 2)

    def reload(old: str, new: str) -> None:
        running.rewrite(running.config.read_text().replace(old, new))
        assert 200 == running.management("POST", "/api/v1/config/reload").status

    reload("interval_seconds: 0.02", "interval_seconds: 0.01")
    assert [200, 429] == statuses(running, 2)
    reload("requests: 3", "requests: 5")
    assert [200, 200, 429] == statuses(running, 3)
    reload("requests: 5", "requests: 1")
    assert ("1", "0") == (
        fields(running)["x-ratelimit-limit-requests"],
        fields(running)["x-ratelimit-remaining-requests"],
    )


async def test_streams_are_under_way_until_they_end_and_clients_that_leave_make_room(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = start_gateway(DOCUMENT, access=access("{concurrency: 2, max_wait_seconds: 60}"))
    url = running.url + CHAT
    stalled = {"model": "echo/stall", "stream": True, "messages": []}
    open_ones = [asyncio.ensure_future(http.post(url, json=stalled)) for _ in range(2)]
    await until(lambda: running.metric("sluice_quota_decisions_total", result="admitted") == 2)
    waiting = [asyncio.ensure_future(http.post(url, json=HELLO)) for _ in range(3)]
    await until(lambda: running.metric("sluice_quota_waiting_requests") == 3)
    waiting[0].cancel()
    await until(lambda: running.metric("sluice_quota_waiting_requests") == 2)
    for each in open_ones:
        each.cancel()
    answers = await asyncio.gather(*waiting[1:])
    assert [200, 200] == [answer.status for answer in answers]
    assert 2 == running.metric("sluice_quota_decisions_total", result="waited")
    for answer in answers:
        await answer.read()
    await asyncio.gather(*open_ones, waiting[0], return_exceptions=True)


def test_providers_and_credentials_that_are_used_up_make_others_serve(start_gateway: StartGateway) -> None:
    running = start_gateway(
        """
        providers:
          - {name: one, type: echo, limits: [{requests: 2, per: day}]}
          - {name: two, type: echo, limits: [{requests: 1, per: hour}]}
        routes:
          - {name: both, match: {model: echo-small}, targets: [one/m], fallbacks: [[two/m]]}
        """
    )
    answers = [running.request("POST", CHAT, HELLO) for _ in range(4)]
    assert ["one/m", "one/m", "two/m"] == [answer.headers["x-sluice-target"] for answer in answers[:3]]
    assert (429, "rate_limit_exceeded") == (answers[3].status, answers[3].code)
    assert 3500 < int(answers[3].headers["retry-after"]) <= 3600
    assert 2 == running.metric("sluice_attempts_failed_total", provider="one", code="target_limited")
    # Our own limit is no fault of the provider's.
    health = running.management("GET", "/api/v1/health").json()
    assert [[], []] == [provider["cooldowns"] for provider in health["providers"]]
    assert {"store": "memory", "up": True, "reason": None, "since": None, "waiting": 0} == health["quotas"]


def test_several_workers_without_redis_refuse_limits_at_their_place(start_gateway: StartGateway) -> None:
    running = start_gateway(DOCUMENT + "server: {workers: 2}\n")
    running.expect_log("configuration refused|configuration in force stays")
    running.rewrite(running.config.read_text() + "limits: [{requests: 1, per: day}]\n")
    answer = running.management("POST", "/api/v1/config/reload")
    assert 400 <= answer.status < 500
    assert "2 workers run without Redis" in answer.body.decode()
    assert [200] * 3 == statuses(running, 3)


@pytest.fixture
def server() -> Iterator[redis_server.Redis]:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis() as running:
        yield running


@pytest.fixture
def shared(start_gateway: StartGateway, server: redis_server.Redis, request: pytest.FixtureRequest) -> Gateway:
    running = start_gateway(
        DOCUMENT + "server: {workers: 2}\nredis: {url: '${env:REDIS}', timeout_seconds: 30}\n"
        f"quotas: {{{request.param}}}\n",
        access=access("{requests: 100, per: day}", "{requests: 100000, per: day}"),
        extra={"REDIS": server.url},
    )
    deadline = time.monotonic() + 60
    while running.err.count("listening on") < 3:  # each worker's own
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return running


@pytest.mark.parametrize("shared", ["on_store_failure: local"], indirect=True)
def test_several_workers_admit_exactly_the_amount(shared: Gateway) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda _: statuses(shared, 1)[0], range(160))]
    assert (100, 60) == (found.count(200), found.count(429))


@pytest.fixture
async def traffic(shared: Gateway) -> AsyncIterator[list[int]]:
    """The statuses of requests of the token whose limit is far, one after the other."""
    seen: list[int] = []

    async def ask() -> None:
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {OTHER}"}) as session:
            while True:
                async with session.post(shared.url + CHAT, json=HELLO) as answer:
                    await answer.read()
                    seen.append(answer.status)

    # Each has its own connection, so that both workers serve.
    asking = [asyncio.ensure_future(ask()) for _ in range(4)]
    yield seen
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.parametrize(
    ("shared", "meanwhile"),
    [("on_store_failure: local", 200), ("on_store_failure: refuse", 503)],
    indirect=["shared"],
)
async def test_a_redis_that_is_killed_is_done_without_as_configured_and_used_again(
    shared: Gateway, server: redis_server.Redis, traffic: list[int], meanwhile: int
) -> None:
    shared.expect_log("Redis, which counts limits, cannot be used")
    await until(lambda: len(traffic) > 40)
    assert {200} == set(traffic)
    server.kill()
    await until(lambda: shared.metric("sluice_quota_store_up") == 0 and shared.err.count("cannot be used") >= 2)
    begun = len(traffic)
    await until(lambda: len(traffic) > begun + 40)
    assert {meanwhile} == set(traffic[begun + 8 :])
    assert not shared.management("GET", "/api/v1/health").json()["quotas"]["up"]
    server.start()
    await until(lambda: shared.err.count("Redis counts limits again") >= 2)
    begun = len(traffic)
    await until(lambda: len(traffic) > begun + 40)
    assert {200} == set(traffic[begun + 8 :])
    await until(lambda: shared.metric("sluice_quota_store_up") == 1)
