"""A provider that answers well or badly by the name of the model that it is asked for."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from tests.provider import Call, completion, error

EVENTS = 20
PAUSE_SECONDS = 0.002


async def _answers(call: Call) -> None:
    await call.answer(completion("steady"))


async def _answers_long(call: Call) -> None:
    await call.answer(completion("x" * 500_000))


async def _closes(call: Call) -> None:
    await call.answer(completion("and closes"), headers={"connection": "close"})
    call.close()


async def _streams(call: Call) -> None:
    await call.stream()
    for number in range(EVENTS):
        await call.event(f"{number} ")
        await asyncio.sleep(PAUSE_SECONDS)
    await call.end()


async def _is_busy(call: Call) -> None:
    await call.answer(error("busy"), 503)


async def _resets(call: Call) -> None:
    call.reset()


async def _speaks_no_http(call: Call) -> None:
    await call.send(b"HTTP/1.1 two hundred\r\n\r\n")
    call.close()


async def _leaves_within_its_head(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: appli")
    call.close()


async def _leaves_within_its_body(call: Call) -> None:
    await call.answer(completion("x" * 2000), cut_to=700)


async def _leaves_within_its_stream(call: Call) -> None:
    await call.stream()
    for number in range(EVENTS // 2):
        await call.event(f"{number} ")
    await asyncio.sleep(PAUSE_SECONDS)
    call.reset()


async def _keeps_silent(call: Call) -> None:
    await call.gone()


Behaviour = Callable[[Call], Awaitable[None]]

WELL: dict[str, Behaviour] = {"steady": _answers, "long": _answers_long, "closing": _closes}
FAILING: dict[str, tuple[Behaviour, int]] = {
    # model: what the provider does, and what its client is told
    "busy": (_is_busy, 503),
    "reset": (_resets, 502),
    "no-http": (_speaks_no_http, 502),
    "half-head": (_leaves_within_its_head, 502),
    "half-body": (_leaves_within_its_body, 502),
    "silent": (_keeps_silent, 504),
}
STREAM, HALF_STREAM = "stream", "half-stream"
_STREAMING: dict[str, Behaviour] = {STREAM: _streams, HALF_STREAM: _leaves_within_its_stream}
_ALL: dict[str, Behaviour] = {**WELL, **_STREAMING, **{model: does for model, (does, _) in FAILING.items()}}


async def behave(call: Call) -> None:
    """Answer one request. An upload's answer tells its length."""
    if call.path.endswith("/files"):
        length = sum([len(piece) async for piece in call.pieces()])
        await call.answer({"id": f"file-{length}"})
        return
    await call.body()
    await _ALL[json.loads(call.content)["model"]](call)
