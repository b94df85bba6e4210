"""Real traffic of many providers through the pipeline: what needs no change is untouched, byte for byte."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from core.events import RequestFailed
from core.headers import Headers
from core.usage import Usage
from proxy.dialects import DIALECTS
from proxy.relay import EventRelay
from tests.exchange import MemoryExchange, Plane, Provider
from tests.recorded import Recorded, recorded
from transport.messages import UpstreamRequest
from transport.script import Head, Send, Step

PATHS = {
    "openai.chat": "/v1/chat/completions",
    "azure.chat": "/v1/chat/completions",
    "compat.chat": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
ALIAS = 'our "own" näme'
# Their own classes of errors, by status; all others below 500 are the request's fault.
OURS = {401: 502, 402: 502, 403: 502}
STORED = ("previous_response_id", "conversation")


def asked(record: Recorded) -> dict[str, Any]:
    """The request as our client sends it: Azure names the model in its URL, and some were not recorded."""
    request = dict(record.req or {"input": "?"})
    if not isinstance(request.get("model"), str) or not request["model"]:
        request["model"] = "model-of-the-url"
    for name in STORED:
        request.pop(name, None)  # needs a grant, which is not what is tested here
    return request


def pieces(body: bytes, random: Random) -> list[bytes]:
    """``body`` cut anywhere, down to single bytes where it is short."""
    mean = 1 if len(body) < 1500 else 180
    cut: list[bytes] = []
    at = 0
    while at < len(body):
        size = random.randint(1, 2 * mean - 1)
        cut.append(body[at : at + size])
        at += size
    return cut


class Replay:
    """A provider that answers with what was recorded."""

    def __init__(self) -> None:
        self.steps: Sequence[Step] = ()

    def __call__(self, _request: UpstreamRequest) -> Sequence[Step]:
        return self.steps

    def load(self, record: Recorded, random: Random) -> None:
        fields = {**record.resp_headers, "content-type": record.ct}
        fields.pop("content-encoding", None)  # what was recorded is decoded
        head = Head(record.status, Headers.parse(fields.items()))
        self.steps = (head, *map(Send, pieces(record.body, random)))


def plane(alias: bool) -> tuple[Plane, Provider, Replay]:
    replay = Replay()
    provider = Provider("up", [replay])
    aliases = [{"from": f"{ALIAS}*", "to": "up/*"}] if alias else []
    return Plane(provider, model_aliases=aliases), provider, replay


def tells_of_its_end(record: Recorded, body: bytes) -> bool:
    relay = EventRelay(DIALECTS["openai-responses" if record.api == "openai.responses" else "openai-chat"], None)
    relay.feed(body)
    relay.end()
    return relay.may_end


# The reference: where a JSON text has its own model strings, found with another parser.


def members(text: str, start: int) -> dict[str, tuple[int, int]]:
    """Where the values of the object at ``start`` stand."""
    decoder = json.JSONDecoder()
    space = re.compile(r"[ \t\r\n]*")

    def skip(at: int) -> int:
        match = space.match(text, at)
        assert match is not None
        return match.end()

    found: dict[str, tuple[int, int]] = {}
    at = skip(skip(start) + 1)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        value = skip(skip(at) + 1)
        _, end = decoder.raw_decode(text, value)
        found[name] = (value, end)
        at = skip(end)
        if text[at] == ",":
            at = skip(at + 1)
    return found


def renamed(text: str, model: str) -> str:
    """``text`` with the model strings at the top level and under `response` replaced."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if not isinstance(value, dict):
        return text
    outer = members(text, text.index("{"))
    spans = [outer["model"]] if isinstance(value.get("model"), str) else []
    inner = value.get("response")
    if isinstance(inner, dict) and isinstance(inner.get("model"), str):
        spans.append(members(text, outer["response"][0])["model"])
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + json.dumps(model, ensure_ascii=False) + text[end:]
    return text


def renamed_stream(text: str, model: str) -> str:
    return re.sub(r"(?m)^(data: ?)([^\r\n]*)", lambda match: match[1] + renamed(match[2], model), text)


def last_usage(record: Recorded) -> Usage | None:
    """What parsing every line gives: `usage` at the top level, under `response`, or the last one anywhere else."""
    dialect = DIALECTS["openai-responses" if record.api == "openai.responses" else "openai-chat"]
    usage = None
    for text in texts(record):
        value = json.loads(text)
        inner = value.get("response")
        holders = [value, *([inner] if isinstance(inner, dict) else []), *reversed(_objects(value))]
        found = next((holder["usage"] for holder in holders if isinstance(holder.get("usage"), dict)), None)
        usage = usage if found is None else dialect.usage(found)
    return usage


def texts(record: Recorded) -> list[str]:
    """The JSON texts of an answer."""
    if not record.sse:
        return [record.resp]
    return [text for text in re.findall(r"(?m)^data: ?([^\r\n]*)", record.resp) if text != "[DONE]"]


def is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _objects(value: object) -> list[dict[str, Any]]:
    """Every object in ``value``, in the order in which their members end."""
    if isinstance(value, dict):
        return [*(each for member in value.values() for each in _objects(member)), value]
    if isinstance(value, list):
        return [each for member in value for each in _objects(member)]
    return []


async def exchange(gateway: Plane, record: Recorded, request: dict[str, Any]) -> tuple[MemoryExchange, bytes]:
    # Spelled as no encoder of ours would, so that nothing passes by being encoded again alike.
    body = json.dumps(request, indent=1, ensure_ascii=len(record.resp) % 2 == 0).encode()
    return await gateway.post(body, PATHS[record.api]), body


@pytest.mark.parametrize("api", PATHS)
async def test_recorded_exchanges_pass_untouched(api: str) -> None:
    random = Random(api)
    seen: Counter[str] = Counter()
    for record in recorded(api):
        gateway, provider, replay = plane(alias=False)
        replay.load(record, random)
        got, body = await exchange(gateway, record, asked(record))
        assert body == provider.body, record
        if record.status >= 400:
            seen["error"] += 1
            assert OURS.get(record.status, record.status) == got.status, record
            assert isinstance(gateway.record, RequestFailed)
            if got.status == record.status and record.ct.startswith("application/json") and record.resp[:1] == "{":
                assert record.body == got.body, record
            else:
                assert got.json()["error"]["code"], record
            continue
        assert 200 == got.status, (record, got.body[:300])
        if record.sse and not tells_of_its_end(record, record.body):
            seen["unfinished stream"] += 1
            assert record.body.startswith(got.body[: got.body.rindex(b"data: {")]), record
            assert "upstream_disconnected" == gateway.record.error_code, record
            continue
        seen["stream" if record.sse else "whole"] += 1
        assert record.body == got.body, record
        assert "finish" == got.ended
        assert gateway.record.error_code in (None, "upstream_error"), record
        if all(is_json(text) for text in texts(record)):
            stated, known = last_usage(record), gateway.record.usage
            assert known is not None
            assert stated == known or (known.estimated and (stated is None or not stated.is_known)), record
            told = re.findall(r'"reasoning_tokens"\s*:\s*(\d+)', record.resp)
            if told and api != "compat.chat":  # some vendors put counts elsewhere, too
                seen["reasoning"] += int(told[-1]) > 0
                assert gateway.record.usage is not None
                assert int(told[-1]) == gateway.record.usage.reasoning_tokens, record
        else:
            seen["not JSON"] += 1
    assert seen["whole"] > 20
    assert seen["reasoning"] > 5 or api not in ("openai.chat", "openai.responses")
    assert seen["unfinished stream"] + seen["not JSON"] < 10, seen


@pytest.mark.parametrize("api", PATHS)
async def test_under_an_alias_only_the_model_differs(api: str) -> None:
    random = Random(api)
    for record in recorded(api):
        if record.status >= 400 or (record.sse and not tells_of_its_end(record, record.body)):
            continue
        gateway, provider, replay = plane(alias=True)
        replay.load(record, random)
        request = asked(record)
        name = ALIAS + request["model"]
        got, body = await exchange(gateway, record, {**request, "model": name})
        assert 200 == got.status, (record, got.body[:300])
        sent = provider.body
        assert asked(record)["model"] == json.loads(sent)["model"], record
        spelled = json.dumps(name, ensure_ascii=len(record.resp) % 2 == 0).encode()
        assert body.replace(spelled, json.dumps(request["model"], ensure_ascii=False).encode(), 1) == sent, record
        expected = renamed_stream(record.resp, name) if record.sse else renamed(record.resp, name)
        assert expected.encode() == got.body, record
