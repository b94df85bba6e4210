import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from access.token_rules import CREATABLE_SCOPES
from core.identity import ApiToken, Scope
from management.errors import DOMAINS
from management.handler.base import ManagementHandler
from management.routes import HANDLERS, ROUTES, Route
from tests.unit.management.conftest import CALLERS, Gateway

ROOT = Path(__file__).parents[3]
Call = Callable[..., Any]
PROBES = {"/healthz", "/readyz"}
DOCS = {"/console/docs", "/console/docs.css", "/console/docs.js"}
"""Of the page that asks for a key itself."""
CALLBACK = {"/oauth/callback"}
"""Where browsers come back to from a sign-in; without one under way it says so."""
OPEN = PROBES | DOCS | CALLBACK


def by_name(route: Route) -> str:
    return f"{route.method} {route.path}"


def path_of(route: Route) -> str:
    """A path of the route, for a thing that there is not."""
    return re.sub(r"\{[a-z_]+\}", "nothing", route.path)


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
@pytest.mark.parametrize("key", [None, "", "unknown"])
def test_without_known_credentials_only_the_probes_answer(call: Call, route: Route, key: str | None) -> None:
    answer = call(route.method, path_of(route), key)
    if route.path in OPEN:
        assert (400 if route.path in CALLBACK else 200) == answer.status
    else:
        assert (401, "access_error-unauthenticated") == (answer.status, answer.code)
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
@pytest.mark.parametrize("key", CALLERS)
def test_each_route_is_for_whom_its_permit_says(call: Call, route: Route, key: str) -> None:
    answer = call(route.method, path_of(route), key)
    if route.permit.admits(CALLERS[key]):
        # What it answers to an empty request is its own matter.
        assert answer.status not in (401, 403, 500)
    else:
        assert (403, "access_error-forbidden") == (answer.status, answer.code)


READ_BY_TOKENS = {
    "/api/v1/openapi.json",
    "/api/v1/health",
    "/api/v1/provider-templates",
    "/api/v1/providers",
    "/api/v1/providers/{name}",
    "/api/v1/providers/{name}/health",
    "/api/v1/providers/{name}/models",
    "/api/v1/credentials",
    "/api/v1/credentials/{id}",
    "/api/v1/models",
    "/api/v1/usage",
    "/api/v1/usage/export",
    "/api/v1/requests",
    "/api/v1/requests/{request_id}",
    "/api/v1/prices",
    "/api/v1/events",
    "/api/v1/tokens/{id}/limits",
}
"""What `scope_token_power_user` may look at (docs/access.md), besides the models that it may use."""


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
def test_a_token_opens_what_its_scope_says_and_nothing_else(route: Route) -> None:
    opened = {scope for scope in CREATABLE_SCOPES if route.permit.admits(ApiToken("t", scope))}
    expected = set(CREATABLE_SCOPES) if route.path in OPEN else set[Scope]()
    if route.method == "GET" and route.path in READ_BY_TOKENS:
        expected.add(Scope.POWER_USER)
    if route.path == "/metrics":
        expected.add(Scope.METRICS)
    assert expected == opened


def test_a_refusal_says_who_was_refused_and_what_it_takes(call: Call) -> None:
    message = call("POST", "/api/v1/config/reload", "scope_token_user").json["error"]["message"]
    assert "The token `token-user` (`scope_token_user`) may not call this: it takes `admin`, no token." == message
    message = call("GET", "/api/v1/usage", "scope_token_user").json["error"]["message"]
    assert (
        "The token `token-user` (`scope_token_user`) may not call this: it takes `scope_token_power_user`." == message
    )


def test_only_the_probes_are_open_and_they_say_why() -> None:
    for route in ROUTES:
        assert (route.path in OPEN) == (route.permit.open_because is not None)


def test_what_changes_something_is_for_no_token_and_says_what_the_audit_calls_it() -> None:
    actions = [route.operation.action for route in ROUTES if route.operation.action is not None]
    assert len(set(actions)) == len(actions)
    for route in ROUTES:
        if route.method != "GET":
            assert not route.permit.tokens
            assert not route.permit.admits(ApiToken("t", Scope.ADMIN))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    ["/", "/api/v1/", "/api/v1/healths", "/api/v1/health/", "/metrics/", "/healthz/x", "/%ff", "/api/v1/configs"],
)
def test_an_unknown_path_answers_401_without_credentials_and_404_with(call: Call, method: str, path: str) -> None:
    stranger, known = call(method, path), call(method, path, "scope_token_user")
    assert (401, 404) == (stranger.status, known.status)
    if method != "HEAD":
        assert "access_error-unauthenticated" == stranger.code
        assert "request_error-unknown_path" == known.code


@pytest.mark.parametrize(
    ("method", "path", "handler"),
    [
        pytest.param(method, path, handler, id=f"{method} {path}")
        for path, handler in HANDLERS
        for method in ("GET", "PUT", "DELETE", "OPTIONS")
        if method not in handler.allowed_methods
    ],
)
def test_another_method_is_refused_with_those_that_there_are(
    call: Call, method: str, path: str, handler: type[ManagementHandler]
) -> None:
    answer = call(method, path, "admin")
    assert (405, "request_error-method_not_allowed") == (answer.status, answer.code)
    assert ", ".join(handler.allowed_methods) == answer.headers["allow"]


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
    if got.headers["content-type"] != "text/event-stream":
        # What has no end has no length.
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


NO_TEXTS = ("%00", "a%00b", "%ed%a0%80", "%ff")
"""A NUL, which PostgreSQL takes in no text; a lone surrogate; no UTF-8."""


@pytest.mark.parametrize("route", [route for route in ROUTES if route.parameters], ids=by_name)
def test_a_segment_that_is_no_text_is_refused_once_the_caller_is_known(
    call: Call, gateway: Gateway, route: Route
) -> None:
    for given in NO_TEXTS:
        path = re.sub(r"\{[a-z_]+\}", given, route.path)
        assert 401 == call(route.method, path, None, b"{}" if route.method != "GET" else None).status
        answer = call(route.method, path, "admin", b"{}" if route.method != "GET" else None)
        assert (400, "request_error-malformed") == (answer.status, answer.code)
    assert [] == gateway.entries


@pytest.mark.parametrize("route", [route for route in ROUTES if route.operation.query is not None], ids=by_name)
def test_a_parameter_that_is_no_text_is_refused(call: Call, route: Route) -> None:
    assert route.operation.query is not None
    body, fields = (None, {}) if route.method == "GET" else (b"{}", {"If-Match": '"abc"'})
    for name in (field.encode_name for field in msgspec.structs.fields(route.operation.query)):
        for given in NO_TEXTS:
            answer = call(route.method, f"{path_of(route)}?{name}={given}", "admin", body, fields)
            assert (400, "request_error-invalid_query") == (answer.status, answer.code)


def test_no_handler_is_left_out_of_the_table() -> None:
    pending, ours = [ManagementHandler], set[type[ManagementHandler]]()
    while pending:
        below = pending.pop().__subclasses__()
        pending += below
        # One without a method is a base of others.
        ours |= {each for each in below if each.operations and each.__module__.startswith("management.")}
    assert ours == {route.handler for route in ROUTES}


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
