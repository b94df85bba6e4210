"""The mock provider of the tests on the ledger: it answers by the plan, and keeps its own count of what it has done."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.agreement.plan import CREDENTIALS, Asked, Kind, Told
from tests.provider import Call, error, said

NUMBER = "x-number"
"""The field by which a client tells whose request it is; the gateway passes it on."""
LEFT_AFTER = 3
"""Events of a stream, after which its client leaves."""


@dataclass
class Seen:
    """What the provider knows of one call."""

    provider: str
    model: str
    credential: str
    asked_for_usage: bool
    began: bool = False
    """Whether an answer was begun that is none of an error."""
    whole: bool = False
    """Whether it was ended properly."""
    told: Told | None = None
    """The last usage that was sent with it."""
    said: list[str] = field(default_factory=list)
    """The texts of the events after that, or of the whole answer."""


class Tally:
    """The provider's own count, and what it does."""

    def __init__(self, plan: Mapping[int, Asked]) -> None:
        self._plan = plan
        self.seen: defaultdict[int, list[Seen]] = defaultdict(list)
        """By the number of the request: its calls, one after the other."""
        self.arrived: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    async def behave(self, call: Call) -> None:
        """Answer one call."""
        await call.body()
        body = call.json()
        number = int(call.headers[NUMBER])
        seen = Seen(
            provider=call.path.split("/")[1],
            model=body["model"],
            credential=CREDENTIALS[call.headers["authorization"].removeprefix("Bearer ")],
            asked_for_usage=(body.get("stream_options") or {}).get("include_usage") is True,
        )
        self.seen[number].append(seen)
        asked = self._plan[number]
        if asked.kind is Kind.LEFT:
            self.arrived[number].set()
        await _BEHAVIOUR[asked.kind](call, asked, seen, len(self.seen[number]))


# Usage as each endpoint tells it.


def _chat_usage(told: Told) -> dict[str, object]:
    return {
        "prompt_tokens": told.taken,
        "completion_tokens": told.given,
        "total_tokens": told.taken + told.given,
        "prompt_tokens_details": {"cached_tokens": told.cached, "cache_write_tokens": told.cache_written},
        "completion_tokens_details": {"reasoning_tokens": told.reasoned},
    }


def _response_usage(told: Told) -> dict[str, object]:
    return {
        "input_tokens": told.taken,
        "input_tokens_details": {"cached_tokens": told.cached, "cache_write_tokens": told.cache_written},
        "output_tokens": told.given,
        "output_tokens_details": {"reasoning_tokens": told.reasoned},
        "total_tokens": told.taken + told.given,
    }


# Answers.


async def _whole(
    call: Call, seen: Seen, answer: dict[str, object], usage: dict[str, object] | None, told: Told
) -> None:
    """``answer`` with ``usage``, which is ``told`` as the endpoint has it."""
    seen.began = True
    if usage is not None:
        answer["usage"] = usage
        seen.told = told
    await call.answer(answer)
    seen.whole = True


def _completion(asked: Asked, seen: Seen) -> dict[str, object]:
    seen.said = ["".join(asked.says)]
    choice = {"index": 0, "message": {"role": "assistant", "content": seen.said[0]}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": seen.model, "choices": [choice]}


async def _json(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    await _whole(call, seen, _completion(asked, seen), _chat_usage(asked.told), asked.told)


async def _untold(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    await _whole(call, seen, _completion(asked, seen), None, asked.told)


async def _embedding(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
    usage: dict[str, object] = {"prompt_tokens": asked.told.taken, "total_tokens": asked.told.taken}
    await _whole(call, seen, {"object": "list", "model": seen.model, "data": data}, usage, asked.told)


def _response(asked: Asked, model: str) -> dict[str, object]:
    text = {"type": "output_text", "text": "".join(asked.says), "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    return {"id": "resp_1", "object": "response", "status": "completed", "model": model, "output": [message]}


async def _responds(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    await _whole(call, seen, _response(asked, seen.model), _response_usage(asked.told), asked.told)


# Streams.


async def _says(call: Call, seen: Seen, texts: tuple[str, ...]) -> None:
    """Begin a stream, if it has not begun, and say ``texts``."""
    if not seen.began:
        seen.began = True
        await call.stream()
    for text in texts:
        await call.event(text)
        seen.said.append(text)


async def _tells(call: Call, seen: Seen, told: Told) -> None:
    """The chunk that OpenAI documents for `stream_options.include_usage`."""
    chunk = {**said(""), "choices": [], "usage": _chat_usage(told)}
    await call.event(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    seen.told = told
    seen.said.clear()


async def _ends(call: Call, seen: Seen, told: Told | None) -> None:
    await call.event(b"data: " + json.dumps(said("", "stop")).encode() + b"\n\n")
    if told is not None:
        await _tells(call, seen, told)
    await call.event(b"data: [DONE]\n\n")
    await call.send(b"0\r\n\r\n")
    seen.whole = True


async def _streams(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    await _says(call, seen, asked.says)
    await _ends(call, seen, asked.told if seen.asked_for_usage else None)


async def _cuts(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    await _says(call, seen, asked.says)
    call.close()


async def _tells_and_cuts(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    await _says(call, seen, asked.says[:4])
    await _tells(call, seen, asked.told)
    await _says(call, seen, asked.says[4:])
    call.close()


async def _streams_until_left(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    await _says(call, seen, asked.says[:LEFT_AFTER])
    await call.gone()
    call.close()


async def _streams_response(call: Call, asked: Asked, seen: Seen, _nth: int) -> None:
    seen.began = True
    await call.stream()
    for text in asked.says:
        await _response_event(call, "response.output_text.delta", {"item_id": "msg_1", "delta": text})
    whole = _response(asked, seen.model) | {"usage": _response_usage(asked.told)}
    await _response_event(call, "response.completed", {"response": whole})
    seen.told = asked.told
    await call.send(b"0\r\n\r\n")
    seen.whole = True


async def _response_event(call: Call, kind: str, members: dict[str, object]) -> None:
    await call.event(f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode())


# Failures, at first or ever.


async def _silence_until_left(call: Call, _asked: Asked, _seen: Seen, _nth: int) -> None:
    await call.gone()
    call.close()


async def _rejects(call: Call, _asked: Asked, _seen: Seen, _nth: int) -> None:
    await call.answer(error("bad_value"), 400)


async def _fails(call: Call, _asked: Asked, _seen: Seen, _nth: int) -> None:
    await call.answer(error("broken"), 500)


async def _resets(call: Call, _asked: Asked, _seen: Seen, _nth: int) -> None:
    call.reset()


async def _is_busy_first(call: Call, asked: Asked, seen: Seen, nth: int) -> None:
    if nth <= 1 + asked.number % 2:
        await call.answer(error("busy"), 503)
    else:
        await _json(call, asked, seen, nth)


async def _limits_first(call: Call, asked: Asked, seen: Seen, nth: int) -> None:
    if nth == 1:
        await call.answer(error("slow_down"), 429)
    else:
        await _json(call, asked, seen, nth)


async def _cuts_first(call: Call, asked: Asked, seen: Seen, nth: int) -> None:
    if nth == 1:
        await call.answer(_completion(asked, Seen("", "", "", asked_for_usage=False)), cut_to=60)
    else:
        await _json(call, asked, seen, nth)


async def _breaks_first(call: Call, asked: Asked, seen: Seen, nth: int) -> None:
    if nth == 1:
        await call.stream()
        await call.event(b"data: " + json.dumps(error("overloaded")).encode() + b"\n\n")
        await call.send(b"0\r\n\r\n")
    else:
        await _streams(call, asked, seen, nth)


async def _fails_at_first(call: Call, asked: Asked, seen: Seen, nth: int) -> None:
    await (_fails if seen.provider == "first" else _json)(call, asked, seen, nth)


async def _is_too_small_at_first(call: Call, asked: Asked, seen: Seen, nth: int) -> None:
    if seen.provider == "first":
        await call.answer(error("context_length_exceeded"), 400)
    else:
        await _json(call, asked, seen, nth)


Behaviour = Callable[[Call, Asked, Seen, int], Awaitable[None]]

_BEHAVIOUR: dict[Kind, Behaviour] = {
    Kind.JSON: _json,
    Kind.CLOSED: _json,
    Kind.STREAM: _streams,
    Kind.RESPONSE: _responds,
    Kind.RESPONSE_STREAM: _streams_response,
    Kind.EMBEDDING: _embedding,
    Kind.UNTOLD: _untold,
    Kind.UNTOLD_STREAM: _streams,
    Kind.RETRIED: _is_busy_first,
    Kind.LIMITED: _limits_first,
    Kind.CUT_ONCE: _cuts_first,
    Kind.BROKEN_ONCE: _breaks_first,
    Kind.ELSEWHERE: _fails_at_first,
    Kind.CONTEXT: _is_too_small_at_first,
    Kind.REJECTED: _rejects,
    Kind.FAILED: _fails,
    Kind.RESET: _resets,
    Kind.CUT: _cuts,
    Kind.TOLD_CUT: _tells_and_cuts,
    Kind.LEFT: _silence_until_left,
    Kind.LEFT_STREAM: _streams_until_left,
}
"""Of the kinds that reach a provider."""
