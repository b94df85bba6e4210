"""OpenAI's chat completions format, also that of completions, embeddings and the passed-through families.

Source: https://platform.openai.com/docs/api-reference/chat (answers, chunks, usage) and
https://platform.openai.com/docs/guides/error-codes (errors).
"""

import re
from collections.abc import Mapping

import msgspec

from core.errors import GatewayError
from core.usage import Usage
from proxy.dialects.base import count, nested

# `[DONE]`, or a choice that has its reason to stop (some compatible servers leave `[DONE]` out), or the provider's
# own word that it failed: after that the stream needs no word of ours.
_FINAL = re.compile(rb'^data: ?\[DONE\]|"finish_reason"\s*:\s*"|"error"\s*:\s*\{', re.MULTILINE)


class ErrorObject(msgspec.Struct):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class _ErrorBody(msgspec.Struct):
    error: ErrorObject


class OpenAIChat:
    """The `openai-chat` dialect."""

    def error_body(self, error: GatewayError) -> bytes:
        return msgspec.json.encode(
            _ErrorBody(ErrorObject(error.message, error.kind, error.param, error.client_code))
        )

    def error_event(self, error: GatewayError) -> bytes:
        # The official SDKs raise on a data event whose object has an `error` member.
        return b"data: " + self.error_body(error) + b"\n\n"

    def is_final(self, events: bytes) -> bool:
        return _FINAL.search(events) is not None

    def usage(self, counts: Mapping[str, object]) -> Usage:
        return Usage(
            input_tokens=count(counts, "prompt_tokens", "input_tokens"),
            output_tokens=count(counts, "completion_tokens", "output_tokens"),
            cached_tokens=count(nested(counts, "prompt_tokens_details"), "cached_tokens"),
        )
