import base64
import json
import math
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.faults import ConfigFaults
from config.schema import Provider
from core.headers import Headers
from proxy.providers import build_adapter
from proxy.providers.base import Call
from proxy.providers.echo import Echo, EchoOptions
from proxy.providers.echo.chat import example
from proxy.providers.echo.faults import FAULTS, PADDING_BYTES
from proxy.providers.echo.requests import Schema
from proxy.providers.openai_compatible import OpenAIOptions
from transport.messages import Clocks, UpstreamRequest
from transport.script import Head, Receive, Received, Refuse, Script, Send, Step, Wait

DOCS = Path(__file__).parents[3] / "docs" / "providers.md"
HELLO = {"model": "any", "messages": [{"role": "user", "content": "Hello big world"}]}
CLOCKS = Clocks(None, None, None)


def echo(**options: Any) -> Echo:
    return Echo(Provider(name="demo", type="echo", options=options))


def asked(
    path: str, body: Any = None, *, method: str = "POST", content_type: str = "application/json"
) -> UpstreamRequest:
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = Headers([("content-type", content_type)])
    return echo().prepare(Call(method, path, "", headers, raw, None, None, CLOCKS), None)


def steps(path: str, body: Any = None, of: Echo | None = None, **rest: Any) -> list[Step]:
    script = (of or echo()).respond(asked(path, body, **rest))
    assert isinstance(script, Script)
    return list(script.steps)


def head_of(played: list[Step]) -> Head:
    return next(step for step in played if isinstance(step, Head))


def sent(played: list[Step]) -> bytes:
    return b"".join(step.data for step in played if isinstance(step, Send))


def answer(path: str, body: Any = None, **rest: Any) -> tuple[int, Any]:
    played = steps(path, body, **rest)
    assert str(len(sent(played))) == head_of(played).headers.get("content-length")
    return head_of(played).status, json.loads(sent(played))


def events(path: str, body: Any) -> list[Any]:
    """The data of each event, parsed; `[DONE]` as it is."""
    played = steps(path, body | {"stream": True})
    assert (200, "text/event-stream; charset=utf-8") == (
        head_of(played).status,
        head_of(played).headers.get("content-type"),
    )
    return [parsed(step.data) for step in played if isinstance(step, Send)]


def parsed(event: bytes) -> Any:
    assert event.endswith(b"\n\n")
    data = re.search(rb"^data: (.*)$", event, re.MULTILINE)
    assert data is not None
    return "[DONE]" if data[1] == b"[DONE]" else json.loads(data[1])


# Chat completions


def test_the_answer_is_the_last_message() -> None:
    status, body = answer("/chat/completions", HELLO)
    assert 200 == status
    assert ("chat.completion", "any", 1_700_000_000) == (body["object"], body["model"], body["created"])
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", body["id"])
    message = {"role": "assistant", "content": "Hello big world", "refusal": None}
    assert [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}] == body["choices"]
    assert {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6} == body["usage"]


def test_the_same_request_gives_the_same_bytes_and_another_another_id() -> None:
    first, second = (sent(steps("/chat/completions", HELLO)) for _ in range(2))
    assert first == second
    other = answer("/chat/completions", HELLO | {"model": "other"})[1]
    assert json.loads(first)["id"] != other["id"]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "tool", "content": "22 degrees"}], "22 degrees"),
        ([{"role": "system", "content": "be kind"}], "Nothing to echo."),
        ([{"role": "user", "content": None}], "Nothing to echo."),
        ([{"role": "user", "content": "  spaces \n and\tlines  "}], "  spaces \n and\tlines  "),
        ([], "Nothing to echo."),
    ],
)
def test_which_text_is_echoed(messages: list[Any], said: str) -> None:
    body = {"model": "any", "messages": messages}
    assert said == answer("/chat/completions", body)[1]["choices"][0]["message"]["content"]
    chunks = [chunk for chunk in events("/chat/completions", body) if chunk != "[DONE]"]
    assert said == "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_a_stream_has_one_word_an_event_and_ends_with_done() -> None:
    chunks = events("/chat/completions", HELLO)
    deltas = [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in chunks[:-1]]
    assert [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({"content": "Hello"}, None),
        ({"content": " big"}, None),
        ({"content": " world"}, None),
        ({}, "stop"),
    ] == deltas
    assert "[DONE]" == chunks[-1]
    assert {("chat.completion.chunk", chunks[0]["id"])} == {(chunk["object"], chunk["id"]) for chunk in chunks[:-1]}
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_usage_comes_in_a_last_chunk_where_it_is_asked_for() -> None:
    chunks = events("/chat/completions", HELLO | {"stream_options": {"include_usage": True}})
    assert [None] * 5 == [chunk["usage"] for chunk in chunks[:5]]
    assert ([], {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}) == (
        chunks[5]["choices"],
        chunks[5]["usage"],
    )
    assert ["[DONE]"] == chunks[6:]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_limit_on_tokens_cuts_the_answer(limit: str) -> None:
    body = answer("/chat/completions", HELLO | {limit: 2})[1]
    assert ("Hello big", "length", 2) == (
        body["choices"][0]["message"]["content"],
        body["choices"][0]["finish_reason"],
        body["usage"]["completion_tokens"],
    )


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}


@pytest.mark.parametrize(
    ("choice", "text", "called"),
    [
        ({"type": "function", "function": {"name": "get_time"}}, "Hello", "get_time"),
        ("required", "Hello", "get_weather"),
        ("auto", "Please call get_time now", "get_time"),
        (None, "What does `get_weather` say?", "get_weather"),
        (None, "Hello", None),
        ("auto", "get_weathers", None),
        ("none", "Please call get_time now", None),
    ],
)
def test_which_tool_is_called(choice: Any, text: str, called: str | None) -> None:
    body = {
        "model": "any",
        "messages": [{"role": "user", "content": text}],
        "tools": [WEATHER, TIME],
        "tool_choice": choice,
    }
    choice_made = answer("/chat/completions", body)[1]["choices"][0]
    if called is None:
        assert ("stop", text) == (choice_made["finish_reason"], choice_made["message"]["content"])
        return
    assert ("tool_calls", None) == (choice_made["finish_reason"], choice_made["message"]["content"])
    (call,) = choice_made["message"]["tool_calls"]
    assert ("function", called) == (call["type"], call["function"]["name"])
    expected = {"city": text, "days": 0} if called == "get_weather" else {}
    assert expected == json.loads(call["function"]["arguments"])
    # Streamed, it is the same call in pieces.
    deltas = [chunk["choices"][0]["delta"] for chunk in events("/chat/completions", body)[:-1]]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    assert (called, "") == (pieces[0]["function"]["name"], pieces[0]["function"]["arguments"])
    assert expected == json.loads("".join(piece["function"]["arguments"] for piece in pieces))
    assert all("id" not in piece for piece in pieces[1:])


def test_after_a_tools_result_the_tool_is_not_called_again() -> None:
    messages = [{"role": "user", "content": "call get_time"}, {"role": "tool", "content": "get_time says noon"}]
    body = {"model": "any", "messages": messages, "tools": [TIME]}
    assert "get_time says noon" == answer("/chat/completions", body)[1]["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "hi"),
        ({"type": ["string", "null"]}, "hi"),
        ({"type": "string", "enum": ["c", "f"]}, "c"),
        ({"type": "number"}, 0),
        ({"type": "boolean"}, False),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "null"}, None),
        ({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": True}}}}, {"a": {"b": "hi"}}),
        ({"type": []}, {}),
        ({}, {}),
    ],
)
def test_arguments_fit_their_schema(schema: Any, value: Any) -> None:
    made = example(msgspec.json.decode(json.dumps(schema), type=Schema), "hi")
    assert value == json.loads(msgspec.json.encode(made))


# Completions, embeddings, responses, models


def test_completions_answer_each_prompt() -> None:
    body = answer("/completions", {"model": "any", "prompt": ["one two", [1, 2, 3], ""], "max_tokens": 2})[1]
    assert ("text_completion", ["one two", "1 2", "Nothing to"], ["stop", "length", "length"]) == (
        body["object"],
        [choice["text"] for choice in body["choices"]],
        [choice["finish_reason"] for choice in body["choices"]],
    )
    assert {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11} == body["usage"]


def test_completions_stream() -> None:
    chunks = events("/completions", {"model": "any", "prompt": "one two", "stream_options": {"include_usage": True}})
    assert [("one", None), (" two", "stop")] == [
        (chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]) for chunk in chunks[:2]
    ]
    assert 4 == chunks[2]["usage"]["total_tokens"]
    assert ["[DONE]"] == chunks[3:]


@pytest.mark.parametrize(
    ("given", "count"),
    [("a text", 1), (["a text", "another"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)],
)
def test_embeddings_are_unit_vectors_that_follow_from_the_text(given: Any, count: int) -> None:
    status, body = answer("/embeddings", {"model": "any", "input": given, "dimensions": 8})
    assert (200, "list", "any") == (status, body["object"], body["model"])
    assert list(range(count)) == [entry["index"] for entry in body["data"]]
    vectors = [entry["embedding"] for entry in body["data"]]
    assert all(8 == len(vector) and math.isclose(1, math.hypot(*vector), rel_tol=1e-6) for vector in vectors)
    assert count == len({tuple(vector) for vector in vectors})
    packed = answer("/embeddings", {"model": "any", "input": given, "dimensions": 8, "encoding_format": "base64"})[1]
    assert vectors == [list(struct.unpack("<8f", base64.b64decode(entry["embedding"]))) for entry in packed["data"]]


def test_embeddings_have_1536_numbers_unless_told_otherwise() -> None:
    body = answer("/embeddings", {"model": "any", "input": "one two"})[1]
    assert 1536 == len(body["data"][0]["embedding"])
    assert {"prompt_tokens": 2, "total_tokens": 2} == body["usage"]


def test_a_response_is_one_message() -> None:
    body = {"model": "any", "instructions": "be kind", "input": "Hello world"}
    answered = answer("/responses", body)[1]
    assert ("response", "completed", None) == (answered["object"], answered["status"], answered["error"])
    part = {"type": "output_text", "text": "Hello world", "annotations": [], "logprobs": []}
    assert [part] == answered["output"][0]["content"]
    assert (4, 2, 6) == tuple(answered["usage"][key] for key in ("input_tokens", "output_tokens", "total_tokens"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], "hi"),
        ([{"role": "user", "content": "a"}, {"type": "function_call_output", "call_id": "c", "output": "b"}], "b"),
        ([], "Nothing to echo."),
        ("", "Nothing to echo."),
    ],
)
def test_which_input_is_echoed(given: Any, said: str) -> None:
    assert said == answer("/responses", {"model": "any", "input": given})[1]["output"][0]["content"][0]["text"]


def test_a_streamed_response_has_the_events_of_the_api_in_order() -> None:
    body = {"model": "any", "input": "Hello world"}
    said = events("/responses", body)
    assert [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ] == [event["type"] for event in said]
    assert list(range(10)) == [event["sequence_number"] for event in said]
    assert ["Hello", " world"] == [event["delta"] for event in said[4:6]]
    whole = answer("/responses", body)[1]
    assert {**whole, "id": said[-1]["response"]["id"], "output": said[-1]["response"]["output"]} == said[-1]["response"]
    named = sent(steps("/responses", body | {"stream": True})).split(b"\n\n")
    assert b"event: response.created" == named[0].split(b"\n")[0]


def test_every_name_is_a_model() -> None:
    listed = answer("/models", method="GET")[1]
    assert ("list", "echo", "status-503") == (listed["object"], listed["data"][0]["id"], listed["data"][1]["id"])
    model = {"id": "a/b", "object": "model", "created": 1_700_000_000, "owned_by": "echo"}
    assert (200, model) == answer("/models/a/b", method="GET")


# Uploads

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\nContent-Type: text/plain\r\n\r\n{}\r\n--b--\r\n'
)


def test_an_uploaded_file_is_counted() -> None:
    status, body = answer("/files", FORM, content_type="multipart/form-data; boundary=b")
    assert (200, "file", len(FORM), "a.jsonl", "batch") == (
        status,
        body["object"],
        body["bytes"],
        body["filename"],
        body["purpose"],
    )
    assert re.fullmatch(r"file-[0-9a-f]{24}", body["id"])


def test_a_streamed_upload_is_taken_in_before_it_is_answered() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b""

    call = Call(
        "POST",
        "/audio/transcriptions",
        "",
        Headers([("content-type", "multipart/form-data")]),
        pieces(),
        None,
        None,
        CLOCKS,
    )
    plan = echo().respond(echo().prepare(call, None))
    assert isinstance(plan, Receive)
    played = list(plan.then(Received(1 << 40, "0" * 64, b"no form")).steps)
    assert {"text": f"Received {1 << 40} bytes."} == json.loads(sent(played))


def test_an_upload_may_name_a_fault_too() -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nrefuse\r\n--b--\r\n'
    assert [Refuse()] == steps("/audio/transcriptions", form, content_type="multipart/form-data; boundary=b")


def test_a_streamed_json_body_that_was_not_kept_whole_is_too_large() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b""

    plan = echo().respond(UpstreamRequest("POST", "echo://demo/embeddings", Headers(), pieces(), None, CLOCKS))
    assert isinstance(plan, Receive)
    assert 413 == head_of(list(plan.then(Received(plan.keep_bytes + 1, "", b"{}")).steps)).status


# Requests that are wrong


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/chat/completions", b"", "invalid_json", None),
        ("/chat/completions", b"{", "invalid_json", None),
        ("/chat/completions", b"\xff", "invalid_json", None),
        ("/chat/completions", {"messages": []}, "invalid_type", None),
        ("/chat/completions", {"model": 7, "messages": []}, "invalid_type", None),
        ("/chat/completions", HELLO | {"n": 2}, "unsupported_value", "n"),
        (
            "/chat/completions",
            HELLO | {"tools": [TIME], "tool_choice": {"function": {"name": "x"}}},
            "invalid_value",
            "tool_choice",
        ),
        ("/chat/completions", HELLO | {"tool_choice": {"type": "custom"}}, "invalid_value", "tool_choice"),
        ("/embeddings", {"model": "any", "input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
        ("/embeddings", {"model": "any", "input": "a", "dimensions": 1 << 40}, "invalid_value", "dimensions"),
        ("/embeddings", {"model": "any", "input": "a", "encoding_format": "x"}, "invalid_value", "encoding_format"),
        ("/embeddings", {"model": "any", "input": []}, "invalid_value", "input"),
        ("/files", FORM, "invalid_content_type", None),
    ],
)
def test_a_wrong_request_gets_openais_error(path: str, body: Any, code: str, param: str | None) -> None:
    status, answered = answer(path, body)
    assert (400, "invalid_request_error", code, param) == (
        status,
        *(answered["error"][key] for key in ("type", "code", "param")),
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/images/generations"), ("POST", "/moderations"), ("GET", "/files"), ("GET", "/responses/resp_1")],
)
def test_what_is_not_rehearsed_says_so(method: str, path: str) -> None:
    status, answered = answer(path, method=method)
    assert (404, "not_rehearsed") == (status, answered["error"]["code"])
    assert f"does not answer {method} {path}" in answered["error"]["message"]
    assert "POST /chat/completions" in answered["error"]["message"]


# Pace and options


def test_the_pace_is_configured() -> None:
    slow = echo(delay_seconds=2, interval_seconds=0.5)
    assert [Wait(2)] == [step for step in steps("/chat/completions", HELLO, slow) if isinstance(step, Wait)]
    streamed = steps("/chat/completions", HELLO | {"stream": True}, slow)
    assert isinstance(streamed[0], Head)
    assert [Wait(2), *[Wait(0.5)] * 5] == [step for step in streamed if isinstance(step, Wait)]


def test_a_pace_of_zero_waits_not_at_all() -> None:
    streamed = steps("/chat/completions", HELLO | {"stream": True}, echo(interval_seconds=0))
    assert not any(isinstance(step, Wait) for step in streamed)


@pytest.mark.parametrize("value", [-1, "fast", 3601, math.inf, math.nan, None])
def test_a_pace_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigFaults) as failed:
        echo(delay_seconds=value)
    assert [("options", "delay_seconds")] == [fault.path for fault in failed.value.faults]


def test_what_a_provider_without_a_network_has_no_use_for_is_refused() -> None:
    entry = Provider(name="demo", type="echo", base_url="http://h", headers={"a": "b"}, options={"delay_second": 1})
    with pytest.raises(ConfigFaults) as failed:
        build_adapter(entry)
    assert {("base_url",), ("headers",), ("options", "delay_second")} == {fault.path for fault in failed.value.faults}
    assert "did you mean `delay_seconds`?" in str(failed.value)


def test_its_address_is_none_that_exists() -> None:
    assert "echo://demo/models?a=b" == echo().url("/models", "a=b")


# Faults


def outline(played: list[Step]) -> list[str]:
    """The steps by name, runs of sendings and waits as one."""
    names: list[str] = []
    for step in played:
        name = type(step).__name__
        if name != "Wait" and (not names or names[-1] != name):
            names.append(name)
    return names


@pytest.mark.parametrize(
    ("model", "streamed", "whole"),
    [
        ("refuse", ["Refuse"], ["Refuse"]),
        ("unreachable", ["Unreachable"], ["Unreachable"]),
        ("stall", ["Stall"], ["Stall"]),
        ("cut-early", ["Cut"], ["Cut"]),
        ("cut", ["Head", "Send", "Cut"], ["Head", "Send", "Cut"]),
        ("stall-stream", ["Head", "Send", "Stall"], ["Head", "Send", "Stall"]),
        ("error-event", ["Head", "Send"], ["Head", "Send"]),
        ("error-midstream", ["Head", "Send"], ["Head", "Send"]),
        ("slow", ["Head", "Send"], ["Head", "Send"]),
        ("empty", ["Head"], ["Head"]),
        ("garbage", ["Head", "Send"], ["Head", "Send"]),
        ("huge", ["Head", "Send"], ["Head", "Send"]),
        ("status-503", ["Head", "Send"], ["Head", "Send"]),
        ("context-exceeded", ["Head", "Send"], ["Head", "Send"]),
        ("content-refused", ["Head", "Send"], ["Head", "Send"]),
    ],
)
def test_a_model_named_after_a_fault_fails_in_that_way(model: str, streamed: list[str], whole: list[str]) -> None:
    assert streamed == outline(steps("/chat/completions", HELLO | {"model": model, "stream": True}))
    assert whole == outline(steps("/chat/completions", HELLO | {"model": model}))
    assert model.replace("503", "NNN") in FAULTS


@pytest.mark.parametrize("status", [400, 401, 404, 418, 429, 500, 503, 599])
def test_a_status_can_be_asked_for(status: int) -> None:
    played = steps("/chat/completions", HELLO | {"model": f"status-{status}", "stream": True})
    head = head_of(played)
    assert (status, "application/json") == (head.status, head.headers.get("content-type"))
    assert ("1" if status in (429, 503) else None) == head.headers.get("retry-after")
    assert ("server_error" if status >= 500 else "invalid_request_error") == json.loads(sent(played))["error"]["type"]


@pytest.mark.parametrize("name", ["status-200", "status-600", "status-5033", "cut ", "CUT", "echo"])
def test_any_other_name_answers(name: str) -> None:
    assert 200 == answer("/chat/completions", HELLO | {"model": name})[0]


@pytest.mark.parametrize("model", ["context-exceeded", "content-refused", "status-401", "status-429", "status-503"])
def test_rehearsed_errors_are_classed_like_real_ones(model: str) -> None:
    played = steps("/chat/completions", HELLO | {"model": model})
    found = echo().classify(head_of(played).status, head_of(played).headers, sent(played))
    assert {
        "context-exceeded": "context_length_exceeded",
        "content-refused": "content_policy_violation",
        "status-401": "upstream_credentials_rejected",
        "status-429": "rate_limit_exceeded",
        "status-503": "upstream_unavailable",
    }[model] == found.code


def test_a_cut_document_is_shorter_than_it_said() -> None:
    played = steps("/chat/completions", HELLO | {"model": "cut"})
    assert 0 < len(sent(played)) < int(head_of(played).headers.get("content-length") or 0)


@pytest.mark.parametrize(("path", "body"), [("/chat/completions", HELLO), ("/responses", {"input": "Hello big world"})])
def test_error_events_are_whole_and_end_the_stream(path: str, body: Any) -> None:
    first = events(path, body | {"model": "error-event"})
    assert 1 == len(first)
    assert "error" in first[0] or first[0]["type"] == "error"
    mid = events(path, body | {"model": "error-midstream"})
    assert len(mid) >= 3
    assert "error" in mid[-1] or mid[-1]["type"] == "error"
    assert "[DONE]" not in mid


def test_a_huge_answer_is_still_an_answer() -> None:
    played = steps("/chat/completions", HELLO | {"model": "huge"})
    assert str(len(sent(played))) == head_of(played).headers.get("content-length")
    assert len(sent(played)) > PADDING_BYTES
    assert "Hello big world" == json.loads(sent(played))["choices"][0]["message"]["content"]
    events_ = sent(steps("/chat/completions", HELLO | {"model": "huge", "stream": True})).split(b"\n\n")
    assert PADDING_BYTES == sum(len(event) + 2 for event in events_ if event.startswith(b":"))
    assert b"data: [DONE]" == events_[-2]


def test_an_empty_answer_says_that_it_is_empty() -> None:
    head = head_of(steps("/chat/completions", HELLO | {"model": "empty"}))
    assert (200, "0") == (head.status, head.headers.get("content-length"))


def test_a_wrong_request_gets_its_error_though_its_model_is_a_fault() -> None:
    assert 400 == answer("/embeddings", {"model": "stall", "input": []})[0]


# Documentation


def test_the_documentation_shows_the_table_of_faults() -> None:
    shown = DOCS.read_text().split("<!-- faults: ")[1].split("<!-- end of faults -->")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", shown, re.MULTILINE)
    assert [(name, fault.summary) for name, fault in FAULTS.items()] == rows


def test_the_documentation_names_every_option_and_type() -> None:
    shown = DOCS.read_text()
    for kind in (EchoOptions, OpenAIOptions):
        for field in msgspec.structs.fields(kind):
            assert f"| `{field.encode_name}` |" in shown
