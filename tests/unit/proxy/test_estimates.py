"""What was used where nobody tells: of requests, of whole answers, of streams however they end."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from core.usage import Usage
from proxy.body import Document
from proxy.dialects import DIALECTS
from proxy.dialects.base import Ending
from proxy.estimates import MOST_TOKENS, asked_output, estimated_input, tokens_said
from proxy.intake import Inbound
from proxy.relay import EventRelay
from tests.exchange import DONE, Plane, Provider, answer, request, stream, until
from transport.script import Cut, Head, Stall, Step

CHAT = DIALECTS["openai-chat"]


def inbound(**members: Any) -> Inbound:
    return Inbound("m", document=Document(json.dumps({"model": "m", **members}, separators=(",", ":")).encode()))


def picture(size: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}}


def sound(size: int) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"format": "wav", "data": "A" * size}}


def message(*parts: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": parts}]}


INPUTS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 0),
    "a prompt": ({"prompt": "x" * 38}, 10),
    "messages with their roles": ({"messages": [{"role": "user", "content": "x" * 96}]}, 31),
    "instructions and input": ({"instructions": "x" * 18, "input": "x" * 18}, 10),
    "tools are worth less": ({"tools": [{"x": "y" * 50}]}, 10),
    "what is no text": ({"temperature": 0.5, "metadata": {"x": "y" * 1000}, "user": "x" * 400}, 0),
}


@pytest.mark.parametrize("case", INPUTS)
def test_a_request_is_measured_by_its_texts(case: str) -> None:
    members, expected = INPUTS[case]
    assert expected == estimated_input(inbound(**members))


@pytest.mark.parametrize("part", [picture, sound])
def test_what_is_sent_within_the_body_does_not_count_as_text(part: Any) -> None:
    small, large = (estimated_input(inbound(**message(part(size)))) for size in (5_000, 500_000))
    assert small == large
    assert 1000 <= small < 1050
    assert 2000 <= estimated_input(inbound(**message(part(5_000), part(60_000)))) < 2100


def test_a_long_text_that_only_looks_like_a_picture_counts_as_text() -> None:
    text = "I see ;base64, and then " + "many words " * 1000
    assert len(text) // 4 <= estimated_input(inbound(**message({"type": "text", "text": text}))) < len(text) // 4 + 30


@pytest.mark.parametrize("text", ['"input_audio"', '"input_audio","data"', '"input_audio","data":"', '";base64,'])
def test_marks_of_pictures_and_sounds_where_there_are_none_count_as_text(text: str) -> None:
    members = {"input_audio": text, text: [text] * 9, "messages": [text * 1000], "x": {"input_audio": 7, "data": 7}}
    assert len(text) * 250 <= estimated_input(inbound(**members)) < len(text) * 500 + 100


def test_a_request_that_is_not_json_counts_nothing() -> None:
    assert (0, None) == (estimated_input(Inbound("m", raw=b"x")), asked_output(Inbound("m", raw=b"x")))


ASKED: list[tuple[dict[str, Any], int | None]] = [
    ({}, None),
    ({"max_tokens": 7}, 7),
    ({"max_completion_tokens": 7}, 7),
    ({"max_output_tokens": 7}, 7),
    ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
    ({"max_tokens": 7, "n": 3}, 21),
    ({"max_tokens": 7, "n": None}, 7),
    ({"max_tokens": 7, "n": -3}, 7),
    ({"n": 3}, None),
    ({"max_tokens": None}, None),
    ({"max_tokens": 0}, None),
    ({"max_tokens": -7}, None),
    ({"max_tokens": "7"}, None),
    ({"max_tokens": 7.5}, None),
    ({"max_tokens": True}, None),
    ({"max_tokens": [7]}, None),
    ({"max_tokens": 10**400}, MOST_TOKENS),
    ({"max_tokens": 10**15, "n": 10**15}, MOST_TOKENS),
]


@pytest.mark.parametrize(("members", "expected"), ASKED)
def test_a_request_may_state_how_much_it_asks_for(members: dict[str, Any], expected: int | None) -> None:
    assert expected == asked_output(inbound(**members))


WHOLE: list[tuple[object, int]] = [
    ({"choices": [{"message": {"role": "assistant", "content": "x" * 40}}]}, 10),
    ({"choices": [{"message": {"content": None, "tool_calls": [{"function": {"arguments": "x" * 9}}]}}]}, 3),
    ({"choices": [{"text": "x"}, {"text": "x"}]}, 1),
    ({"data": [{"embedding": [0.5] * 99}]}, 0),
]


@pytest.mark.parametrize(("value", "expected"), WHOLE)
def test_a_whole_answer_is_measured_by_what_the_model_says(value: object, expected: int) -> None:
    assert expected == tokens_said(json.dumps(value).encode(), CHAT.text)


def test_of_a_long_answer_the_beginning_is_read() -> None:
    value = {"choices": [{"text": "x" * 40} for _ in range(20_000)]}
    assert 200_000 == pytest.approx(tokens_said(json.dumps(value).encode(), CHAT.text), rel=0.01)


# Streams


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    value = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps({**value, **more}, separators=(",", ":")).encode() + b"\n\n"


def say(*texts: str, **more: Any) -> list[bytes]:
    return [chunk({"content": text}, **more) for text in texts]


def padded(*texts: str) -> list[bytes]:
    return [chunk({"content": text}, usage=None, obfuscation="x" * (9 - len(text))) for text in texts]


def response(*texts: str) -> list[bytes]:
    kind = "response.output_text.delta"
    values = [
        {"type": kind, "sequence_number": number, "item_id": "msg_1", "delta": text, "obfuscation": "x" * number}
        for number, text in enumerate(texts)
    ]
    return [f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode() for value in values]


ROLE = chunk({"role": "assistant", "content": ""})
STOP = chunk({}, "stop")
WORDS = ["The ", "qui", "ck ", "\n", "br\\own", '"fox"', "{", "jumps", "größe", "[DONE]", "error"]
SENTENCE = "A sentence at a time, as some do. "
TALKS: dict[str, tuple[str, list[bytes], int, int]] = {
    "a token at a time": ("openai-chat", [ROLE, *say(*WORDS), STOP], 11, 11),
    "padded": ("openai-chat", [*padded("a", "bc", "d", "efg", "h"), STOP], 5, 5),
    "a sentence at a time": ("openai-chat", [ROLE, *say(*[SENTENCE] * 20), STOP], 20, 170),
    "calls of tools": (
        "openai-chat",
        [chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}) for text in ("{", '"a"', ":1}")],
        3,
        3,
    ),
    "two choices at once": ("openai-chat", [*say("a"), *say("b", system_fingerprint="f")] * 30, 60, 60),
    "ever different": ("openai-chat", [chunk({"content": "word"}, created=number) for number in range(50)], 50, 50),
    "reasons first": ("openai-chat", [*[chunk({"reasoning_content": "hm"})] * 9, *say("a", "b", "c"), STOP], 12, 12),
    "a response": ("openai-responses", [b'data: {"type":"response.created"}\n\n', *response(*WORDS)], 11, 11),
    "with CRLF": ("openai-chat", [each.replace(b"\n", b"\r\n") for each in say(*WORDS)], 11, 11),
    "nothing": ("openai-chat", [ROLE, STOP], 0, 0),
    "no JSON": ("openai-chat", [b"data: {\n\n", b'data: "choices"\n\n'], 0, 0),
}


@pytest.mark.parametrize("case", TALKS)
def test_a_stream_is_measured_by_its_events_and_what_they_say(case: str) -> None:
    dialect, events, said, tokens = TALKS[case]
    relay = EventRelay(DIALECTS[dialect], None)
    for event in events:
        assert event == relay.feed(event)
    assert (said, tokens) == (relay.spoken.events, relay.spoken.tokens)


@pytest.mark.parametrize("case", [case for case in TALKS if case != "with CRLF"])
def test_events_that_come_together_are_measured_alike(case: str) -> None:
    dialect, events, _, tokens = TALKS[case]
    whole = b"".join(events)
    for size in (50, 700, 3000):
        relay = EventRelay(DIALECTS[dialect], None)
        for at in range(0, len(whole), size):
            relay.feed(whole[at : at + size])
        assert tokens == relay.spoken.tokens


@pytest.mark.parametrize("size", [1, 200, 700, 10_000])
def test_what_was_said_behind_a_usage_is_measured_however_it_comes(size: int) -> None:
    told = chunk({"content": "d"}, usage={"prompt_tokens": 3, "completion_tokens": 4})
    whole = b"".join([*say("a", "b", "c"), told, *say("e", "f")])
    relay = EventRelay(CHAT, None)
    for at in range(0, len(whole), size):
        relay.feed(whole[at : at + size])
    assert (Usage(3, 4), 2) == (relay.usage, relay.spoken.events)


def test_what_else_an_event_tells_is_not_passed_over() -> None:
    relay = EventRelay(CHAT, None)
    for event in say("a", "b", "c"):
        relay.feed(event)
    relay.feed(chunk({"content": "d"}, usage={"prompt_tokens": 3, "completion_tokens": 4}))
    assert (Usage(3, 4), 0) == (relay.usage, relay.spoken.events)
    relay.feed(b"".join(say("a", "b")) + chunk({"content": "d"}, "stop") + b'data: {"error":"boom"}\n\n')
    assert (Ending.ALLOWED, "the provider answered with an error: boom") == (relay.ending, relay.failure)


# Through the pipeline

ASKED_FOR = {"model": "m", "messages": [{"role": "user", "content": "x" * 96}]}
STREAM = {**ASKED_FOR, "stream": True}
IN = 31
TOLD = chunk({}, usage={"prompt_tokens": 5, "completion_tokens": 2})
ENDS: dict[str, tuple[Iterable[bytes | Step], Usage]] = {
    "well": ([*say(*"abcd"), STOP, DONE], Usage(IN, 4, estimated=True)),
    "well, and told": ([*say(*"abcd"), STOP, TOLD, DONE], Usage(5, 2)),
    "well, told too early": ([TOLD, *say(*"abcd"), STOP, DONE], Usage(5, 2)),
    "well, told nothing": ([*say(*"abcd"), STOP, chunk({}, usage={}), DONE], Usage(IN, 4, estimated=True)),
    "cut": ([*say(*"abcd"), Cut()], Usage(IN, 4, estimated=True)),
    "cut before a word": ([ROLE, Cut()], Usage(IN, 0, estimated=True)),
    "cut after it was told": ([*say(*"abc"), TOLD, Cut()], Usage(5, 2)),
    "cut some time after it was told": ([TOLD, *say(*"abc"), Cut()], Usage(5, 5, estimated=True)),
    "politely, too early": ([*say(*"abcd")], Usage(IN, 4, estimated=True)),
    "by an error of the provider": ([*say(*"abcd"), b'data: {"error":"boom"}\n\n'], Usage(IN, 4, estimated=True)),
    "without its blank line": ([*say(*"abc"), STOP[:-2]], Usage(IN, 3, estimated=True)),
}


@pytest.mark.parametrize("case", ENDS)
async def test_what_a_stream_used_is_known_however_it_ends(case: str) -> None:
    steps, expected = ENDS[case]
    gateway = Plane(Provider("up", [stream(*steps)]))
    await gateway.post(STREAM)
    assert expected == gateway.record.usage


async def test_a_client_that_leaves_has_used_what_came_until_then() -> None:
    gateway = Plane(Provider("up", [stream(*say(*"abc"), Stall())]))
    exchange = request(body=json.dumps(STREAM, separators=(",", ":")).encode())
    task = gateway.begin(exchange)
    await until(lambda: len(exchange.pieces) == 3)
    exchange.leave()
    await asyncio.wait([task])
    assert ("client_closed", Usage(IN, 3, estimated=True)) == (gateway.record.error_code, gateway.record.usage)


WHOLE_ANSWERS: dict[str, tuple[str, tuple[Step, ...], Usage | None]] = {
    "one that tells": ("/v1/chat/completions", answer(b'{"usage":{"prompt_tokens":3}}'), Usage(3)),
    "one that does not": (
        "/v1/chat/completions",
        answer(b'{"choices":[{"message":{"content":"12345678"}}]}'),
        Usage(IN, 2, estimated=True),
    ),
    "a response": (
        "/v1/responses",
        answer(b'{"output":[{"content":[{"text":"1234"}]}]}'),
        Usage(IN, 1, estimated=True),
    ),
    "embeddings": ("/v1/embeddings", answer(b'{"data":[{"embedding":"1234"}]}'), Usage(IN, 0, estimated=True)),
    "one of another type": (
        "/v1/completions",
        answer(b"12345678", [("content-type", "text/plain")]),
        Usage(IN, 2, estimated=True),
    ),
    "embeddings of another type": (
        "/v1/embeddings",
        answer(b"12345678", [("content-type", "text/plain")]),
        Usage(IN, 0, estimated=True),
    ),
    "moderations have no tokens": ("/v1/moderations", answer(b'{"results":[]}'), None),
    "nor has a ranking": ("/v1/rerank", answer(b'{"results":[{"text":"12345678"}]}'), None),
    "an error": ("/v1/chat/completions", answer(b"{}", status=400), None),
}


@pytest.mark.parametrize("case", WHOLE_ANSWERS)
async def test_what_a_whole_answer_used_is_known(case: str) -> None:
    path, steps, expected = WHOLE_ANSWERS[case]
    gateway = Plane(Provider("up", [steps]))
    await gateway.post({**ASKED_FOR, "input": "x" * 122, "messages": []}, path)
    assert expected == gateway.record.usage


async def test_an_attempt_that_failed_before_its_first_word_uses_nothing() -> None:
    gateway = Plane(Provider("up", [(Head(200, stream()[0].headers), Cut())]))  # type: ignore[union-attr]
    await gateway.post(STREAM)
    assert gateway.record.usage is None
