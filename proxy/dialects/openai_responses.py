"""OpenAI's Responses format.

Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.
"""

import re
from collections.abc import Mapping

import msgspec

from core.errors import GatewayError
from core.usage import Usage
from proxy.dialects.base import Ending, count, nested, strings
from proxy.dialects.openai_chat import ErrorObject, OpenAIChat

_LAST = re.compile(rb'"type"\s*:\s*"(?:response\.(?:completed|failed|incomplete|cancelled)|error)"')
# Of an event: the line of its name, or the name as the first member.
_LAST_HEAD = re.compile(
    rb'(?:event:[ ]?|data:[ ]?\{\s*"type"\s*:\s*")response\.(?:completed|failed|incomplete|cancelled)\b'
)
_NUMBER = re.compile(rb'"sequence_number"\s*:\s*([0-9]{1,15})\b')


class _ErrorEvent(msgspec.Struct):
    # The reference documents the members at the top level; the API itself sends them in an object, as the SDKs expect.
    type: str
    code: str | None
    message: str
    param: str | None
    error: ErrorObject
    # Vercel's AI SDK takes no event without it.
    sequence_number: int | msgspec.UnsetType = msgspec.UNSET


class OpenAIResponses(OpenAIChat):
    """The `openai-responses` dialect: the same error bodies, other events and other names for tokens."""

    text = strings("text", "arguments", "refusal")
    streamed_text = strings("delta")
    # The end of the event's type: other events repeat what was said.
    speaks = b'.delta"'

    def error_event(self, error: GatewayError, last: bytes = b"") -> bytes:
        told = ErrorObject(error.message, error.kind, error.param, error.client_code)
        numbers = _NUMBER.findall(last)
        number = int(numbers[-1]) + 1 if numbers else msgspec.UNSET
        event = _ErrorEvent("error", told.code, told.message, told.param, told, number)
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"

    def has_output(self, event: bytes) -> bool:
        # The first one has the id, by which a client may ask for the response later, or cancel it.
        return True

    def ending(self, events: bytes, before: Ending = Ending.OPEN) -> Ending:
        return before if _LAST.search(events) is None else Ending.COMPLETE

    def counts_anywhere(self, head: bytes) -> bool:
        # A response has the client's `tools` and the schema of its `text` in it. In the last one, which has counts of its own,
        # they are behind these.
        return _LAST_HEAD.match(head) is not None

    def usage(self, counts: Mapping[str, object]) -> Usage:
        taken, given = nested(counts, "input_tokens_details"), nested(counts, "output_tokens_details")
        return Usage(
            input_tokens=count(counts, "input_tokens", "prompt_tokens"),
            output_tokens=count(counts, "output_tokens", "completion_tokens"),
            cached_tokens=count(taken, "cached_tokens"),
            reasoning_tokens=count(given, "reasoning_tokens"),
            cache_write_tokens=count(taken, "cache_write_tokens"),
        )
