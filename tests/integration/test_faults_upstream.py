"""Providers that misbehave on a real socket: what the client gets, and that no failure looks like a success."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter

import aiohttp
import pytest

from tests.gateway_process import Gateway, until
from tests.integration.conftest import StartGateway
from tests.ports import free_port
from tests.provider import Behaviour, Call, Provider, completion, entry, provider, said

TIMEOUTS = "{first_byte_seconds: 0.3, idle_seconds: 0.3}"
"""Of the provider `hasty`: for what stalls. What fails otherwise would run into them on a machine that stands still."""
LONG_BEFORE_OTHERS_SECONDS = 30.0
"""Less than the timeouts that are configured nowhere here."""


async def resets_before_its_head(call: Call) -> None:
    call.reset()


async def closes_before_its_head(call: Call) -> None:
    await call.body()
    call.close()


async def cuts_its_head(call: Call) -> None:
    await call.body()
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: appl")
    call.close()


async def speaks_no_http(call: Call) -> None:
    await call.body()
    await call.send(b"220 mail.example.org ESMTP ready\r\n")
    call.close()


async def cuts_its_json(call: Call) -> None:
    await call.body()
    await call.answer(completion("Never heard."), cut_to=40)


async def cuts_a_chunk(call: Call) -> None:
    await call.body()
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n50\r\n{")
    call.close()


async def says_garbage_for_a_chunk(call: Call) -> None:
    await call.body()
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}")
    await call.gone()


async def until_the_client_has(text: bytes) -> None:
    await until(lambda: text in client_has)


client_has = bytearray()
"""What the client of :func:`post` has read of its answer so far."""


async def stalls_before_its_head(call: Call) -> None:
    await call.gone()


async def stalls_in_its_json(call: Call) -> None:
    await call.body()
    await call.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": ')
    await call.gone()


async def redirects(call: Call) -> None:
    await call.body()
    await call.answer(b"", 302, {"location": "http://127.0.0.1:9/v1/chat/completions"})


async def switches_protocols(call: Call) -> None:
    await call.body()
    await call.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    await call.gone()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: StartGateway, port: int) -> Gateway:
    return start_shared_gateway(f"""
        providers:
          - {entry(port)}
          - {entry(port, "hasty", f"timeouts: {TIMEOUTS}")}
          - {{name: nobody, type: openai-compatible, base_url: "http://127.0.0.1:9/v1"}}
        model_aliases:
          - {{from: asked, to: real/known}}
          - {{from: asked-in-haste, to: hasty/known}}
          - {{from: unreachable, to: nobody/known}}
        routes:
          - name: once
            match: {{model: "real/*"}}
            targets: ["real/*"]
            retry: {{attempts: 1}}
            # So that no test's failure is another's.
            cooldown: {{max_seconds: 0}}
          - name: once-in-haste
            match: {{model: "hasty/*"}}
            targets: ["hasty/*"]
            retry: {{attempts: 1}}
            cooldown: {{max_seconds: 0}}
    """)


@pytest.fixture
async def real(gateway: Gateway, port: int) -> AsyncIterator[Provider]:
    async with provider(resets_before_its_head, port) as running:
        yield running


async def post(http: aiohttp.ClientSession, gateway: Gateway, model: str = "asked", *, stream: bool = False) -> "Seen":
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "?"}]}
    began = perf_counter()
    client_has.clear()
    async with http.post(f"{gateway.base_url}/chat/completions", json=body) as answer:
        async for piece in answer.content.iter_any():
            client_has.extend(piece)
        return Seen(answer.status, bytes(client_has), perf_counter() - began, answer.headers["x-request-id"])


def asked_for(behaviour: Behaviour) -> str:
    """The model whose provider does that."""
    return "asked-in-haste" if "stall" in behaviour.__name__ else "asked"


@dataclass
class Seen:
    """What a client saw."""

    status: int
    body: bytes
    seconds: float
    request_id: str

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])

    @property
    def events(self) -> list[bytes]:
        return self.body.removesuffix(b"\n\n").split(b"\n\n")


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (resets_before_its_head, 502, "upstream_disconnected"),
        (closes_before_its_head, 502, "upstream_disconnected"),
        (cuts_its_head, 502, "upstream_disconnected"),
        (speaks_no_http, 502, "upstream_malformed"),
        (cuts_its_json, 502, "upstream_disconnected"),
        (cuts_a_chunk, 502, "upstream_disconnected"),
        (says_garbage_for_a_chunk, 502, "upstream_malformed"),
        (stalls_before_its_head, 504, "upstream_timeout"),
        (stalls_in_its_json, 504, "upstream_timeout"),
        (redirects, 502, "upstream_malformed"),
        (switches_protocols, 502, "upstream_malformed"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_fails_before_the_first_output_is_a_clear_error(
    http: aiohttp.ClientSession,
    gateway: Gateway,
    real: Provider,
    behaviour: Behaviour,
    status: int,
    code: str,
    stream: bool,
) -> None:
    real.behave = behaviour
    seen = await post(http, gateway, asked_for(behaviour), stream=stream)
    assert (status, code) == (seen.status, seen.code)
    assert seen.seconds < LONG_BEFORE_OTHERS_SECONDS
    # Not one word of ours about the way there.
    assert b"127.0.0.1" not in seen.body
    assert 1 == len(real.calls)


async def test_a_provider_that_nobody_listens_for_is_unreachable(http: aiohttp.ClientSession, gateway: Gateway) -> None:
    seen = await post(http, gateway, "unreachable")
    assert (502, "upstream_unreachable") == (seen.status, seen.code)


async def cut_stream(call: Call) -> None:
    await call.body()
    await call.stream()
    await call.event("one")
    await call.event("two")
    # Half an event is no event: it must not reach the client.
    await call.event(b'data: {"half": ')
    call.close()


async def reset_stream(call: Call) -> None:
    await call.body()
    await call.stream()
    await call.event("one")
    await call.event("two")
    await until_the_client_has(b"two")
    call.reset()


async def stalled_stream(call: Call) -> None:
    await call.body()
    # As long as nobody waits for anything in between, it is sent as a whole: no part of it can be late.
    await call.stream()
    await call.event("one")
    await call.event("two")
    await call.gone()


async def politely_short_stream(call: Call) -> None:
    await call.body()
    await call.stream()
    await call.event("one")
    await call.event("two")
    await call.send(b"0\r\n\r\n")


async def garbled_stream(call: Call) -> None:
    await call.body()
    await call.stream()
    await call.event("one")
    await call.event("two")
    await until_the_client_has(b"two")
    await call.send(b"not a chunk at all\r\n")
    await call.gone()


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (cut_stream, "upstream_disconnected"),
        (reset_stream, "upstream_disconnected"),
        (politely_short_stream, "upstream_disconnected"),
        (garbled_stream, "upstream_malformed"),
        (stalled_stream, "upstream_timeout"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_stream_that_breaks_ends_with_an_error_event_and_no_done(
    http: aiohttp.ClientSession, gateway: Gateway, real: Provider, behaviour: Behaviour, code: str
) -> None:
    real.behave = behaviour
    asked = asked_for(behaviour)
    seen = await post(http, gateway, asked, stream=True)
    assert 200 == seen.status
    *told, last = seen.events
    # The name that the client asked for stands in each event.
    expected = [b"data: " + json.dumps(said(word) | {"model": asked}).encode() for word in ("one", "two")]
    assert expected == told
    assert code == json.loads(last.removeprefix(b"data: "))["error"]["code"]
    assert b"[DONE]" not in seen.body
    assert seen.seconds < LONG_BEFORE_OTHERS_SECONDS
    await until(lambda: any(line["request_id"] == seen.request_id for line in gateway.access_log()))
    line = next(line for line in gateway.access_log() if line["request_id"] == seen.request_id)
    assert (200, code, True) == (line["status"], line["error_code"], line["stream"])


async def test_the_providers_own_error_event_is_passed_on_alone(
    http: aiohttp.ClientSession, gateway: Gateway, real: Provider
) -> None:
    async def fails_in_its_words(call: Call) -> None:
        await call.body()
        await call.stream()
        await call.event("one")
        await call.event(b'data: {"error": {"message": "Out of memory.", "code": "oom"}}\n\n')
        call.close()

    real.behave = fails_in_its_words
    seen = await post(http, gateway, stream=True)
    assert b'data: {"error": {"message": "Out of memory.", "code": "oom"}}' == seen.events[-1]
    assert 2 == len(seen.events)


async def test_a_cut_download_is_cut_for_the_client_too(
    http: aiohttp.ClientSession, gateway: Gateway, real: Provider
) -> None:
    has_begun = asyncio.Event()

    async def cuts_a_file(call: Call) -> None:
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 1000\r\n\r\n" + b"x" * 100
        )
        await has_begun.wait()
        call.close()

    real.behave = cuts_a_file
    headers = {"x-sluice-provider": "real"}
    async with http.get(f"{gateway.base_url}/files/file-1/content", headers=headers) as answer:
        assert 200 == answer.status
        has_begun.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_keep_alive_connection_that_the_provider_closed_costs_nothing(
    http: aiohttp.ClientSession, gateway: Gateway, real: Provider
) -> None:
    async def answers_and_hangs_up(call: Call) -> None:
        await call.body()
        await call.answer(completion("Hello."))
        call.close()

    real.behave = answers_and_hangs_up
    for _ in range(5):
        assert 200 == (await post(http, gateway)).status
