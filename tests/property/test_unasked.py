"""However a stream is cut, it gives what it would have given had nobody asked for its usage; and what it said is counted."""

import json
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from core.usage import Usage
from proxy.dialects import DIALECTS
from proxy.relay import EventRelay
from proxy.sse import event_spans
from tests.property.test_relay import anyhow, cuts, dispatched, split, streams

CHAT = DIALECTS["openai-chat"]
few = settings(max_examples=60, deadline=None)
texts = st.one_of(
    st.sampled_from(["", " a", "\n", '"', "\\", "[DONE]", '"usage":null}', ',"usage":{']), st.text(max_size=9)
)
ends = st.sampled_from(["\n", "\r\n"])


@st.composite
def talks(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any], str, bool, bool]:
    """Chunks of a completion, the usage it tells when asked, and how it is spelled."""
    chunks: list[dict[str, Any]] = []
    for text in draw(st.lists(texts, max_size=8)):
        others: list[dict[str, Any]] = [{}, {}, {}, {"obfuscation": "x" * draw(st.integers(0, 9))}, {"created": 1}]
        more = draw(st.sampled_from(others))
        chunks.append({"model": "m", "choices": [{"delta": {"content": text}, "finish_reason": None}], **more})
    if draw(st.booleans()):
        chunks.insert(0, {"choices": [], "prompt_filter_results": [], "model": ""})
    usage = {"prompt_tokens": draw(st.integers(1, 99)), "completion_tokens": draw(st.integers(0, 99))}
    return chunks, usage, draw(ends), draw(st.booleans()), draw(st.booleans())


def spelled(chunks: list[dict[str, Any]], end: str, compact: bool) -> bytes:
    separators = (",", ":") if compact else None
    written = [f"data: {json.dumps(chunk, separators=separators)}{end}{end}" for chunk in chunks]
    return "".join([*written, f"data: [DONE]{end}{end}"]).encode()


def asked(chunk: dict[str, Any]) -> dict[str, Any]:
    """The same chunk of a provider that was asked for usage, which it has before its padding."""
    padding = {name: value for name, value in chunk.items() if name == "obfuscation"}
    return {**{name: value for name, value in chunk.items() if name not in padding}, "usage": None, **padding}


def relayed(pieces: list[bytes], *, unasked: bool) -> tuple[bytes, EventRelay]:
    relay = EventRelay(CHAT, None, usage_unasked=unasked)
    return b"".join([relay.feed(piece) for piece in pieces]) + relay.end(), relay


@few
@given(talks(), cuts)
def test_the_client_sees_what_it_would_have_seen(
    talk: tuple[list[dict[str, Any]], dict[str, Any], str, bool, bool], where: list[int]
) -> None:
    chunks, usage, end, compact, null_too = talk
    extra = {"model": "m", "choices": [], "usage": usage}
    told = [*[asked(chunk) if null_too else chunk for chunk in chunks], extra]
    out, relay = relayed(split(spelled(told, end, compact), where), unasked=True)
    assert spelled(chunks, end, compact) == out
    assert Usage(usage["prompt_tokens"], usage["completion_tokens"]) == relay.usage


def kept(data: bytes) -> object:
    """What an event says, but for a usage of null."""
    try:
        value = json.loads(data)
    except ValueError:
        return data
    if isinstance(value, dict) and value.get("usage", 0) is None:
        del value["usage"]
    return value


@few
@given(st.one_of(anyhow, streams().map(lambda stream: stream.whole)), cuts)
def test_of_any_stream_nothing_else_is_taken_out(stream: bytes, where: list[int]) -> None:
    out, _ = relayed(split(stream, where), unasked=True)
    if b'"usage"' not in stream:
        assert stream == out
    elif b'"choices"' not in stream:
        # There is no extra chunk; a usage of null is all that an event may lose.
        assert [kept(data) for data in dispatched(stream)] == [kept(data) for data in dispatched(out)]


@few
@given(talks(), cuts)
def test_what_a_stream_said_does_not_depend_on_the_cutting(
    talk: tuple[list[dict[str, Any]], dict[str, Any], str, bool, bool], where: list[int]
) -> None:
    chunks, _, _, compact, _ = talk
    stream = spelled(chunks, "\n", compact)
    with mock.patch("proxy.spoken.MAX_LESSONS", 100):
        _, one = relayed([stream[start:end] for start, end in event_spans(stream)], unasked=False)
        _, other = relayed(split(stream, where), unasked=False)
    assert (one.spoken.events, one.spoken.text_bytes) == (other.spoken.events, other.spoken.text_bytes)
    said = [chunk["choices"][0]["delta"]["content"] for chunk in chunks if chunk["choices"]]
    assert sum(map(bool, said)) == one.spoken.events
    assert sum(len(json.dumps(text)) - 2 for text in said) == one.spoken.text_bytes
