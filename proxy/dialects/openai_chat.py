"""OpenAI's chat completions format, also that of completions, embeddings and the passed-through families.

Source: https://platform.openai.com/docs/api-reference/chat (answers, chunks, usage) and
https://platform.openai.com/docs/guides/error-codes (errors).
"""

import re
from collections.abc import Mapping

import msgspec

from core.errors import GatewayError
from core.usage import Usage
from proxy.dialects.base import Ending, count, nested, strings
from proxy.sse import event_data, event_spans

_DONE = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]")
# Some compatible servers leave `[DONE]` out: a choice that has its reason to stop may then be the last word.
_REASON_TO_STOP = re.compile(rb'"finish_reason"\s*:\s*"')
# A cheap look before anything is parsed. Azure has an `error` inside of `content_filter_results`, others send
# `"error": null` with every chunk: only the parsed top level tells.
_SUSPECT = re.compile(rb'"error"\s*:\s*[^\sn]|"type"\s*:\s*"(?:error|response\.failed)"|(?:\A|[\r\n])event: ?error\b')
_NAMED_ERROR = re.compile(rb"(?:\A|[\r\n])event: ?error[\r\n]")
_MAX_MESSAGE = 300


class ErrorObject(msgspec.Struct):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class _ErrorBody(msgspec.Struct):
    error: ErrorObject


class _Response(msgspec.Struct):
    error: object = None


class _Probe(msgspec.Struct):
    error: object = None
    type: object = None
    message: object = None
    response: msgspec.Raw = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct):
    choices: list[dict[str, object]]
    usage: object = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_SAYS_NOTHING = frozenset({"index", "role", "content_filter_results", "content_filter_offsets"})
"""Members of a choice and of its `delta` that are there before anything is said; others are empty then."""
_PROBE = msgspec.json.Decoder(_Probe)
_RESPONSE = msgspec.json.Decoder(_Response)


class OpenAIChat:
    """The `openai-chat` dialect."""

    text = strings("content", "text", "arguments", "reasoning_content", "reasoning", "thinking", "refusal")
    streamed_text = text
    speaks = b'"choices"'

    def error_body(self, error: GatewayError) -> bytes:
        return msgspec.json.encode(_ErrorBody(ErrorObject(error.message, error.kind, error.param, error.client_code)))

    def error_event(self, error: GatewayError, last: bytes = b"") -> bytes:
        # The official SDKs raise on a data event whose object has an `error` member.
        return b"data: " + self.error_body(error) + b"\n\n"

    def has_output(self, event: bytes) -> bool:
        # A chunk with the role alone, or Azure's with its filters of the prompt alone, is none.
        try:
            chunk = _CHUNK.decode(event_data(event, 0, len(event)) or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return True
        return bool(chunk.usage) or not all(map(_is_silent, chunk.choices))

    def ending(self, events: bytes, before: Ending = Ending.OPEN) -> Ending:
        if b"[DONE]" in events and _DONE.search(events) is not None:
            return Ending.COMPLETE
        if before is Ending.OPEN and _REASON_TO_STOP.search(events) is not None:
            return Ending.ALLOWED
        return before

    def failure(self, events: bytes) -> str | None:
        # A cheap look: nearly no other event holds one of these words.
        if (b"error" not in events and b"response.failed" not in events) or _SUSPECT.search(events) is None:
            return None
        for start, end in event_spans(events):
            data = event_data(events, start, end)
            if data is None:
                continue
            message = _failure(data)
            # From the line end before it: what stands first in a search from `start` is not first in `events`.
            if message is None and _NAMED_ERROR.search(events, max(start - 1, 0), end) is not None:
                message = data.decode("utf-8", "replace")
            if message is not None:
                return f"the provider answered with an error: {message[:_MAX_MESSAGE]}"
        return None

    def counts_anywhere(self, head: bytes) -> bool:
        # What is repeated of the client's is in strings.
        return True

    def usage(self, counts: Mapping[str, object]) -> Usage:
        taken, given = nested(counts, "prompt_tokens_details"), nested(counts, "completion_tokens_details")
        return Usage(
            input_tokens=count(counts, "prompt_tokens", "input_tokens"),
            output_tokens=count(counts, "completion_tokens", "output_tokens"),
            cached_tokens=count(taken, "cached_tokens"),
            reasoning_tokens=count(given, "reasoning_tokens"),
            cache_write_tokens=count(taken, "cache_write_tokens"),
        )


def _is_silent(said: Mapping[str, object]) -> bool:
    return all(
        not value or name in _SAYS_NOTHING or (name == "delta" and isinstance(value, dict) and _is_silent(value))
        for name, value in said.items()
    )


def _failure(data: bytes) -> str | None:
    """The message of an error event's data: ``{"error": …}``, ``{"type": "error", …}`` or a failed response."""
    try:
        probe = _PROBE.decode(data)
        error = probe.error
        if not error and probe.type == "response.failed":
            error = _RESPONSE.decode(probe.response).error or "the response failed"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not error and probe.type != "error":
        return None
    if isinstance(error, dict):
        error = error.get("message") or error.get("code") or error.get("type")
    return str(error or probe.message or "no reason given")
