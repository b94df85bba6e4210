"""The head of an answer, as bytes; and the answers that the server gives by itself."""

from collections.abc import Iterable
from email.utils import formatdate
from http.client import responses as reason_phrases

import msgspec

from core.clock import SystemClock
from transport.received import Refused

_clock = SystemClock()
_status_lines = {status: f"HTTP/1.1 {status:d} {phrase}\r\n" for status, phrase in reason_phrases.items()}
# What the transport decides itself. All else passes.
_RULED = frozenset({"content-length", "transfer-encoding", "connection", "date"})


class AnswerHead:
    """The fields of an answer while they are put together."""

    __slots__ = ("_lines", "connection", "content_length", "dated")

    def __init__(self, status: int, reason: str | None, fields: Iterable[tuple[str, str]]) -> None:
        """``reason`` None is the usual one for ``status``.

        Raises:
            ValueError: `content-length` is not a number.
        """
        line = _status_lines.get(status) if reason is None else None
        self._lines = lines = [line or f"HTTP/1.1 {status:d} {reason or 'Unknown'}\r\n"]
        self.content_length: int | None = None
        self.connection: str | None = None
        self.dated = False
        for name, value in fields:
            key = name.lower()
            if key in _RULED:
                if key == "content-length":
                    self.content_length = _length(value)
                    continue
                if key == "connection":
                    self.connection = value
                    continue
                if key == "transfer-encoding":
                    continue
                self.dated = True
            lines.append(f"{name}: {value}\r\n")

    def render(self, framing: str) -> bytes:
        """All of it with the empty line. ``framing`` is lines that end with CR LF, of the transport's own making.

        Raises:
            ValueError: a name or a value would end its field, or is not latin-1.
        """
        lines = self._lines
        text = "".join(lines)
        if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
            # RFC 9110 section 5.5.
            raise ValueError("a field of the answer holds CR, LF or NUL")
        date = "" if self.dated else _date_line()
        return f"{text}{framing}{date}\r\n".encode("latin-1")


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
