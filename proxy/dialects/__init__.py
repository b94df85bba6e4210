"""Wire formats: how requests, answers and errors of each are read and written. Sans-io."""

from proxy.dialects.base import Dialect
from proxy.dialects.openai_chat import OpenAIChat
from proxy.dialects.openai_responses import OpenAIResponses

DIALECTS: dict[str, Dialect] = {
    "openai-chat": OpenAIChat(),
    "openai-responses": OpenAIResponses(),
}
"""Name → dialect. A new one is a module and a line here."""
