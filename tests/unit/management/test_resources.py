from collections.abc import Callable
from typing import Any

import pytest

from config.faults import Fault
from management.editing.editor import Refused, Reloaded

Call = Callable[..., Any]


def test_alive_and_ready_tell_nothing_else(call: Call) -> None:
    assert {"status": "alive"} == call("GET", "/healthz").json
    assert {"status": "ready"} == call("GET", "/readyz").json


def test_while_draining_the_gateway_is_alive_but_not_ready(call: Call, gateway: Any) -> None:
    gateway.ready = False
    answer = call("GET", "/readyz")
    assert (503, {"status": "not_ready"}) == (answer.status, answer.json)
    assert 200 == call("GET", "/healthz").status


def test_health_shows_the_revision_and_what_is_out_of_rotation(call: Call) -> None:
    assert {
        "revision": "abc",
        "started_at": "2026-01-02T03:04:05Z",
        "uptime_seconds": 12.5,
        "draining": False,
        "providers": [
            {
                "name": "openai",
                "type": "openai",
                "cooldowns": [{"model": "gpt-4o", "credential": None, "reason": "upstream_timeout", "seconds": 9.5}],
            },
            {"name": "local", "type": "echo", "cooldowns": []},
        ],
        "last_reload": {"at": "2026-01-02T03:04:05Z", "trigger": "watch", "result": "rejected", "faults": 2},
        "stale_secrets": [{"reference": "${vault:a/b#c}", "reason": "sealed", "since": "2026-01-02T03:04:05Z"}],
        "issued_tokens": {"count": 7, "loaded": True, "stale_since": None},
        "storage": {
            "state": "unavailable",
            "reason": "unreachable",
            "since": "2026-01-02T03:04:05Z",
            "waiting": 1,
            "spooled": 2,
        },
        "ledger": {
            "state": "unavailable",
            "reason": "full",
            "since": "2026-01-02T03:04:05Z",
            "waiting": 1,
            "spooled": 2,
            "lost": 3,
        },
        "webhooks": {
            "failing": ["ops"],
            "disabled": ["gone"],
            "waiting": 1,
            "spooled": 2,
            "waits_for_database": True,
        },
        "quotas": {
            "store": "redis",
            "up": False,
            "reason": "slow",
            "since": "2026-01-02T03:04:05Z",
            "waiting": 3,
        },
        "credentials": {
            "ready": 3,
            "pending": 1,
            "disabled": 2,
            "failing": ["openai/team"],
            "needs_login": ["openai/alice"],
            "damaged": ["openai/bob"],
            "shadowed": [],
        },
    } == call("GET", "/api/v1/health", "admin").json


@pytest.mark.parametrize("changed", [True, False])
def test_a_reload_answers_with_the_revision_in_force(call: Call, gateway: Any, changed: bool) -> None:
    gateway.outcome = Reloaded("def", changed, 0.1234567, restart=("server.listen",))
    answer = call("POST", "/api/v1/config/reload", "admin")
    assert 200 == answer.status
    assert {
        "revision": "def",
        "changed": changed,
        "duration_seconds": 0.123457,
        "everywhere": True,
        "restart": ["server.listen"],
    } == answer.json
    assert ["api"] == gateway.triggers


def test_a_reload_that_not_all_workers_have_made_yet_is_answered_202(call: Call, gateway: Any) -> None:
    gateway.outcome = Reloaded("def", True, 0.1, everywhere=False)
    answer = call("POST", "/api/v1/config/reload", "admin")
    assert (202, False) == (answer.status, answer.json["everywhere"])


def test_a_refused_configuration_answers_with_every_fault_and_its_place(call: Call, gateway: Any) -> None:
    gateway.outcome = Refused(
        (
            Fault(("provders",), "unknown key `provders`: did you mean `providers`?", "config.yaml", 3, 1),
            Fault(("routes", 0, "name"), "not unique"),
        )
    )
    answer = call("POST", "/api/v1/config/reload", "admin")
    assert (422, "config_error-invalid") == (answer.status, answer.code)
    error = answer.json["error"]
    assert ("invalid_request_error", None) == (error["type"], error["param"])
    assert "2 fault(s)" in error["message"]
    assert [
        {
            "file": "config.yaml",
            "line": 3,
            "column": 1,
            "path": "provders",
            "message": "unknown key `provders`: did you mean `providers`?",
        },
        {"file": "", "line": 0, "column": 0, "path": "routes[0].name", "message": "not unique"},
    ] == error["faults"]


@pytest.mark.parametrize("key", ["admin", "scope_metrics"])
def test_metrics_are_for_the_admin_key_and_metrics_tokens(call: Call, key: str) -> None:
    answer = call("GET", "/metrics", key)
    assert b"sluice_requests_total 1.0\n" == answer.body
    assert "text/plain; version=1.0.0; charset=utf-8" == answer.headers["content-type"]


def test_metrics_may_be_public(call: Call, gateway: Any) -> None:
    gateway.change_view(metrics_public=True)
    assert 200 == call("GET", "/metrics").status
    assert 200 == call("GET", "/metrics", "unknown").status
    assert 401 == call("GET", "/api/v1/health").status
