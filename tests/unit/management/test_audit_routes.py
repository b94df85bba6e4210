import msgspec
import pytest

from core.identity import AdminKey
from storage.records import AuditFilter, NewAuditEntry
from tests.unit.management.conftest import Call, Gateway

AT = 1_767_323_045_000_000  # 2026-01-02T03:04:05Z


def entry(action: str, before: str | None = None, after: str | None = None) -> NewAuditEntry:
    return NewAuditEntry(
        id=f"id-{action}",
        at=AT,
        actor=AdminKey().name,
        actor_kind="admin_key",
        address="127.0.0.1",
        action=action,
        outcome="done",
        resource="config",
        before=before,
        after=after,
    )


def test_the_audit_is_shown_newest_first_in_pages(call: Call, gateway: Gateway) -> None:
    gateway.entries += [entry("config.put"), entry("config.patch", '{"revision":"a"}', "no JSON")]
    first = call("GET", "/api/v1/audit?limit=1", "admin").json
    assert [
        {
            "seq": 2,
            "id": "id-config.patch",
            "at": "2026-01-02T03:04:05Z",
            "actor": "admin-key",
            "actor_kind": "admin_key",
            "address": "127.0.0.1",
            "action": "config.patch",
            "resource": "config",
            "resource_id": None,
            "before": {"revision": "a"},
            "after": "no JSON",
            "outcome": "done",
            "request_id": None,
            "previous_hash": "01",
            "hash": "02",
        }
    ] == first["data"]
    assert 0 == first["waiting"]
    second = call("GET", f"/api/v1/audit?limit=1&cursor={first['next_cursor']}", "admin").json
    assert (["config.put"], None) == ([each["action"] for each in second["data"]], second["next_cursor"])


def test_the_audit_is_asked_for_what_the_query_says(call: Call, gateway: Gateway) -> None:
    query = "actor=a&action=config.*&resource=r&resource_id=i&outcome=done"
    times = "since=2026-01-02T03:04:05Z&until=2026-01-02T04:04:06%2B01:00"
    assert 200 == call("GET", f"/api/v1/audit?{query}&{times}", "admin").status
    assert [
        AuditFilter(
            actor="a",
            action="config.*",
            resource="r",
            resource_id="i",
            outcome="done",
            since=AT,
            until=AT + 1_000_000,
        )
    ] == gateway.wanted


@pytest.mark.parametrize(
    "query", ["cursor=never-given", "since=yesterday", "since=2026-01-02T03:04:05", "limit=0", "x=1", "actor=%00"]
)
def test_a_query_that_cannot_be_answered_is_refused(call: Call, query: str) -> None:
    answer = call("GET", f"/api/v1/audit?{query}", "admin")
    assert (400, "request_error-invalid_query") == (answer.status, answer.code)


def test_the_head_is_that_of_the_newest_entry(call: Call, gateway: Gateway) -> None:
    assert {"seq": 0, "hash": None} == call("GET", "/api/v1/audit/head", "admin").json
    gateway.entries += [entry("config.put"), entry("config.patch")]
    assert {"seq": 2, "hash": "02"} == call("GET", "/api/v1/audit/head", "session-manager").json


def test_a_list_tells_how_much_may_be_missing_from_it(call: Call, gateway: Gateway) -> None:
    gateway.audit_waits = 3
    assert {"data": [], "next_cursor": None, "waiting": 3} == call("GET", "/api/v1/audit", "admin").json


def test_looking_at_the_audit_leaves_nothing_in_it(call: Call, gateway: Gateway) -> None:
    gateway.entries.append(msgspec.structs.replace(entry("config.put"), outcome="config_error-stale"))
    call("GET", "/api/v1/audit", "admin")
    assert 1 == len(gateway.entries)
