"""Heads of requests: tests/golden/http1 has the corpus of messages; here is what the parts say."""

import copy

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from core.headers import Headers
from tests.cost import least_seconds
from tests.planted import planted
from transport import received
from transport.received import CHUNKED, Refused, ServerLimits, WireHeaders, check_partial, parse_head

SECRET = planted("secret").encode()

LIMITS = ServerLimits(header_bytes=1000, header_count=10, url_bytes=100)


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: x") -> bytes:
    return b"\r\n".join((first, host, *lines))


def refused(raw: bytes) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        parse_head(raw, LIMITS)
    return caught.value.status, str(caught.value)


def test_a_head() -> None:
    got = parse_head(head(b"X-A:\t b c \t", b"x-a:d", b"X-Empty:", b"X-L: \xe9", b"Content-Length: 007"), LIMITS)
    assert RequestStartLine("GET", "/", "HTTP/1.1") == got.start_line
    fields = [("host", "x"), ("x-a", "b c"), ("x-a", "d"), ("x-empty", ""), ("x-l", "é"), ("content-length", "007")]
    assert fields == list(got.headers.fields)
    assert (7, True, False) == (got.body_bytes, got.keep_alive, got.expects_continue)


def test_a_head_is_the_same_when_its_lines_are_remembered() -> None:
    raw = head(
        b"X-Twice: a",
        b"Authorization: Bearer " + SECRET,
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
    )
    first, second = parse_head(raw, LIMITS), parse_head(raw, LIMITS)
    assert first.headers.fields == second.headers.fields
    assert CHUNKED == first.body_bytes == second.body_bytes
    assert first.expects_continue
    assert second.expects_continue


def test_secrets_and_long_lines_are_not_remembered() -> None:
    raw = head(
        b"Authorization: Bearer remember-me-not",
        b"X-Api-Key: remember-me-not",
        b"X-Goog-Api-Key: remember-me-not",
        b"Cookie: remember-me-not",
        b"X-Long: remember-me-not" + b"x" * 200,
        first=b"GET /v1beta?key=remember-me-not HTTP/1.1",
    )
    parse_head(raw, LIMITS)
    kept = repr((received._known_fields, received._known_lines, received._names))
    assert "host" in kept
    assert "remember-me-not" not in kept


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3000):
        parse_head(head(b"X-%d: %d" % (number, number), first=b"GET /%d HTTP/1.1" % number), LIMITS)
    for kept in (received._known_fields, received._known_lines, received._names):
        assert len(kept) <= 1024


@pytest.mark.parametrize(
    ("raw", "status", "words"),
    [
        (head(first=b"GET /" + b"x" * 100 + b" HTTP/1.1"), 414, "longer than 100 bytes"),
        (head(first=b"GET /" + b"\xff" * 300), 414, "longer than 100 bytes"),
        (head(b"A: " + b"x" * 1000), 431, "larger than"),
        (head(*[b"A: b"] * 10), 431, "more than 10"),
        (head(first=b"GET / HTTP/2.0"), 505, "HTTP/1.0 and HTTP/1.1"),
        (head(first=b"GET / HTTP/1.2"), 505, "HTTP/1.0 and HTTP/1.1"),
        (head(first=b"CONNECT x:1 HTTP/1.1"), 400, "no forward proxy"),
        (head(first=b"GET x HTTP/1.1"), 400, "neither a path nor"),
        (head(first=b"GET * HTTP/1.1"), 400, "neither a path nor"),
        (head(first=b"GET http://user@x/ HTTP/1.1"), 400, "neither a path nor"),
        (head(first=b"GET ftp://x/ HTTP/1.1"), 400, "neither a path nor"),
        (head(first=b"GET /#x HTTP/1.1"), 400, "request line"),
        (head(b"Expect: 200-ok"), 417, "100-continue"),
        (head(b"Transfer-Encoding: gzip, chunked"), 501, "no transfer coding but"),
        (head(host=b"Host"), 400, "not `name: value`"),
        (head(b" folded"), 400, "folded"),
        (head(host=b"Host: a b"), 400, "Host"),
        (head(host=b"Host: a,b"), 400, "Host"),
        (head(host=b"Host: a/b"), 400, "Host"),
        (head(host=b"A: b"), 400, "exactly one Host"),
        (head(b"Content-Length: 1", b"Content-Length: 1"), 400, "more than one Content-Length"),
        (head(b"Content-Length: " + b"9" * 19), 400, "not a number"),
        (head("Content-Length: ²".encode("latin-1")), 400, "not a number"),
        (head(b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400, "both"),
    ],
)
def test_refusals(raw: bytes, status: int, words: str) -> None:
    assert status == refused(raw)[0]
    assert words in refused(raw)[1]


def test_a_refusal_repeats_nothing_of_the_request() -> None:
    for raw in (head(SECRET), head(first=SECRET), head(host=b"Host: a " + SECRET)):
        assert SECRET.decode() not in refused(raw)[1]


@pytest.mark.parametrize("host", [b"", b"a", b"a.b:80", b"127.0.0.1:8080", b"[::1]", b"[::1]:80", b"a%20b", b"a:"])
def test_hosts(host: bytes) -> None:
    assert [("host", host.decode())] == list(parse_head(head(host=b"Host: " + host), LIMITS).headers.fields)


@pytest.mark.parametrize("first", [b"OPTIONS * HTTP/1.1", b"GET http://a:1/b?c HTTP/1.1", b"M-SEARCH //x HTTP/1.0"])
def test_targets(first: bytes) -> None:
    assert first.split()[1].decode() == parse_head(head(first=first), LIMITS).start_line.path


def drip(raw: bytes) -> None:
    for length in range(1, len(raw) + 1):
        check_partial(bytearray(raw[:length]), length - 1, LIMITS)


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\n", 400),
        (b"GET / HTTP/1.1\rA", 400),
        (b"\x16\x03\x01", 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/3.0\r\n", 505),
        (b"GET /" + b"x" * 200, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 1000, 431),
    ],
)
def test_what_cannot_become_a_head_is_refused_at_once(begun: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        check_partial(begun, 0, LIMITS)
    assert status == caught.value.status
    # Byte by byte it is not seen later than with its last byte.
    with pytest.raises(Refused) as caught:
        drip(begun)
    assert status == caught.value.status


def test_a_head_that_may_yet_be_fine_is_waited_for() -> None:
    drip(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r")


def test_a_head_that_comes_byte_by_byte_costs_no_more_than_it_should() -> None:
    limits = ServerLimits(header_bytes=65536)

    def come(length: int) -> None:
        raw = bytearray(b"GET / HTTP/1.1\r\n")
        while len(raw) < length:
            raw += b"x"
            check_partial(raw, len(raw) - 1, limits)

    short, long = least_seconds(lambda: come(3000), lambda: come(60_000), rounds=3)
    # Twenty times as long, not four hundred.
    assert long < 100 * short


def test_lines_made_to_be_slow_are_not() -> None:
    limits = ServerLimits(header_bytes=65536)

    def parse(length: int) -> None:
        for line in (
            b"A: " + b" " * length + b"\x01",
            b"A" * length,
            b"Host: " + b"a" * length + b"\xff",
            b"A:" + b"\t" * length,
        ):
            for _ in range(10):
                try:
                    parse_head(head(line), limits)
                except Refused:
                    pass

    short, long = least_seconds(lambda: parse(3000), lambda: parse(60_000))
    # Twenty times as long, not four hundred.
    assert long < 100 * short


def made() -> WireHeaders:
    return WireHeaders(Headers([("host", "x"), ("set-cookie", "a"), ("accept", "b"), ("set-cookie", "c")]))


def test_wire_headers_read_as_tornados() -> None:
    headers = made()
    assert "_as_list" not in vars(headers)
    assert "a,c" == headers["SET-COOKIE"] == headers.get("set-cookie")
    assert ["a", "c"] == headers.get_list("Set-Cookie")
    assert [] == headers.get_list("X")
    assert "host" in headers
    assert "x" not in headers
    assert headers.get("x") is None
    assert ["Host", "Set-Cookie", "Accept"] == list(headers)
    assert 3 == len(made())
    assert [("Host", "x"), ("Set-Cookie", "a"), ("Set-Cookie", "c"), ("Accept", "b")] == list(made().get_all())
    assert "Host: x\nSet-Cookie: a\nSet-Cookie: c\nAccept: b\n" == str(made())
    assert {"Host": "x", "Set-Cookie": "a,c", "Accept": "b"} == dict(made())
    same = HTTPHeaders()
    for name, value in made().get_all():
        same.add(name, value)
    assert same == made()


def test_wire_headers_change_as_tornados_and_what_came_stays() -> None:
    headers = made()
    headers.add("Accept", "d")
    headers["X-New"] = "e"
    del headers["Host"]
    assert "b,d" == headers["accept"]
    assert ["Set-Cookie", "Accept", "X-New"] == list(headers)
    assert list(made().fields) == list(headers.fields)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, HTTPHeaders, WireHeaders.copy])
def test_copies_of_wire_headers_are_their_own(copied: object) -> None:
    headers = made()
    assert callable(copied)
    other = copied(headers)
    assert headers == other
    other["accept"] = "z"
    assert "b" == headers["accept"]


def test_wire_headers_know_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = made().nonsense


def test_tornados_request_takes_them() -> None:
    start_line = RequestStartLine("GET", "/?a=b", "HTTP/1.1")
    request = HTTPServerRequest(start_line=start_line, headers=made())
    assert "x" == request.host
    assert {"a": [b"b"]} == request.arguments
