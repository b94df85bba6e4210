"""What of an answer is read in passing. Its bytes: tests/property/test_relay.py."""

import pytest

from core.usage import Usage
from proxy.dialects import DIALECTS
from proxy.relay import MAX_TAIL_BYTES, MAX_USAGE_BYTES, EventRelay, find_usage, last_usage, rename

CHAT = DIALECTS["openai-chat"]
RESPONSES = DIALECTS["openai-responses"]

USAGES: list[tuple[bytes, Usage | None]] = [
    (b'{"usage":{"prompt_tokens":1}}', Usage(1)),
    (b'{"usage" :\n {"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":1}}}', Usage(1, 0, 1)),
    # Groq's compound models break the usage down by model, further on.
    (b'{"usage":{"prompt_tokens":1},"usage_breakdown":{"models":[{"usage":{"prompt_tokens":7}}]}}', Usage(1)),
    (b'{"usage_breakdown":[{"usage":{"prompt_tokens":7}}],"usage":{"prompt_tokens":1}}', Usage(1)),
    (b'{"response":{"usage":{"prompt_tokens":2}}}', Usage(2)),
    (b'{"response":{"usage":{"prompt_tokens":2}},"usage":{"prompt_tokens":1}}', Usage(1)),
    (b'{"x_groq":{"usage":{"prompt_tokens":3}},"usage":null}', Usage(3)),
    (b'{"response":"text","x":{"usage":{"prompt_tokens":3}}}', Usage(3)),
    (b'{"text":"\\"usage\\": {\\"prompt_tokens\\": 3}"}', None),
    (b'{"usage":null}', None),
    (b'{"usage":[]}', None),
    (b'{"usage":{"prompt_tokens":1}', Usage(1)),
    (b'{"usage":{"prompt_tokens":1', None),
    (b'{"usage":{"prompt_tokens":1E999}}', None),
    (b'{"usage":{"\xff":1}}', None),
    (b'{"usage":{"x":"}","prompt_tokens":1}}', Usage(1)),
    (b'{"usage":{"a":{"usage":{"prompt_tokens":9}},"prompt_tokens":1}', Usage(1)),
    (b'{"a":' + b'{"usage":{"x":' * 40_000, None),
    (b'{"usage":{"x":"' + b"y" * MAX_USAGE_BYTES + b'"}, "z":{"usage":{"prompt_tokens":4}}', Usage(4)),
]


@pytest.mark.parametrize(("document", "usage"), USAGES)
def test_usage_is_found_by_its_place_and_else_wherever_it_stands(document: bytes, usage: Usage | None) -> None:
    assert usage == find_usage(document, CHAT)


# What a client declares is in each response: here it has written counts of its own into the schema of a tool.
FORGED = b'"tools":[{"parameters":{"usage":{"input_tokens":900000,"output_tokens":1}}}]'
REPEATED: list[tuple[bytes, Usage | None]] = [
    (b'{"status":"queued","usage":null,' + FORGED + b"}", None),
    (b"{" + FORGED + b"}", None),
    (b"{" + FORGED + b',"usage":{"input_tokens":5}}', Usage(5)),
    (b'{"usage":{"input_tokens":5},' + FORGED + b"}", Usage(5)),
    (b'{"type":"response.created","response":{"usage":null,' + FORGED + b"}}", None),
    (b'{"type":"response.completed","response":{' + FORGED + b',"usage":{"input_tokens":5}}}', Usage(5)),
    (b"{" + FORGED + b',"usage":{"input_tokens":', None),
]


@pytest.mark.parametrize(("document", "usage"), REPEATED)
def test_usage_that_a_client_had_repeated_does_not_count(document: bytes, usage: Usage | None) -> None:
    assert usage == find_usage(document, RESPONSES)


@pytest.mark.parametrize("head", [b"event: response.%b\ndata: {", b'data: {"type":"response.%b",'])
@pytest.mark.parametrize(("kind", "usage"), [(b"created", None), (b"completed", Usage(5))])
def test_neither_does_it_in_an_event_that_is_torn(head: bytes, kind: bytes, usage: Usage | None) -> None:
    filling = b'"instructions":"' + b"x" * MAX_TAIL_BYTES + b'",'
    own = b',"usage":{"input_tokens":5}' if usage else b',"usage":null'
    event = head % kind + b'"response":{' + filling + FORGED + b"," + filling + FORGED + own + b"}}\n\n"
    relay = EventRelay(RESPONSES, None)
    for start in range(0, len(event), 65_536):
        relay.feed(event[start : start + 65_536])
    assert usage == relay.usage


def test_the_last_event_with_usage_counts() -> None:
    events = b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":2}}\n\ndata: {"usage":null}\n\n'
    assert (Usage(2), events.index(b'data: {"usage":null')) == last_usage(events, CHAT)
    assert (None, 0) == last_usage(b": nothing\n\n", CHAT)


def test_usage_that_later_events_lack_is_kept() -> None:
    relay = EventRelay(CHAT, None)
    relay.feed(b'data: {"usage":{"prompt_tokens":1}}\n\n')
    relay.feed(b'data: {"usage":null}\n\ndata: [DONE]\n\n')
    assert Usage(1) == relay.usage


def test_the_first_word_of_a_failure_counts() -> None:
    relay = EventRelay(CHAT, None)
    relay.feed(b'data: {"error":"first"}\n\n')
    relay.feed(b'data: {"error":"second"}\n\n')
    assert "the provider answered with an error: first" == relay.failure
    assert (True, True) == (relay.may_end, relay.ended)


RENAMED = [
    (b'{"model":"a"}', b'{"model":"X"}'),
    (b'{"m\\u006fdel" : "a" }', b'{"m\\u006fdel" : "X" }'),
    (b'{"x":{"model":"a"}}', b'{"x":{"model":"a"}}'),
    (b'{"response":{"model":"a","x":{"model":"b"}}}', b'{"response":{"model":"X","x":{"model":"b"}}}'),
    (b'{"response":{"model":null},"model":"a"}', b'{"response":{"model":null},"model":"X"}'),
    (b'{"response":{"model":"a","model":"b"},"model":"c"}', b'{"response":{"model":"a","model":"b"},"model":"c"}'),
    (b"[]", b"[]"),
    (b"", b""),
]


@pytest.mark.parametrize(("document", "expected"), RENAMED)
def test_only_the_answers_own_model_is_renamed(document: bytes, expected: bytes) -> None:
    assert expected == rename(document, b'"X"')
