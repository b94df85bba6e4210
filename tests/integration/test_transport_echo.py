"""The echo provider as the pipeline sees it: its scripts played by the scripted client, on their clocks."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from config.schema import Provider
from core.errors import ConnectFailed, ConnectTimeout, UpstreamCut, UpstreamError, UpstreamTimeout
from core.headers import Headers
from proxy.providers import build_adapter
from proxy.providers.base import Call, LocalAdapter
from tests import virtual_time
from transport.messages import Clocks, UpstreamResponse
from transport.scripted import ScriptedClient

CLOCKS = Clocks(0.05, 0.05, 0.05)


async def ask(
    path: str, body: bytes | AsyncIterator[bytes], content_type: str = "application/json"
) -> UpstreamResponse:
    adapter = build_adapter(Provider(name="echo", type="echo", options={"interval_seconds": 0.001}))
    assert isinstance(adapter, LocalAdapter)
    call = Call("POST", path, "", Headers([("content-type", content_type)]), body, None, None, CLOCKS)
    return await ScriptedClient(adapter.respond).send(adapter.prepare(call, None))


def chat(model: str, **members: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "a b c"}], **members}).encode()


async def body_of(answer: UpstreamResponse) -> bytes:
    data = b""
    while piece := await answer.read():
        data += piece
    return data


def test_a_stream_comes_event_by_event_at_its_pace() -> None:
    async def main() -> None:
        pieces, moments = [], []
        answer = await ask("/chat/completions", chat("any", stream=True))
        while piece := await answer.read():
            pieces.append(piece)
            moments.append(asyncio.get_running_loop().time())
        assert 6 == len(pieces)
        assert b"data: [DONE]\n\n" == pieces[-1]
        assert pytest.approx([0, 0.001, 0.002, 0.003, 0.004, 0.005]) == moments

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("refuse", ConnectFailed),
        ("unreachable", ConnectTimeout),
        ("stall", UpstreamTimeout),
        ("cut-early", UpstreamCut),
    ],
)
async def test_faults_before_the_answer(model: str, error: type[UpstreamError]) -> None:
    with pytest.raises(error):
        await ask("/chat/completions", chat(model))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "error"), [("cut", UpstreamCut), ("stall-stream", UpstreamTimeout)])
async def test_faults_within_the_answer(model: str, error: type[UpstreamError], stream: bool) -> None:
    answer = await ask("/chat/completions", chat(model, stream=stream))
    assert await answer.read()
    with pytest.raises(error):
        await body_of(answer)


async def test_a_streamed_upload_of_any_size_is_counted() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(65536)

    answer = await ask("/files", pieces(), "multipart/form-data; boundary=b")
    assert 200 * 65536 == json.loads(await body_of(answer))["bytes"]
