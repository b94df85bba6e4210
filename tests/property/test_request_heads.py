"""Our grammar of request heads is part of llhttp's: what is accepted here, another strict parser reads alike."""

from typing import Any

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from transport.received import CHUNKED, Refused, ServerLimits, parse_head

LIMITS = ServerLimits()
PIECES = [
    b"GET", b"POST", b"/", b"/a?b", b"http://h/", b"*", b"HTTP/1.1", b"HTTP/1.0", b" ", b"\t", b"\r\n", b"\r\n", b"\r", b"\n",
    b"Host: x", b"Host:", b"Content-Length: 5", b"Content-Length: 05", b"content-length:+5", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:\tchunked", b"transfer-encoding: x", b"Connection: close", b"Connection: keep-alive, x",
    b"Expect: 100-continue", b"Upgrade: h2c", b"A: b", b"A:\xe9", b"A : b", b":", b"\0", b"\x7f", b"\xff", b",", b"x",
]  # fmt: skip
LINES = st.sampled_from(
    [piece for piece in PIECES if b":" in piece] + [b"A:" + bytes([code]) + b"b" for code in range(256)]
)
FIRST = st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET http://h/ HTTP/1.1", b"OPTIONS * HTTP/1.0"])
LIKELY = st.tuples(FIRST, st.lists(LINES, max_size=4)).map(
    lambda parts: b"\r\n".join([parts[0], b"Host: x", *parts[1]])
)
ANYTHING = st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)


class Seen:
    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[str, str]] = []
        self.complete = False
        self.keep_alive = False
        self.parser: Any = None

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True
        self.keep_alive = (
            self.parser.should_keep_alive()
        )  # a message without a body is over when it is fed, and forgotten


@settings(max_examples=200, deadline=None)
@given(st.one_of(LIKELY, ANYTHING))
def test_an_accepted_head_is_read_alike_by_llhttp(raw: bytes) -> None:
    try:
        ours = parse_head(raw, LIMITS)
    except Refused:
        return
    seen = Seen()
    parser = seen.parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass  # whether it is one is the handler's to say
    assert seen.complete
    assert ours.start_line.method.encode() == parser.get_method()
    assert ours.start_line.path.encode() == seen.url
    assert ours.start_line.version == f"HTTP/{parser.get_http_version()}"
    assert list(ours.headers.fields) == seen.fields
    if "expect" not in ours.headers.fields and "upgrade" not in ours.headers.fields:
        assert ours.keep_alive == seen.keep_alive
    assert (CHUNKED == ours.body_bytes) == ("transfer-encoding" in ours.headers.fields)
