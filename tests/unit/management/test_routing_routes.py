import json
from typing import Any

import pytest

from management.routing_service import Question
from tests.unit.management.conftest import Call, Gateway

TARGET = {"provider": "openai", "model": "gpt-4o", "credential": None, "reason": "failures", "seconds": 9.5}
CREDENTIAL = {"provider": "openai", "model": None, "credential": "main", "reason": "rate_limited", "seconds": 20.0}


def ask(call: Call, body: Any) -> Any:
    return call("POST", "/api/v1/explain", "admin", json.dumps(body).encode())


def test_explain_is_asked_for_all_that_routing_looks_at(call: Call, gateway: Gateway) -> None:
    body = {"model": "fast", "token": "team-a", "path": "/v1/files", "headers": {"x-tier": "gold"}, "stream": True}
    answer = ask(call, body)
    assert (200, "fast") == (answer.status, answer.json["explanation"]["requested_model"])
    assert 200 == ask(call, {}).status
    assert [Question(**body), Question()] == gateway.routing.asked  # type: ignore[arg-type]  # any members
    assert [] == gateway.entries


def test_explain_knows_no_token_of_that_name(call: Call) -> None:
    answer = ask(call, {"model": "fast", "token": "nobody"})
    assert (404, "token_error-not_found", "token") == (answer.status, answer.code, answer.json["error"]["param"])


@pytest.mark.parametrize("body", [{"models": "x"}, {"model": 1}, {"headers": ["a"]}, []])
def test_a_question_that_is_none_is_refused(call: Call, body: Any) -> None:
    answer = ask(call, body)
    assert (400, "request_error-invalid_body") == (answer.status, answer.code)


def test_what_is_out_of_rotation_is_listed(call: Call) -> None:
    assert {"data": [TARGET, CREDENTIAL], "next_cursor": None} == call("GET", "/api/v1/cooldowns", "admin").json


@pytest.mark.parametrize(
    ("query", "cleared"),
    [
        ("provider=openai", [TARGET, CREDENTIAL]),
        ("provider=openai&model=gpt-4o", [TARGET]),
        ("provider=openai&credential=main", [CREDENTIAL]),
        ("provider=local", []),
    ],
)
def test_what_is_cleared_is_told_and_audited(call: Call, gateway: Gateway, query: str, cleared: list[Any]) -> None:
    answer = call("DELETE", f"/api/v1/cooldowns?{query}", "admin")
    assert (200, {"cleared": cleared, "everywhere": True}) == (answer.status, answer.json)
    entry = gateway.entries[-1]
    assert ("cooldown.clear", cleared) == (entry.action, json.loads(entry.before or ""))
    assert query.split("=")[1].split("&", maxsplit=1)[0] == entry.resource_id


def test_a_clearing_that_not_all_workers_have_heard_of_is_answered_202(call: Call, gateway: Gateway) -> None:
    gateway.routing.everywhere = False
    assert 202 == call("DELETE", "/api/v1/cooldowns?provider=openai", "admin").status


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "request_error-invalid_query"),
        ("?provider=openai&model=a&credential=b", 400, "request_error-invalid_query"),
        ("?provider=nobody", 404, "provider_error-not_found"),
    ],
)
def test_a_clearing_names_what_there_is(call: Call, query: str, status: int, code: str) -> None:
    answer = call("DELETE", f"/api/v1/cooldowns{query}", "admin")
    assert (status, code) == (answer.status, answer.code)
