import gzip
import json
from pathlib import Path

import pytest

from core.errors import (
    ContentRefused,
    ContextExceeded,
    CredentialsRejected,
    RetryScope,
    UpstreamAnswered,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from core.headers import Headers
from proxy.providers.classify import classify, retry_after_seconds

RECORDED = Path(__file__).parents[4] / "shared" / "recorded"


def error(code: object = None, **members: object) -> bytes:
    return json.dumps(
        {"error": {"message": "Wording decides nothing: context_length_exceeded", "code": code, **members}}
    ).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error(), UpstreamRejected),
        (404, error("model_not_found"), UpstreamRejected),
        (413, b"", UpstreamRejected),
        (422, b'{"detail": [{"loc": ["body"]}]}', UpstreamRejected),
        (400, error("context_length_exceeded"), ContextExceeded),
        (400, error(400, type="exceed_context_size_error"), ContextExceeded),
        (413, error("context_length_exceeded"), ContextExceeded),
        (400, error("content_policy_violation"), ContentRefused),
        (400, error("content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), ContentRefused),
        (403, error("moderation_blocked"), ContentRefused),
        (401, error("invalid_api_key"), CredentialsRejected),
        (402, error(), CredentialsRejected),
        (403, error("unsupported_country_region_territory"), CredentialsRejected),
        (429, error("rate_limit_exceeded"), UpstreamRateLimited),
        (429, error("insufficient_quota"), UpstreamRateLimited),
        (429, error(429, metadata={"raw": "slow down"}), UpstreamRateLimited),
        (408, b"", UpstreamUnavailable),
        (409, b"", UpstreamUnavailable),
        (425, b"", UpstreamUnavailable),
        (500, b"<html>oops</html>", UpstreamUnavailable),
        (500, error("context_length_exceeded"), UpstreamUnavailable),
        (503, b"\xff\xfe", UpstreamUnavailable),
        (529, error("overloaded"), UpstreamUnavailable),
        (400, b'{"error": "a text"}', UpstreamRejected),
        (400, b'"a text"', UpstreamRejected),
        (400, b'{"error": {"code": {"a": 1}}}', UpstreamRejected),
        (400, b'{"error": {"code": "context_length_exceeded"}', UpstreamRejected),
    ],
)
def test_an_error_is_classed_by_status_and_code(status: int, body: bytes, kind: type[UpstreamAnswered]) -> None:
    headers = Headers([("content-type", "application/json"), ("retry-after", "2")])
    found = classify(status, headers, body)
    assert kind is type(found)
    assert (status, headers, body, 2.0) == (
        found.upstream_status,
        found.headers,
        found.body,
        found.retry_after_seconds,
    )


def test_the_message_names_status_and_code_and_nothing_of_the_providers_prose() -> None:
    body = error("invalid_api_key", message="Incorrect API key provided: sk-abc")
    assert "The provider did not accept the gateway's credential (401, invalid_api_key)." == (
        classify(401, Headers(), body).message
    )
    assert "The provider rejected the request (400)." == classify(400, Headers(), error("no code\r\nat all")).message
    assert "The provider rejected the request (400)." == classify(400, Headers(), error("x" * 65)).message


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "yesterday"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "later", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": f"Wed, 21 Oct 2015 07:28:30 +{'9' * 20}", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": f"Wed, 21 Oct 2015 07:28:00 +{'9' * 11}"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "\u0661"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_how_long_to_stay_away(fields: dict[str, str], seconds: float | None) -> None:
    assert seconds == retry_after_seconds(Headers(fields.items()))


RECORDED_FILES = ("openai.chat", "compat.chat", "azure.chat", "completions", "embeddings", "openai.responses")
EXPECTED = {
    400: (UpstreamRejected, RetryScope.NEVER),
    401: (CredentialsRejected, RetryScope.OTHER_CREDENTIAL),
    404: (UpstreamRejected, RetryScope.NEVER),
    429: (UpstreamRateLimited, RetryScope.OTHER_CREDENTIAL),
}


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded provider traffic at {RECORDED}")
@pytest.mark.parametrize("name", RECORDED_FILES)
def test_recorded_errors_are_classed(name: str) -> None:
    seen = 0
    with gzip.open(RECORDED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if (record["status"] or 200) < 400:
                continue
            seen += 1
            body = record["resp"] if isinstance(record["resp"], str) else json.dumps(record["resp"])
            found = classify(record["status"], Headers.parse((record["resp_headers"] or {}).items()), body.encode())
            assert EXPECTED[record["status"]] == (type(found), found.retry)
            code = json.loads(body)["error"].get("code")
            assert (f"({record['status']}, {code})" if code else f"({record['status']})") in found.message
    assert seen or name == "completions"
