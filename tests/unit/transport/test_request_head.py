import pytest

from core.errors import ConnectFailed, Delivered
from core.headers import Headers
from tests.planted import planted
from transport.request_head import parse_url, render


@pytest.mark.parametrize(
    ("url", "tls", "host", "port", "start"),
    [
        ("http://h", False, "h", 80, " / HTTP/1.1\r\nHost: h"),
        ("https://h/", True, "h", 443, " / HTTP/1.1\r\nHost: h"),
        ("HTTPS://Host.Example:443/V1", True, "host.example", 443, " /V1 HTTP/1.1\r\nHost: host.example"),
        ("http://h:443/", False, "h", 443, " / HTTP/1.1\r\nHost: h:443"),
        ("http://h:8080?q", False, "h", 8080, " /?q HTTP/1.1\r\nHost: h:8080"),
        ("http://h/a?", False, "h", 80, " /a? HTTP/1.1\r\nHost: h"),
        ("http://h/a//b/../c;d?e=f?g&h=%20#part", False, "h", 80, " /a//b/../c;d?e=f?g&h=%20 HTTP/1.1\r\nHost: h"),
        ("http://h/?u=http://other/", False, "h", 80, " /?u=http://other/ HTTP/1.1\r\nHost: h"),
        ("https://[::1]:8443/x", True, "::1", 8443, " /x HTTP/1.1\r\nHost: [::1]:8443"),
        ("https://[2001:DB8::1]/", True, "2001:db8::1", 443, " / HTTP/1.1\r\nHost: [2001:db8::1]"),
    ],
)
def test_a_url_is_taken_apart_and_its_target_left_as_it_is(
    url: str, tls: bool, host: str, port: int, start: str
) -> None:
    to = parse_url(url)
    assert (tls, host, port, start) == (to.tls, to.host, to.port, to.start)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "//h/",
        "ftp://h/",
        "http:///x",
        "http://h:0/",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/",
        "http://user@h/",
        f"http://user:{planted('secret')}@h/",
        "http://h/a b",
        "http://h/\r\nx: y",
        "http://h/\t",
        "http://h/\x7f",
        "http://hé/",
    ],
)
def test_what_is_no_url_for_the_wire_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConnectFailed) as refused:
        parse_url(url)
    assert Delivered.NO is refused.value.delivered
    assert planted("secret") not in str(refused.value)


@pytest.mark.parametrize(
    ("method", "has_body", "length", "end"),
    [
        ("POST", True, 0, "\r\ncontent-length: 0\r\n\r\n"),
        ("POST", True, 5, "\r\ncontent-length: 5\r\n\r\n"),
        ("POST", True, None, "\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("POST", False, None, "\r\ncontent-length: 0\r\n\r\n"),
        ("PUT", False, 7, "\r\ncontent-length: 0\r\n\r\n"),
        ("GET", False, None, "\r\n\r\n"),
        ("DELETE", True, 1, "\r\ncontent-length: 1\r\n\r\n"),
        ("X-CUSTOM", False, None, "\r\n\r\n"),
    ],
)
def test_the_framing_is_the_transports(method: str, has_body: bool, length: int | None, end: str) -> None:
    theirs = [
        ("content-length", "9"),
        ("transfer-encoding", "gzip"),
        ("connection", "close"),
        ("host", "x"),
        ("te", "x"),
    ]
    head = render(method, " / HTTP/1.1\r\nHost: h", Headers([("a", "1"), *theirs, ("b", "")]), has_body, length)
    assert f"{method} / HTTP/1.1\r\nHost: h\r\na: 1\r\nb: {end}".encode() == head


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("GE T", ("a", "b")),
        ("", ("a", "b")),
        ("GET\r\nx: y", ("a", "b")),
        ("GET", ("", "b")),
        ("GET", ("a b", "c")),
        ("GET", ("a:", "c")),
        ("GET", ("a\r\nb", "c")),
        ("GET", ("é", "c")),
        ("GET", ("a", "b\r\nc: d")),
        ("GET", ("a", "b\nc: d")),
        ("GET", ("a", "b\rc: d")),
        ("GET", ("a", "b\n\rc")),
        ("GET", ("a", "b\0")),
        ("GET", ("a", "\u20ac")),
    ],
    ids=repr,
)
def test_what_would_end_a_line_early_is_refused(method: str, field: tuple[str, str]) -> None:
    with pytest.raises(ConnectFailed) as refused:
        render(method, " / HTTP/1.1\r\nHost: h", Headers([field]), False, None)
    assert Delivered.NO is refused.value.delivered


def test_names_beyond_those_that_are_remembered_are_written_too() -> None:
    for number in range(5000):
        assert b"\r\nx-%d: v\r\n" % number in render(
            "GET", " / HTTP/1.1\r\nHost: h", Headers([(f"x-{number}", "v")]), False, None
        )
