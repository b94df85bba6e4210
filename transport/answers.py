"""The head of an answer, as bytes; and the answers that the server gives by itself."""

from collections.abc import Iterable
from email.utils import formatdate
from http.client import responses as reason_phrases

import msgspec

from core.clock import SystemClock
from core.remembered import Remembered
from transport.received import Refused

_clock = SystemClock()
_status_lines = {status: f"HTTP/1.1 {status:d} {phrase}" for status, phrase in reason_phrases.items()}
# What the transport decides itself. All else passes.
_RULED = frozenset({"content-length", "transfer-encoding", "connection", "date"})


def _beginning(name: str) -> str:
    """What stands before the value of a field; nothing for those that the transport rules."""
    return "" if name.lower() in _RULED else f"\r\n{name}: "


_begins = Remembered(_beginning)


class AnswerHead:
    """The fields of an answer while they are put together."""

    __slots__ = ("_parts", "connection", "content_length", "dated")

    def __init__(self, status: int, reason: str | None, fields: Iterable[tuple[str, str]]) -> None:
        """``reason`` None is the usual one for ``status``.

        Raises:
            ValueError: `content-length` is not a number.
        """
        line = _status_lines.get(status) if reason is None else None
        self._parts = parts = [line or f"HTTP/1.1 {status:d} {reason or 'Unknown'}"]
        self.content_length: int | None = None
        self.connection: str | None = None
        self.dated = False
        begins = _begins
        for name, value in fields:
            if begin := begins[name]:
                parts.append(begin)
                parts.append(value)
            else:
                self._rule(name.lower(), value)

    def _rule(self, name: str, value: str) -> None:
        if name == "content-length":
            self.content_length = _length(value)
        elif name == "connection":
            self.connection = value
        elif name == "date":
            self.dated = True
            self._parts += ("\r\ndate: ", value)

    def render(self, framing: str) -> bytes:
        """All of it with the empty line. ``framing`` is lines that end with CR LF, of the transport's own making.

        Raises:
            ValueError: a name or a value would end its field, or is not latin-1.
        """
        parts = self._parts
        text = "".join(parts)
        # Of the start one part and no line end, of each field two parts and one.
        if text.count("\n") * 2 + 1 != len(parts) or text.count("\r") * 2 + 1 != len(parts) or "\0" in text:
            # RFC 9110 section 5.5.
            raise ValueError("a field of the answer holds CR, LF or NUL")
        date = "" if self.dated else _date_line()
        return f"{text}\r\n{framing}{date}\r\n".encode("latin-1")


def _length(value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise ValueError(f"`content-length` of the answer is not a number: {value!r}")
    return int(value)


class _Dated:
    __slots__ = ("line", "second")

    def __init__(self) -> None:
        self.second = 0
        self.line = ""


_dated = _Dated()


def _date_line() -> str:
    # RFC 9110 section 6.6.1: an origin server with a clock sends Date. Made once a second.
    second = int(_clock.time())
    if second != _dated.second:
        _dated.second = second
        _dated.line = f"date: {formatdate(second, usegmt=True)}\r\n"
    return _dated.line


def refusal(error: Refused, *, bodyless: bool = False) -> bytes:
    """The whole answer to a request that is not served; it announces that the connection ends.

    ``bodyless``: the request is HEAD.
    """
    return _answer(error.status, "invalid_request_error", error.code, str(error), bodyless=bodyless)


def failure(*, bodyless: bool = False) -> bytes:
    """The whole answer where a handler failed and said nothing."""
    return _answer(500, "api_error", "internal_error", "the server failed; its log says more", bodyless=bodyless)


def too_many_connections() -> bytes:
    """The whole answer to a connection beyond the limit."""
    message = "too many open connections; try again shortly"
    return _answer(503, "api_error", "too_many_connections", message, ("retry-after", "1"))


def _answer(status: int, kind: str, code: str, message: str, *more: tuple[str, str], bodyless: bool = False) -> bytes:
    body = msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})
    head = AnswerHead(status, None, (("content-type", "application/json"), *more))
    written = head.render(f"content-length: {len(body)}\r\nconnection: close\r\n")
    return written if bodyless else written + body
