"""What the data plane refuses, and how it says so: the status, the code, the parameter, and nothing sent on."""

import gzip
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from core.events import RequestFailed, RequestStarted
from proxy.intake import MAX_MODEL_LENGTH, Limits
from tests.exchange import LIMITED, SHARED, TOKEN, MemoryExchange, Plane, Provider, answer, authorized, request

LIMITS = Limits(max_body_bytes=2048, max_upload_bytes=4096, max_decompressed_bytes=2048)
GOOD = b'{"model":"m"}'


def plane(**document: Any) -> tuple[Plane, Provider]:
    provider = Provider("up", [answer(b"{}")])
    return Plane(provider, body_limits=LIMITS, **document), provider


def multipart(*parts: tuple[str, bytes], boundary: str = "b") -> bytes:
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, content in parts
    )
    return body + f"--{boundary}--\r\n".encode()


FORM = (("content-type", "multipart/form-data; boundary=b"),)
GZIP = (("content-encoding", "gzip"),)
NESTED = b'{"model":' + b"[" * 900 + b"]" * 900 + b"}"

BODIES: dict[str, tuple[MemoryExchange, int, str, str | None]] = {
    "no body": (request(body=b""), 400, "invalid_json", None),
    "not JSON": (request(body=b"{"), 400, "invalid_json", None),
    "not an object": (request(body=b"[]"), 400, "invalid_json", None),
    "more after the object": (request(body=b"{} {}"), 400, "invalid_json", None),
    "a name twice": (request(body=b'{"model":"a","model":"b"}'), 400, "invalid_json", None),
    "a name twice, once escaped": (request(body=b'{"model":"a","m\\u006fdel":"b"}'), 400, "invalid_json", None),
    "the model in another case too": (request(body=b'{"model":"a","Model":"b"}'), 400, "invalid_model", "Model"),
    "no model": (request(body=b'{"messages":[]}'), 400, "missing_model", "model"),
    "a model of null": (request(body=b'{"model":null}'), 400, "missing_model", "model"),
    "an empty model": (request(body=b'{"model":""}'), 400, "missing_model", "model"),
    "a model that is a number": (request(body=b'{"model":1}'), 400, "invalid_type", "model"),
    "a model that is nested": (request(body=NESTED), 400, "invalid_type", "model"),
    "a model that is not UTF-8": (request(body=b'{"model":"\xff"}'), 400, "invalid_type", "model"),
    "a model that is half a surrogate": (request(body=b'{"model":"\\ud800"}'), 400, "invalid_json", None),
    "a long model": (
        request(body=b'{"model":"%s"}' % (b"m" * (MAX_MODEL_LENGTH + 1))),
        400,
        "invalid_model",
        "model",
    ),
    "a stream that is a text": (request(body=b'{"model":"m","stream":"yes"}'), 400, "invalid_type", "stream"),
    "a stated length over the limit": (request(headers=[("content-length", "2049")]), 413, "request_too_large", None),
    "a length over the limit": (request(body=[b" " * 2000, b" " * 49]), 413, "request_too_large", None),
    "a bomb": (request(body=gzip.compress(b" " * 3000), headers=GZIP), 413, "request_too_large", None),
    "a bomb in pieces": (
        request(body=[gzip.compress(b" " * 300000)[n : n + 7] for n in range(0, 400, 7)], headers=GZIP),
        413,
        "request_too_large",
        None,
    ),
    "no gzip though it says so": (request(body=GOOD, headers=GZIP), 400, "invalid_encoding", None),
    "gzip cut short": (request(body=gzip.compress(GOOD)[:-4], headers=GZIP), 400, "invalid_encoding", None),
    "gzip with more after it": (request(body=gzip.compress(GOOD) + b"x", headers=GZIP), 400, "invalid_encoding", None),
    "a coding that is not known": (
        request(headers=[("content-encoding", "zstd")]),
        415,
        "unsupported_media_type",
        None,
    ),
    "a body that stalls": (request(body=b'{"model"', stall_seconds=0.01), 408, "request_timeout", None),
    "another content type": (request(headers=[("content-type", "text/plain")]), 415, "unsupported_media_type", None),
    "a form where none is taken": (request(headers=FORM), 415, "unsupported_media_type", None),
    "two content types": (
        request("/v1/audio/x", headers=[*FORM, ("content-type", "multipart/form-data; boundary=c")]),
        415,
        "unsupported_media_type",
        None,
    ),
    "a charset that is not UTF-8": (
        request(headers=[("content-type", "application/json; charset=utf-7")]),
        415,
        "unsupported_media_type",
        None,
    ),
    "several content codings": (
        request(body=gzip.compress(GOOD), headers=[("content-encoding", "identity"), *GZIP]),
        415,
        "unsupported_media_type",
        None,
    ),
    "a stored response in another case": (
        request("/v1/responses", b'{"model":"m","Previous_Response_ID":"r"}'),
        400,
        "invalid_request",
        "Previous_Response_ID",
    ),
    "a model in the query": (request(query="x=1&model=gpt"), 400, "invalid_request", "model"),
    "a key in the query": (request(query="%6Bey=sk-secret"), 400, "invalid_request", None),
    "a query beyond ASCII": (request(query="a=\xe4"), 400, "invalid_request", None),
    "a form without boundary": (
        request("/v1/images/edits", headers=[("content-type", "multipart/form-data")]),
        400,
        "invalid_multipart",
        None,
    ),
    "an encoded form": (request("/v1/images/edits", headers=[*FORM, *GZIP]), 415, "unsupported_media_type", None),
    "a form that states too much": (
        request("/v1/images/edits", headers=[*FORM, ("content-length", "4097")]),
        413,
        "request_too_large",
        None,
    ),
    "a form that is too much": (
        request("/v1/images/edits", [b"--b\r\n", b"x" * 4096], FORM),
        413,
        "request_too_large",
        None,
    ),
    "a form that is cut": (
        request("/v1/images/edits", multipart(('name="model"', b"m"))[:-8], FORM),
        400,
        "invalid_multipart",
        None,
    ),
    "a form with two models": (
        request("/v1/images/edits", multipart(('name="model"', b"a"), ('name="model"', b"b")), FORM),
        400,
        "invalid_multipart",
        "model",
    ),
    "a form whose model is not UTF-8": (
        request("/v1/images/edits", multipart(('name="model"', b"\xff")), FORM),
        400,
        "invalid_model",
        "model",
    ),
    "a form whose model is empty": (
        request("/v1/images/edits", multipart(('name="model"', b"")), FORM),
        400,
        "missing_model",
        "model",
    ),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_request_that_cannot_be_understood_is_told_why(case: str) -> None:
    exchange, status, code, param = BODIES[case]
    gateway, provider = plane()
    await gateway.run(exchange)
    error = exchange.json()["error"]
    assert (status, code, param) == (exchange.status, error["code"], error["param"])
    assert "invalid_request_error" == error["type"]
    assert error["message"]
    assert "application/json" == exchange.field("content-type")
    assert "finish" == exchange.ended
    assert [] == provider.requests
    told = gateway.record
    assert isinstance(told, RequestFailed)
    assert (status, code, 0, None) == (told.status, told.error_code, told.attempts, told.provider)


WITHOUT = authorized((), None)
CALLERS: dict[str, tuple[MemoryExchange, int, str]] = {
    "nobody": (request(token=None), 401, "invalid_api_key"),
    "a stranger": (request(token="sk-other"), 401, "invalid_api_key"),
    "two keys that differ": (request(headers=[("x-api-key", "other")]), 401, "invalid_api_key"),
    "another scheme": (request(headers=[("authorization", "Basic eDp5")], token=None), 401, "invalid_api_key"),
    "nobody, of a path that there is not": (MemoryExchange("GET", "/v1/nothing"), 401, "invalid_api_key"),
    "nobody, by another method": (MemoryExchange("PUT", "/v1/models"), 401, "invalid_api_key"),
    "nobody, of the models": (MemoryExchange("GET", "/v1/models"), 401, "invalid_api_key"),
    "a model that is not granted": (request(body=b'{"model":"o1"}', token=LIMITED), 403, "model_not_allowed"),
    "no model, of a limited token": (
        request("/v1/moderations", b'{"input":"x"}', token=LIMITED),
        403,
        "permission_denied",
    ),
    "files without the grant": (MemoryExchange("GET", "/v1/files", authorized(())), 403, "endpoint_not_allowed"),
    "batches without the grant": (request("/v1/batches", b"{}"), 403, "endpoint_not_allowed"),
    "a stored response without the grant": (
        MemoryExchange("GET", "/v1/responses/resp_1", authorized(())),
        403,
        "endpoint_not_allowed",
    ),
    "a response that goes on from a stored one": (
        request("/v1/responses", b'{"model":"m","previous_response_id":"resp_1"}'),
        403,
        "endpoint_not_allowed",
    ),
    "a response to a stored item": (
        request("/v1/responses", b'{"model":"m","input":[{"type":"item_reference","id":"msg_1"}]}'),
        403,
        "endpoint_not_allowed",
    ),
    "a response of a stored conversation": (
        request("/v1/responses", b'{"model":"m","conversation":{"id":"c"}}'),
        403,
        "endpoint_not_allowed",
    ),
    "a path that there is not": (MemoryExchange("GET", "/v1/nothing", authorized(())), 404, "unknown_url"),
    "an id with an escape": (MemoryExchange("GET", "/v1/files/a%2Fb", authorized((), SHARED)), 404, "unknown_url"),
    "an id that goes up": (MemoryExchange("GET", "/v1/files/../models", authorized((), SHARED)), 404, "unknown_url"),
    "an id that is a dot": (MemoryExchange("GET", "/v1/files/.", authorized((), SHARED)), 404, "unknown_url"),
    "another method": (MemoryExchange("GET", "/v1/chat/completions", authorized(())), 405, "method_not_allowed"),
    "a HEAD": (MemoryExchange("HEAD", "/v1/models", authorized(())), 405, "method_not_allowed"),
    "an upgrade": (
        MemoryExchange("GET", "/v1/responses", authorized([("upgrade", "websocket")])),
        426,
        "upgrade_required",
    ),
    "no upgrade": (MemoryExchange("GET", "/v1/responses", authorized(())), 405, "method_not_allowed"),
    "a provider that there is not": (
        MemoryExchange("GET", "/v1/files", authorized([("x-sluice-provider", "x")], SHARED)),
        400,
        "provider_not_found",
    ),
    "no provider": (MemoryExchange("GET", "/v1/files", authorized((), SHARED)), 400, "provider_required"),
}


@pytest.mark.parametrize("case", CALLERS)
async def test_who_may_not_is_told_so(case: str) -> None:
    exchange, status, code = CALLERS[case]
    gateway, provider = plane()
    await gateway.run(exchange)
    assert (status, code) == (exchange.status, exchange.json()["error"]["code"])
    assert [] == provider.requests
    assert "finish" == exchange.ended
    assert code == gateway.record.error_code


async def test_a_model_that_nothing_serves_is_not_found() -> None:
    gateway = Plane(providers=[])
    exchange = await gateway.post({"model": "gpt-9"})
    error = exchange.json()["error"]
    assert (404, "model_not_found") == (exchange.status, error["code"])
    assert "gpt-9" in error["message"]


async def test_without_tokens_nobody_has_access() -> None:
    gateway, provider = plane(tokens=[])
    exchange = await gateway.post({"model": "m"})
    assert (401, []) == (exchange.status, provider.requests)


FIELDS: list[tuple[MemoryExchange, str, str]] = [
    (request(token=None), "www-authenticate", "Bearer"),
    (MemoryExchange("PUT", "/v1/files", authorized((), SHARED)), "allow", "GET, POST"),
    (MemoryExchange("GET", "/v1/responses", authorized([("upgrade", "websocket")])), "upgrade", "HTTP/1.1"),
]


@pytest.mark.parametrize(("exchange", "name", "value"), FIELDS, ids=[name for _, name, _ in FIELDS])
async def test_refusals_carry_the_fields_that_http_wants(exchange: MemoryExchange, name: str, value: str) -> None:
    gateway, _ = plane()
    await gateway.run(exchange)
    assert value == exchange.field(name)


async def test_a_refusal_names_its_request_and_no_target() -> None:
    gateway, _ = plane()
    exchange = await gateway.post(b"{")
    assert ("req_1", "rev-1") == (exchange.field("x-request-id"), exchange.field("x-sluice-revision"))
    assert (None, None) == (exchange.field("x-sluice-target"), exchange.field("x-sluice-attempts"))
    assert (exchange.field("server-timing") or "").startswith("gateway;dur=")


@pytest.mark.parametrize("path", ["/v1/" + "x" * 9000, "/v1/\xe4\x80"])
async def test_a_path_of_any_length_and_bytes_is_answered_briefly(path: str) -> None:
    gateway, _ = plane()
    exchange = await gateway.get(path)
    assert 404 == exchange.status
    assert len(exchange.body) < 500
    assert len(gateway.record.error_message or "") < 300


@pytest.mark.parametrize("method", ["PUT", "X" * 5000])
async def test_a_method_of_any_length_is_answered_briefly(method: str) -> None:
    gateway, _ = plane()
    exchange = await gateway.run(MemoryExchange(method, "/v1/embeddings", authorized(())))
    assert 405 == exchange.status
    assert len(exchange.body) < 500


async def test_every_request_is_told_once_at_its_start_and_once_at_its_end() -> None:
    gateway, _ = plane()
    await gateway.get("/v1/nothing")
    await gateway.post(b"{")
    assert ["request.started", "request.failed"] * 2 == [told.name for told in gateway.told]
    started = [told.endpoint for told in gateway.told if isinstance(told, RequestStarted)]
    assert ["unknown", "chat_completions"] == started


async def test_a_fault_of_the_gateway_is_logged_and_told_without_its_details(
    expect_log: Any, planted_secret: str
) -> None:
    def broken(_request: object) -> Sequence[Any]:
        raise RuntimeError("an internal matter")

    gateway = Plane(Provider("up", [broken]))
    with expect_log("request req_1 failed in the gateway(.|\n)*an internal matter", level=40):
        exchange = await gateway.post({"model": "m"})
    assert (500, "internal_error") == (exchange.status, exchange.json()["error"]["code"])
    assert b"internal matter" not in exchange.body
    assert b"req_1" in exchange.body


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "zlib"])
async def test_a_compressed_body_is_read_and_sent_on_plain(compress: Any) -> None:
    gateway, provider = plane()
    coding = "gzip" if compress is gzip.compress else "deflate"
    exchange = await gateway.post(compress(GOOD), headers=[("content-encoding", coding)])
    assert 200 == exchange.status
    assert GOOD == provider.body
    assert provider.last.headers.get("content-encoding") is None


async def test_a_body_as_large_as_the_limit_is_taken() -> None:
    gateway, provider = plane()
    body = GOOD + b" " * (2048 - len(GOOD))
    assert 200 == (await gateway.post(gzip.compress(body), headers=GZIP)).status
    assert 200 == (await gateway.post([body[:9], body[9:]])).status
    assert body == provider.body


async def test_a_token_for_every_model_may_leave_the_choice_to_the_provider() -> None:
    gateway, provider = plane(routes=[{"name": "r", "match": {"path": "/v1/moderations"}, "targets": ["up/m"]}])
    exchange = await gateway.post({"input": "x"}, "/v1/moderations", token=TOKEN)
    assert 200 == exchange.status
    assert b'{"input":"x"}' == provider.body


async def test_null_stands_for_no_stored_response() -> None:
    gateway, _ = plane()
    body = {"model": "m", "previous_response_id": None, "conversation": None}
    assert 200 == (await gateway.post(body, "/v1/responses")).status


async def test_errors_come_in_the_dialect_of_the_path() -> None:
    gateway, _ = plane()
    chat = await gateway.post(b"{")
    responses = await gateway.post(b"{", "/v1/responses")
    assert chat.json()["error"] == responses.json()["error"]


@pytest.mark.parametrize("count", [1025, 600_000])
async def test_a_document_of_more_names_than_any_api_knows_is_refused_at_once(count: int) -> None:
    body = b"{" + b",".join(b'"%d":0' % number for number in range(count)) + b"}"
    gateway = Plane(Provider("up", [answer(b"{}")]), body_limits=Limits(1 << 25, 1 << 25, 1 << 25))
    exchange = await gateway.run(request(body=body))
    assert (400, "invalid_json") == (exchange.status, exchange.json()["error"]["code"])


@pytest.mark.parametrize(
    "input_", ['"hello"', "[1]", '[{"type":"message"}]', '[{"type":"message","content":"item_reference"}]']
)
async def test_an_input_of_its_own_needs_no_grant(input_: str) -> None:
    gateway = Plane(Provider("up", [answer(b"{}")]))
    body = b'{"model":"m","input":%s}' % input_.encode()
    assert 200 == (await gateway.run(request("/v1/responses", body))).status
