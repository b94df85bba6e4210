"""Retry, fallback and other credentials, over real sockets: who is asked, how often, in which order."""

from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic

import aiohttp
import pytest

from tests.gateway_process import Gateway
from tests.integration.conftest import StartGateway
from tests.planted import planted
from tests.ports import free_port
from tests.provider import Call, Provider, completion, entry, error, provider

WORN, GOOD = planted("worn-key"), planted("good-key")
PATIENCE_SECONDS = 25.0
"""The longest pause of the route `again`."""


class Pair:
    """Two providers; each answers with its own name unless a test says otherwise."""

    def __init__(self, first: Provider, second: Provider) -> None:
        self.first = first
        self.second = second

    @property
    def counts(self) -> tuple[int, int]:
        """How often each was asked."""
        return len(self.first.calls), len(self.second.calls)


def says(text: str) -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        await call.body()
        await call.answer(completion(text))

    return answer


def fails(
    status: int, code: str = "broken", headers: dict[str, str] | None = None
) -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        await call.body()
        await call.answer(error(code), status, headers)

    return answer


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: StartGateway, ports: tuple[int, int]) -> Gateway:
    keys = f"credentials: [{{name: worn, api_key: {WORN}}}, {{name: good, api_key: {GOOD}}}]"
    return start_shared_gateway(f"""
        providers:
          - {entry(ports[0], "first")}
          - {entry(ports[1], "second")}
          - {entry(ports[0], "keyed", keys)}
        routes:
          # No cooldowns but where they are the matter: so that no test's failure is another's.
          - name: pair
            match: {{model: pair}}
            targets: [first/model, second/model]
            retry: {{attempts: 2, backoff_seconds: 0}}
            cooldown: {{max_seconds: 0}}
          - name: groups
            match: {{model: groups}}
            targets: [first/model]
            fallbacks: [[second/model]]
            retry: {{attempts: 2, backoff_seconds: 0}}
            cooldown: {{max_seconds: 0}}
          - name: again
            match: {{model: again}}
            targets: [first/model]
            retry: {{attempts: 3, backoff_seconds: 0.01, max_backoff_seconds: {PATIENCE_SECONDS}}}
            cooldown: {{max_seconds: 0}}
          - name: context
            match: {{model: context}}
            targets: [first/model]
            fallbacks: {{context: [[second/long]]}}
          - name: keyed
            match: {{model: keyed}}
            targets: [keyed/model]
            retry: {{attempts: 3}}
            cooldown: {{seconds: 300}}
          - name: cautious
            match: {{model: cautious}}
            targets: [first/model, second/model]
            retry: {{attempts: 2, backoff_seconds: 0, maybe_delivered: false}}
            cooldown: {{max_seconds: 0}}
          - name: cooled
            match: {{model: cooled}}
            targets: [first/cooled, second/cooled]
            retry: {{attempts: 2, backoff_seconds: 0}}
            cooldown: {{after_failures: 2, seconds: 300}}
    """)


@pytest.fixture
async def pair(gateway: Gateway, ports: tuple[int, int]) -> AsyncIterator[Pair]:
    async with provider(says("first"), ports[0]) as first, provider(says("second"), ports[1]) as second:
        yield Pair(first, second)


class Seen:
    """What a client saw."""

    def __init__(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = answer.status
        self.target = answer.headers.get("x-sluice-target")
        self.attempts = answer.headers.get("x-sluice-attempts")
        self.retry_after = answer.headers.get("retry-after")
        self.body = body


async def ask(http: aiohttp.ClientSession, gateway: Gateway, model: str, *, stream: bool = False) -> Seen:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "?"}]}
    async with http.post(f"{gateway.base_url}/chat/completions", json=body) as answer:
        return Seen(answer, await answer.read())


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 401, 403])
async def test_a_failing_target_is_followed_by_the_next(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair, status: int
) -> None:
    pair.first.behave = fails(status)
    seen = await ask(http, gateway, "pair")
    assert (200, "second/model", "2") == (seen.status, seen.target, seen.attempts)
    assert b'"second"' in seen.body
    assert (1, 1) == pair.counts


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_the_request_itself_is_at_fault_for_is_never_tried_again(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair, status: int
) -> None:
    pair.first.behave = fails(status, "your_fault")
    for model in ("pair", "groups", "again"):
        seen = await ask(http, gateway, model)
        assert (status, "first/model", "1") == (seen.status, seen.target, seen.attempts)
        assert b"your_fault" in seen.body
    assert (3, 0) == pair.counts


async def test_a_reset_before_the_first_output_is_followed_by_the_next(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    async def resets(call: Call) -> None:
        await call.body()
        call.reset()

    pair.first.behave = resets
    seen = await ask(http, gateway, "pair", stream=True)
    assert (200, "second/model", "2") == (seen.status, seen.target, seen.attempts)


async def test_an_error_event_in_the_place_of_the_first_output_is_followed_by_the_next(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    async def overloaded(call: Call) -> None:
        await call.body()
        await call.stream()
        await call.event(b": warming up\n\n")
        await call.event(b'data: {"error": {"message": "overloaded"}}\n\n')
        await call.send(b"0\r\n\r\n")

    pair.first.behave = overloaded
    seen = await ask(http, gateway, "pair", stream=True)
    assert (200, "2") == (seen.status, seen.attempts)
    assert b"overloaded" not in seen.body


async def test_after_the_first_output_nothing_is_tried_again(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    async def begins_and_cuts(call: Call) -> None:
        await call.body()
        await call.stream()
        await call.event("begun")
        call.close()

    pair.first.behave = begins_and_cuts
    seen = await ask(http, gateway, "pair", stream=True)
    assert (200, "1") == (seen.status, seen.attempts)
    assert b"upstream_disconnected" in seen.body
    assert (1, 0) == pair.counts


async def test_a_group_that_is_used_up_falls_back_to_the_next(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    pair.first.behave = fails(500)
    seen = await ask(http, gateway, "groups")
    assert (200, "second/model", "3") == (seen.status, seen.target, seen.attempts)
    assert (2, 1) == pair.counts


async def test_when_all_have_failed_the_last_failure_is_the_answer(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    pair.first.behave = fails(500)
    pair.second.behave = fails(529, "overloaded")
    seen = await ask(http, gateway, "groups")
    assert (529, "second/model", "4") == (seen.status, seen.target, seen.attempts)
    assert b"overloaded" in seen.body
    assert (2, 2) == pair.counts


async def test_too_long_a_prompt_goes_to_the_group_for_it(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    pair.first.behave = fails(400, "context_length_exceeded")
    seen = await ask(http, gateway, "context")
    assert (200, "second/long", "2") == (seen.status, seen.target, seen.attempts)
    assert "long" == pair.second.calls[0].json()["model"]


async def test_retry_after_is_waited_out(http: aiohttp.ClientSession, gateway: Gateway, pair: Pair) -> None:
    async def busy_once(call: Call) -> None:
        await (fails(503, headers={"retry-after": "1"}) if call.number == 1 else says("first"))(call)

    pair.first.behave = busy_once
    began = monotonic()
    seen = await ask(http, gateway, "again")
    assert (200, "2") == (seen.status, seen.attempts)
    # Neither less nor as long as the route would wait at most.
    assert 1.0 <= monotonic() - began < PATIENCE_SECONDS - 5


async def test_a_longer_retry_after_than_the_route_waits_reaches_the_client(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    pair.first.behave = fails(503, headers={"retry-after": "30"})
    seen = await ask(http, gateway, "again")
    assert 30 > PATIENCE_SECONDS
    assert (503, "1", "30") == (seen.status, seen.attempts, seen.retry_after)


async def test_attempts_are_bounded(http: aiohttp.ClientSession, gateway: Gateway, pair: Pair) -> None:
    pair.first.behave = fails(500)
    seen = await ask(http, gateway, "again")
    assert (500, "3") == (seen.status, seen.attempts)
    assert (3, 0) == pair.counts


async def test_a_refused_credential_is_followed_by_the_next_and_rests(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    async def knows_one_key(call: Call) -> None:
        good = call.headers["authorization"] == f"Bearer {GOOD}"
        await (says("first") if good else fails(401, "invalid_api_key"))(call)

    pair.first.behave = knows_one_key
    for _ in range(20):  # By weight: the worn one is met soon.
        seen = await ask(http, gateway, "keyed")
        assert (200, "keyed/model") == (seen.status, seen.target)
    used = [call.headers["authorization"] for call in pair.first.calls]
    assert (1, 20) == (used.count(f"Bearer {WORN}"), used.count(f"Bearer {GOOD}"))
    cooled = gateway.management("GET", "/api/v1/health").json()["providers"]
    assert ["worn"] == [
        each["credential"] for entry in cooled for each in entry["cooldowns"] if entry["name"] == "keyed"
    ]


async def test_what_may_have_been_delivered_is_not_repeated_where_the_route_says_so(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    async def vanishes(call: Call) -> None:
        await call.body()
        call.close()

    pair.first.behave = vanishes
    seen = await ask(http, gateway, "cautious")
    assert (502, "1") == (seen.status, seen.attempts)
    assert (1, 0) == pair.counts


async def test_a_target_that_fails_in_a_row_rests(http: aiohttp.ClientSession, gateway: Gateway, pair: Pair) -> None:
    pair.first.behave = fails(500)
    for expected in ("2", "2", "1", "1"):
        seen = await ask(http, gateway, "cooled")
        assert (200, "second/cooled", expected) == (seen.status, seen.target, seen.attempts)
    assert (2, 4) == pair.counts
    assert 1 == gateway.metric("sluice_cooldowns_total", provider="first", model="cooled", reason="failures")
    assert 2 == gateway.metric("sluice_retries_total", provider="first", model="cooled")


async def test_a_batch_that_may_have_been_delivered_is_not_repeated(
    http: aiohttp.ClientSession, gateway: Gateway, pair: Pair
) -> None:
    pair.first.behave = fails(500)
    headers = {"x-sluice-provider": "first"}
    async with http.post(f"{gateway.base_url}/batches", json={"input_file_id": "file-1"}, headers=headers) as answer:
        assert 500 == answer.status
    assert (1, 0) == pair.counts
