"""The requests that the `echo` provider reads, as far as it reads them; other members are let pass."""

from typing import TypeVar

import msgspec

from proxy.providers.echo.answer import Rejected

Body = TypeVar("Body")

Inputs = str | list[str | int | list[int]]
"""A text, texts, tokens, or several lists of tokens."""


class Part(msgspec.Struct):
    """A part of a message; those that are no text have none."""

    type: str = ""
    text: str | None = None


Content = str | list[Part] | None


class Message(msgspec.Struct):
    """A turn of the conversation."""

    role: str
    content: Content = None


class Schema(msgspec.Struct):
    """A JSON schema, as far as making an example needs it."""

    type: str | list[str] | None = None
    properties: "dict[str, Schema | bool]" = {}
    enum: list[msgspec.Raw] = []


class Function(msgspec.Struct):
    """A function that may be called."""

    name: str
    parameters: Schema | None = None


class Tool(msgspec.Struct):
    """A tool on offer; only functions are called."""

    type: str = "function"
    function: Function | None = None


class ToolChoice(msgspec.Struct):
    """The tool that must be called."""

    function: Function | None = None


class StreamOptions(msgspec.Struct):
    """What else a stream carries."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """`POST /chat/completions`."""

    model: str
    messages: list[Message]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1


class CompletionRequest(msgspec.Struct):
    """`POST /completions`."""

    model: str
    prompt: Inputs
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None


class EmbeddingsRequest(msgspec.Struct):
    """`POST /embeddings`."""

    model: str
    input: Inputs
    dimensions: int | None = None
    encoding_format: str | None = None


class InputItem(msgspec.Struct):
    """An item of a Responses input: a message, or the output of a function."""

    type: str = "message"
    role: str = ""
    content: Content = None
    output: Content = None


class ResponsesRequest(msgspec.Struct):
    """`POST /responses`."""

    model: str
    input: str | list[InputItem] = ""
    instructions: str | None = None
    stream: bool | None = False


def decode(body: bytes, kind: type[Body]) -> Body:
    """``body`` as a ``kind``.

    Raises:
        Rejected: 400, in OpenAI's words for it.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Rejected(400, f"The request is not understood: {error}.", "invalid_type") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected(400, "The request body is not valid JSON.", "invalid_json") from None


def text_of(content: Content) -> str:
    """The text of a message, its parts joined by line ends."""
    if isinstance(content, list):
        return "\n".join(part.text for part in content if part.text is not None)
    return content or ""


def texts_of(inputs: Inputs) -> tuple[str, ...]:
    """One text for each input; tokens become their numbers with spaces between."""
    if isinstance(inputs, str):
        return (inputs,)
    numbers = [value for value in inputs if isinstance(value, int)]
    if numbers and len(numbers) == len(inputs):
        return (_spelled(numbers),)
    return tuple(_spelled(value) if isinstance(value, list) else str(value) for value in inputs)


def _spelled(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))
