"""The OpenAPI document: complete, true to the routes' table, and held against what is answered."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from management.errors import DOMAINS, ManagementError
from management.handler.inputs import query_of
from management.reference.field_notes import as_markdown, field_notes
from management.reference.naming import names, singular
from management.reference.openapi import errors_of, openapi, render_openapi
from management.routes import ROUTES
from tests.openapi_answers import check_answer

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "management/reference/static"
PATHS: dict[str, Any] = openapi()["paths"]

Call = Callable[..., Any]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in PATHS.items():
        for method, operation in item.items():
            if method != "parameters":
                yield method.upper(), path, operation


def test_the_document_has_every_method_of_every_path_and_no_other() -> None:
    assert [(route.method, route.path) for route in ROUTES] == [(method, path) for method, path, _ in operations()]


def test_the_committed_document_is_current() -> None:
    assert (ROOT / "docs/openapi.json").read_text() == render_openapi(), "./sluice openapi > docs/openapi.json"


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    text = render_openapi()
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        place = openapi()
        assert reference.startswith("#/components/")
        for part in reference.split("/")[1:]:
            place = place[part]
    for kind in ("schemas", "responses", "headers"):
        assert set() == {
            name for name in openapi()["components"][kind] if f'"#/components/{kind}/{name}"' not in text
        }, "nothing refers to it"
    for schema in openapi()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_name_of_a_schema_is_that_of_one_type_alone() -> None:
    # Of two types with one name msgspec writes the modules too: give one of them another name.
    assert [] == [name for name in openapi()["components"]["schemas"] if not re.fullmatch(r"[A-Z][A-Za-z]+", name)]


def test_each_operation_has_a_name_of_its_own_in_the_document_and_in_the_shell() -> None:
    named = list(names(ROUTES).values())
    assert len(named) == len({each.operation_id for each in named})
    assert len(named) == len({(each.resource, each.verb) for each in named})
    assert [each.operation_id for each in named] == [operation["operationId"] for _, _, operation in operations()]
    assert [] == [each for each in named if not re.fullmatch(r"[a-z]+(?:[A-Z][a-z]*)*", each.operation_id)]


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("GET /api/v1/providers", "providers list listProviders"),
        ("POST /api/v1/providers", "providers create createProvider"),
        ("GET /api/v1/aliases/{from}", "aliases get getAlias"),
        ("PUT /api/v1/providers/{name}", "providers replace replaceProvider"),
        ("GET /api/v1/providers/{name}/health", "providers health getProviderHealth"),
        ("POST /api/v1/providers/{name}/models/refresh", "providers refresh-models refreshProviderModels"),
        ("PUT /api/v1/config/document", "config replace-document replaceConfigDocument"),
        ("POST /api/v1/config/reload", "config reload reloadConfig"),
        ("GET /api/v1/config/revisions/{id}/diff", "revisions diff getConfigRevisionDiff"),
        ("POST /api/v1/config/revisions/{id}/restore", "revisions restore restoreConfigRevision"),
        ("DELETE /api/v1/cooldowns", "cooldowns clear clearCooldowns"),
        ("POST /api/v1/explain", "explain run explain"),
        ("GET /api/v1/health", "health get getHealth"),
    ],
)
def test_names_come_from_method_and_path(route: str, words: str) -> None:
    found = {f"{each.method} {each.path}": named for each, named in names(ROUTES).items()}[route]
    assert words == f"{found.resource} {found.verb} {found.operation_id}"


@pytest.mark.parametrize(
    ("many", "one"), [("aliases", "alias"), ("policies", "policy"), ("tokens", "token"), ("it", "it")]
)
def test_one_of_many(many: str, one: str) -> None:
    assert one == singular(many)


def test_each_operation_says_who_may_call_and_what_the_audit_calls_it() -> None:
    for route, (_, _, operation) in zip(ROUTES, operations(), strict=True):
        assert str(route.permit).replace("`", "") == operation["x-permit"]["text"]
        assert route.operation.action == operation.get("x-audit")
        assert (route.permit.open_because is not None) == (operation.get("security") == [])
        assert list(route.parameters) == [each["name"] for each in PATHS[route.path].get("parameters", ())]


def test_each_refusal_has_the_codes_of_its_status() -> None:
    known = {code.value: code.status for domain in DOMAINS for code in domain}
    for route, (_, _, operation) in zip(ROUTES, operations(), strict=True):
        told = set()
        for status, answer in operation["responses"].items():
            refusal = (
                openapi()["components"]["responses"][answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
            )
            codes = [code for code in refusal.get("x-codes", ()) if code in known]
            assert [] == [code for code in codes if known[code] != int(status)]
            told.update(codes)
        assert {code.value for code in errors_of(route)} == told


def test_a_parameter_has_its_bounds_and_no_null() -> None:
    limit = {each["name"]: each for each in PATHS["/api/v1/tokens"]["get"]["parameters"]}["limit"]
    assert {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100} == limit["schema"]
    for _, _, operation in operations():
        assert "null" not in str([each["schema"] for each in operation.get("parameters", ())])


def test_what_is_always_answered_is_required_and_times_are_told_as_such() -> None:
    shown = openapi()["components"]["schemas"]["TokenShown"]
    assert shown["properties"].keys() == set(shown["required"])
    assert {"type": "string", "format": "date-time"} in shown["properties"]["revoked_at"]["anyOf"]
    asked = openapi()["components"]["schemas"]["TokenRequest"]
    assert ["name"] == asked["required"]


class Noted(msgspec.Struct, rename="camel"):
    """Base."""

    first_field: int
    """What stands below a ``field``, see :class:`~core.clock.Clock`.

    No more than its first paragraph.
    """
    second: int


class NotedToo(Noted):
    """Of another's fields, too."""

    third: int
    """Three."""


def test_the_docstring_below_a_field_describes_it() -> None:
    assert {"firstField": "What stands below a `field`, see `core.clock.Clock`.", "third": "Three."} == field_notes(
        NotedToo
    )
    assert "`a` of `b`" == as_markdown("``a`` of\n:func:`b`\n\nc")


class Query(msgspec.Struct):
    since: datetime | None = None
    limit: int | None = None
    name: str | None = None


@pytest.mark.parametrize(
    ("query", "word"),
    [("limit=null", "leave it out"), ("since=NULL", "leave it out"), ("since=1.5", "no time"), ("since=0", "no time")],
)
def test_a_query_says_no_more_than_the_document_lets_it(query: str, word: str) -> None:
    with pytest.raises(ManagementError, match=word) as refused:
        query_of(query, Query)
    assert ("request_error-invalid_query", query.partition("=")[0]) == (refused.value.code, refused.value.param)


def test_a_query_is_read() -> None:
    expected = Query(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 5, "null and void")
    assert expected == query_of("since=2026-01-02T03:04:05Z&limit=5&name=null+and+void", Query)


def test_whoever_may_call_anything_may_read_the_document(call: Call) -> None:
    assert 401 == call("GET", "/api/v1/openapi.json").status
    assert 403 == call("GET", "/api/v1/openapi.json", "scope_token_user").status
    answer = call("GET", "/api/v1/openapi.json", "scope_token_power_user")
    assert (200, "application/json") == (answer.status, answer.headers["content-type"])
    assert render_openapi() == answer.body.decode()


def test_the_page_is_open_and_may_load_nothing_from_elsewhere(call: Call) -> None:
    page = call("GET", "/console/docs")
    assert (200, "text/html; charset=utf-8") == (page.status, page.headers["content-type"])
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert {"default-src": "'none'", "script-src": "'self'", "connect-src": "'self'"}.items() <= policy.items()
    assert "unsafe" not in page.headers["content-security-policy"]
    html = page.body.decode()
    assert ["docs.css", "docs.js"] == re.findall(r'(?:href|src)="([^#"]+)"', html)
    assert None is re.search(r"<(?:style|script)[^>]*>[^<]|\son\w+=|\sstyle=", html)
    for name, media_type in {"docs.css": "text/css", "docs.js": "text/javascript"}.items():
        answer = call("GET", f"/console/{name}")
        assert (200, media_type) == (answer.status, answer.headers["content-type"].partition(";")[0])
        assert (STATIC / name).read_bytes() == answer.body


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_the_page_names_no_other_place_and_makes_no_markup_of_text(path: Path) -> None:
    text = path.read_text()
    assert None is re.search(r"://|@import|url\(|innerHTML|insertAdjacentHTML|document\.write|eval\(", text)


@pytest.mark.parametrize(
    ("status", "headers", "body", "why"),
    [
        (418, {}, b"", "is not in the document"),
        (200, {"content-type": "application/json"}, b"{}", "has no `X-Request-Id`"),
        (200, {"x-request-id": "r", "content-type": "text/plain"}, b"{}", "is `text/plain`"),
        (
            200,
            {"x-request-id": "r", "content-type": "application/json"},
            b'{"status": 1}',
            "is not as the document has it",
        ),
        (
            400,
            {"x-request-id": "r", "content-type": "application/json"},
            b'{"error": {"message": "m", "type": "t", "code": "never_named", "param": null}}',
            "does not name",
        ),
    ],
)
def test_an_answer_that_is_not_documented_fails_a_test(
    status: int, headers: dict[str, str], body: bytes, why: str
) -> None:
    with pytest.raises(AssertionError, match=why):
        check_answer("GET", "/healthz", status, headers, body)
