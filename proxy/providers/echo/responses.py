"""The Responses API: one output message, the last input's text.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from typing import Any

import msgspec

from proxy.providers.echo.answer import CREATED, Answer, count, document, identifier, tokens
from proxy.providers.echo.chat import NOTHING
from proxy.providers.echo.requests import ResponsesRequest, decode, text_of


def response(body: bytes) -> Answer:
    """`POST /responses`."""
    request = decode(body, ResponsesRequest)
    texts = _texts(request)
    text = (texts[-1] if texts else "") or NOTHING
    answer_id = identifier("resp_", body)
    item_id = identifier("msg_", body)
    words_in = sum(map(count, texts)) + count(request.instructions or "")
    words_out = count(text)
    usage = {
        "input_tokens": words_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": words_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": words_in + words_out,
    }
    begun = _response(answer_id, request, "in_progress", [], None)
    done = _response(answer_id, request, "completed", [_message(item_id, "completed", [_part(text)])], usage)
    if not request.stream:
        return document(done)
    return _stream(item_id, text, begun, done)


def _stream(item_id: str, text: str, begun: dict[str, Any], done: dict[str, Any]) -> Answer:
    place: dict[str, Any] = {"item_id": item_id, "output_index": 0, "content_index": 0}
    finished = _message(item_id, "completed", [_part(text)])
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": _message(item_id, "in_progress", [])}),
        ("response.content_part.added", place | {"part": _part("")}),
        *(("response.output_text.delta", place | {"delta": piece, "logprobs": []}) for piece in tokens(text)),
        ("response.output_text.done", place | {"text": text, "logprobs": []}),
        ("response.content_part.done", place | {"part": _part(text)}),
        ("response.output_item.done", {"output_index": 0, "item": finished}),
        ("response.completed", {"response": done}),
    ]
    error = {"code": "server_error", "message": "Rehearsed failure.", "param": None}
    return Answer(
        200,
        events=tuple(_event(name, number, members) for number, (name, members) in enumerate(events)),
        error_event=_event("error", len(events), error),
    )


def _event(name: str, number: int, members: dict[str, Any]) -> bytes:
    data = msgspec.json.encode({"type": name, "sequence_number": number} | members)
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _texts(request: ResponsesRequest) -> list[str]:
    if isinstance(request.input, str):
        return [request.input]
    return [text_of(item.output if item.type == "function_call_output" else item.content) for item in request.input]


def _response(
    answer_id: str, request: ResponsesRequest, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "metadata": {},
        "model": request.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def _message(item_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
