"""`GET /api/v1/prices`."""

from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]
UNKNOWN = {"price": None, "source": None}
KNOWN = {
    "provider": "openai",
    "model": "gpt-4o",
    "price": {
        "input_usd": 2.5,
        "cached_input_usd": 1.25,
        "cache_write_usd": 2.5,
        "output_usd": 10,
        "request_usd": 0,
        "long_context": None,
    },
    "source": {"from": "list", "date": "2026-11-21", "vendor": "OpenAI", "page": "Pricing"},
}
ALL = [{"provider": "local", "model": "llama", **UNKNOWN}, KNOWN, {"provider": "openai", "model": "gpt-x", **UNKNOWN}]


def test_every_model_that_the_configuration_names_has_its_price_or_null(call: Call) -> None:
    assert {"data": ALL, "next_cursor": None} == call("GET", "/api/v1/prices", "session-power_user").json


def test_pages_follow_each_other(call: Call) -> None:
    found: list[dict[str, Any]] = []
    path = "/api/v1/prices?limit=1"
    page = call("GET", path, "admin").json
    found += page["data"]
    while page["next_cursor"] is not None:
        page = call("GET", f"{path}&cursor={page['next_cursor']}", "admin").json
        found += page["data"]
    assert ALL == found


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-4o", KNOWN),
        ("openai/any/thing", {"provider": "openai", "model": "any/thing", **UNKNOWN}),
    ],
)
def test_any_model_may_be_asked_for(call: Call, model: str, expected: dict[str, Any]) -> None:
    answer = call("GET", f"/api/v1/prices?model={model}", "admin")
    assert {"data": [expected], "next_cursor": None} == answer.json


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("model=gpt-4o", 400, "request_error-invalid_query"),
        ("model=openai/", 400, "request_error-invalid_query"),
        ("model=other/gpt-4o", 404, "provider_error-not_found"),
        ("cursor=x", 400, "request_error-invalid_query"),
        ("limit=0", 400, "request_error-invalid_query"),
        ("unknown=1", 400, "request_error-invalid_query"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(call: Call, query: str, status: int, code: str) -> None:
    answer = call("GET", f"/api/v1/prices?{query}", "admin")
    assert (status, code) == (answer.status, answer.code)
