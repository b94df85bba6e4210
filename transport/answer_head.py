"""The head of a provider's answer, which llhttp has found valid, read into values; and how its body is framed.

What llhttp lets pass but two readers might take differently is refused here.
"""

from typing import Final, NamedTuple

from core.headers import Headers
from transport import failures

# Answers may carry long fields: content security policies, signed URLs.
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 256

_MAX_NAMES: Final = 1024
_MAX_NAME_LENGTH: Final = 64
_REQUEST_TIMEOUT: Final = 408
_WITHOUT_BODY: Final = frozenset({204, 304})  # RFC 9112 section 6.3


class AnswerHead(NamedTuple):
    """Status, fields, and what they say of the connection."""

    status: int
    headers: Headers
    delimited: bool
    """The body's end can be told from the bytes; else it is the connection's end."""
    keeps: bool
    """The provider will answer another request on this connection."""


def read_head(raw: bytes | bytearray, end: int, method_is_head: bool) -> AnswerHead:
    """``raw`` up to ``end``, where its empty line begins.

    Raises:
        core.errors.UpstreamMalformed: not a head of HTTP/1, too large, or its framing is doubtful.
    """
    newer = raw.startswith(b"HTTP/1.1 ")
    if not newer and not raw.startswith(b"HTTP/1.0 "):
        raise failures.malformed()
    if end > MAX_HEAD_BYTES:
        raise failures.malformed("The head of the provider's answer is too large.")
    status = int(raw[9:12])
    if status < 100:
        raise failures.malformed()
    headers = Headers(_fields(raw[:end].decode("latin-1")))
    if len(headers) > MAX_FIELDS:
        raise failures.malformed("The provider's answer has too many header fields.")
    coding = headers.get("transfer-encoding")
    if coding is not None and (
        not newer or coding.lower() != "chunked" or len(headers.get_all("transfer-encoding")) > 1
    ):
        # With HTTP/1.0 the framing is faulty by definition (RFC 9112 section 6.1). Another coding than `chunked`
        # was not asked for (section 7.4), and to the parser it would be a body without an end. Together with
        # Content-Length the parser has refused it.
        raise failures.malformed("The provider's answer has a transfer coding that nobody asked for.")
    delimited = (
        coding is not None or method_is_head or status in _WITHOUT_BODY or headers.get("content-length") is not None
    )
    connection = headers.get("connection")
    keeps = delimited and (newer if connection is None else _keeps(headers, newer))
    if status == _REQUEST_TIMEOUT:
        # RFC 9110 section 15.5.9: the provider gives the connection up. Some send it unasked when one was idle for long; what
        # was just asked may be answered next, and would be taken for the answer to what is asked after it.
        keeps = False
    return AnswerHead(status, headers, delimited, keeps)


def kept_seconds(headers: Headers, limit: float) -> float:
    """How long an idle connection may be used again: ``limit``, or less if `Keep-Alive: timeout` says so.

    A second is taken off, for the request that is on its way when the provider closes.
    """
    said = headers.get("keep-alive")
    if said is None:
        return limit
    for parameter in said.split(","):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "timeout" and value.isascii() and value.isdigit() and len(value) < 10:
            return min(limit, max(int(value) - 1.0, 0.5))
    return limit


def _keeps(headers: Headers, newer: bool) -> bool:
    """RFC 9112 section 9.3."""
    values = headers.get_all("connection")
    if values == ["keep-alive"]:  # what nearly all say that say something
        return True
    options = {option.strip().lower() for value in values for option in value.split(",")}
    return "close" not in options and (newer or "keep-alive" in options)


def _fields(text: str) -> list[tuple[str, str]]:
    names = _names
    # White space beyond the one usual blank before a value is rare, and looking for it in each costs more.
    plain = "  " not in text and " \r" not in text and "\t" not in text and not text.endswith(" ")
    fields = []
    for line in text.split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        lower = names.get(name)
        if lower is None:
            lower, value = _unusual(line)
        elif not plain:
            value = value.strip(" \t")
        fields.append((lower, value))
    return fields


_names: dict[str, str] = {}
"""Names as providers write them, to the same in lower case."""


def _unusual(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    lower = name.lower()
    if len(_names) < _MAX_NAMES and len(name) <= _MAX_NAME_LENGTH:
        _names[name] = lower
    return lower, value.strip(" \t")
