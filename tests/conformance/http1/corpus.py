"""The golden messages of tests/golden/http1: to add a case, add a `[[case]]` to a file there.

Bytes are written as text: ``\\r``, ``\\n``, ``\\t``, ``\\0``, ``\\\\`` and ``\\xNN`` stand for one byte each, and
``\\(text*count)`` for ``count`` times ``text``. A line break of the file stands for nothing: it is there for the reader.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parents[2] / "golden/http1"

_ESCAPE = re.compile(r"\\(?:\((?P<text>[^()]+)\*(?P<count>\d+)\)|x(?P<hex>[0-9a-f]{2})|(?P<letter>[rnt0\\]))|\n")
_LETTERS = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
FATES = ("kept", "closed", "waiting")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the handler was told of it."""

    method: str
    target: str
    body: bytes | None
    """None: its end never came."""


@dataclass(frozen=True, slots=True)
class RequestCase:
    """What a client sends on one connection, and what comes of it."""

    name: str
    cite: str
    """The rule: an RFC's number and section; RFC 9110 and 9112 without `RFC`."""
    sent: bytes
    answers: tuple[int, ...]
    """Statuses in order. Where no 100 is among them, one that comes is passed over: RFC 9110 section 10.1.1 leaves it
    to the server once some of the body is there."""
    fate: str
    """``kept``: the next request is answered. ``closed``: nothing is answered any more. ``waiting``: the message is not
    whole, and the connection stays open for the rest."""
    seen: tuple[Seen, ...]
    fields: dict[str, tuple[str, ...]]
    """Values of fields of the first request, by lower-case name."""


@dataclass(frozen=True, slots=True)
class AnswerCase:
    """What a provider sends after one request, and what the caller of the client gets."""

    name: str
    cite: str
    method: str
    sent: bytes
    ends: bool
    """Whether the provider then ends the connection."""
    status: int | None
    """None: no answer's head was given, but ``error`` raised."""
    body: bytes
    """Of what was read before the end, or before ``error``."""
    error: str | None
    """The class of core.errors that is raised, or None."""
    reused: bool | None
    """Whether the connection takes the next request; None (``either``) where that is the client's to choose."""
    fields: dict[str, tuple[str, ...]]


def unescape(text: str) -> bytes:
    """The bytes that ``text`` stands for.

    Raises:
        ValueError: it holds an escape that there is not, or a character beyond ASCII.
    """
    rest = _ESCAPE.sub("", text)
    if "\\" in rest or not text.isascii():
        raise ValueError(f"not an escape, or not ASCII: {text!r}")

    def byte(match: re.Match[str]) -> str:
        if match["text"] is not None:
            return _ESCAPE.sub(byte, match["text"]) * int(match["count"])
        if match["hex"] is not None:
            return chr(int(match["hex"], 16))
        return _LETTERS.get(match["letter"], "")

    return _ESCAPE.sub(byte, text).encode("latin-1")


def _text(value: str) -> str:
    return unescape(value).decode("latin-1")


def _fields(entry: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(map(_text, values)) for name, values in entry.pop("fields", {}).items()}


def _request(entry: dict[str, Any]) -> RequestCase:
    seen = [
        Seen(_text(method), _text(target), unescape(rest[0]) if rest else None)
        for method, target, *rest in entry.pop("seen", [])
    ]
    sent, answers = unescape(entry.pop("sent")), tuple(entry.pop("answers"))
    case = RequestCase(sent=sent, answers=answers, seen=tuple(seen), fields=_fields(entry), **entry)
    assert case.fate in FATES, case
    return case


def _answer(entry: dict[str, Any]) -> AnswerCase:
    reused = entry.pop("reused", False)
    return AnswerCase(
        method=entry.pop("method", "GET"),
        sent=unescape(entry.pop("sent")),
        ends=entry.pop("ends", False),
        status=entry.pop("status", None),
        body=unescape(entry.pop("body", "")),
        error=entry.pop("error", None),
        reused=None if reused == "either" else reused,
        fields=_fields(entry),
        **entry,
    )


def _entries(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each case of a folder by its full name: its file's, a colon, and its own."""
    for path in sorted((PLACE / folder).glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["case"]:
            yield f"{path.stem}: {entry['name']}", entry


@cache
def request_cases() -> dict[str, RequestCase]:
    """What servers are held to, by full name."""
    return {name: _request(entry) for name, entry in _entries("requests")}


@cache
def answer_cases() -> dict[str, AnswerCase]:
    """What clients are held to, by full name."""
    return {name: _answer(entry) for name, entry in _entries("answers")}
