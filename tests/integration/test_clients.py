"""Habits of programs that people use, where the format alone does not tell what they need."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.exchange import until
from tests.gateway_process import TOKEN, Gateway
from tests.integration.conftest import StartGateway
from tests.provider import Call, Provider, entry, free_port, provider

ASKED = {"model": "m", "input": "hi", "stream": True}


def event(number: int, kind: str, **members: object) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": number, **members})
    return f"event: {kind}\ndata: {data}\n\n".encode()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: StartGateway, port: int) -> Gateway:
    return start_shared_gateway(f"""
        providers: [{entry(port, extra='models: ["*"]')}]
    """)


async def unset(_call: Call) -> None:
    raise AssertionError("the test sets what the provider does")


@pytest.fixture
async def real(gateway: Gateway, port: int) -> AsyncIterator[Provider]:
    async with provider(unset, port) as running:
        yield running


@pytest.mark.parametrize("key", ["wrong", TOKEN + "x", "sk-sluice-" + "a" * 39])
def test_a_wrong_key_is_told_in_the_words_that_litellm_looks_for(gateway: Gateway, key: str) -> None:
    # Any other `invalid_request_error` is a bad request to it, whatever the status.
    answer = gateway.request("GET", "/v1/models", key=key)
    assert (401, "invalid_api_key") == (answer.status, answer.code)
    message = answer.json()["error"]["message"]
    assert message.startswith("Incorrect API key provided: ")
    assert key not in message


async def test_a_client_that_leaves_after_the_last_event_was_answered(
    gateway: Gateway, http: aiohttp.ClientSession, real: Provider
) -> None:
    # Codex waits for `response.completed`, not for the end of the body, which may come later.
    async def lingers(call: Call) -> None:
        await call.stream()
        await call.event(event(0, "response.created", response={"model": "m"}))
        await call.event(event(1, "response.completed", response={"model": "m"}))
        await call.gone()

    real.behave = lingers
    before = len(gateway.access_log())
    async with http.post(f"{gateway.base_url}/responses", json=ASKED) as answer:
        await answer.content.readuntil(b"response.completed")
        await answer.content.readuntil(b"\n\n")
        answer.close()
    await until(lambda: len(gateway.access_log()) > before)
    line = gateway.access_log()[-1]
    assert ("responses", 200, None) == (line["endpoint"], line["status"], line["error_code"])


async def test_a_client_that_leaves_before_the_last_event_was_not(
    gateway: Gateway, http: aiohttp.ClientSession, real: Provider
) -> None:
    async def lingers(call: Call) -> None:
        await call.stream()
        await call.event(event(0, "response.created", response={"model": "m"}))
        await call.gone()

    real.behave = lingers
    before = len(gateway.access_log())
    async with http.post(f"{gateway.base_url}/responses", json=ASKED) as answer:
        await answer.content.readuntil(b"\n\n")
        answer.close()
    await until(lambda: len(gateway.access_log()) > before)
    assert "client_closed" == gateway.access_log()[-1]["error_code"]


async def test_the_event_of_a_response_that_breaks_has_the_next_number(
    gateway: Gateway, http: aiohttp.ClientSession, real: Provider
) -> None:
    # Vercel's AI SDK takes no event without one.
    async def breaks(call: Call) -> None:
        await call.stream()
        await call.event(event(0, "response.created", response={"model": "m"}))
        await call.event(event(1, "response.output_text.delta", delta='"sequence_number":7'))
        await call.event(event(2, "response.output_text.delta", delta="b"))
        call.close()

    real.behave = breaks
    async with http.post(f"{gateway.base_url}/responses", json=ASKED) as answer:
        *_, last = (await answer.text()).strip().split("\n\n")
    name, _, data = last.partition("\ndata: ")
    told = json.loads(data)
    assert ("event: error", "error", 3) == (name, told["type"], told["sequence_number"])
    assert "upstream_disconnected" == told["code"] == told["error"]["code"]


async def test_a_response_without_numbers_breaks_without_one(
    gateway: Gateway, http: aiohttp.ClientSession, real: Provider
) -> None:
    async def breaks(call: Call) -> None:
        await call.stream()
        await call.event(b'data: {"type":"response.output_text.delta","delta":"a"}\n\n')
        call.close()

    real.behave = breaks
    async with http.post(f"{gateway.base_url}/responses", json=ASKED) as answer:
        told = json.loads((await answer.text()).rpartition("data: ")[2])
    assert ("error", False) == (told["type"], "sequence_number" in told)
