"""Webhooks: secrets that are made, addresses whose path is a secret, and deliveries. The edits over a running gateway are in
tests/integration/test_webhooks_api.py."""

import json
from typing import Any

import pytest

from management.secrets.entry_values import CannotSeal
from tests.planted import planted
from tests.unit.management.conftest import Answer, Call, Gateway
from tests.unit.management.editor_stand_in import source_files
from tests.unit.management.webhook_stand_in import AT, PAYLOAD
from webhooks.schedule import Failure
from webhooks.signing import parse_secret

PATH_SECRET = planted("hook-path")
DOCUMENT = f"""\
management: {{allowed_references: ["env:HOOK_*"]}}
webhooks:
  # Pages whoever is on call.
  - name: ops   # told apart by this
    url: https://hooks.example.com/{PATH_SECRET}?a=b
    secret: ${{env:HOOK_SECRET}}   # the present one
    events: [config.*]
"""


@pytest.fixture(autouse=True)
def document(gateway: Gateway) -> None:
    gateway.editor.files = source_files(DOCUMENT)


def send(call: Call, method: str, path: str, body: Any = None, match: str | None = None) -> Answer:
    fields = {} if match is None else {"If-Match": f'"{match}"'}
    return call(method, f"/api/v1/{path}", "admin", None if body is None else json.dumps(body).encode(), fields)


def edit(call: Call, gateway: Gateway, body: Any, method: str = "PATCH") -> Answer:
    return send(call, method, "webhooks/ops", body, gateway.editor.revision)


def written(gateway: Gateway) -> str:
    return gateway.editor.files[0].data.decode()


GENERATE, ROTATE, KEEP = {"action": "generate"}, {"action": "rotate"}, {"action": "keep"}
NEW = {"name": "new", "url": "https://hooks.example.com/new", "secret": GENERATE}


def test_a_webhook_is_shown_with_its_state_and_neither_its_secret_nor_its_path(call: Call, gateway: Gateway) -> None:
    shown = send(call, "GET", "webhooks").json["data"]
    assert [
        {
            "name": "ops",
            "url": "https://hooks.example.com/${kept}?a=${kept}",
            "secret": {"kind": "reference", "reference": "${env:HOOK_SECRET}"},
            "events": ["config.*"],
            "file": "config.yaml",
            "line": 4,
            "state": {"failing": True, "disabled_since": None},
        }
    ] == shown
    del gateway.webhooks.states["ops"]
    assert None is send(call, "GET", "webhooks/ops").json["state"]


def test_a_secret_that_is_made_is_sealed_and_told_once(call: Call, gateway: Gateway) -> None:
    made = send(call, "POST", "webhooks", NEW)
    secret = made.json["new_secret"]
    assert (201, "sealed", False) == (made.status, made.json["secret"]["kind"], made.json["allow_private"])
    assert (32, [secret]) == (len(parse_secret(secret)), gateway.sealer.sealed)
    assert secret not in written(gateway)
    assert secret not in str(gateway.entries)
    again = send(call, "GET", "webhooks/new")
    assert "new_secret" not in again.json
    assert 201 == send(call, "POST", "webhooks", {**NEW, "name": "other"}).status
    assert 2 == len(set(gateway.sealer.sealed))


def test_a_secret_that_cannot_be_sealed_is_not_told(call: Call, gateway: Gateway) -> None:
    gateway.sealer.failure = CannotSeal("there is none")
    refused = send(call, "POST", "webhooks", NEW)
    assert (503, "config_error-cannot_seal") == (refused.status, refused.code)
    assert b"whsec_" not in refused.body


def test_a_webhook_needs_a_secret(call: Call) -> None:
    refused = send(call, "POST", "webhooks", {"name": "new", "url": "https://hooks.example.com/"})
    assert (422, "config_error-invalid") == (refused.status, refused.code)
    assert any("secret" in fault["message"] for fault in refused.json["error"]["faults"])


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_rotated_the_former_secrets_sign_too_and_the_oldest_is_forgotten(
    call: Call, gateway: Gateway, method: str
) -> None:
    for _ in range(6):
        shown = send(call, "GET", "webhooks/ops").json if method == "PUT" else {}
        answer = edit(call, gateway, {**shown, "secret": ROTATE}, method)
        assert 200 == answer.status, answer.body
    assert ("sealed", ["sealed"] * 4) == (
        answer.json["secret"]["kind"],
        [each["kind"] for each in answer.json["former_secrets"]],
    )
    text = written(gateway)
    assert (5, 0) == (text.count("${sealed:"), text.count("HOOK_SECRET"))
    assert "# Pages whoever is on call." in text
    assert "# told apart by this" in text


def test_what_is_sent_back_as_it_was_shown_changes_nothing(call: Call, gateway: Gateway) -> None:
    edit(call, gateway, {"secret": ROTATE})
    edit(call, gateway, {"secret": ROTATE})
    before = written(gateway)
    shown = send(call, "GET", "webhooks/ops").json | {"new_secret": "of the answer before"}
    for method in ("PUT", "PATCH"):
        assert 200 == edit(call, gateway, shown, method).status
    assert before == written(gateway)


def test_former_secrets_are_given_all_and_anew_or_kept_all(call: Call, gateway: Gateway) -> None:
    given = [{"action": "set", "value": "whsec_" + letter * 32} for letter in "ab"]
    made = edit(call, gateway, {"former_secrets": [*given, {"reference": "${env:HOOK_SECRET}"}]})
    assert (200, ["sealed", "sealed", "reference"]) == (
        made.status,
        [each["kind"] for each in made.json["former_secrets"]],
    )
    before = written(gateway)
    assert 200 == edit(call, gateway, {"former_secrets": [KEEP, KEEP, KEEP]}).status
    assert before == written(gateway)
    for former in ([KEEP], [KEEP, KEEP], [KEEP] * 4):
        # Which are meant nobody could say.
        refused = edit(call, gateway, {"former_secrets": former})
        assert (422, "config_error-nothing_to_keep") == (refused.status, refused.code)
    sealed = "${sealed:" + before.partition("${sealed:")[2].partition("}")[0] + "}"
    stolen = {
        "name": "new",
        "url": "https://x.example",
        "secret": GENERATE,
        "former_secrets": [*given, {"reference": sealed}],
    }
    refused = send(call, "POST", "webhooks", stolen)
    assert (422, "config_error-reference_not_allowed") == (refused.status, refused.code)
    assert 200 == edit(call, gateway, {"former_secrets": None}).status
    assert "former_secrets" not in written(gateway)


def test_a_kept_secret_signs_for_no_other_endpoint(call: Call, gateway: Gateway) -> None:
    before = written(gateway)
    elsewhere = {"url": "https://elsewhere.example/x"}
    for change in (
        elsewhere,
        {**elsewhere, "secret": KEEP},
        {**elsewhere, "secret": ROTATE},
        {"tls": {"ca": "other.pem"}},
    ):
        refused = edit(call, gateway, change)
        assert (422, "config_error-secret_required") == (refused.status, refused.code), change
    assert before == written(gateway)
    moved = edit(call, gateway, {**elsewhere, "secret": GENERATE})
    assert (200, False) == (moved.status, moved.json["allow_private"])
    assert PATH_SECRET not in written(gateway)


@pytest.mark.parametrize(
    ("secret", "word"),
    [
        (ROTATE, "generate"),
        ({"action": "generate", "value": "x"}, "secret"),
        ({"action": "make"}, "secret"),
        ("x", "secret"),
    ],
)
def test_a_form_that_says_nothing_here_is_refused(call: Call, secret: Any, word: str) -> None:
    refused = send(call, "POST", "webhooks", {**NEW, "secret": secret})
    assert (400, "request_error-invalid_body") == (refused.status, refused.code)
    assert word in refused.json["error"]["message"]


def test_only_a_webhooks_secret_is_made(call: Call) -> None:
    body = {"name": "a", "type": "echo", "credentials": [{"name": "a", "api_key": GENERATE}]}
    assert 400 == send(call, "POST", "providers", body).status


def test_a_path_that_is_kept_comes_back_by_a_document(call: Call, gateway: Gateway) -> None:
    shown = call("GET", "/api/v1/config/document", "admin").body.decode()
    assert 'url: "https://hooks.example.com/${kept}?a=${kept}"' in shown
    fields = {"If-Match": f'"{gateway.editor.revision}"', "Content-Type": "text/yaml"}
    changed = call("PUT", "/api/v1/config/document", "admin", shown.replace("config.*", "token.*").encode(), fields)
    assert 200 == changed.status, changed.body
    assert DOCUMENT.replace("config.*", "token.*") == written(gateway)


def test_deliveries_are_listed_by_state_in_parts(call: Call) -> None:
    first = send(call, "GET", "webhooks/ops/deliveries?limit=3").json
    rest = send(call, "GET", f"webhooks/ops/deliveries?limit=3&cursor={first['next_cursor']}").json
    listed: list[Any] = [*first["data"], *rest["data"]]
    delivered, dead, pending, under_way = listed
    assert None is rest["next_cursor"]
    assert {
        "event_id": "evt_1",
        "type": "config.applied",
        "at": "2026-01-02T03:04:05Z",
        "state": "delivered",
        "under_way": False,
        "next_try_at": None,
        "ended_at": "2026-01-02T03:04:06Z",
        "attempts": 1,
        "attempted_at": "2026-01-02T03:04:06Z",
        "status": 204,
        "took_seconds": 0.0025,
        "failure": None,
        "failure_message": None,
    } == delivered
    assert ("status", "it answered with a status other than 2xx") == (dead["failure"], dead["failure_message"])
    assert ("2026-01-02T03:04:06Z", None, None) == (
        pending["next_try_at"],
        pending["ended_at"],
        pending["took_seconds"],
    )
    assert (False, True) == (pending["under_way"], under_way["under_way"])
    only_dead = send(call, "GET", "webhooks/ops/deliveries?state=dead").json["data"]
    assert ["evt_2"] == [each["event_id"] for each in only_dead]
    for query in ("state=lost", "limit=0", "cursor=x"):
        refused = send(call, "GET", f"webhooks/ops/deliveries?{query}")
        assert (400, "request_error-invalid_query") == (refused.status, refused.code)


def test_deliveries_of_a_webhook_that_was_removed_are_shown_and_of_one_that_never_was_not(call: Call) -> None:
    assert ["evt_5"] == [each["event_id"] for each in send(call, "GET", "webhooks/removed/deliveries").json["data"]]
    assert [] == send(call, "GET", "webhooks/gone/deliveries").json["data"]
    refused = send(call, "GET", "webhooks/opps/deliveries")
    assert (404, "webhook_error-not_found") == (refused.status, refused.code)


def test_a_delivery_is_shown_with_what_is_sent(call: Call) -> None:
    answer = send(call, "GET", "webhooks/ops/deliveries/evt_1")
    assert PAYLOAD.encode() in answer.body
    missing = send(call, "GET", "webhooks/ops/deliveries/evt_9")
    assert (404, "webhook_error-delivery_not_found") == (missing.status, missing.code)


def test_deliveries_are_made_once_more(call: Call, gateway: Gateway) -> None:
    one = send(call, "POST", "webhooks/ops/deliveries/evt_1/redeliver")
    several = send(call, "POST", "webhooks/ops/redeliver", {"event_ids": ["evt_1", "evt_2", "evt_9"]})
    dead = send(call, "POST", "webhooks/ops/redeliver", {"since": "2026-01-02T04:04:05+01:00"})
    assert [(202, 1), (202, 2), (202, 1)] == [(each.status, each.json["count"]) for each in (one, several, dead)]
    assert [("evt_1",), ("evt_1", "evt_2", "evt_9"), AT] == gateway.webhooks.asked
    assert [
        ("delivery.redeliver", {"event_id": "evt_1"}),
        ("webhook.redeliver", {"event_ids": ["evt_1", "evt_2", "evt_9"], "of": 3, "count": 2}),
        ("webhook.redeliver", {"since": "2026-01-02T04:04:05+01:00", "count": 1}),
    ] == [(each.action, json.loads(each.after or "")) for each in gateway.entries]
    assert {("webhook", "ops")} == {(each.resource, each.resource_id) for each in gateway.entries}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("ops/redeliver", {}, 400, "request_error-invalid_body"),
        ("ops/redeliver", {"event_ids": []}, 400, "request_error-invalid_body"),
        ("ops/redeliver", {"event_ids": ["evt_1", "evt_\0"]}, 400, "request_error-invalid_body"),
        ("ops/redeliver", {"event_ids": ["a"], "since": "2026-01-02T03:04:05Z"}, 400, "request_error-invalid_body"),
        ("ops/redeliver", {"since": "2026-01-02T03:04:05"}, 400, "request_error-invalid_body"),
        ("none/redeliver", {"event_ids": ["a"]}, 404, "webhook_error-not_found"),
        ("gone/redeliver", {"since": "2026-01-02T03:04:05Z"}, 409, "webhook_error-disabled"),
        ("ops/deliveries/evt_9/redeliver", None, 404, "webhook_error-delivery_not_found"),
        ("ops/deliveries/evt_4/redeliver", None, 409, "webhook_error-under_way"),
        ("removed/deliveries/evt_5/redeliver", None, 404, "webhook_error-not_found"),
        ("none/test", None, 404, "webhook_error-not_found"),
    ],
)
def test_what_cannot_be_delivered_is_refused(call: Call, path: str, body: Any, status: int, code: str) -> None:
    refused = send(call, "POST", f"webhooks/{path}", body)
    assert (status, code) == (refused.status, refused.code)


@pytest.mark.parametrize(("failure", "state"), [(None, "delivered"), (Failure.TIMEOUT, "dead")])
def test_a_test_tells_what_came_of_it(call: Call, gateway: Gateway, failure: Failure | None, state: str) -> None:
    gateway.webhooks.test_failure = failure
    answer = send(call, "POST", "webhooks/ops/test")
    assert (200, "webhook.test", state) == (answer.status, answer.json["type"], answer.json["state"])
    assert failure == answer.json["failure"]
    (entry,) = gateway.entries
    assert {"event_id": "evt_6", "state": state, "failure": failure} == json.loads(entry.after or "")
