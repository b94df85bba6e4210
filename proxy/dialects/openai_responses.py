"""OpenAI's Responses format.

Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.
"""

import re
from collections.abc import Mapping

import msgspec

from core.errors import GatewayError
from core.usage import Usage
from proxy.dialects.base import Ending, count, nested
from proxy.dialects.openai_chat import ErrorObject, OpenAIChat

_LAST = re.compile(rb'"type"\s*:\s*"(?:response\.(?:completed|failed|incomplete|cancelled)|error)"')


class _ErrorEvent(msgspec.Struct):
    # The reference documents the members at the top level; the API itself sends them in an object, as the SDKs expect.
    type: str
    code: str | None
    message: str
    param: str | None
    error: ErrorObject


class OpenAIResponses(OpenAIChat):
    """The `openai-responses` dialect: the same error bodies, other events and other names for tokens."""

    def error_event(self, error: GatewayError) -> bytes:
        told = ErrorObject(error.message, error.kind, error.param, error.client_code)
        event = _ErrorEvent("error", told.code, told.message, told.param, told)
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"

    def ending(self, events: bytes, before: Ending = Ending.OPEN) -> Ending:
        return before if _LAST.search(events) is None else Ending.COMPLETE

    def usage(self, counts: Mapping[str, object]) -> Usage:
        return Usage(
            input_tokens=count(counts, "input_tokens", "prompt_tokens"),
            output_tokens=count(counts, "output_tokens", "completion_tokens"),
            cached_tokens=count(nested(counts, "input_tokens_details"), "cached_tokens"),
        )
