"""SIGTERM: not ready at once, streams in flight finish, who waits in the backlog is served; then an orderly end."""

import asyncio
import contextlib
import itertools
import signal
import time

import aiohttp
import pytest

from tests.gateway_process import TOKEN, Gateway, until
from tests.integration.conftest import StartGateway

WORDS = " ".join(f"w{number}" for number in range(20))


def config(drain_seconds: float, delay_seconds: float = 0, interval_seconds: float = 0.05) -> str:
    return f"""
        server: {{drain_seconds: {drain_seconds}, drain_delay_seconds: {delay_seconds}}}
        providers: [{{name: echo, type: echo, options: {{interval_seconds: {interval_seconds}}}}}]
    """


def body(content: str = WORDS) -> dict[str, object]:
    return {"model": "echo/m", "stream": True, "messages": [{"role": "user", "content": content}]}


async def ready(http: aiohttp.ClientSession, gateway: Gateway) -> int:
    async with http.get(f"{gateway.url}/readyz") as answer:
        return answer.status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_streams_in_flight_finish_and_the_end_is_orderly(
    start_gateway: StartGateway, http: aiohttp.ClientSession, number: signal.Signals
) -> None:
    gateway = start_gateway(config(drain_seconds=60))
    async with http.post(f"{gateway.base_url}/chat/completions", json=body()) as answer:
        await answer.content.readuntil(b"\n\n")
        gateway.signal(number)
        stopped = time.monotonic()
        content = await answer.read()
    assert content.endswith(b"data: [DONE]\n\n")
    assert b"w19" in content
    assert 0 == await gateway.ended()
    # It waits for streams, not for the clock.
    assert time.monotonic() - stopped < 30
    assert (200, None) == (gateway.access_log()[-1]["status"], gateway.access_log()[-1]["error_code"])
    with pytest.raises(aiohttp.ClientConnectorError):
        await ready(http, gateway)


async def test_it_is_alive_but_not_ready_while_load_balancers_take_notice(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(config(drain_seconds=5, delay_seconds=300))
    gateway.signal(signal.SIGTERM)
    await until(lambda: "stopping" in gateway.err)
    assert 503 == await ready(http, gateway)
    async with http.get(f"{gateway.url}/healthz") as answer:
        assert 200 == answer.status
    # Who still comes is served, and told to come elsewhere next time.
    async with http.post(f"{gateway.base_url}/chat/completions", json=body("one two")) as answer:
        assert (200, "close") == (answer.status, answer.headers.get("connection", "").lower())
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    health = await asyncio.to_thread(gateway.management, "GET", "/api/v1/health")
    assert health.json()["draining"]
    gateway.signal(signal.SIGTERM)
    assert 0 == await gateway.ended()


async def test_load_balancers_have_as_long_as_was_said(start_gateway: StartGateway) -> None:
    gateway = start_gateway(config(drain_seconds=5, delay_seconds=1))
    stopped = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert 0 == await gateway.ended()
    assert time.monotonic() - stopped >= 1


async def test_a_stream_that_outlasts_the_drain_is_told_so(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(config(drain_seconds=0.5, interval_seconds=5))
    gateway.expect_log("1 requests are cut")
    async with http.post(f"{gateway.base_url}/chat/completions", json=body()) as answer:
        await answer.content.readuntil(b"\n\n")
        gateway.signal(signal.SIGTERM)
        content = await answer.read()
    last = content.removesuffix(b"\n\n").split(b"\n\n")[-1]
    assert b'"code":"gateway_draining"' in last
    assert b"[DONE]" not in content
    assert 0 == await gateway.ended()
    assert "gateway_draining" == gateway.access_log()[-1]["error_code"]


async def test_a_request_without_output_yet_is_refused_at_the_end_of_the_drain(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(config(drain_seconds=0.5))
    gateway.expect_log("1 requests are cut")
    stalled = {**body(), "model": "echo/stall"}
    asked = asyncio.ensure_future(_status(http, f"{gateway.base_url}/chat/completions", stalled))
    await until(lambda: gateway.metric("sluice_requests_in_flight") == 1)
    gateway.signal(signal.SIGTERM)
    assert (503, "gateway_draining") == await asked
    assert 0 == await gateway.ended()


async def _status(http: aiohttp.ClientSession, url: str, content: dict[str, object]) -> tuple[int, str]:
    async with http.post(url, json=content) as answer:
        return answer.status, str((await answer.json())["error"]["code"])


async def test_a_second_signal_ends_it_at_once(start_gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    gateway = start_gateway(config(drain_seconds=60, interval_seconds=5))
    gateway.expect_log("1 requests are cut")
    async with http.post(f"{gateway.base_url}/chat/completions", json=body()) as answer:
        await answer.content.readuntil(b"\n\n")
        gateway.signal(signal.SIGTERM)
        await until(lambda: "stopping" in gateway.err)
        await asyncio.sleep(0.2)
        assert gateway.process.poll() is None
        gateway.signal(signal.SIGTERM)
        asked = time.monotonic()
        content = await answer.read()
    assert b"[DONE]" not in content
    assert b"gateway_draining" in content
    assert 0 == await gateway.ended()
    # The stream would go on for longer, and so would the drain.
    assert time.monotonic() - asked < 30


async def test_nobody_who_connects_before_the_listener_closes_is_turned_away(start_gateway: StartGateway) -> None:
    gateway = start_gateway(config(drain_seconds=10, delay_seconds=0.3, interval_seconds=0))
    outcomes: list[bytes] = []
    lost = 0
    request = f"GET /v1/models HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode()
    for number in itertools.count():
        if number == 10:
            gateway.signal(signal.SIGTERM)
        try:
            reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
        except OSError:
            break
        writer.write(request)
        outcome = b""
        with contextlib.suppress(ConnectionError):
            outcome = await reader.readline()
        if outcome:
            outcomes.append(outcome)
        else:
            lost += 1
        writer.close()
    # The system itself resets who connects in the microseconds between the last accept(2) and close(2), and whoever is
    # accepted last has a quarter of a second to ask: these clients come one after the other, a thousand in all, so that it
    # may be one of them, and only the last.
    assert lost <= 1
    assert 10 <= len(outcomes)
    assert {b"HTTP/1.1 200 OK\r\n"} == set(outcomes)
    assert 0 == await gateway.ended()
