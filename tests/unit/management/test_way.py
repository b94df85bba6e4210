"""What a browser could be made to do, over a socket: names, pages, preflights, headers, types of bodies."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from access.address import TrustedProxies
from management.errors import ManagementError
from management.handler.inputs import require_media_type
from management.handler.operation import YAML
from management.handler.origin import Origins
from management.routes import ROUTES

Call = Callable[..., Any]
HEALTH = "/api/v1/health"
RELOAD = ("POST", "/api/v1/config/reload")
PAGE = "https://console.example.com"
OPEN_TO_ANY_NAME = ("/healthz", "/readyz", "/metrics", "/", "/favicon.ico")


def known(call: Call, **headers: str) -> Any:
    return call("GET", HEALTH, "admin", headers=headers)


def test_the_api_is_called_by_names_that_are_known(call: Call, gateway: Any) -> None:
    gateway.change_view(origins=Origins(globs=("*.example.com",)))
    assert [200, 200, 200, 421, 421] == [
        known(call, Host=host).status
        for host in ("localhost:1", "10.0.0.1", "llm.example.com", "rebound.attacker.test", "example.com")
    ]
    refused = known(call, Host="rebound.attacker.test:8080")
    assert "request_error-unknown_host" == refused.code
    assert "`rebound.attacker.test` is not known" in refused.json["error"]["message"]
    assert "management.allowed_hosts" in refused.json["error"]["message"]


@pytest.mark.parametrize(
    "path", sorted({route.path for route in ROUTES if route.path.startswith("/api/")} | {"/api/v1/no"})
)
@pytest.mark.parametrize("key", ["admin", "unknown", None])
def test_an_unknown_name_is_refused_before_the_caller_is_looked_at(
    call: Call, gateway: Any, path: str, key: str | None
) -> None:
    assert 421 == call("GET", path.replace("{", "").replace("}", ""), key, headers={"Host": "attacker.test"}).status
    assert [] == gateway.addresses


@pytest.mark.parametrize("path", OPEN_TO_ANY_NAME)
@pytest.mark.parametrize("key", ["admin", "unknown", None])
def test_what_is_no_part_of_the_api_answers_by_any_name_alike(call: Call, path: str, key: str | None) -> None:
    by_name, by_address = (call("GET", path, key, headers=fields) for fields in ({"Host": "attacker.test"}, {}))
    assert by_address.status == by_name.status
    assert by_address.status in (200, 401, 404)


def raw(io_loop: IOLoop, port: int, request: bytes) -> bytes:
    """The answer to a request as it is written here."""

    def send() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(request)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    async def run() -> bytes:
        return await IOLoop.current().run_in_executor(None, send)

    return bytes(io_loop.run_sync(run, timeout=90))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /api/v1/health HTTP/1.0\r\n", b"421"),
        (b"GET /healthz HTTP/1.0\r\n", b"200"),
        (b"GET /api/v1/health HTTP/1.0\r\nHost: localhost\r\n", b"200"),
        (b"GET /api/v1/health HTTP/1.1\r\nHost:\r\n", b"421"),
        (b"GET /api/v1/health HTTP/1.1\r\n", b"400"),
        (b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", b"400"),
    ],
)
def test_a_request_that_names_no_host_or_two_is_no_way_around(
    http_server: object, io_loop: IOLoop, http_port: int, gateway: Any, head: bytes, status: bytes
) -> None:
    # Targets with a host of their own: tests/integration/test_known_holes.py.
    request = head + b"Authorization: Bearer admin\r\nConnection: close\r\n\r\n"
    assert status == raw(io_loop, http_port, request)[9:12]


# Pages


def test_without_a_list_no_page_may_read_or_change(call: Call, gateway: Any) -> None:
    read = known(call, Origin=PAGE)
    assert 200 == read.status
    assert [] == [name for name in read.headers if name.startswith("access-control") or name == "vary"]
    changed = call(*RELOAD, "admin", headers={"Origin": PAGE})
    assert (403, "request_error-foreign_origin") == (changed.status, changed.code)
    assert ([], []) == (gateway.triggers, gateway.entries)


def test_a_page_of_the_gateways_own_may_change(call: Call, gateway: Any, base_url: str) -> None:
    assert 200 == call(*RELOAD, "admin", headers={"Origin": base_url}).status
    gateway.change_view(origins=Origins(public_url=PAGE))
    assert 200 == call(*RELOAD, "admin", headers={"Origin": PAGE}).status


@pytest.mark.parametrize("origin", ["null", "*", "https://console.example.com.attacker.test", "http://localhost:1", ""])
def test_a_page_of_anybody_elses_may_not(call: Call, gateway: Any, origin: str) -> None:
    gateway.change_view(origins=Origins(pages=(PAGE,)))
    assert 403 == call(*RELOAD, "admin", headers={"Origin": origin}).status
    assert [] == gateway.triggers


def test_a_page_that_is_listed_may_read_and_change(call: Call, gateway: Any) -> None:
    gateway.change_view(origins=Origins(pages=(PAGE,)))
    for answer, status in (
        (known(call, Origin=PAGE), 200),
        (call(*RELOAD, "admin", headers={"Origin": PAGE}), 200),
        (call("GET", HEALTH, None, headers={"Origin": PAGE}), 401),
        (call("GET", "/api/v1/nothing", "admin", headers={"Origin": PAGE}), 404),
        (call("POST", HEALTH, "admin", headers={"Origin": PAGE}), 405),
    ):
        assert status == answer.status
        assert (PAGE, "Origin") == (answer.headers["access-control-allow-origin"], answer.headers["vary"])
        assert "ETag" in answer.headers["access-control-expose-headers"]
        # The key goes into a header field, not into a cookie.
        assert "access-control-allow-credentials" not in answer.headers
    unlisted = known(call, Origin="https://attacker.test")
    assert ("Origin", None) == (unlisted.headers["vary"], unlisted.headers.get("access-control-allow-origin"))


def preflight(call: Call, path: str, origin: str, **headers: str) -> Any:
    fields = {"Origin": origin, "Access-Control-Request-Method": "POST", **headers}
    return call("OPTIONS", path, None, headers=fields)


def test_a_listed_page_that_asks_first_is_told_yes_without_credentials(call: Call, gateway: Any) -> None:
    gateway.change_view(origins=Origins(pages=(PAGE,)))
    answer = preflight(call, RELOAD[1], PAGE)
    assert (204, b"") == (answer.status, answer.body)
    assert (PAGE, "POST") == tuple(answer.headers[f"access-control-allow-{name}"] for name in ("origin", "methods"))
    assert {"authorization", "content-type", "if-match"} <= {
        name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")
    }
    assert "Origin" == answer.headers["vary"]
    assert ([], []) == (gateway.addresses, gateway.triggers)


@pytest.mark.parametrize("origins", [Origins(), Origins(pages=(PAGE,))], ids=["none listed", "another listed"])
def test_a_page_that_is_not_listed_is_told_nothing(call: Call, gateway: Any, origins: Origins) -> None:
    gateway.change_view(origins=origins)
    answer = preflight(call, RELOAD[1], "https://attacker.test")
    assert 401 == answer.status
    assert [] == [name for name in answer.headers if name.startswith("access-control")]
    assert 421 == preflight(call, RELOAD[1], PAGE, Host="attacker.test").status


# Headers


ALWAYS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


@pytest.mark.parametrize(
    ("method", "path", "key", "host"),
    [
        ("GET", "/healthz", None, "localhost"),
        ("GET", "/readyz", None, "localhost"),
        ("GET", "/metrics", "admin", "localhost"),
        ("GET", HEALTH, "admin", "localhost"),
        ("HEAD", HEALTH, "admin", "localhost"),
        ("GET", HEALTH, None, "localhost"),
        ("GET", HEALTH, "admin", "attacker.test"),
        ("GET", "/api/v1/nothing", "admin", "localhost"),
        ("DELETE", HEALTH, "admin", "localhost"),
        ("GET", "/%ff", "admin", "localhost"),
        (*RELOAD, "admin", "localhost"),
    ],
)
def test_every_answer_says_what_a_browser_may_do_with_it(
    call: Call, method: str, path: str, key: str | None, host: str
) -> None:
    headers = call(method, path, key, headers={"Host": host}).headers
    assert ALWAYS == {name: headers.get(name) for name in ALWAYS}
    assert [] == [name for name in headers if name in ("server", "strict-transport-security", "set-cookie")]


@pytest.mark.parametrize(
    ("trusted", "host", "forwarded", "told"),
    [
        (("127.0.0.1",), "llm.example.com", "https", True),
        (("127.0.0.1",), "llm.example.com", "HTTPS, https", True),
        (("127.0.0.1",), "llm.example.com", "https, http", False),
        (("127.0.0.1",), "llm.example.com", "http", False),
        (("127.0.0.1",), "llm.example.com", "", False),
        (("127.0.0.1",), "localhost", "https", False),
        (("10.0.0.1",), "llm.example.com", "https", False),
        ((), "llm.example.com", "https", False),
    ],
)
def test_only_a_trusted_proxy_is_believed_that_it_was_spoken_to_by_https(
    call: Call, gateway: Any, trusted: tuple[str, ...], host: str, forwarded: str, told: bool
) -> None:
    gateway.change_view(origins=Origins(globs=("*.example.com",)), trusted_proxies=TrustedProxies(trusted))
    headers = known(call, Host=host, **{"X-Forwarded-Proto": forwarded}).headers
    assert told == ("strict-transport-security" in headers)


# Bodies


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/x+json",
    ],
)
def test_a_body_that_says_it_is_json_is_read(call: Call, content_type: str) -> None:
    assert 200 == call(*RELOAD, "admin", b"{}", headers={"Content-Type": content_type}).status


def test_a_body_that_says_nothing_is_read(http_server: object, io_loop: IOLoop, http_port: int) -> None:
    request = b"POST /api/v1/config/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n"
    body = b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    assert b"200" == raw(io_loop, http_port, request + body)[9:12]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "text/plain; application/json"},
        {"Content-Type": "application/json, text/plain"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset=utf-7"},
        {"Content-Type": "application/yaml"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "identity, gzip"},
        {"Content-Encoding": "br"},
    ],
    ids=str,
)
def test_a_body_that_says_it_is_something_else_or_encoded_is_refused(
    call: Call, gateway: Any, headers: dict[str, str]
) -> None:
    answer = call(*RELOAD, "admin", b"{}", headers=headers)
    assert (415, "request_error-unsupported_media_type") == (answer.status, answer.code)
    assert [] == gateway.triggers
    assert ["request_error-unsupported_media_type"] == [entry.outcome for entry in gateway.entries]


@pytest.mark.parametrize(
    "content_type", ["text/yaml", "application/yaml; charset=UTF-8", "Application/X-YAML", "text/x-yaml"]
)
def test_yaml_goes_by_several_names(content_type: str) -> None:
    require_media_type(content_type, "identity", YAML)


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "text/yaml;x=1"]
)
def test_what_is_called_something_else_is_no_yaml(content_type: str) -> None:
    with pytest.raises(ManagementError, match="text/yaml"):
        require_media_type(content_type, None, YAML)


def test_where_there_is_no_body_its_type_means_nothing(call: Call) -> None:
    assert 200 == call(*RELOAD, "admin", headers={"Content-Type": "application/x-www-form-urlencoded"}).status


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * (1024 * 1024 - 1), "nest deeper"),
        (b'{"a":' * 200_000, "nest deeper"),
        (b'{"a": 1, "a": 2}', "`a` twice"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": "\\udc00 "}', "surrogate"),
        (b'{"a": "\xff"}', "utf-8"),
    ],
    ids=lambda value: str(value[:16]),
)
def test_json_that_is_not_strict_is_refused_with_the_reason(call: Call, gateway: Any, body: bytes, words: str) -> None:
    answer = call(*RELOAD, "admin", body)
    assert (400, "request_error-invalid_body") == (answer.status, answer.code)
    assert words in answer.json["error"]["message"]
    assert [] == gateway.triggers
