"""Chat completions and their elder sibling: the answer is the last message, word by word.

https://platform.openai.com/docs/api-reference/chat and …/completions
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.providers.echo.answer import (
    CREATED,
    DONE,
    Answer,
    Rejected,
    count,
    data_event,
    document,
    error_object,
    identifier,
    tokens,
)
from proxy.providers.echo.requests import (
    ChatRequest,
    CompletionRequest,
    Function,
    Schema,
    ToolChoice,
    decode,
    text_of,
    texts_of,
)

NOTHING = "Nothing to echo."
ERROR_EVENT = data_event({"error": error_object("Rehearsed failure.", "server_error", "rehearsed")})


class _Reply(msgspec.Struct, frozen=True):
    """What is said, before it is put into either form."""

    pieces: tuple[str, ...]
    finish_reason: str
    call: Function | None = None
    """The function whose arguments the pieces are."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def chat_completion(body: bytes) -> Answer:
    """`POST /chat/completions`."""
    request = decode(body, ChatRequest)
    if request.n not in (None, 1):
        raise Rejected(400, "The echo provider gives one choice: leave `n` out.", "unsupported_value", "n")
    reply = _reply(request)
    shared = _Shared(identifier("chatcmpl-", body), request.model)
    usage = _usage(sum(count(text_of(message.content)) for message in request.messages), count(reply.text))
    if request.stream:
        options = request.stream_options
        chunks = _chat_choices(reply, shared.id)
        return shared.stream("chat.completion.chunk", chunks, usage if options and options.include_usage else None)
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.call is not None:
        message["content"] = None
        message["tool_calls"] = [_tool_call(reply.call, shared.id, reply.text)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    return shared.whole("chat.completion", [choice], usage)


def completion(body: bytes) -> Answer:
    """`POST /completions`; several prompts give as many choices, one after the other in a stream."""
    request = decode(body, CompletionRequest)
    prompts = texts_of(request.prompt)
    replies = [_limited(prompt or NOTHING, request.max_tokens) for prompt in prompts]
    shared = _Shared(identifier("cmpl-", body), request.model)
    usage = _usage(sum(map(count, prompts)), sum(count(reply.text) for reply in replies))
    if request.stream:
        options = request.stream_options
        chunks = (
            _text_choice(index, piece, None if number < len(reply.pieces) else reply.finish_reason)
            for index, reply in enumerate(replies)
            for number, piece in enumerate(reply.pieces, 1)
        )
        return shared.stream("text_completion", chunks, usage if options and options.include_usage else None)
    choices = [_text_choice(index, reply.text, reply.finish_reason) for index, reply in enumerate(replies)]
    return shared.whole("text_completion", choices, usage)


class _Shared(msgspec.Struct, frozen=True):
    """What all documents of one answer have in common."""

    id: str
    model: str

    def whole(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, int]) -> Answer:
        return document(self._document(kind, choices) | {"usage": usage})

    def stream(self, kind: str, choices: Iterator[dict[str, Any]], usage: dict[str, int] | None) -> Answer:
        # With `include_usage` each chunk has a null `usage`, and a last one without choices has the numbers.
        extra = {} if usage is None else {"usage": None}
        events = [data_event(self._document(kind, [choice]) | extra) for choice in choices]
        if usage is not None:
            events.append(data_event(self._document(kind, []) | {"usage": usage}))
        return Answer(200, events=(*events, DONE), error_event=ERROR_EVENT)

    def _document(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": CREATED, "model": self.model, "choices": choices}


def _reply(request: ChatRequest) -> _Reply:
    spoken = [message for message in request.messages if message.role in ("user", "tool", "function")]
    text = text_of(spoken[-1].content) if spoken else ""
    wanted = _wanted_function(request, text if spoken and spoken[-1].role == "user" else "")
    if wanted is not None:
        arguments = msgspec.json.encode(example(wanted.parameters or Schema(), text)).decode()
        return _Reply(tuple(tokens(arguments)), "tool_calls", wanted)
    limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    return _limited(text or NOTHING, limit)


def _limited(text: str, limit: int | None) -> _Reply:
    pieces = tuple(tokens(text))
    if limit is not None and len(pieces) > limit >= 1:
        return _Reply(pieces[:limit], "length")
    return _Reply(pieces, "stop")


def _wanted_function(request: ChatRequest, text: str) -> Function | None:
    """The function to call: the one that must be; else the first that the user's ``text`` names."""
    offered = [tool.function for tool in request.tools or () if tool.function is not None]
    choice = request.tool_choice
    if isinstance(choice, ToolChoice):
        name = choice.function.name if choice.function is not None else ""
        for function in offered:
            if function.name == name:
                return function
        raise Rejected(400, f"Tool choice `{name}` is not among `tools`.", "invalid_value", "tool_choice")
    if choice == "none" or not offered:
        return None
    if choice == "required":
        return offered[0]
    words = set(re.findall(r"[\w-]+", text))
    return next((function for function in offered if function.name in words), None)


def example(schema: Schema | bool, text: str) -> Any:
    """A JSON value that fits ``schema``, with ``text`` where a string is asked for."""
    if isinstance(schema, bool):
        return text
    if schema.enum:
        return schema.enum[0]
    kind = schema.type[0] if isinstance(schema.type, list) and schema.type else schema.type
    match kind:
        case "string":
            return text
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case "array":
            return []
        case "null":
            return None
        case _:
            return {name: example(inner, text) for name, inner in schema.properties.items()}


def _chat_choices(reply: _Reply, answer_id: str) -> Iterator[dict[str, Any]]:
    def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    if reply.call is None:
        yield choice({"role": "assistant", "content": "", "refusal": None})
        for piece in reply.pieces:
            yield choice({"content": piece})
    else:
        yield choice(
            {"role": "assistant", "content": None, "tool_calls": [{"index": 0} | _tool_call(reply.call, answer_id, "")]}
        )
        for piece in reply.pieces:
            yield choice({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield choice({}, reply.finish_reason)


def _tool_call(function: Function, answer_id: str, arguments: str) -> dict[str, Any]:
    return {
        "id": identifier("call_", answer_id.encode(), function.name.encode()),
        "type": "function",
        "function": {"name": function.name, "arguments": arguments},
    }


def _text_choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
