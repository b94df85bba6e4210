"""The head of a request: what may stand in it, and what it means for the connection.

Everything that two servers on one path could read differently is refused (RFC 9112 section 11.2): a gateway stands
behind load balancers and before providers. The rules here are stricter than llhttp's, and llhttp must take the head too:
two readers of different origin have to agree. That they also read it alike is shown by tests/property/test_request_heads.py;
fields are taken from our own reading, as callbacks for each of them would cost several times what both readings do.
"""

import re
from typing import Any, NoReturn, TypeVar, cast

import httptools
import msgspec
from tornado.httputil import HTTPHeaders, RequestStartLine, _normalize_header

from core.headers import Headers

_Value = TypeVar("_Value")


class ServerLimits(msgspec.Struct, frozen=True):
    """What a client may send, and how slowly."""

    header_bytes: int = 65536
    """Request line and fields together."""
    header_count: int = 128
    url_bytes: int = 16384
    header_seconds: float = 20.0
    """From the first byte of a head to its last; for a connection's first byte, too."""
    body_idle_seconds: float = 30.0
    send_idle_seconds: float = 120.0
    """How long a client may take nothing of what is written to it."""
    keep_alive_seconds: float = 75.0
    requests_per_connection: int = 10000


class Refused(Exception):
    """A request that is not served; the connection is closed after the answer.

    ``code`` is the wire code, the message says what is wrong without repeating the client's bytes.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class WireHeaders(HTTPHeaders):
    """Fields as they came: :attr:`fields` at once, Tornado's own dictionaries when somebody first looks.

    The data plane reads ``fields`` alone and never pays for the rest. Changes are made to Tornado's part alone.
    """

    fields: Headers

    def __init__(self, fields: Headers) -> None:
        # HTTPHeaders.__init__ would validate once more and fill the dictionaries.
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        # Asked for what is not there yet.
        if name not in ("_as_list", "_combined_cache"):
            raise AttributeError(name)
        lists: dict[str, list[str]] = {}
        for field, value in self.fields:
            lists.setdefault(_normalize_header(field), []).append(value)
        self._as_list = lists
        self._combined_cache = {}
        return getattr(self, name)


class RequestHead(msgspec.Struct, gc=False):
    """A head that is acceptable."""

    start_line: RequestStartLine
    headers: WireHeaders
    body_bytes: int
    """Length of the body; :data:`CHUNKED` when only its end tells."""
    keep_alive: bool
    expects_continue: bool


CHUNKED = -1

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9112 section 3: single spaces, and nothing but printable ASCII in the target (RFC 3986 knows no other). No
# fragment either: it is not part of what is sent (RFC 9110 section 4.2.5), and readers differ in what to make of it.
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/([0-9])\.([0-9])")
# RFC 9112 section 5.1: no space before the colon. Section 5.2: no folding, which begins a line with a space. RFC 9110
# section 5.5: no control byte in a value but the tab; space around it is not part of it.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
# RFC 9110 section 7.2 with RFC 3986 section 3.2.2: a name or IPv4 address, or an IP literal in brackets; a port. Commas
# would be allowed in a name, and are what a proxy makes of two Host fields.
_AUTHORITY = re.compile(
    r"(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*(?::[0-9]*)?|\[[0-9A-Za-z:.%\-_~]+\](?::[0-9]*)?"
)
_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?]+)(?:[/?].*)?")
# RFC 9112 section 2.2: a bare LF ends no line here, a bare CR is no space, and both are what smuggling is made of.
# What cannot become part of a head any more, whatever follows:
_NEVER = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_METHOD_AND_VERSION_BYTES = 64
_LENGTH_DIGITS = 18

_RULED = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
# Lines that come again with each request are read once. Secrets are not among them, and no line of unusual length.
_REMEMBERED_BYTES = 128
_REMEMBERED_LINES = 1024
_FORGOTTEN = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "x-goog-api-key", "api-key", "content-length"}
)
_names: dict[bytes, str] = {}
_known_fields: dict[bytes, tuple[str, str]] = {}
_NOBODY = object()
"""No callbacks: only whether llhttp takes a head is asked."""
_known_lines: dict[bytes, RequestStartLine] = {}


def parse_head(raw: bytes, limits: ServerLimits) -> RequestHead:
    """The head in ``raw``: its lines without the empty one that ends them.

    Raises:
        Refused: it is malformed, too large, or asks for what is not offered.
    """
    if len(raw) > limits.header_bytes:
        raise_too_large()
    lines = raw.split(b"\r\n")
    start_line = _known_lines.get(lines[0]) or parse_request_line(lines[0], limits)
    del lines[0]
    if len(lines) > limits.header_count:
        raise Refused(431, "headers_too_large", f"more than {limits.header_count} header fields")
    # Most lines were seen before, on this connection or another: a dozen look-ups in one go.
    found = list(map(_known_fields.get, lines))
    if None in found:
        for number, field in enumerate(found):
            if field is None:
                found[number] = parse_field(lines[number])
    fields = cast(list[tuple[str, str]], found)
    ruled = [field for field in fields if field[0] in _RULED]
    body_bytes, keep_alive, expects_continue = _judge(start_line, ruled)
    if not _is_taken_by_llhttp(raw) and not _is_taken_by_llhttp(_in_plain_form(start_line.path, fields)):
        _malformed("llhttp refuses it")
    return RequestHead(start_line, WireHeaders(Headers(fields)), body_bytes, keep_alive, expects_continue)


def _is_taken_by_llhttp(head: bytes) -> bool:
    parser = httptools.HttpRequestParser(_NOBODY)
    try:
        parser.feed_data(head)
        parser.feed_data(b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        return True  # whether it becomes one is the handler's to say
    except httptools.HttpParserError:
        return False
    return True


def _in_plain_form(target: str, fields: list[tuple[str, str]]) -> bytes:
    """The head as we read it. llhttp knows fewer methods than there are, and no space behind `chunked`: both are right
    by the RFCs, and refused by it in the form that they came in.
    """
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode("latin-1")


def check_partial(raw: bytes | bytearray, seen: int, limits: ServerLimits) -> None:
    """See what is wrong already with the beginning of a head, as its rest may never come.

    ``seen`` is how much of ``raw`` was looked at before, so that a head that comes byte by byte costs no more.

    Raises:
        Refused: no rest could mend it.
    """
    if _NEVER.search(raw, max(seen - 1, 0)):
        _malformed("a control byte, or a line that does not end with CR LF")
    longest = limits.url_bytes + _METHOD_AND_VERSION_BYTES
    end = raw.find(b"\r\n", 0, longest)
    if end < 0:
        if len(raw) > longest:
            _url_too_long(limits)
    elif seen < end + 2:
        parse_request_line(bytes(raw[:end]), limits)
    if len(raw) > limits.header_bytes:
        raise_too_large()


def parse_request_line(line: bytes, limits: ServerLimits) -> RequestStartLine:
    """Method, target and version (RFC 9112 section 3).

    Raises:
        Refused: they are malformed, too long, or of another version of HTTP.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if len(line) > limits.url_bytes + _METHOD_AND_VERSION_BYTES:
            _url_too_long(limits)
        _malformed("the request line is not `METHOD target HTTP/1.1`")
    method, target, major, minor = (part.decode("ascii") for part in match.groups())
    if major != "1" or minor not in "01":
        # RFC 9110 section 15.6.6.
        raise Refused(505, "http_version_not_supported", "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(target) > limits.url_bytes:
        _url_too_long(limits)
    if method == "CONNECT":
        # RFC 9110 section 9.3.6: it asks for a tunnel.
        _malformed("CONNECT is not offered: this is no forward proxy")
    if target[0] != "/" and not (target == "*" and method == "OPTIONS"):
        # RFC 9112 section 3.2. An authority with userinfo is an error: RFC 9110 section 4.2.4.
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or not _AUTHORITY.fullmatch(absolute[1]):
            _malformed("the target is neither a path nor an http or https URL")
    start_line = RequestStartLine(method, target, f"HTTP/1.{minor}")
    # A query may hold a key (Gemini's `?key=`).
    if len(line) <= _REMEMBERED_BYTES and "?" not in target:
        _remember(_known_lines, line, start_line)
    return start_line


def parse_field(line: bytes) -> tuple[str, str]:
    """Lower-case name and value of a field line (RFC 9112 section 5).

    Raises:
        Refused: it is malformed.
    """
    name, colon, value = line.partition(b":")
    folded = _names.get(name)
    text = value.decode("latin-1").strip(" \t")
    if folded is None or not colon or not text.isprintable():
        # Printable characters are all allowed; but others are, too, and a new name is to be looked at.
        match = _FIELD.fullmatch(line)
        if match is None:
            if line[:1] in (b" ", b"\t"):
                _malformed("a folded header field")
            _malformed("a header field is not `name: value`")
        folded = name.decode("ascii").lower()
        if len(name) <= _REMEMBERED_BYTES:
            _remember(_names, name, folded)
    if folded == "host" and not _AUTHORITY.fullmatch(text):
        _malformed("the Host field is not a host with or without a port")
    field = (folded, text)
    if len(line) <= _REMEMBERED_BYTES and folded not in _FORGOTTEN:
        _remember(_known_fields, line, field)
    return field


def _remember(known: dict[bytes, _Value], key: bytes, value: _Value) -> None:
    if len(known) >= _REMEMBERED_LINES:
        known.clear()
    known[key] = value


def _judge(start_line: RequestStartLine, ruled: list[tuple[str, str]]) -> tuple[int, bool, bool]:
    """Length of the body, whether the connection stays, whether `100 Continue` is waited for."""
    old = start_line.version == "HTTP/1.0"
    hosts = 0
    length: str | None = None
    codings: str | None = None
    options: set[str] = set()
    expects_continue = False
    for name, value in ruled:
        if name == "host":
            hosts += 1
        elif name == "content-length":
            if length is not None:
                # RFC 9110 section 8.6 would allow equal ones; nobody honest sends two.
                _malformed("more than one Content-Length")
            length = value
        elif name == "transfer-encoding":
            codings = value if codings is None else f"{codings},{value}"
        elif name == "connection":
            if value == "keep-alive" and not old:
                continue
            options |= {option.strip(" \t").lower() for option in value.split(",")}
        elif not old:
            # RFC 9110 section 10.1.1, also: what HTTP/1.0 expects is not answered.
            if value.lower() != "100-continue":
                raise Refused(417, "expectation_failed", "only `Expect: 100-continue` is understood")
            expects_continue = True
    # RFC 9112 section 3.2: exactly one; HTTP/1.0 has none of its own.
    if hosts != 1 and (hosts or not old):
        _malformed("there must be exactly one Host field")
    # RFC 9112 section 9.3: `close` rules.
    keep_alive = "close" not in options and (not old or "keep-alive" in options)
    if codings is not None:
        if length is not None:
            # RFC 9112 section 6.1: an attempt at request smuggling.
            _malformed("both Transfer-Encoding and Content-Length")
        if old:
            # RFC 9112 section 6.1: HTTP/1.0 has no transfer codings, its framing is faulty.
            _malformed("Transfer-Encoding in HTTP/1.0")
        _judge_codings(codings)
        return CHUNKED, keep_alive, expects_continue
    if length is None:
        return 0, keep_alive, expects_continue
    # RFC 9110 section 8.6. More digits than any body has are refused before Python reads them.
    if not (length.isascii() and length.isdigit()) or len(length) > _LENGTH_DIGITS:
        _malformed("Content-Length is not a number")
    return int(length), keep_alive, expects_continue


def _judge_codings(codings: str) -> None:
    names = [name.strip(" \t").lower() for name in codings.split(",")]
    if names == ["chunked"]:
        return
    if names[-1] != "chunked":
        # RFC 9112 section 6.3: the length cannot be told.
        _malformed("the last transfer coding is not `chunked`")
    if "chunked" in names[:-1] or not all(names):
        # RFC 9112 section 6.1: chunked comes once, and last.
        _malformed("Transfer-Encoding is no list of codings that ends with one `chunked`")
    raise Refused(501, "transfer_coding_not_supported", "no transfer coding but `chunked` is understood")


def _malformed(what: str) -> NoReturn:
    raise Refused(400, "malformed_request", f"malformed request: {what}")


def _url_too_long(limits: ServerLimits) -> NoReturn:
    raise Refused(414, "url_too_long", f"the request target is longer than {limits.url_bytes} bytes")


def raise_too_large() -> NoReturn:
    raise Refused(431, "headers_too_large", "the head of the request is larger than this server takes")
