"""How each wire format words errors, counts tokens and tells of the end of a stream."""

import json

import pytest

from core.errors import CredentialsRejected, InvalidRequest, ModelNotFound, UpstreamCut, UpstreamRateLimited
from core.usage import Usage
from proxy.dialects import DIALECTS
from proxy.dialects.base import Dialect, Ending

CHAT = DIALECTS["openai-chat"]
RESPONSES = DIALECTS["openai-responses"]

ERRORS = [
    (InvalidRequest("bad", param="n", code="invalid_type"), "invalid_request_error", "n", "invalid_type"),
    (ModelNotFound("gone", param="model"), "invalid_request_error", "model", "model_not_found"),
    (UpstreamRateLimited("slow", upstream_status=429), "rate_limit_error", None, "rate_limit_exceeded"),
    (CredentialsRejected("ours", upstream_status=401), "server_error", None, "upstream_credentials_rejected"),
]


@pytest.mark.parametrize(("error", "kind", "param", "code"), ERRORS, ids=[code for *_, code in ERRORS])
def test_an_error_has_the_fields_envelope(error: InvalidRequest, kind: str, param: str | None, code: str) -> None:
    expected = {"error": {"message": error.message, "type": kind, "param": param, "code": code}}
    for dialect in (CHAT, RESPONSES):
        assert expected == json.loads(dialect.error_body(error))


def test_an_error_event_is_one_whole_event() -> None:
    error = UpstreamCut('a\n\n"b"')
    chat, responses = CHAT.error_event(error), RESPONSES.error_event(error)
    assert chat == b"data: " + CHAT.error_body(error) + b"\n\n"
    assert responses.startswith(b"event: error\ndata: {")
    told = {"code": "upstream_disconnected", "message": 'a\n\n"b"', "param": None}
    expected = {"type": "error", **told, "error": {"type": "server_error", **told}}
    assert expected == json.loads(responses.partition(b"data: ")[2])
    assert (1, 1) == (chat.count(b"\n\n"), responses.count(b"\n\n"))


ENDINGS = [
    (CHAT, b'data: {"choices":[{"finish_reason":null}]}\n\n', Ending.OPEN),
    (CHAT, b'data: {"choices":[{"finish_reason": "stop"}]}\n\n', Ending.ALLOWED),
    (CHAT, b"data: [DONE]\n\n", Ending.COMPLETE),
    (CHAT, b"data:[DONE]\n\n", Ending.COMPLETE),
    (CHAT, b"data: 1\r\rdata: [DONE]\r\r", Ending.COMPLETE),
    (CHAT, b'data: {"content":"data: [DONE]"}\n\n', Ending.OPEN),
    (CHAT, b'data: {"content":"\\"finish_reason\\":\\"stop\\""}\n\n', Ending.OPEN),
    (RESPONSES, b'data: {"type":"response.created"}\n\n', Ending.OPEN),
    (RESPONSES, b'data: {"type" : "response.completed"}\n\n', Ending.COMPLETE),
    (RESPONSES, b'data: {"type":"response.incomplete"}\n\n', Ending.COMPLETE),
    (RESPONSES, b'data: {"type":"response.failed"}\n\n', Ending.COMPLETE),
    (RESPONSES, b'data: {"type":"response.completed.x"}\n\n', Ending.OPEN),
    (RESPONSES, b"data: [DONE]\n\n", Ending.OPEN),
]


OUTPUTS = [
    (
        CHAT,
        b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}',
        False,
    ),
    (
        CHAT,
        b'{"choices":[{"delta":{"role":"assistant","content":null,"refusal":null,"tool_calls":[]}}],"usage":null}',
        False,
    ),
    (CHAT, b'{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}', False),
    (CHAT, b'{"choices":[{"text":"","index":1,"finish_reason":null}]}', False),
    (CHAT, b'{"choices":[{"delta":{"content":"a"}}]}', True),
    (CHAT, b'{"choices":[{"delta":{"role":"assistant"}},{"delta":{"content":" "}}]}', True),
    (CHAT, b'{"choices":[{"delta":{"reasoning_content":"hm"}}]}', True),
    (CHAT, b'{"choices":[{"delta":{"role":"assistant","tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}', True),
    (CHAT, b'{"choices":[{"delta":{},"finish_reason":"stop"}]}', True),
    (CHAT, b'{"choices":[{"text":"a"}]}', True),
    (CHAT, b'{"choices":[],"usage":{"prompt_tokens":1}}', True),
    (CHAT, b'{"type":"transcript.text.delta","delta":"a"}', True),
    (CHAT, b'{"choices":[7]}', True),
    (CHAT, b"[DONE]", True),
    (CHAT, b"1", True),
    (CHAT, b"\xff{", True),
    (CHAT, b"[" * 10_000, True),
    (RESPONSES, b'{"type":"response.created","response":{"id":"resp_1"}}', True),
]


@pytest.mark.parametrize(("dialect", "data", "output"), OUTPUTS, ids=[str(data[:60]) for _, data, _ in OUTPUTS])
def test_an_event_is_output_where_it_says_something_or_cannot_be_read(
    dialect: Dialect, data: bytes, output: bool
) -> None:
    assert output is dialect.has_output(b": hold\nid: 1\ndata: " + data + b"\n\n")


@pytest.mark.parametrize(("dialect", "events", "ending"), ENDINGS)
def test_events_tell_of_the_end(dialect: object, events: bytes, ending: Ending) -> None:
    assert ending is getattr(dialect, "ending")(events)  # noqa: B009  of either dialect


FAILURES: list[tuple[bytes, str | None]] = [
    (b'data: {"error":{"message":"boom"}}\n\n', "boom"),
    (b'data: {"error":{"code":429}}\n\n', "429"),
    (b'data: {"error":{"x":1}}\n\n', "no reason given"),
    (b'data: {"type":"error"}\n\n', "no reason given"),
    (b'data: {"error":"boom"}\n\n', "boom"),
    (b'data: {"error":["boom"]}\n\n', "['boom']"),
    (b'data: {"type":"error","message":"boom"}\n\n', "boom"),
    (b'data: {"type":"error","error":{"message":"boom"}}\n\n', "boom"),
    (b'data: {"type":"response.failed","response":{"error":{"message":"boom"}}}\n\n', "boom"),
    (b'data: {"type":"response.failed","response":{}}\n\n', "the response failed"),
    (b'data: {"type":"response.failed"}\n\n', None),
    (b'event: error\ndata: {"message":"boom"}\n\n', '{"message":"boom"}'),
    (b"event: error\ndata: boom \xff\n\n", "boom \ufffd"),
    (b"event:error\r\ndata: boom\r\n\r\n", "boom"),
    (b'data: {"x":1}\n\ndata: {\ndata: "error":{"message":"boom"}}\n\n', "boom"),
    (b'data: {"error":{"message":"' + b"x" * 999 + b'"}}\n\n', "x" * 300),
    (b"event: error\n\n", None),
    (b"event: errors\ndata: 1\n\n", None),
    (b'data: {"error":null}\n\n', None),
    (b'data: {"error":{}}\n\n', None),
    (b'data: {"error":false}\n\n', None),
    (b'data: {"choices":[{"error":{"code":"x"}}]}\n\n', None),
    (b'data: {"content":"an \\"error\\": {}"}\n\n', None),
    (b'data: {"error":{\n\n', None),
    (b'data: {"error":' + b"[" * 100_000 + b"\n\n", None),
    (b': {"error":{"message":"a comment"}}\n\n', None),
    (b"data: [DONE]\n\n", None),
]


@pytest.mark.parametrize(("events", "message"), FAILURES)
def test_the_providers_own_error_is_told_by_its_place(events: bytes, message: str | None) -> None:
    expected = None if message is None else f"the provider answered with an error: {message}"
    assert expected == CHAT.failure(events)
    assert expected == RESPONSES.failure(events)


COUNTS = [
    (CHAT, b'{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}', Usage(1, 2, 3)),
    (CHAT, b'{"input_tokens":1,"output_tokens":2}', Usage(1, 2, 0)),
    (CHAT, b'{"prompt_tokens":5,"total_tokens":5}', Usage(5, 0, 0)),
    (CHAT, b'{"prompt_tokens":null,"input_tokens":4,"prompt_tokens_details":null}', Usage(4, 0, 0)),
    (CHAT, b'{"prompt_tokens":-1,"completion_tokens":true}', Usage()),
    (CHAT, b'{"prompt_tokens":1.5,"completion_tokens":"2"}', Usage()),
    (CHAT, b'{"prompt_tokens":99999999999999999999999}', Usage()),
    (RESPONSES, b'{"input_tokens":1,"output_tokens":2,"input_tokens_details":{"cached_tokens":1}}', Usage(1, 2, 1)),
    (RESPONSES, b'{"input_tokens":1,"input_tokens_details":[]}', Usage(1, 0, 0)),
    (CHAT, b'{"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":8}}', Usage(0, 9, 0, 8)),
    (RESPONSES, b'{"output_tokens":9,"output_tokens_details":{"reasoning_tokens":8}}', Usage(0, 9, 0, 8)),
    (CHAT, b'{"prompt_tokens":9,"prompt_tokens_details":{"cache_write_tokens":5}}', Usage(9, cache_write_tokens=5)),
    (RESPONSES, b'{"input_tokens":9,"input_tokens_details":{"cache_write_tokens":5}}', Usage(9, cache_write_tokens=5)),
    (CHAT, b'{"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":-1}}', Usage(0, 9)),
]


@pytest.mark.parametrize(("dialect", "counts", "usage"), COUNTS)
def test_usage_is_read_whatever_is_missing_or_odd(dialect: object, counts: bytes, usage: Usage) -> None:
    assert usage == getattr(dialect, "usage")(json.loads(counts))  # noqa: B009  of either dialect
