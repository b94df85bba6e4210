"""Requests as bytes: where one goes, and its head.

Header text is latin-1, one character a byte (RFC 9110 section 5.5).
"""

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from core.headers import Headers
from core.remembered import Remembered
from transport import failures

# Written by the transport itself, whatever the request says: two opinions on framing are request smuggling
# (RFC 9112 section 11.2). `Expect` is a matter between two hops, and this one does not wait.
_OWN_FIELDS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_USUAL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Of which a server expects content, so that the absence of any is said (RFC 9110 section 8.6).
_METHODS_WITH_CONTENT: Final = frozenset({"POST", "PUT", "PATCH"})
# Remembered; clients choose them.
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Destination(msgspec.Struct, frozen=True):
    """A URL, taken apart."""

    tls: bool
    host: str
    """Name or address, lower case, without brackets."""
    port: int
    start: str
    """What stands behind the method: target, version, and the `Host` field, without its end of line."""


def parse_url(text: str) -> Destination:
    """``text`` neither quoted again nor normalised: the target goes out as it stands there.

    Raises:
        core.errors.ConnectFailed: not an http(s) URL of printable ASCII without credentials.
    """
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise failures.unwritable_request()
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise failures.unwritable_address() from error
    if url.scheme not in _DEFAULT_PORTS or not host or port == 0 or "@" in url.netloc:
        raise failures.unwritable_address()
    default = _DEFAULT_PORTS[url.scheme]
    written = f"[{host}]" if ":" in host else host
    if port is not None and port != default:
        written = f"{written}:{port}"
    # By hand, for urlsplit forgets the question mark of an empty query.
    target = text.partition("#")[0].partition("://")[2][len(url.netloc) :]
    if not target.startswith("/"):
        target = f"/{target}"
    return Destination(url.scheme == "https", host, port or default, f" {target} HTTP/1.1\r\nHost: {written}")


def render(method: str, start: str, headers: Headers, has_body: bool, length: int | None) -> bytes:
    """The head of a request, its empty line included; without a ``length`` a body is framed in chunks.

    Raises:
        core.errors.ConnectFailed: something in it would end a line early.
    """
    if method not in _USUAL_METHODS and _TOKEN.fullmatch(method) is None:
        raise failures.unwritable_request()
    fields = [begin + value for name, value in headers if (begin := _begins[name])]
    framing = ""
    if has_body:
        framing = "\r\ntransfer-encoding: chunked" if length is None else f"\r\ncontent-length: {length}"
    elif method in _METHODS_WITH_CONTENT:
        framing = "\r\ncontent-length: 0"
    text = f"{method}{start}{''.join(fields)}{framing}\r\n\r\n"
    # Beside the fields' there are three ends of lines, and the framing's. To count is quicker than to look at each value.
    lines = len(fields) + (4 if framing else 3)
    if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
        raise failures.unwritable_request()
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise failures.unwritable_request() from error


def _beginning(name: str) -> str:
    """What stands before the value of a field; nothing for those that are the transport's own."""
    if _TOKEN.fullmatch(name) is None:
        raise failures.unwritable_request()
    return "" if name.lower() in _OWN_FIELDS else f"\r\n{name}: "


_begins = Remembered(_beginning)
