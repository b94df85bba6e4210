"""Usage as the official Python SDK sees it, and as the gateway knows it, whoever asked for it."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.gateway_process import TOKEN, Gateway, until
from tests.integration.conftest import StartGateway
from tests.provider import Call, Provider, entry, provider, said

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three four"}]
WORDS = ["", "One", ' "two"', "\n", "[DONE]"]
TOLD = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "prompt_tokens_details": {"cached_tokens": 4}}


def chunk(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


async def openai_like(call: Call) -> None:
    """As OpenAI does it: a last chunk without choices tells, all others have a null, where usage was asked for."""
    await call.body()
    asks = bool((call.json().get("stream_options") or {}).get("include_usage"))
    null: dict[str, Any] = {"usage": None} if asks else {}
    await call.stream()
    for word in WORDS:
        await call.event(chunk({**said(word), **null, "obfuscation": "x" * (9 - len(word))}))
    await call.event(chunk({**said("", "stop"), **null}))
    if asks:
        await call.event(chunk({**said(""), "choices": [], "usage": TOLD}))
    await call.event(b"data: [DONE]\n\n")
    await call.send(b"0\r\n\r\n")


async def chunks(base_url: str, model: str, **more: Any) -> list[dict[str, Any]]:
    async with AsyncOpenAI(base_url=base_url, api_key=TOKEN, max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(model=model, messages=HELLO, stream=True, **more)
        return [event.to_dict() async for event in stream]


async def last_usage(gateway: Gateway, count: int) -> dict[str, Any]:
    await until(lambda: len(gateway.access_log()) >= count)
    usage = gateway.access_log()[-1]["usage"]
    assert isinstance(usage, dict)
    return usage


@pytest.fixture
def running(start_gateway: StartGateway) -> Any:
    def start(up: Provider) -> Gateway:
        asked = entry(up.port, "asked", "include_usage: true")
        return start_gateway(f"providers: [{asked}, {entry(up.port, 'plain')}]")

    return start


async def test_a_client_that_does_not_ask_sees_what_the_provider_would_have_sent_it(running: Any) -> None:
    async with provider(openai_like) as up:
        straight = await chunks(f"http://127.0.0.1:{up.port}/v1", "real")
        gateway = running(up)
        for count, more in enumerate(({}, {"stream_options": {"include_usage": False}}), 1):
            # The provider's own name stands in each chunk; the gateway shows the one that was asked for.
            shown = [{**each, "model": "asked/real"} for each in straight]
            assert shown == await chunks(gateway.base_url, "asked/real", **more)
            assert {"include_usage": True} == up.calls[-1].json()["stream_options"]
            usage = await last_usage(gateway, count)
            assert (11, 7, 4, False) == (
                usage["input_tokens"],
                usage["output_tokens"],
                usage["cached_tokens"],
                usage["estimated"],
            )


async def test_a_client_that_asks_is_told(running: Any) -> None:
    ask = {"stream_options": {"include_usage": True}}
    async with provider(openai_like) as up:
        straight = await chunks(f"http://127.0.0.1:{up.port}/v1", "real", **ask)
        assert TOLD == straight[-1]["usage"]
        gateway = running(up)
        assert [{**each, "model": "asked/real"} for each in straight] == await chunks(
            gateway.base_url, "asked/real", **ask
        )
        assert not (await last_usage(gateway, 1))["estimated"]


async def test_where_nobody_asks_it_is_estimated(running: Any) -> None:
    async with provider(openai_like) as up:
        gateway = running(up)
        got = await chunks(gateway.base_url, "plain/real")
        assert "stream_options" not in up.calls[-1].json()
        assert all("usage" not in each for each in got)
        usage = await last_usage(gateway, 1)
        # Four events say something; the question has some 60 bytes.
        assert (4, True) == (usage["output_tokens"], usage["estimated"])
        assert 10 < usage["input_tokens"] < 20
