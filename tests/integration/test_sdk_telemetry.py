"""What traffic leaves behind: the access log, the metrics and the gateway's own log, and no secret in any of them."""

import asyncio
import contextlib
import re
from collections.abc import Callable

import aiohttp

from tests.gateway_process import ADMIN_KEY_HASH, Gateway, sha256, until
from tests.integration.conftest import StartGateway
from tests.planted import labels, planted
from tests.provider import Call, completion, provider

FIELDS = {
    "time",
    "request_id",
    "client_request_id",
    "token",
    "remote_ip",
    "method",
    "endpoint",
    "requested_model",
    "route",
    "target",
    "credential",
    "status",
    "error_code",
    "stream",
    "attempts",
    "duration_seconds",
    "overhead_seconds",
    "ttft_seconds",
    "upstream_seconds",
    "usage",
    "cost_usd",
    "bytes_in",
    "bytes_out",
    "revision",
}
ECHO = """
    providers:
      - {name: echo, type: echo, models: ["echo-*"], options: {interval_seconds: 0.001}}
    model_aliases:
      - {from: fast, to: echo/echo-small}
      - {from: "team-*", to: "echo/echo-*"}
    routes:
      - name: gold
        match: {requested_model: gold}
        targets: [echo/status-500]
        fallbacks: [[echo/echo-gold]]
        retry: {attempts: 2, backoff_seconds: 0}
"""


def lines(gateway: Gateway, count: int) -> Callable[[], bool]:
    return lambda: len(gateway.access_log()) >= count


async def test_each_request_is_one_line_of_json_with_the_promised_members(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ECHO)
    gateway.request("POST", "/v1/chat/completions", {"model": "fast", "messages": []}, {"x-request-id": "mine-1"})
    gateway.chat("gold", "one two", stream=True, stream_options={"include_usage": True})
    gateway.chat("gpt-77")
    gateway.request("GET", "/v1/models", key="nobody")
    gateway.request("GET", "/v1/no/such/path")
    gateway.request("GET", "/healthz")
    await until(lines(gateway, 5))
    first, second, third, fourth, fifth = gateway.access_log()
    assert all(line.keys() == FIELDS for line in gateway.access_log())
    assert ("mine-1", "tester", "POST", "chat_completions", "fast", "echo/echo-small", 200, 1, False) == (
        first["client_request_id"],
        first["token"],
        first["method"],
        first["endpoint"],
        first["requested_model"],
        first["target"],
        first["status"],
        first["attempts"],
        first["stream"],
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", first["time"])
    assert re.fullmatch(r"[0-9a-f]{64}", first["revision"])
    assert 0 < first["overhead_seconds"] <= first["duration_seconds"]
    assert first["ttft_seconds"] is None
    assert ("gold", "echo/echo-gold", 3, True) == (
        second["route"],
        second["target"],
        second["attempts"],
        second["stream"],
    )
    assert (2, 2) == (second["usage"]["input_tokens"], second["usage"]["output_tokens"])
    assert 0 < second["ttft_seconds"] < second["duration_seconds"]
    assert (404, "model_not_found", "gpt-77", None) == (
        third["status"],
        third["error_code"],
        third["requested_model"],
        third["target"],
    )
    assert (401, "invalid_api_key", None) == (fourth["status"], fourth["error_code"], fourth["token"])
    assert (404, "unknown") == (fifth["status"], fifth["endpoint"])


async def test_the_metrics_count_what_happened(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ECHO)
    for _ in range(3):
        gateway.chat("fast", "one two three")
    gateway.chat("fast", "one two", stream=True, stream_options={"include_usage": True})
    gateway.chat("gold", "one")
    gateway.request("POST", "/v1/embeddings", {"model": "fast", "input": "one two"})
    expected = {
        ("sluice_requests_total", ("endpoint", "chat_completions"), ("model", "echo-small"), ("status", "200")): 4,
        ("sluice_requests_total", ("endpoint", "embeddings"), ("token", "tester")): 1,
        ("sluice_requests_total", ("route", "gold"), ("status", "200")): 1,
        ("sluice_time_to_first_token_seconds_count", ("provider", "echo"), ("model", "echo-small")): 1,
        ("sluice_request_duration_seconds_count", ("endpoint", "chat_completions")): 5,
        ("sluice_upstream_duration_seconds_count", ("provider", "echo")): 6,
        ("sluice_gateway_overhead_seconds_count", ("endpoint", "chat_completions")): 5,
        ("sluice_attempts_failed_total", ("model", "status-500"), ("code", "upstream_unavailable")): 2,
        ("sluice_retries_total", ("model", "status-500")): 1,
        ("sluice_fallbacks_total", ("model", "status-500")): 1,
        ("sluice_input_tokens_total", ("model", "echo-small")): 3 * 3 + 2 + 2,
        ("sluice_output_tokens_total", ("model", "echo-small")): 3 * 3 + 2,
        ("sluice_config_reloads_total", ("result", "applied"), ("trigger", "start")): 1,
        ("sluice_config_last_reload_successful",): 1,
        ("sluice_config_revision_info",): 1,
        ("sluice_requests_in_flight",): 0,
    }

    def counted() -> dict[object, float]:
        return {key: gateway.metric(key[0], **dict(key[1:])) for key in expected}  # type: ignore[arg-type]  # pairs of names and values

    # The last request is told of a moment after its answer.
    with contextlib.suppress(AssertionError):
        await until(lambda: expected == counted())
    assert expected == counted()
    await until(lambda: gateway.metric("sluice_event_loop_lag_seconds_count") > 0)


async def test_requests_in_flight_are_seen(start_gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    gateway = start_gateway(ECHO)
    body = {"model": "echo/stall", "messages": []}
    asked = asyncio.ensure_future(http.post(f"{gateway.base_url}/chat/completions", json=body).__aenter__())
    await until(lambda: gateway.metric("sluice_requests_in_flight", endpoint="chat_completions") == 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await until(lambda: gateway.metric("sluice_requests_in_flight", endpoint="chat_completions") == 0)


def test_nothing_that_a_client_sends_becomes_a_label(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ECHO)
    for number in range(20):
        # A prefix, an alias's capture, a glob of the provider's: three ways to make up names that are served.
        assert 200 == gateway.chat(f"echo/madeup-{number}").status
        assert 200 == gateway.chat(f"team-madeup-{number}").status
        assert 200 == gateway.chat(f"echo-madeup-{number}").status
        assert 404 == gateway.chat(f"madeup-{number}").status
        gateway.request("GET", f"/v1/madeup-{number}", headers={"x-sluice-provider": f"madeup-{number}"})
        gateway.request(f"MADEUP{number}", "/v1/models")
    gateway.chat('madeup"} 1\nsluice_forged_total{name="madeup')
    exposition = gateway.metrics()
    assert "madeup" not in exposition.lower()
    assert "forged" not in exposition
    series = [line for line in exposition.splitlines() if line.startswith("sluice_requests_total")]
    assert len(series) < 12, series


async def test_metrics_are_for_who_may_see_them(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ECHO)
    assert 401 == gateway.request("GET", "/metrics", key=None).status
    assert 403 == gateway.request("GET", "/metrics").status
    assert 200 == gateway.management("GET", "/metrics").status
    body = {"model": "fast", "messages": []}
    assert 200 == gateway.request("POST", "/v1/chat/completions", body, {"x-request-id": "told"}).status
    gateway.rewrite(gateway.config.read_text() + "telemetry: {metrics: {public: true}, access_log: false}\n")
    await until(lambda: gateway.request("GET", "/metrics", key=None).status == 200)
    assert 200 == gateway.request("POST", "/v1/chat/completions", body, {"x-request-id": "not-told"}).status
    # Ended, it has written all.
    gateway.stop()
    assert ["told"] == [line["client_request_id"] for line in gateway.access_log()]


async def test_no_secret_is_in_any_output(start_gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    """Planted: the caller's token, the provider's keys, a header's value, a body; in good requests and in failures."""
    secrets = {name: planted(name) for name in ("token", "key", "spare", "header", "file", "body", "wrong")}

    async def leaky(call: Call) -> None:
        # The provider repeats our own key in its error: providers do.
        await call.body()
        if b"fail" in call.content:
            key = call.headers["authorization"]
            await call.answer({"error": {"message": f"Incorrect API key {key}", "code": "invalid_api_key"}}, 401)
        elif b"reset" in call.content:
            call.reset()
        else:
            await call.answer(completion("fine"))

    async with provider(leaky) as real:
        gateway = await asyncio.to_thread(
            start_gateway,
            f"""
            providers:
              - name: real
                type: openai-compatible
                base_url: http://127.0.0.1:{real.port}/v1
                credentials:
                  - {{name: main, api_key: "${{env:PLANTED_KEY}}"}}
                  - {{name: spare, api_key: "{secrets["spare"]}"}}
                headers: {{x-extra: "{secrets["header"]}"}}
            telemetry: {{log_level: debug}}
            """,
            access=f"tokens: [{{name: tester, sha256: {sha256(secrets['token'])}, models: ['*']}}]\n"
            f"management: {{admin_key_hash: '{ADMIN_KEY_HASH}'}}\n",
            extra={"PLANTED_KEY": secrets["key"]},
        )
        gateway.expect_log("configuration refused|configuration in force stays")

        async def ask(content: str, key: str = secrets["token"]) -> str:
            body = {"model": "real/model", "messages": [{"role": "user", "content": f"{content} {secrets['body']}"}]}
            headers = {"authorization": f"Bearer {key}"}
            async with http.post(
                f"{gateway.base_url}/chat/completions?x={content}", json=body, headers=headers
            ) as sent:
                return f"{sent.status} {sent.headers} {await sent.text()}"

        answers = [await ask("well"), await ask("fail"), await ask("reset"), await ask("well", secrets["wrong"])]
        assert ["200", "502", "502", "401"] == [answer[:3] for answer in answers]
        # A fault in the very entry that holds a secret.
        text = gateway.config.read_text()
        gateway.rewrite(text.replace(f'"{secrets["spare"]}"', f'["{secrets["spare"]}"]'))
        reload = await asyncio.to_thread(gateway.management, "POST", "/api/v1/config/reload")
        assert 422 == reload.status
        health = await asyncio.to_thread(gateway.management, "GET", "/api/v1/health")
        shown = [*answers, reload.body.decode(), health.body.decode(), await asyncio.to_thread(gateway.metrics)]
        await until(lines(gateway, 4))
    assert set() == labels("".join([*shown, gateway.out, gateway.err]))
