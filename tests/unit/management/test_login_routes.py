"""Sign-ins over HTTP, and the page that a browser comes back to. End to end: tests/integration/test_login_api.py."""

import json
import re
from typing import Any

import pytest

from credentials.credential_state import CredentialState
from credentials.errors import CredentialUnavailable, LoginFailed, StoreUnavailable
from credentials.records import AccountSettings
from tests.conftest import ExpectLog
from tests.login_stand_in import CODE, REDIRECT_URL
from tests.planted import planted
from tests.unit.management.conftest import Answer, Call, Gateway

LOGIN = "/api/v1/credentials/login"
REFLECTED = planted("reflected")
"""In the query of what comes back: no page and no log may hold it."""


def send(call: Call, method: str, path: str = "", body: Any = None) -> Answer:
    return call(method, f"{LOGIN}{path}", "admin", None if body is None else json.dumps(body).encode())


def begin(call: Call, **members: Any) -> dict[str, Any]:
    answer = send(call, "POST", "", {"provider": "openai", "name": "ada", **members})
    assert 200 == answer.status, answer.body
    found: dict[str, Any] = answer.json
    return found


def come_back(call: Call, query: str) -> Answer:
    return call("GET", f"/oauth/callback?{query}")


def test_a_sign_in_goes_from_its_beginning_to_an_account(call: Call, gateway: Gateway) -> None:
    begun = begin(call, weight=3, scopes=["a"])
    assert (REDIRECT_URL, "code", None) == (begun["redirect_url"], begun["flow"], begun["user_code"])
    shown = {"provider": "openai", "name": "ada", "flow": "code", "message": None, "account": None}
    shown["expires_at"] = begun["expires_at"]
    assert {**shown, "status": "pending"} == send(call, "GET", f"/{begun['state']}").json
    page = come_back(call, f"code={CODE}&state={begun['state']}")
    assert (200, "text/html; charset=utf-8") == (page.status, page.headers["content-type"])
    assert "<h1>Signed in</h1>" in page.body.decode()
    assert "<code>ada</code> of <code>openai</code>" in page.body.decode()
    assert {**shown, "status": "complete"} == send(call, "GET", f"/{begun['state']}").json
    assert [("openai", "ada", AccountSettings(weight=3), None)] == gateway.logins.world.accounts.kept
    assert ["login.begin", "login.callback"] == [each.action for each in gateway.entries]
    assert [("openai/ada", "done", "anonymous")] == [
        (each.resource_id, each.outcome, each.actor_kind) for each in gateway.entries[1:]
    ]
    assert begun["state"] not in str(gateway.entries)


def test_what_is_said_of_an_account_that_is_there_already_is_kept_but_for_what_is_given(
    call: Call, gateway: Gateway
) -> None:
    settings = AccountSettings(weight=7, note="hers", models=("gpt-*",))
    gateway.logins.states["openai", "ada"] = CredentialState(
        provider="openai", name="ada", kind="oauth", source="account", settings=settings, state="needs_login"
    )
    for members in ({}, {"note": None, "priority": 5}):
        begun = begin(call, **members)
        answer = send(call, "POST", "/complete", {"redirect_url": f"{REDIRECT_URL}?code={CODE}&state={begun['state']}"})
        assert (200, "complete") == (answer.status, answer.json["status"])
    expected = [None, AccountSettings(weight=7, note=None, models=("gpt-*",), priority=5)]
    assert expected == [kept[2] for kept in gateway.logins.world.accounts.kept]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "request_error-invalid_body"),
        ({"provider": "openai", "name": "a/b"}, 400, "request_error-invalid_body"),
        ({"provider": "openai", "flow": "key_exchange"}, 400, "request_error-invalid_body"),
        ({"provider": "openai", "prefix": "plain"}, 400, "request_error-invalid_body"),
        ({"provider": "openai", "proxy_url": {"action": "set", "value": "no"}}, 400, "request_error-invalid_body"),
        ({"provider": "nowhere"}, 422, "credential_error-unknown_provider"),
        ({"provider": "plain"}, 422, "credential_error-unknown_provider"),
        ({"provider": "openai", "name": "of-file"}, 409, "credential_error-in_file"),
    ],
)
def test_what_cannot_begin_is_told_with_its_code(call: Call, body: Any, status: int, code: str) -> None:
    answer = send(call, "POST", "", body)
    assert (status, code) == (answer.status, answer.code)


def test_a_server_that_cannot_be_asked_or_has_no_such_way_is_told_of(call: Call, gateway: Gateway) -> None:
    gateway.logins.world.server.flows = ("device",)
    answer = send(call, "POST", "", {"provider": "openai", "flow": "code"})
    assert (422, "login_error-no_such_flow") == (answer.status, answer.code)
    assert "it can do `device`" in answer.json["error"]["message"]
    gateway.logins.world.server.failure = LoginFailed("It does not answer.")
    assert (502, "login_error-failed") == (
        (answer := send(call, "POST", "", {"provider": "openai"})).status,
        answer.code,
    )


def test_too_many_sign_ins_are_told_when_there_is_room(call: Call) -> None:
    for _ in range(100):
        begin(call)
    answer = send(call, "POST", "", {"provider": "openai"})
    assert (429, "login_error-too_many", "600") == (answer.status, answer.code, answer.headers["retry-after"])


def test_a_sign_in_is_cancelled_once(call: Call, gateway: Gateway) -> None:
    begun = begin(call)
    assert "cancelled" == send(call, "DELETE", f"/{begun['state']}").json["status"]
    again = send(call, "DELETE", f"/{begun['state']}")
    assert (410, "login_error-used") == (again.status, again.code)
    unknown = send(call, "DELETE", f"/{'x' * 43}")
    assert (404, "login_error-unknown") == (unknown.status, unknown.code)
    assert begun["state"] not in str(gateway.entries)
    assert 404 == send(call, "GET", f"/{'x' * 43}").status


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?error=access_denied&state=STATE", 422, "login_error-denied"),
        ("?code=c&iss=https://evil.example.com&state=STATE", 422, "login_error-mismatch"),
        (f"?code=c&state={'x' * 43}", 404, "login_error-unknown"),
        ("x?code=c&state=STATE", 422, "login_error-mismatch"),
        ("?state=STATE", 502, "login_error-failed"),
    ],
)
def test_a_pasted_address_is_refused_with_a_code_of_its_own(call: Call, query: str, status: int, code: str) -> None:
    begun = begin(call)
    answer = send(call, "POST", "/complete", {"redirect_url": REDIRECT_URL + query.replace("STATE", begun["state"])})
    assert (status, code) == (answer.status, answer.code)


def heading(answer: Answer) -> str:
    found = re.search("<h1>(.*)</h1>", answer.body.decode())
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("query", "status", "title"),
    [
        ("", 400, "No sign-in waits for this"),
        ("code=c", 400, "No sign-in waits for this"),
        (f"code=c&state={'x' * 43}", 400, "No sign-in waits for this"),
        ("code=c&state=%ff", 400, "No sign-in waits for this"),
        ("code=c&state=STATE&state=STATE", 400, "No sign-in waits for this"),
        (f"error=access_denied&error_description={REFLECTED}&state=STATE", 400, "The sign-in was refused"),
        ("code=c&state=STATE&iss=https://evil.example.com", 400, "This answer does not belong to the sign-in"),
        ("state=STATE", 502, "The sign-in has failed"),
    ],
)
def test_the_page_says_truly_that_there_is_no_account_and_repeats_nothing(
    call: Call, gateway: Gateway, query: str, status: int, title: str
) -> None:
    begun = begin(call)
    page = come_back(call, query.replace("STATE", begun["state"]) + f"&other={REFLECTED}")
    assert (status, title) == (page.status, heading(page))
    assert begun["state"] not in page.body.decode()
    assert [] == gateway.logins.world.accounts.kept
    ended = send(call, "GET", f"/{begun['state']}").json["status"]
    assert ("failed" if "sign-in was refused" in title or status == 502 or "belong" in title else "pending") == ended


def test_the_page_of_a_state_that_was_used_or_is_over_says_so(call: Call, gateway: Gateway) -> None:
    used, over = begin(call), begin(call)
    assert 200 == come_back(call, f"code=c&state={used['state']}").status
    page = come_back(call, f"code=c&state={used['state']}")
    assert (410, "This sign-in has ended already") == (page.status, heading(page))
    gateway.logins.world.clock.advance(600)
    page = come_back(call, f"code=c&state={over['state']}")
    assert (410, "This sign-in took too long") == (page.status, heading(page))
    # Neither is in the audit, as it changes nothing.
    assert ["login.begin", "login.begin", "login.callback"] == [each.action for each in gateway.entries]


@pytest.mark.parametrize(
    ("failure", "status", "outcome"),
    [
        (StoreUnavailable("no answer"), 503, "credential_error-store_unavailable"),
        (CredentialUnavailable("no answer"), 502, "credential_error-unavailable"),
        (LoginFailed("no"), 502, "login_error-failed"),
    ],
)
def test_what_hinders_the_gateway_is_a_page_too_and_in_the_audit(
    call: Call, gateway: Gateway, failure: Exception, status: int, outcome: str
) -> None:
    begun = begin(call)
    gateway.logins.failure = failure
    page = come_back(call, f"code=c&state={begun['state']}")
    assert (status, outcome) == (page.status, gateway.entries[-1].outcome)
    assert "Nothing was added." in page.body.decode()


def test_a_fault_of_ours_is_a_page_with_the_id_that_the_log_has(
    call: Call, gateway: Gateway, expect_log: ExpectLog
) -> None:
    begun = begin(call)
    gateway.logins.failure = ZeroDivisionError()
    with expect_log("ZeroDivisionError"):
        page = come_back(call, f"code=c&state={begun['state']}")
    assert (500, "The gateway has failed") == (page.status, heading(page))
    assert f"<code>{page.headers['x-request-id']}</code>" in page.body.decode()


def test_nothing_is_used_up_while_the_audit_takes_no_more(call: Call, gateway: Gateway) -> None:
    begun = begin(call)
    gateway.audit_is_full = True
    assert 503 == come_back(call, f"code=c&state={begun['state']}").status
    gateway.audit_is_full = False
    assert 200 == come_back(call, f"code=c&state={begun['state']}").status


def test_what_only_looks_uses_nothing_up(call: Call) -> None:
    begun = begin(call)
    assert 400 == call("HEAD", f"/oauth/callback?code=c&state={begun['state']}").status
    assert 200 == come_back(call, f"code=c&state={begun['state']}").status


def test_the_page_is_kept_by_nobody_runs_nothing_and_tells_no_other_site(call: Call) -> None:
    for query in ("", "code=c"):
        page = call("GET", f"/oauth/callback?{query}", None, None, {"Host": "wherever.example.com"})
        assert 400 == page.status
        assert ("no-store", "no-referrer") == (page.headers["cache-control"], page.headers["referrer-policy"])
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "script" not in policy
        assert "<script" not in page.body.decode()
        assert "frame-ancestors 'none'" in policy


def test_a_device_gets_its_code(call: Call, gateway: Gateway) -> None:
    gateway.logins.world.wake.clear()
    begun = begin(call, flow="device")
    assert ("device", "ABCD-EFGH", None) == (begun["flow"], begun["user_code"], begun["authorization_url"])
    assert "cancelled" == send(call, "DELETE", f"/{begun['state']}").json["status"]
    gateway.logins.world.wake.set()
