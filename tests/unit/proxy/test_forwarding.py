"""What crosses the gateway: bytes that need no change, fields that may pass, and what is remembered of it all."""

from collections.abc import Iterator

import pytest

from core.clock import ManualClock
from core.events import RequestCompleted, RequestFailed
from core.headers import Headers
from core.usage import Usage
from proxy.delivery import AT_ONCE_BYTES
from proxy.endpoints import Endpoint, find
from tests.exchange import (
    DONE,
    JSON,
    SHARED,
    SSE,
    TOKEN,
    MemoryExchange,
    Plane,
    Provider,
    answer,
    authorized,
    key_of,
    request,
    stream,
    until,
)
from transport.messages import UpstreamRequest
from transport.script import Head, Receive, Received, Script, Send, Step

REPLY = b'{ "id":"x", "model":"gpt-9-2026", "n":1E400, "usage":{"prompt_tokens":3,"completion_tokens":4} }'
ALIAS = [{"from": "fast", "to": "up/gpt-9"}]


async def test_where_no_name_differs_every_byte_is_untouched() -> None:
    provider = Provider("up", [answer(REPLY)])
    gateway = Plane(provider)
    body = b'\n{"x" : 1.50,"model":"gpt-9", "y":[ 1e999 ,"\\u00e9"]} '
    exchange = await gateway.post(body)
    assert (200, REPLY) == (exchange.status, exchange.body)
    assert body == provider.body
    assert "http://up.test/v1/chat/completions" == provider.last.url
    assert "POST" == provider.last.method


async def test_of_an_alias_only_the_model_is_spliced_in_both_directions() -> None:
    provider = Provider("up", [answer(REPLY)])
    gateway = Plane(provider, model_aliases=ALIAS)
    exchange = await gateway.post(b'{"x" : 1.50,"model" :  "fast", "y":[ 1e999 ]}')
    assert b'{"x" : 1.50,"model" :  "gpt-9", "y":[ 1e999 ]}' == provider.body
    assert REPLY.replace(b"gpt-9-2026", b"fast") == exchange.body
    assert str(len(exchange.body)) == exchange.field("content-length")


@pytest.mark.parametrize(
    "reply",
    [
        b'{"model":null,"response":{"model":7}}',
        b'{"model":"a","model":"b"}',
        b'["model"]',
        b'{"data":[{"model":"a"}],"response":"x"}',
    ],
)
async def test_an_answer_whose_model_cannot_be_told_is_the_providers_own(reply: bytes) -> None:
    gateway = Plane(Provider("up", [answer(reply)]), model_aliases=ALIAS)
    assert reply == (await gateway.post({"model": "fast"})).body


async def test_the_model_under_response_is_the_clients_too() -> None:
    reply = b'{"response": {"a":{"model":"c"},"model":"b"}, "model":"a"}'
    gateway = Plane(Provider("up", [answer(reply)]), model_aliases=ALIAS)
    expected = b'{"response": {"a":{"model":"c"},"model":"fast"}, "model":"fast"}'
    assert expected == (await gateway.post({"model": "fast"}, "/v1/responses")).body


async def test_overrides_set_default_and_remove_members_and_leave_the_rest() -> None:
    provider = Provider("up", [answer(b"{}")])
    overrides = {"set": {"a": [1]}, "default": {"b": 2, "c": 3}, "remove": ["d", "z"]}
    gateway = Plane(provider, routes=[{"name": "r", "targets": ["up/gpt-9"], "overrides": overrides}])
    await gateway.post(b'{"d":1, "model":"m","b": 1.0 ,"a":"x","e":1e5 }')
    assert b'{ "model":"gpt-9","b": 1.0,"a":[1],"e":1e5,"c":3}' == provider.body


SENT = [
    ("accept", "application/json"),
    ("user-agent", "sdk/1"),
    ("x-custom", "kept"),
    ("x-custom", "twice"),
    ("openai-beta", "assistants=v2"),
    ("idempotency-key", "k"),
]
WITHHELD = [
    ("x-api-key", TOKEN),
    ("x-goog-api-key", TOKEN),
    ("api-key", "secret"),
    ("cookie", "session=1"),
    ("host", "gateway"),
    ("content-length", "13"),
    ("expect", "100-continue"),
    ("forwarded", "for=192.0.2.9"),
    ("x-forwarded-for", "192.0.2.9"),
    ("x-forwarded-proto", "https"),
    ("x-real-ip", "192.0.2.9"),
    ("via", "1.1 x"),
    ("x-request-id", "mine"),
    ("x-sluice-provider", "up"),
    ("x-sluice-anything", "x"),
    ("origin", "https://example.com"),
    ("referer", "https://example.com"),
    ("sec-fetch-mode", "cors"),
    ("openai-organization", "org-of-the-client"),
    ("openai-project", "project-of-the-client"),
    ("accept-encoding", "gzip"),
    ("keep-alive", "timeout=5"),
    ("proxy-authorization", "Basic eDp5"),
    ("proxy-connection", "keep-alive"),
    ("te", "trailers"),
    ("trailer", "x-sum"),
    ("transfer-encoding", "chunked"),
    ("connection", "close, X-Named"),
    ("connection", "x-other"),
    ("x-named", "hop by hop"),
    ("x-other", "hop by hop"),
]


async def test_of_the_clients_fields_only_those_cross_that_are_the_providers_business() -> None:
    provider = Provider("up", [answer(b"{}")])
    gateway = Plane(provider)
    await gateway.post({"model": "m"}, headers=[*SENT, *WITHHELD])
    own = [("accept-encoding", "identity"), ("authorization", f"Bearer {key_of('up')}")]
    assert sorted([*SENT, *JSON, *own]) == sorted(provider.last.headers)


async def test_passed_through_families_keep_the_clients_accept_encoding() -> None:
    provider = Provider("up", [answer(b"packed", [("content-encoding", "br"), *JSON])])
    gateway = Plane(provider)
    headers = authorized([("accept-encoding", "br"), ("x-sluice-provider", "up")], SHARED)
    exchange = await gateway.run(MemoryExchange("GET", "/v1/files", headers, query="limit=2&after=a%20b"))
    assert "br" == provider.last.headers.get("accept-encoding")
    assert "http://up.test/v1/files?limit=2&after=a%20b" == provider.last.url
    assert (b"packed", "br") == (exchange.body, exchange.field("content-encoding"))


ANSWERED = [
    ("content-type", "application/json"),
    ("date", "Sat, 01 Jan 2022 00:00:00 GMT"),
    ("openai-processing-ms", "5"),
    ("x-kept", "a"),
    ("x-kept", "b"),
]
DROPPED = [
    ("set-cookie", "a=1"),
    ("set-cookie", "b=2"),
    ("server", "x"),
    ("openai-organization", "ours"),
    ("openai-project", "ours"),
    ("x-ratelimit-remaining-requests", "3"),
    ("cf-ray", "x"),
    ("alt-svc", "h3"),
    ("strict-transport-security", "max-age=1"),
    ("access-control-allow-origin", "*"),
    ("x-request-id", "theirs"),
    ("x-sluice-target", "theirs"),
    ("server-timing", "theirs"),
    ("www-authenticate", "Bearer"),
    ("authorization", "Bearer ours"),
    ("x-api-key", "ours"),
    ("x-goog-api-key", "ours"),
    ("api-key", "ours"),
    ("content-length", "99"),
    ("transfer-encoding", "chunked"),
    ("connection", "close, x-hop"),
    ("x-hop", "1"),
    ("keep-alive", "timeout=5"),
    ("upgrade", "h2c"),
    ("trailer", "x"),
    ("x-broken", "a\rb"),
    ("x-control", "a\x00b"),
    ("x-space", " a"),
]


async def test_of_the_providers_fields_cookies_accounts_and_hops_are_dropped() -> None:
    gateway = Plane(Provider("up", [answer(b"{}", [*ANSWERED, *DROPPED])]))
    exchange = await gateway.post({"model": "m"})
    ours = [field for field in exchange.headers if field[0] != "server-timing"]
    assert [
        *ANSWERED,
        ("x-request-id", "req_1"),
        ("x-sluice-revision", "rev-1"),
        ("x-sluice-target", "up/m"),
        ("x-sluice-attempts", "1"),
        ("content-length", "2"),
    ] == ours


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("a\r\nset-cookie: x", "up/a%0D%0Aset-cookie:%20x"),
        ("a\x00\x7f", "up/a%00%7F"),
        ("größe/😀", "up/gr%C3%B6%C3%9Fe/%F0%9F%98%80"),
        ("org/model:free@v1+x", "up/org/model:free@v1+x"),
    ],
)
async def test_no_byte_of_a_models_name_ends_a_field(model: str, shown: str) -> None:
    gateway = Plane(Provider("up", [answer(b"{}")]))
    exchange = await gateway.post({"model": model})
    assert (200, shown) == (exchange.status, exchange.field("x-sluice-target"))


async def test_an_answer_that_is_packed_passes_as_it_is() -> None:
    packed = b"\x1f\x8b\x00model" * 9
    headers = [("content-type", "application/json"), ("content-encoding", "gzip"), ("content-length", "72")]
    gateway = Plane(Provider("up", [answer(packed, headers)]), model_aliases=ALIAS)
    exchange = await gateway.post({"model": "fast"})
    assert (packed, "gzip", "72") == (
        exchange.body,
        exchange.field("content-encoding"),
        exchange.field("content-length"),
    )
    assert Usage(0, 18, estimated=True) == gateway.record.usage


async def test_a_packed_stream_passes_as_it_is() -> None:
    pieces = (b"\x1f\x8b", b"\x00\n\n", b"\x01")
    gateway = Plane(Provider("up", [stream(*pieces, headers=[*SSE, ("content-encoding", "GZIP")])]))
    exchange = await gateway.post({"model": "m", "stream": True})
    assert list(pieces) == exchange.pieces
    assert isinstance(gateway.record, RequestCompleted)


async def test_a_large_answer_is_under_way_until_its_client_has_taken_it() -> None:
    body = b'{"x":"' + b"y" * AT_ONCE_BYTES + b'"}'
    gateway, exchange = Plane(Provider("up", [answer(body)])), request()
    exchange.takes.clear()
    task = gateway.begin(exchange)
    await until(lambda: exchange.started)
    assert ["start 200"] == exchange.transcript
    exchange.takes.set()
    await task
    assert ["start 200", "finish"] == exchange.transcript
    assert (body, str(len(body))) == (exchange.body, exchange.field("content-length"))


async def test_an_answer_too_large_to_hold_passes_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.answer.MAX_HELD_BYTES", 10)
    pieces = [b'{"model":', b'"gpt-9",', b'"usage":{"prompt_tokens":1}}']
    script: list[Step] = [Head(200, Headers([*JSON, ("content-length", "46")])), *map(Send, pieces)]
    gateway = Plane(Provider("up", [script]), model_aliases=ALIAS)
    exchange = await gateway.post({"model": "fast"})
    assert b"".join(pieces) == exchange.body
    assert "46" == exchange.field("content-length")
    assert Usage(0, 12, estimated=True) == gateway.record.usage


async def test_an_empty_answer_is_passed_on() -> None:
    gateway = Plane(Provider("up", [[Head(204)]]))
    headers = authorized([("x-sluice-provider", "up")], SHARED)
    exchange = await gateway.run(MemoryExchange("DELETE", "/v1/files/f", headers))
    assert (204, b"") == (exchange.status, exchange.body)
    assert isinstance(gateway.record, RequestCompleted)


async def test_not_modified_answers_a_condition_of_the_clients() -> None:
    gateway = Plane(Provider("up", [[Head(304, Headers([("etag", "x")]))]]))
    headers = authorized([("x-sluice-provider", "up"), ("if-none-match", "x")], SHARED)
    exchange = await gateway.run(MemoryExchange("GET", "/v1/files/f", headers))
    assert (304, "x") == (exchange.status, exchange.field("etag"))
    assert [] == gateway.attempts


async def test_the_body_of_a_get_or_delete_goes_along() -> None:
    provider = Provider("up", [answer(b"{}")])
    headers = authorized([("x-sluice-provider", "up")], SHARED)
    await Plane(provider).run(MemoryExchange("DELETE", "/v1/files/f", headers, b"why"))
    assert b"why" == provider.body


async def test_a_post_without_body_or_model_goes_along() -> None:
    provider = Provider("up", [answer(b"{}")])
    headers = authorized([("x-sluice-provider", "up")], SHARED)
    await Plane(provider).run(MemoryExchange("POST", "/v1/batches/b/cancel", headers))
    assert provider.last.body is None
    assert "http://up.test/v1/batches/b/cancel" == provider.last.url


async def test_the_management_prefix_serves_chat_too() -> None:
    provider = Provider("up", [answer(b"{}")])
    assert 200 == (await Plane(provider).post({"model": "m"}, "/api/v1/chat/completions")).status
    assert "http://up.test/v1/chat/completions" == provider.last.url


# Multipart


def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


FIELD = b'Content-Disposition: form-data; name="model"\r\n\r\nfast'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
FORM = (("content-type", "multipart/form-data; boundary=b"),)


class Taken:
    """A provider that keeps the bodies it receives."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.lengths: list[int | None] = []

    def __call__(self, request: UpstreamRequest) -> Receive:
        self.lengths.append(request.body_length)

        def reply(received: Received) -> Script:
            self.bodies.append(received.kept)
            return Script(answer(b'{"text":"x"}'))

        return Receive(reply, 1 << 22)


async def test_of_a_small_form_only_the_model_is_spliced() -> None:
    taken = Taken()
    body = form(FILE + b"\x00\r\n--c--\r\n", FIELD, b'Content-Disposition: form-data; name="n"\r\n\r\n1')
    gateway = Plane(Provider("up", [taken]), model_aliases=ALIAS)
    exchange = await gateway.post(body, "/v1/audio/transcriptions", headers=FORM)
    assert 200 == exchange.status
    assert [body.replace(b"\r\n\r\nfast", b"\r\n\r\ngpt-9")] == taken.bodies
    assert ("fast", "gpt-9") == (gateway.record.requested_model, gateway.record.model)


async def test_a_large_form_streams_and_its_length_is_right() -> None:
    taken = Taken()
    body = form(FIELD, FILE + bytes(range(256)) * 1024)
    pieces = [body[n : n + 5000] for n in range(0, len(body), 5000)]
    gateway = Plane(Provider("up", [taken]), model_aliases=ALIAS)
    stated = [*FORM, ("content-length", str(len(body)))]
    exchange = await gateway.post(pieces, "/v1/audio/transcriptions", headers=stated)
    assert 200 == exchange.status
    expected = body.replace(b"\r\n\r\nfast", b"\r\n\r\ngpt-9")
    assert [expected] == taken.bodies
    assert [len(expected)] == taken.lengths
    assert len(body) == gateway.record.bytes_in


async def test_a_large_form_whose_model_needs_no_change_streams_as_it_is() -> None:
    taken = Taken()
    body = form(FIELD, FILE + b"x" * 100_000)
    gateway = Plane(Provider("up", [taken]))
    await gateway.post([body[:70_000], body[70_000:]], "/v1/audio/transcriptions", headers=FORM)
    assert [body] == taken.bodies
    assert [None] == taken.lengths


async def test_a_file_without_model_streams_unread() -> None:
    taken = Taken()
    body = b"anything " * 10_000
    gateway = Plane(Provider("up", [taken]))
    headers = authorized([*FORM, ("x-sluice-provider", "up")], SHARED)
    exchange = await gateway.run(MemoryExchange("POST", "/v1/files", headers, [body[:40_000], body[40_000:]]))
    assert (200, [body]) == (exchange.status, taken.bodies)


BROKEN = {
    "a second model": (form(FIELD, FILE + b"x" * 100_000, FIELD), "invalid_multipart", 400),
    "the boundary inside": (form(FIELD, FILE + b"x" * 100_000 + b"\n--b\n"), "invalid_multipart", 400),
    "a cut": (form(FIELD, FILE + b"x" * 100_000)[:-9], "invalid_multipart", 400),
    "too much": (form(FIELD, FILE + b"x" * (1 << 22)), "request_too_large", 413),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_fault_far_into_an_upload_is_the_callers_and_not_the_providers(case: str) -> None:
    body, code, status = BROKEN[case]
    pieces = [body[n : n + 60_000] for n in range(0, len(body), 60_000)]
    taken = Taken()
    gateway = Plane(Provider("up", [taken]))
    exchange = await gateway.post(pieces, "/v1/audio/transcriptions", headers=FORM)
    assert (status, code) == (exchange.status, exchange.json()["error"]["code"])
    assert [] == taken.bodies
    assert [] == gateway.attempts


async def test_a_form_may_name_its_model_after_the_file() -> None:
    late = form(FILE + b"x" * 700_000, FIELD)
    taken = Taken()
    gateway = Plane(Provider("up", [taken]), model_aliases=[{"from": "fast", "to": "up/whisper"}])
    pieces = [late[n : n + 65_000] for n in range(0, len(late), 65_000)]
    exchange = await gateway.post(pieces, "/v1/images/edits", headers=FORM)
    assert 200 == exchange.status
    assert [late.replace(b"fast", b"whisper")] == taken.bodies


@pytest.mark.parametrize(("size", "code"), [(70_000, "provider_required"), (3 << 20, "missing_model")])
async def test_a_form_without_a_model_is_read_to_a_limit(size: int, code: str) -> None:
    gateway = Plane(Provider("up", [Taken()]))
    body = form(FILE + b"x" * size)
    pieces = [body[n : n + 65_000] for n in range(0, len(body), 65_000)]
    exchange = await gateway.post(pieces, "/v1/images/edits", headers=FORM)
    assert (400, code) == (exchange.status, exchange.json()["error"]["code"])


# What is remembered


async def test_a_completed_request_is_told_in_full() -> None:
    gateway = Plane(Provider("up", [answer(REPLY)]), model_aliases=ALIAS)
    headers = [("x-request-id", "c" * 200)]
    await gateway.post(b'{"model":"fast"}', headers=headers)
    told = gateway.record
    assert isinstance(told, RequestCompleted)
    assert ("req_1", "c" * 128, "POST", "chat_completions", 200) == (
        told.request_id,
        told.client_request_id,
        told.method,
        told.endpoint,
        told.status,
    )
    assert ("all", "192.0.2.1", "fast", None, "up", "gpt-9", "gpt-9", "main") == (
        told.token,
        told.remote_ip,
        told.requested_model,
        told.route,
        told.provider,
        told.model,
        told.model_label,
        told.credential,
    )
    assert (False, 1, None, Usage(3, 4, 0), "rev-1", 16, len(REPLY) - 6, None, None) == (
        told.stream,
        told.attempts,
        told.ttft_seconds,
        told.usage,
        told.revision,
        told.bytes_in,
        told.bytes_out,
        told.error_code,
        told.error_message,
    )


class SlowClient(MemoryExchange):
    """A client that takes 100 s for its body."""

    clock: ManualClock

    async def read(self) -> bytes:
        self.clock.advance(50)
        return await super().read()


async def test_overhead_is_the_gateways_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()

    def slow(_request: UpstreamRequest) -> Script:
        def steps() -> Iterator[Step]:
            clock.advance(7)
            yield Head(200, Headers(SSE))
            clock.advance(8)
            yield Send(b"data: 1\n\n")
            clock.advance(9)
            yield Send(DONE)

        return Script(steps())

    def slow_headers(headers: Headers, *_: object) -> list[tuple[str, str]]:
        clock.advance(0.25)
        return list(headers)

    def slow_grant(*_: object) -> None:
        clock.advance(0.5)

    monkeypatch.setattr("proxy.delivery.forwarded_answer_headers", slow_headers)
    monkeypatch.setattr("access.permissions.require_grant", slow_grant)
    gateway = Plane(Provider("up", [slow]), clock=clock)
    exchange = SlowClient("POST", "/v1/chat/completions", authorized(JSON), b'{"model":"m","stream":true}')
    exchange.clock = clock
    await gateway.run(exchange)
    told = gateway.record
    assert told.stream
    assert pytest.approx(0.75) == told.overhead_seconds
    assert pytest.approx(0.5 + 100 + 7 + 8 + 0.25) == told.ttft_seconds
    assert pytest.approx(7 + 8 + 0.25 + 9) == told.upstream_seconds
    assert pytest.approx(0.5 + 100 + 24.25) == told.duration_seconds
    assert "gateway;dur=750.000" == exchange.field("server-timing")


async def test_overhead_has_none_of_the_time_of_a_client_that_stalls() -> None:
    clock = ManualClock()
    gateway = Plane(Provider("up", [answer(b"{}")]), clock=clock)
    exchange = SlowClient("POST", "/v1/embeddings", authorized(JSON), b'{"model"', stall_seconds=0.01)
    exchange.clock = clock
    await gateway.run(exchange)
    assert isinstance(gateway.record, RequestFailed)
    assert (0, 100) == (gateway.record.overhead_seconds, gateway.record.duration_seconds)


async def test_overhead_of_what_is_refused_is_all_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    gateway = Plane(Provider("up", [answer(b"{}")]), clock=clock)

    def slow(path: str, _method: str) -> Endpoint | None:
        clock.advance(2)
        return find(path)

    monkeypatch.setattr("proxy.endpoints.require", slow)
    await gateway.get("/v1/models")
    assert 2 == gateway.record.overhead_seconds


async def test_fields_state_the_overhead_and_the_target() -> None:
    gateway = Plane(Provider("up", [answer(b"{}")]))
    exchange = await gateway.post({"model": "m"})
    timing = exchange.field("server-timing") or ""
    assert 0 <= float(timing.removeprefix("gateway;dur=")) < 1000


async def test_the_target_of_a_request_without_model_is_the_provider() -> None:
    gateway = Plane(Provider("up", [answer(b"{}")]))
    exchange = await gateway.run(MemoryExchange("GET", "/v1/files", authorized([("x-sluice-provider", "up")], SHARED)))
    assert "up" == exchange.field("x-sluice-target")
    assert ("up", None, "*") == (gateway.record.provider, gateway.record.model, gateway.record.model_label)
