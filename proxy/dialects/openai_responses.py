"""OpenAI's Responses format.

Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.
"""

import re
from collections.abc import Mapping

import msgspec

from core.errors import GatewayError
from core.usage import Usage
from proxy.dialects.base import Ending, count, nested
from proxy.dialects.openai_chat import OpenAIChat

_LAST = re.compile(rb'"type"\s*:\s*"(?:response\.(?:completed|failed|incomplete|cancelled)|error)"')


class _ErrorEvent(msgspec.Struct):
    type: str
    code: str | None
    message: str
    param: str | None


class OpenAIResponses(OpenAIChat):
    """The `openai-responses` dialect: the same error bodies, other events and other names for tokens."""

    def error_event(self, error: GatewayError) -> bytes:
        event = _ErrorEvent("error", error.client_code, error.message, error.param)
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"

    def ending(self, events: bytes) -> Ending:
        return Ending.OPEN if _LAST.search(events) is None else Ending.COMPLETE

    def usage(self, counts: Mapping[str, object]) -> Usage:
        return Usage(
            input_tokens=count(counts, "input_tokens", "prompt_tokens"),
            output_tokens=count(counts, "output_tokens", "completion_tokens"),
            cached_tokens=count(nested(counts, "input_tokens_details"), "cached_tokens"),
        )
