"""Real traffic of many providers: usage that is asked for leaves no trace, and what is estimated is near what was told."""

import json
from collections import Counter
from random import Random
from statistics import median
from typing import Any

import pytest

from core.usage import Usage
from proxy.body import Document
from proxy.dialects import DIALECTS
from proxy.estimates import estimated_input, tokens_said
from proxy.intake import Inbound
from proxy.relay import EventRelay
from tests.conformance.test_recorded import PATHS, asked, is_json, last_usage, pieces, texts
from tests.exchange import Plane, Provider, stream
from tests.recorded import Recorded, recorded


def dialect(record: Recorded) -> str:
    return "openai-responses" if record.api == "openai.responses" else "openai-chat"


def events(record: Recorded) -> list[bytes]:
    return [event + b"\n\n" for event in record.body.split(b"\n\n") if event]


def without(event: bytes) -> bytes:
    """What the client would have got had nobody asked, by another parser."""
    try:
        value = json.loads(event.removeprefix(b"data:"))
    except ValueError:
        return event
    if isinstance(value, dict) and value.get("usage") and value.get("choices") == []:
        return b""
    if isinstance(value, dict) and value.get("usage", 0) is None:
        shown = event.replace(b',"usage":null', b"")
        assert {name: each for name, each in value.items() if name != "usage"} == json.loads(shown[5:])
        return shown
    return event


@pytest.mark.parametrize("api", ["openai.chat", "compat.chat", "completions"])
async def test_streams_whose_usage_the_gateway_asked_for_look_as_if_nobody_had(api: str) -> None:
    random = Random(api)
    seen: Counter[str] = Counter()
    for record in recorded(api):
        if record.status >= 400 or not record.sse or b"\r" in record.body or "[DONE]" not in record.resp:
            continue
        request = {**asked(record), "stream": True}
        request.pop("stream_options", None)
        up = Provider("up", [stream(*pieces(record.body, random))], include_usage=True)
        gateway = Plane(up)
        got = await gateway.post(request, PATHS[api])
        assert {**request, "stream_options": {"include_usage": True}} == json.loads(up.body)
        expected = b"".join(map(without, events(record)))
        assert expected == got.body, record
        seen["changed"] += expected != record.body
        if all(is_json(text) for text in texts(record)) and (told := last_usage(record)) is not None and told.is_known:
            seen["told"] += 1
            assert told == gateway.record.usage, record
    assert seen["changed"] > 5


def measured(record: Recorded) -> tuple[Usage, int] | None:
    """The usage that an answer tells and what would be estimated of its output without; None where that is no question."""
    if record.status >= 400 or not all(is_json(text) for text in texts(record)):
        return None
    told = last_usage(record)
    if told is None or told.output_tokens < 10 or told.reasoning_tokens:
        # Hidden reasoning cannot be seen, and few tokens tell nothing of the method.
        return None
    if not record.sse:
        return told, tokens_said(record.body, DIALECTS[dialect(record)].text)
    stated = record.body.replace(b'"usage"', b'"omitted"')
    relay = EventRelay(DIALECTS[dialect(record)], None)
    for piece in pieces(stated, Random(record.file)):
        relay.feed(piece)
    return told, relay.spoken.tokens


def within(ratios: list[float], least: float, most: float) -> float:
    return sum(least <= ratio <= most for ratio in ratios) / len(ratios)


# Where tools are called the calls' own envelope counts at the provider, and searches that it makes for itself: not seen.
def plain(record: Recorded) -> bool:
    request: dict[str, Any] = record.req or {}
    return not request.get("tools") and "tool_calls" not in record.resp and "_call" not in record.resp


def ratios(apis: list[str], *, streams: bool) -> list[float]:
    found: dict[str, float] = {}
    for api in apis:
        for record in recorded(api):
            if record.sse is streams and plain(record) and (both := measured(record)) is not None:
                found[record.resp] = both[1] / both[0].output_tokens
    return list(found.values())


APIS = ["openai.chat", "compat.chat", "openai.responses", "completions", "azure.chat"]


@pytest.mark.parametrize("streams", [True, False])
def test_estimates_of_what_was_said_are_near_what_was_told(streams: bool) -> None:
    found = ratios(APIS, streams=streams)
    assert len(found) > 15
    assert 0.9 <= median(found) <= 1.2, sorted(found)
    assert within(found, 0.5, 1.5) > 0.7, sorted(found)


def test_estimates_of_what_was_sent_are_near_what_was_told() -> None:
    found: list[float] = []
    for api in APIS:
        for record in recorded(api):
            if record.status >= 400 or record.req is None or not all(is_json(text) for text in texts(record)):
                continue
            told = last_usage(record)
            if told is None or told.input_tokens < 10 or not plain(record):
                continue
            body = json.dumps(record.req, separators=(",", ":"), ensure_ascii=False).encode()
            found.append(estimated_input(Inbound("m", document=Document(body))) / told.input_tokens)
    assert 0.8 <= median(found) <= 1.3, sorted(found)
    print(sorted(found))
