import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.identity import Scope
from management.base import ManagementHandler
from management.errors import DOMAINS
from management.routes import ROUTES, Route, UnknownPath

ROOT = Path(__file__).parents[3]
Call = Callable[..., Any]
OPEN = {"/healthz", "/readyz"}


def by_name(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
@pytest.mark.parametrize("key", [None, "", "unknown"])
def test_without_known_credentials_only_the_probes_answer(call: Call, route: Route, key: str | None) -> None:
    answer = call(route.method, route.path, key)
    if route.path in OPEN:
        assert 200 == answer.status
    else:
        assert (401, "access_error-unauthenticated") == (answer.status, answer.code)
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
def test_the_admin_key_opens_every_route(call: Call, route: Route) -> None:
    assert 200 == call(route.method, route.path, "admin").status


ALLOWED = {
    Scope.USER: OPEN,
    Scope.POWER_USER: OPEN | {"/api/v1/health"},
    Scope.METRICS: OPEN | {"/metrics"},
}


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
@pytest.mark.parametrize("scope", ALLOWED)
def test_a_token_opens_what_its_scope_says_and_nothing_else(call: Call, route: Route, scope: Scope) -> None:
    answer = call(route.method, route.path, scope.value)
    if route.path in ALLOWED[scope]:
        assert 200 == answer.status
    else:
        assert (403, "access_error-forbidden") == (answer.status, answer.code)


def test_a_refusal_says_who_was_refused_and_what_it_takes(call: Call) -> None:
    message = call("POST", "/api/v1/config/reload", "scope_token_user").json["error"]["message"]
    assert "The token `token-user` (`scope_token_user`) may not call this: it takes `admin`." == message


def test_only_the_probes_are_open_and_they_say_why() -> None:
    for route in ROUTES:
        assert (route.path in OPEN) == (route.permit.open_because is not None)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/", "/api/v1/", "/api/v1/healths", "/api/v1/health/", "/metrics/", "/healthz/x", "/%ff", "/api/v1/config"]
)
def test_an_unknown_path_answers_401_without_credentials_and_404_with(call: Call, method: str, path: str) -> None:
    stranger, known = call(method, path), call(method, path, "scope_token_user")
    assert (401, 404) == (stranger.status, known.status)
    if method != "HEAD":
        assert "access_error-unauthenticated" == stranger.code
        assert "request_error-unknown_path" == known.code


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_another_method_is_refused_with_those_that_there_are(call: Call, route: Route, method: str) -> None:
    answer = call(method, route.path, "admin")
    assert (405, "request_error-method_not_allowed") == (answer.status, answer.code)
    assert ("GET, HEAD" if route.method == "GET" else "POST") == answer.headers["allow"]


def test_a_method_is_not_looked_at_before_the_caller_is_known(call: Call) -> None:
    assert 401 == call("DELETE", "/api/v1/health").status
    assert 403 == call("DELETE", "/api/v1/health", "scope_token_user").status


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "get", "post", "prepare"])
def test_a_method_that_nobody_takes_tells_a_stranger_nothing_either(call: Call, method: str) -> None:
    for path in ("/api/v1/health", "/metrics", "/unknown"):
        assert (401, "access_error-unauthenticated") == ((answer := call(method, path)).status, answer.code)
    assert 405 == call(method, "/api/v1/health", "admin").status
    assert 404 == call(method, "/unknown", "admin").status


def test_a_method_that_http_does_not_know_is_refused_in_json_too(call: Call) -> None:
    answer = call("BREW", "/healthz")
    assert (405, "request_error-method_not_allowed") == (answer.status, answer.code)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=by_name)
def test_head_answers_as_get_without_the_body(call: Call, route: Route) -> None:
    got, head = call("GET", route.path, "admin"), call("HEAD", route.path, "admin")
    assert (got.status, b"") == (head.status, head.body)
    assert got.headers["content-type"] == head.headers["content-type"]
    assert str(len(got.body)) == head.headers["content-length"]


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/healthz", None),
        ("GET", "/metrics", "admin"),
        ("GET", "/api/v1/health", None),
        ("GET", "/unknown", "admin"),
        ("BREW", "/healthz", None),
    ],
)
def test_every_answer_has_an_id_and_tells_nothing_of_the_server(
    call: Call, method: str, path: str, key: str | None
) -> None:
    one, other = call(method, path, key), call(method, path, key)
    assert re.fullmatch(r"req_[0-9a-f]{24}", one.headers["x-request-id"])
    assert one.headers["x-request-id"] != other.headers["x-request-id"]
    assert "server" not in one.headers
    assert "no-store" == one.headers["cache-control"]
    assert "nosniff" == one.headers["x-content-type-options"]
    assert "html" not in one.headers["content-type"]
    assert "etag" not in one.headers


def test_the_table_has_a_row_for_each_method_of_each_handler() -> None:
    rows = {(route.method, route.handler) for route in ROUTES}
    handlers = {route.handler for route in ROUTES}
    assert rows == {(method, handler) for handler in handlers for method in handler.allowed_methods if method != "HEAD"}
    assert len(rows) == len(ROUTES)


def test_no_handler_is_left_out_of_the_table() -> None:
    ours = {handler for handler in ManagementHandler.__subclasses__() if handler.__module__.startswith("management.")}
    assert ours == {route.handler for route in ROUTES} | {UnknownPath}


def test_the_docs_table_is_the_routes_table() -> None:
    documented = re.findall(
        r"^\| `([A-Z]+)` \| `(/\S*)` \| (.*?) \|", (ROOT / "docs/access.md").read_text(), re.MULTILINE
    )
    assert [(route.method, route.path, str(route.permit)) for route in ROUTES] == documented


def test_every_error_code_is_explained_in_the_docs() -> None:
    documented = re.findall(r"^\| `(\w+_error-\w+)` \|", (ROOT / "docs/access.md").read_text(), re.MULTILINE)
    assert [code.value for domain in DOMAINS for code in domain] == documented


def test_each_domain_of_errors_has_a_prefix_of_its_own() -> None:
    prefixes = [{code.value.partition("-")[0] for code in domain} for domain in DOMAINS]
    assert all(len(domain) == 1 for domain in prefixes)
    assert len(DOMAINS) == len(set.union(*prefixes))
    assert all(re.fullmatch(r"[a-z_]+_error-[a-z_]+", code) for domain in DOMAINS for code in domain)
