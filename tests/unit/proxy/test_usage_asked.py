"""`include_usage`: the gateway asks for a stream's usage in the client's stead, and the client does not see it."""

import json
from typing import Any

import pytest

from core.usage import Usage
from proxy.unasked import without_usage
from tests.exchange import DONE, Plane, Provider, answer, stream
from transport.script import Cut

ONE = b'data: {"model":"gpt-9","choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
STOP = b'data: {"model":"gpt-9","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
EXTRA = b'data: {"model":"gpt-9","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
CHUNKS = (ONE, STOP, EXTRA, DONE)
ASK = {"model": "m", "stream": True}

# The event as the provider sends it, and as the client gets it; None: as it is.
EVENTS: dict[str, tuple[bytes, bytes | None]] = {
    "the extra chunk": (EXTRA, b""),
    "the extra chunk, spelled loosely": (b'data:{ "usage" : {"a":1} , "choices" : [ ] }\r\n\r\n', b""),
    "the extra chunk with all its fields": (b'id: 7\nevent: x\ndata: {"choices":[],"usage":{"a":1},"x":[2]}\n\n', b""),
    "the extra chunk on several lines": (b'data: {"choices":[],\ndata: "usage":{"a":1}}\n\n', b""),
    "the extra chunk without its blank line": (EXTRA[:-2], b""),
    "usage beside a choice": (b'data: {"choices":[{"index":0}],"usage":{"a":1}}\n\n', None),
    "usage without choices": (b'data: {"usage":{"a":1}}\n\n', None),
    "usage beside an error": (b'data: {"choices":[],"error":{"message":"x"},"usage":{"a":1}}\n\n', None),
    "Azure's first chunk": (b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n', None),
    "Azure's first chunk with null": (
        b'data: {"choices":[],"prompt_filter_results":[],"usage":null}\n\n',
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
    ),
    "null at the end": (b'data: {"choices":[{}],"usage":null}\n\n', b'data: {"choices":[{}]}\n\n'),
    "null before padding": (
        b'data: {"choices":[{}],"usage":null,"obfuscation":"xy"}\n\n',
        b'data: {"choices":[{}],"obfuscation":"xy"}\n\n',
    ),
    "null elsewhere": (b'data: {"usage": null, "choices":[{}]}\n\n', b'data: { "choices":[{}]}\n\n'),
    "null with CRLF": (b'data: {"choices":[{}],"usage":null}\r\n\r\n', b'data: {"choices":[{}]}\r\n\r\n'),
    "null further in": (b'data: {"choices":[{"usage":null}],"x":{"usage":null}}\n\n', None),
    "a text that looks like it": (b'data: {"choices":[{"text":",\\"usage\\":null}"}]}\n\n', None),
    "no JSON": (b'data: {"usage":null\n\n', None),
    "a comment": (b': "usage"\n\n', None),
    "the last one": (DONE, None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("case", EVENTS)
def test_what_came_for_the_asking_is_taken_out_and_nothing_else(case: str) -> None:
    event, expected = EVENTS[case]
    assert (event if expected is None else expected) == without_usage(event)
    if event.endswith((b"\n\n", b"\r\n\r\n")):
        shown = event if expected is None else expected
        assert ONE + shown + STOP == without_usage(ONE + event + STOP)


QUESTIONS: dict[str, tuple[str, str | None]] = {
    "no word of it": (
        '{"model":"m","stream":true }',
        '{"model":"m","stream":true ,"stream_options":{"include_usage":true}}',
    ),
    "null": (
        '{"stream_options": null, "model":"m","stream":true}',
        '{"stream_options": {"include_usage":true}, "model":"m","stream":true}',
    ),
    "false": (
        '{"model":"m","stream":true,"stream_options":{ "include_usage" : false, "x":1.0}}',
        '{"model":"m","stream":true,"stream_options":{ "include_usage" : true, "x":1.0}}',
    ),
    "another option": (
        '{"model":"m","stream":true,"stream_options":{"include_obfuscation": false}}',
        '{"model":"m","stream":true,"stream_options":{"include_obfuscation": false,"include_usage":true}}',
    ),
    "true": ('{"model":"m","stream":true,"stream_options":{"include_usage":true}}', None),
    "nonsense": ('{"model":"m","stream":true,"stream_options":{"include_usage":"yes"}}', None),
    "nonsense altogether": ('{"model":"m","stream":true,"stream_options":[true]}', None),
    "said twice": ('{"model":"m","stream":true,"stream_options":{"include_usage":false,"include_usage":true}}', None),
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("case", QUESTIONS)
async def test_the_question_is_added_where_the_client_does_not_ask(case: str, path: str) -> None:
    sent, expected = QUESTIONS[case]
    up = Provider("up", [stream(*CHUNKS)], include_usage=True)
    gateway = Plane(up)
    exchange = await gateway.post(sent.encode(), path)
    assert (sent if expected is None else expected).encode() == up.body
    assert (b"".join(CHUNKS) if expected is None else ONE + STOP + DONE) == exchange.body
    assert Usage(5, 2) == gateway.record.usage


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", ASK),
        ("/v1/embeddings", {"model": "m", "stream": True}),
        ("/v1/chat/completions", {"model": "m"}),
        ("/v1/chat/completions", {"model": "m", "stream": False}),
    ],
)
async def test_elsewhere_nothing_is_asked_and_nothing_taken_out(path: str, body: dict[str, Any]) -> None:
    up = Provider("up", [stream(*CHUNKS)], include_usage=True)
    exchange = await Plane(up).post(body, path)
    assert body == json.loads(up.body)
    assert exchange.body.startswith(ONE + STOP + EXTRA)


OVERRIDES: list[tuple[dict[str, Any], dict[str, Any], object]] = [
    ({"set": {"stream_options": {"x": 1}}}, ASK, {"x": 1}),
    ({"default": {"stream_options": {"x": 1}}}, ASK, {"x": 1}),
    ({"remove": ["stream_options"]}, ASK, None),
    ({"default": {"stream_options": {"x": 1}}}, {**ASK, "stream_options": {"y": 2}}, {"y": 2, "include_usage": True}),
    ({"set": {"temperature": 1}}, ASK, {"include_usage": True}),
]


@pytest.mark.parametrize(("overrides", "body", "expected"), OVERRIDES)
async def test_a_route_that_says_what_is_asked_has_the_last_word(
    overrides: dict[str, Any], body: dict[str, Any], expected: object
) -> None:
    up = Provider("up", [stream(*CHUNKS)], include_usage=True)
    routes = [{"name": "r", "targets": ["up/m"], "overrides": overrides}]
    exchange = await Plane(up, routes=routes).post(body)
    options = json.loads(up.body).get("stream_options")
    assert expected == options
    assert (EXTRA in exchange.body) == (not (options or {}).get("include_usage"))


async def test_each_attempt_is_asked_as_its_provider_wants_it() -> None:
    asked = Provider("asked", [answer(b"{}", status=500)], include_usage=True)
    other = Provider("other", [stream(*CHUNKS)])
    gateway = Plane(
        asked,
        other,
        routes=[{"name": "r", "targets": ["asked/m"], "fallbacks": [["other/m"]], "retry": {"attempts": 1}}],
    )
    exchange = await gateway.post(ASK)
    assert {"include_usage": True} == json.loads(asked.body)["stream_options"]
    assert ASK == json.loads(other.body)
    assert b"".join(CHUNKS) == exchange.body


async def test_under_an_alias_both_are_replaced() -> None:
    up = Provider("up", [stream(*CHUNKS)], include_usage=True)
    exchange = await Plane(up, model_aliases=[{"from": "fast", "to": "up/gpt-9"}]).post({**ASK, "model": "fast"})
    assert {**ASK, "model": "gpt-9", "stream_options": {"include_usage": True}} == json.loads(up.body)
    assert (ONE + STOP + DONE).replace(b"gpt-9", b"fast") == exchange.body


@pytest.mark.parametrize(
    "steps", [(EXTRA, ONE, STOP, DONE), (EXTRA + ONE, STOP, DONE), (EXTRA[:9], EXTRA[9:] + ONE, STOP + DONE)]
)
async def test_the_extra_chunk_may_come_first(steps: tuple[bytes, ...]) -> None:
    gateway = Plane(Provider("up", [stream(*steps)], include_usage=True))
    exchange = await gateway.post(ASK)
    assert ONE + STOP + DONE == exchange.body
    assert Usage(5, 2) == gateway.record.usage


async def test_a_stream_of_the_extra_chunk_alone_is_none() -> None:
    up = Provider("up", [stream(EXTRA), stream(*CHUNKS)], include_usage=True)
    gateway = Plane(up, routes=[{"name": "r", "targets": ["up/m"], "retry": {"attempts": 2, "backoff_seconds": 0}}])
    assert ONE + STOP + DONE == (await gateway.post(ASK)).body
    assert ["1 up/m: upstream_malformed, delivered maybe: retry"] == gateway.attempts


async def test_a_stream_that_is_cut_before_the_extra_chunk_is_estimated() -> None:
    gateway = Plane(Provider("up", [stream(ONE, ONE, Cut())], include_usage=True))
    await gateway.post(ASK)
    assert Usage(0, 2, estimated=True) == gateway.record.usage


async def test_an_answer_that_is_no_stream_all_the_same_is_left_alone() -> None:
    whole = b'{"choices":[],"usage":{"prompt_tokens":5}}'
    gateway = Plane(Provider("up", [answer(whole)], include_usage=True))
    assert whole == (await gateway.post(ASK)).body
    assert Usage(5) == gateway.record.usage
