"""An answer of the `echo` provider as a value, and how it is sent when nothing goes wrong."""

import hashlib
import re
from collections.abc import Mapping

import msgspec

from core.headers import Headers
from transport.script import Head, Script, Send, Step, Wait

CREATED = 1_700_000_000
"""The time of everything that the provider makes, so that the same request gives the same bytes."""

DONE = b"data: [DONE]\n\n"

_PIECE = re.compile(r"\s*\S+|\s+\Z")


class Pace(msgspec.Struct, frozen=True):
    """How fast an answer comes."""

    delay_seconds: float
    """Before the first byte of the body."""
    interval_seconds: float
    """Between two events of a stream."""


class Answer(msgspec.Struct, frozen=True):
    """A JSON document, or the events of a stream."""

    status: int
    body: bytes = b""
    """The document; empty where there are ``events``."""
    events: tuple[bytes, ...] | None = None
    """Server-sent events, each whole with its blank line."""
    error_event: bytes = b""
    """What the endpoint's dialect sends when it fails within a stream."""
    headers: tuple[tuple[str, str], ...] = ()

    def head(self) -> Head:
        """Status and header fields."""
        if self.events is None:
            framing = (("content-type", "application/json"), ("content-length", str(len(self.body))))
        else:
            framing = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
        return Head(self.status, Headers(framing + self.headers))


class Rejected(Exception):
    """The request is not one that the provider answers; ``answer`` says so in OpenAI's envelope."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.answer = error_answer(status, message, code, param)


def play(answer: Answer, pace: Pace) -> Script:
    """``answer`` whole, at ``pace``."""
    if answer.events is None:
        return Script((*silence(pace.delay_seconds), answer.head(), Send(answer.body)))
    return Script((answer.head(), *paced(answer.events, pace)))


def paced(events: tuple[bytes, ...], pace: Pace) -> tuple[Step, ...]:
    """``events`` with the silence before and between them."""
    steps: list[Step] = []
    for number, event in enumerate(events):
        steps += silence(pace.interval_seconds if number else pace.delay_seconds)
        steps.append(Send(event))
    return tuple(steps)


def silence(seconds: float) -> tuple[Step, ...]:
    """A wait, or no step at all."""
    return (Wait(seconds),) if seconds else ()


def document(value: object) -> Answer:
    """A JSON answer with status 200."""
    return Answer(200, msgspec.json.encode(value))


def error_answer(status: int, message: str, code: str | None = None, param: str | None = None) -> Answer:
    """An error in OpenAI's envelope; busy ones say when to come again."""
    busy = status in (429, 503)
    return Answer(
        status,
        msgspec.json.encode({"error": error_object(message, "server_error" if status >= 500 else None, code, param)}),
        headers=(("retry-after", "1"),) if busy else (),
    )


def error_object(
    message: str, kind: str | None = None, code: str | None = None, param: str | None = None
) -> Mapping[str, str | None]:
    """OpenAI's error: https://platform.openai.com/docs/guides/error-codes."""
    return {"message": message, "type": kind or "invalid_request_error", "param": param, "code": code}


def data_event(value: object) -> bytes:
    """An unnamed server-sent event that carries JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def identifier(prefix: str, *parts: bytes) -> str:
    """An id that follows from what was sent: ``prefix`` and 24 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return prefix + digest.hexdigest()[:24]


def tokens(text: str) -> list[str]:
    """``text`` in pieces of one word each with the space before it: what this provider calls its tokens."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """Tokens of ``text``: its words."""
    return len(text.split())
