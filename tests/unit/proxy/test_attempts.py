"""Retry, fallback and the clocks of an exchange, read as transcripts: what failed, and what followed."""

import functools
from typing import Any, NoReturn

import pytest

from core.clock import ManualClock
from core.errors import BodyTimeout, UpstreamCut
from core.events import RequestCompleted, RequestFailed
from core.headers import Headers
from proxy.dataplane import BoundProvider
from tests import virtual_time
from tests.exchange import (
    DONE,
    JSON,
    SHARED,
    SSE,
    MemoryExchange,
    Plane,
    Provider,
    Steps,
    answer,
    authorized,
    key_of,
    stream,
    until,
)
from transport.messages import UpstreamRequest
from transport.script import Cut, Head, Receive, Received, Refuse, Script, Send, Stall, Step, Unreachable, Wait

OK = answer(b'{"ok":true}')
BUSY = answer(b'{"error":{"message":"busy"}}', status=503)
RETRY = {"backoff_seconds": 0.001, "max_backoff_seconds": 0.01}


def error(status: int, code: str | None = None, **headers: str) -> Steps:
    body = b'{"error":{"message":"m","code":%s}}' % (b"null" if code is None else f'"{code}"'.encode())
    return answer(body, [*JSON, *((name.replace("_", "-"), value) for name, value in headers.items())], status)


def route(*targets: str, fallbacks: Any = (), timeouts: Any = None, **retry: Any) -> dict[str, Any]:
    return {
        "routes": [
            {
                "name": "r",
                "targets": list(targets),
                "fallbacks": fallbacks,
                "retry": {**RETRY, **retry},
                "timeouts": timeouts or {},
            }
        ]
    }


async def test_a_busy_provider_is_tried_again_and_then_the_next_group() -> None:
    a, b = Provider("a", [BUSY]), Provider("b", [OK])
    gateway = Plane(a, b, **route("a/x", fallbacks=[["b/y"]], attempts=2))
    exchange = await gateway.post({"model": "m"})
    assert [
        "1 a/x: upstream_unavailable, delivered maybe: retry",
        "2 a/x: upstream_unavailable, delivered maybe: fallback",
    ] == gateway.attempts
    assert (200, "3", "b/y") == (
        exchange.status,
        exchange.field("x-sluice-attempts"),
        exchange.field("x-sluice-target"),
    )
    told = gateway.record
    assert isinstance(told, RequestCompleted)
    assert ("r", "b", "y", 3) == (told.route, told.provider, told.model, told.attempts)


async def test_each_target_gets_the_body_with_its_own_model() -> None:
    a, b = Provider("a", [BUSY]), Provider("b", [OK])
    await Plane(a, b, **route("a/x", "b/y")).post(b'{"model":"m","n":1.0}')
    assert (b'{"model":"x","n":1.0}', b'{"model":"y","n":1.0}') == (a.body, b.body)


OUTCOMES: dict[str, tuple[Steps, list[str], int, str]] = {
    "refused": ((Refuse(),), ["upstream_unreachable, delivered no"], 502, "upstream_unreachable"),
    "unreachable": ((Unreachable(),), ["upstream_timeout, delivered no"], 504, "upstream_timeout"),
    "silent": ((Stall(),), ["upstream_timeout, delivered maybe"], 504, "upstream_timeout"),
    "cut": ((Cut(),), ["upstream_disconnected, delivered maybe"], 502, "upstream_disconnected"),
    "cut in its answer": (
        (Head(200, Headers(JSON)), Send(b"{"), Cut()),
        ["upstream_disconnected, delivered maybe"],
        502,
        "upstream_disconnected",
    ),
    "an empty stream": (stream(), ["upstream_malformed, delivered maybe"], 502, "upstream_malformed"),
    "a stream of half an event": (
        stream(b'data: {"x":1}'),
        ["upstream_disconnected, delivered maybe"],
        502,
        "upstream_disconnected",
    ),
    "a stream of comments": (
        stream(b": hold on\n\n"),
        ["upstream_disconnected, delivered maybe"],
        502,
        "upstream_disconnected",
    ),
    "an error event": (
        stream(b': ping\n\ndata: {"error":{"message":"boom"}}\n\n', DONE),
        ["upstream_error, delivered maybe"],
        502,
        "upstream_error",
    ),
    "an error event without its end": (
        stream(b'data: {"type":"error","message":"boom"}'),
        ["upstream_error, delivered maybe"],
        502,
        "upstream_error",
    ),
    "a redirect": (
        (Head(302, Headers([("location", "/x")])),),
        ["upstream_malformed, delivered maybe"],
        502,
        "upstream_malformed",
    ),
    "an interim answer": ((Head(199),), ["upstream_malformed, delivered maybe"], 502, "upstream_malformed"),
    "no json": (answer(b"<html>sorry"), ["upstream_malformed, delivered maybe"], 502, "upstream_malformed"),
    "nothing": (answer(b""), ["upstream_malformed, delivered maybe"], 502, "upstream_malformed"),
    "no status of HTTP": ((Head(600), Send(b"{}")), ["upstream_malformed, delivered maybe"], 502, "upstream_malformed"),
    "unavailable": (BUSY, ["upstream_unavailable, delivered maybe"], 503, "upstream_unavailable"),
    "rate-limited": (error(429), ["rate_limit_exceeded, delivered no"], 429, "rate_limit_exceeded"),
    "our key refused": (
        error(401),
        ["upstream_credentials_rejected, delivered no"],
        502,
        "upstream_credentials_rejected",
    ),
    "forbidden": (
        error(403),
        ["upstream_credentials_rejected, delivered no"],
        502,
        "upstream_credentials_rejected",
    ),
    "rejected": (error(400), ["upstream_rejected, delivered maybe"], 400, "upstream_rejected"),
    "not found": (error(404), ["upstream_rejected, delivered maybe"], 404, "upstream_rejected"),
    "too long": (
        error(400, "context_length_exceeded"),
        ["context_length_exceeded, delivered maybe"],
        400,
        "context_length_exceeded",
    ),
}


@pytest.mark.parametrize("case", OUTCOMES)
async def test_a_failure_that_is_the_answer_has_its_status_and_code(case: str) -> None:
    steps, told, status, code = OUTCOMES[case]
    clocks = {"connect_seconds": 0.01, "first_byte_seconds": 0.01}
    gateway = Plane(Provider("a", [steps]), **route("a/x", timeouts=clocks, attempts=1))
    exchange = await gateway.post({"model": "m", "stream": True})
    assert [f"1 a/x: {line}: give_up" for line in told] == gateway.attempts
    assert (status, "finish") == (exchange.status, exchange.ended)
    assert isinstance(gateway.record, RequestFailed)
    assert (status, code) == (gateway.record.status, gateway.record.error_code)


async def test_the_message_of_an_error_event_reaches_the_client_and_the_log() -> None:
    gateway = Plane(Provider("a", [stream(b'data: {"error":{"message":"boom"}}\n\n')]), **route("a/x", attempts=1))
    exchange = await gateway.post({"model": "m", "stream": True})
    assert "the provider answered with an error: boom" == exchange.json()["error"]["message"]
    assert "the provider answered with an error: boom" == gateway.record.error_message


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_what_the_request_is_at_fault_for_is_not_tried_again(status: int) -> None:
    a, b = Provider("a", [error(status)]), Provider("b", [OK])
    gateway = Plane(a, b, **route("a/x", "b/y", fallbacks=[["b/z"]]))
    exchange = await gateway.post({"model": "m"})
    assert (status, 1, 0) == (exchange.status, len(a.requests), len(b.requests))


async def test_the_providers_own_words_are_relayed_where_they_explain_the_failure() -> None:
    body = b'{ "error": {"message":"n must be 1", "param":"n", "vendor":[1.0]} }'
    gateway = Plane(Provider("a", [answer(body, [*JSON, ("x-their", "s")], 422)]))
    exchange = await gateway.post({"model": "m"})
    assert (422, body, "application/json") == (exchange.status, exchange.body, exchange.field("content-type"))


UNFIT = {
    "HTML": answer(b"<h1>502</h1>", [("content-type", "text/html")], 502),
    "an array": answer(b"[1]", JSON, 500),
    "half an object": (Head(500, Headers(JSON)), Send(b'{"error":{"mess'), Cut()),
    "more than is read": (Head(500, Headers(JSON)), Send(b'{"error":"' + b"x" * 66_000), Send(b'"}')),
    "half a letter": answer(b'{"\xff":1}', JSON, 500),
    "too deep": answer(b'{"a":' + b"[" * 60_000, JSON, 500),
    "packed": answer(b"\x1f\x8b", [*JSON, ("content-encoding", "gzip")], 500),
    "about our key": error(401, "invalid_api_key"),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_other_error_answers_are_worded_by_the_gateway(case: str) -> None:
    gateway = Plane(Provider("a", [UNFIT[case]]), **route("a/x", attempts=1))
    exchange = await gateway.post({"model": "m"})
    assert 500 <= exchange.status
    assert exchange.json()["error"]["message"].startswith("The provider")
    assert exchange.json()["error"]["code"] in ("upstream_unavailable", "upstream_credentials_rejected")


async def test_retry_after_survives_rounded_up() -> None:
    gateway = Plane(Provider("a", [error(429, retry_after_ms="1200")]), **route("a/x", attempts=1))
    exchange = await gateway.post({"model": "m"})
    assert (429, "2") == (exchange.status, exchange.field("retry-after"))


async def test_when_every_target_is_limited_the_client_is_told_when_to_come_back() -> None:
    gateway = Plane(Provider("a", [error(429, retry_after="30")]), clock=ManualClock(), **route("a/x", attempts=1))
    await gateway.post({"model": "m"})
    exchange = await gateway.post({"model": "m"})
    assert (429, "rate_limit_exceeded") == (exchange.status, exchange.json()["error"]["code"])
    assert "30" == exchange.field("retry-after")
    assert 0 == gateway.record.attempts


async def test_what_may_have_been_delivered_is_not_sent_again_where_the_route_forbids_it() -> None:
    a = Provider("a", [(Cut(),)])
    gateway = Plane(a, **route("a/x", maybe_delivered=False))
    assert 502 == (await gateway.post({"model": "m"})).status
    assert ["1 a/x: upstream_disconnected, delivered maybe: give_up"] == gateway.attempts


async def test_what_was_not_delivered_is_sent_again_all_the_same() -> None:
    a = Provider("a", [(Refuse(),), OK])
    gateway = Plane(a, **route("a/x", maybe_delivered=False))
    assert 200 == (await gateway.post({"model": "m"})).status
    assert ["1 a/x: upstream_unreachable, delivered no: retry"] == gateway.attempts


async def test_files_that_may_have_been_delivered_are_not_sent_again() -> None:
    a = Provider("a", [(Cut(),)])
    gateway = Plane(a)
    headers = authorized([*JSON, ("x-sluice-provider", "a")], SHARED)
    exchange = await gateway.run(MemoryExchange("POST", "/v1/batches", headers, b"{}"))
    assert (502, 1) == (exchange.status, len(a.requests))


FORM = (("content-type", "multipart/form-data; boundary=b"),)
UPLOAD = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\nContent-Disposition: form-data; '
    b'name="file"; filename="f"\r\n\r\n' + b"x" * 200_000 + b"\r\n--b--\r\n"
)
PIECES = [UPLOAD[n : n + 50_000] for n in range(0, len(UPLOAD), 50_000)]


def taking(*scripts: Any) -> Steps:
    """A provider that takes the body whole before each of its scripts."""
    left = list(scripts)

    def then(_received: Received) -> Script:
        return Script(left.pop(0))

    return lambda _request: Receive(then, 0)


async def test_an_upload_that_was_begun_is_not_sent_again() -> None:
    gateway = Plane(Provider("a", [taking(BUSY, OK)]), **route("a/x"))
    exchange = await gateway.post(PIECES, "/v1/audio/transcriptions", headers=FORM)
    assert 503 == exchange.status
    assert ["1 a/x: upstream_unavailable, delivered maybe: give_up"] == gateway.attempts


async def test_an_upload_of_which_nothing_was_taken_is_sent_again() -> None:
    gateway = Plane(Provider("a", [(Refuse(),), taking(OK)]), **route("a/x"))
    exchange = await gateway.post(PIECES, "/v1/audio/transcriptions", headers=FORM)
    assert 200 == exchange.status
    assert ["1 a/x: upstream_unreachable, delivered no: retry"] == gateway.attempts


async def test_an_upload_that_stalls_is_the_callers_fault_however_the_provider_saw_it() -> None:
    gateway = Plane(Provider("a", [taking(OK)]), **route("a/x"))
    exchange = await gateway.post(PIECES[:3], "/v1/audio/transcriptions", headers=FORM, stall_seconds=0.01)
    assert (408, "request_timeout") == (exchange.status, exchange.json()["error"]["code"])
    assert [] == gateway.attempts


async def test_the_callers_fault_outranks_how_the_provider_saw_it() -> None:
    class Blind:
        """A way to a provider that breaks when the body does, and sees no more of it."""

        async def send(self, request: UpstreamRequest) -> NoReturn:
            assert request.body is not None
            assert not isinstance(request.body, bytes | tuple)
            try:
                async for _ in request.body:
                    pass
            except BodyTimeout:
                raise UpstreamCut("the connection broke") from None
            raise AssertionError

        async def close(self) -> None:
            pass

    gateway = Plane(Provider("a", [OK]))
    gateway.plane.providers["a"] = BoundProvider(gateway.plane.providers["a"].adapter, Blind())
    exchange = await gateway.post(PIECES[:3], "/v1/audio/transcriptions", headers=FORM, stall_seconds=0.01)
    assert (408, "request_timeout") == (exchange.status, exchange.json()["error"]["code"])
    assert [] == gateway.attempts


# Clocks of the exchange


def timed(test: Any) -> Any:
    """The test in virtual time: what takes long is not late for it."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        virtual_time.run(test(*args, **kwargs))

    return run


@timed
async def test_the_total_time_bounds_all_attempts_and_their_pauses() -> None:
    retry = {"attempts": 10, "backoff_seconds": 0.02, "max_backoff_seconds": 0.02}
    a = Provider("a", [[Wait(0.02), *BUSY]])
    gateway = Plane(a, **route("a/x", timeouts={"total_seconds": 0.05}, **retry))
    exchange = await gateway.post({"model": "m"})
    assert (504, "upstream_timeout") == (exchange.status, exchange.json()["error"]["code"])
    assert "`total_seconds` (0.05)" in exchange.json()["error"]["message"]
    assert 1 <= len(gateway.attempts) <= 3


@timed
async def test_the_total_time_ends_a_stream_with_an_error_event() -> None:
    steps = stream(b'data: {"a":1}\n\n', b"data: half", Stall())
    gateway = Plane(Provider("a", [steps]), **route("a/x", timeouts={"total_seconds": 0.05}))
    exchange = await gateway.post({"model": "m", "stream": True})
    first, last = exchange.pieces
    assert b'data: {"a":1}\n\n' == first
    assert b"upstream_timeout" in last
    assert ("finish", 200) == (exchange.ended, exchange.status)
    assert ("request.failed", "upstream_timeout") == (gateway.record.name, gateway.record.error_code)


@timed
async def test_the_total_time_cuts_a_body_that_is_no_stream() -> None:
    steps = (Head(200, Headers([("content-type", "audio/mpeg")])), Send(b"abc"), Stall())
    gateway = Plane(Provider("a", [steps]), **route("a/x", timeouts={"total_seconds": 0.05}))
    exchange = await gateway.post({"model": "m"}, "/v1/audio/speech")
    assert (b"abc", "abort") == (exchange.body, exchange.ended)
    assert "upstream_timeout" == gateway.record.error_code


@timed
async def test_the_first_token_has_its_own_clock_on_streams() -> None:
    slow = stream(b": hold on\n\n", Wait(0.2), DONE)
    quick = stream(b"data: 1\n\n", DONE)
    clock = {"first_token_seconds": 0.03}
    gateway = Plane(Provider("a", [slow]), Provider("b", [quick]), **route("a/x", "b/y", timeouts=clock))
    exchange = await gateway.post({"model": "m", "stream": True})
    assert b"data: 1\n\n" + DONE == exchange.body
    assert ["1 a/x: upstream_timeout, delivered maybe: retry"] == gateway.attempts


ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
SAID = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
SILENT: dict[str, tuple[tuple[bytes | Step, ...], str]] = {
    "is cut": ((Cut(),), "upstream_disconnected"),
    "ends": ((), "upstream_disconnected"),
    "stalls": ((Stall(),), "upstream_timeout"),
    "is too late": ((Wait(9.0), SAID, DONE), "upstream_timeout"),
    "fails by its own word": ((b'data: {"error":{"message":"overloaded"}}\n\n', DONE), "upstream_error"),
    "fails in one piece with it": ((b'data: {"choices":[]}\n\ndata: {"error":"boom"}\n\n',), "upstream_error"),
}


@pytest.mark.parametrize("case", SILENT)
@timed
async def test_another_target_answers_where_a_stream_has_told_its_role_and_no_more(case: str) -> None:
    steps, code = SILENT[case]
    clock = {"first_token_seconds": 1.0}
    gateway = Plane(
        Provider("a", [stream(ROLE, *steps)]),
        Provider("b", [stream(ROLE, SAID, DONE)]),
        **route("a/x", "b/y", timeouts=clock),
    )
    exchange = await gateway.post({"model": "m", "stream": True})
    assert (200, [ROLE + SAID, DONE]) == (exchange.status, exchange.pieces)
    assert [f"1 a/x: {code}, delivered maybe: retry"] == gateway.attempts


async def test_without_a_clock_for_its_output_a_stream_is_passed_on_from_its_first_event_on() -> None:
    gateway = Plane(Provider("a", [stream(ROLE, SAID, Cut())]), Provider("b", [stream(DONE)]), **route("a/x", "b/y"))
    exchange = await gateway.post({"model": "m", "stream": True})
    assert [ROLE, SAID] == exchange.pieces[:2]
    assert b"upstream_disconnected" in exchange.pieces[2]
    assert [] == gateway.attempts


async def test_a_stream_that_says_nothing_and_ends_well_is_passed_on() -> None:
    gateway = Plane(Provider("a", [stream(ROLE, DONE)]), **route("a/x"))
    exchange = await gateway.post({"model": "m", "stream": True})
    assert (200, ROLE + DONE) == (exchange.status, exchange.body)


@timed
async def test_the_first_token_clock_is_not_for_whole_answers() -> None:
    gateway = Plane(Provider("a", [[Wait(0.03), *OK]]), **route("a/x", timeouts={"first_token_seconds": 0.01}))
    assert 200 == (await gateway.post({"model": "m"})).status


async def test_a_timeout_of_another_kind_is_a_fault_of_the_gateway(expect_log: Any) -> None:
    def broken(_request: object) -> Any:
        raise TimeoutError

    gateway = Plane(Provider("a", [broken]), **route("a/x"))
    with expect_log("failed in the gateway"):
        assert 500 == (await gateway.post({"model": "m"})).status


@timed
async def test_a_stream_may_go_on_beyond_its_first_token_clock() -> None:
    steps = stream(b"data: 1\n\n", Wait(0.05), DONE)
    gateway = Plane(Provider("a", [steps]), **route("a/x", timeouts={"first_token_seconds": 0.02}))
    exchange = await gateway.post({"model": "m", "stream": True})
    assert b"data: 1\n\n" + DONE == exchange.body


async def test_a_client_that_goes_while_an_attempt_waits_ends_it() -> None:
    retry = {"backoff_seconds": 60, "max_backoff_seconds": 60}
    gateway = Plane(Provider("a", [BUSY]), **route("a/x", attempts=2, **retry))
    gateway.plane.router._random = lambda: 0.9
    exchange = MemoryExchange("POST", "/v1/chat/completions", authorized(JSON), b'{"model":"m"}')
    task = gateway.begin(exchange)
    await until(lambda: gateway.attempts)
    exchange.leave()
    await task
    assert ("client_closed", 499, []) == (gateway.record.error_code, gateway.record.status, exchange.transcript)


async def test_sse_headers_are_forwarded_without_a_length() -> None:
    steps = stream(b"data: 1\n\n", DONE, headers=[*SSE, ("content-length", "9")])
    exchange = await Plane(Provider("a", [steps])).post({"model": "m", "stream": True})
    assert exchange.field("content-length") is None


async def test_no_field_of_an_answer_that_repeats_our_credential_is_passed_on() -> None:
    key = key_of("provider-a")
    headers = [*JSON, ("x-echo", f"you sent Bearer {key}"), ("x-other", "kept")]
    exchange = await Plane(Provider("provider-a", [answer(b"{}", headers)])).post({"model": "provider-a/m"})
    assert 200 == exchange.status
    assert (None, "kept") == (exchange.field("x-echo"), exchange.field("x-other"))


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_an_error_answer_that_repeats_our_credential_is_not_passed_on(status: int) -> None:
    leak = b'{"error":{"message":"you sent Bearer %s"}}' % key_of("provider-a").encode()
    provider = Provider("provider-a", [answer(leak, JSON, status)])
    gateway = Plane(provider, **route("provider-a/x", attempts=1))
    exchange = await gateway.post({"model": "m"})
    assert status == exchange.status
    assert ("authorization", f"Bearer {key_of('provider-a')}") in tuple(provider.last.headers)
    assert key_of("provider-a").encode() not in exchange.body
