"""`/api/v1/credentials`: what is asked, what is answered, who may; the accounts are some in memory."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from credentials.errors import (
    AccountMissing,
    CredentialRefused,
    CredentialUnavailable,
    NeedsLogin,
    RecordDamaged,
    RecordElsewhere,
    RecordLocked,
    RecordUnknown,
    StoreConflict,
    StoreUnavailable,
)
from credentials.records import AccountSettings
from management.credential_bodies import CredentialPatch, NewCredential
from management.credential_service import CannotRefresh, NameTaken, NothingSealed, Unfit, UnknownProvider
from tests.unit.management.conftest import Gateway
from tests.unit.management.credential_stand_in import AT, EXPORTED, Credentials

Call = Callable[..., Any]

MAIN = "/openai%2Fmain"


@pytest.fixture
def credentials(gateway: Gateway) -> Credentials:
    gateway.credentials.put(
        "main",
        oauth="corp",
        account="ann@example.com",
        scopes=["a"],
        settings=AccountSettings(weight=3, prefix="p", models=("gpt-*",), note="hers"),
        expires_at=AT,
        version=7,
    )
    gateway.credentials.put("filed", source="file", kind="api_key", version=None)
    gateway.credentials.put("broken", state="damaged", message="does not open", version=None)
    return gateway.credentials


@pytest.fixture
def send(call: Call, credentials: Credentials) -> Call:
    def sent(method: str, path: str, body: object = None, key: str = "admin", **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return call(method, f"/api/v1/credentials{path}", key, data, fields)

    return sent


def audited(gateway: Gateway) -> list[tuple[str, str | None, Any, Any, str]]:
    def value(text: str | None) -> Any:
        return None if text is None else json.loads(text)

    return [
        (each.action, each.resource_id, value(each.before), value(each.after), each.outcome) for each in gateway.entries
    ]


def ids(answer: Any) -> list[str]:
    return [each["id"] for each in answer.json["data"]]


def test_a_credential_is_shown_with_its_version_as_entity_tag(send: Call) -> None:
    answer = send("GET", MAIN)
    assert (200, '"7"') == (answer.status, answer.headers["etag"])
    assert {
        "id": "openai/main",
        "provider": "openai",
        "name": "main",
        "kind": "oauth",
        "source": "account",
        "state": "ready",
        "message": None,
        "oauth": "corp",
        "account": "ann@example.com",
        "scopes": ["a"],
        "weight": 3,
        "priority": 0,
        "prefix": "p",
        "models": ["gpt-*"],
        "disabled": False,
        "note": "hers",
        "has_proxy": False,
        "expires_at": "2023-11-14T22:13:20Z",
        "refreshed_at": None,
        "next_refresh_at": None,
        "created_at": None,
        "updated_at": None,
        "version": 7,
    } == answer.json
    assert '"abc"' == send("GET", "/openai%2Ffiled").headers["etag"]
    assert '"damaged"' == send("GET", "/openai%2Fbroken").headers["etag"]


@pytest.mark.parametrize("path", ["/openai%2Fnobody", "/nobody%2Fmain", "/main", "/openai%2Fmain%2F", "/%2F"])
@pytest.mark.parametrize(
    ("method", "more"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/refresh"), ("POST", "/export")]
)
def test_one_that_there_is_none_of_is_not_found(send: Call, path: str, method: str, more: str) -> None:
    answer = send(method, path + more, {} if method == "PATCH" else None, If_Match='"1"')
    assert (404, "credential_error-not_found") == (answer.status, answer.code)


def test_the_list_has_filters_and_pages(send: Call, credentials: Credentials) -> None:
    credentials.put("main", provider="other")
    everything = ["openai/broken", "openai/filed", "openai/main", "other/main"]
    assert everything == ids(send("GET", ""))
    assert everything[:3] == ids(send("GET", "?provider=openai"))
    assert [] == ids(send("GET", "?provider=nobody"))
    found, cursor = list[str](), ""
    while True:
        page = send("GET", f"?limit=3{cursor}")
        found += ids(page)
        if page.json["next_cursor"] is None:
            break
        cursor = f"&cursor={page.json['next_cursor']}"
    assert everything == found
    del credentials.states["openai/main"]
    assert ["other/main"] == ids(send("GET", f"?limit=3{cursor}")), "what the cursor stands after may be gone"
    assert (400, "request_error-invalid_query") == ((bad := send("GET", "?cursor=x")).status, bad.code)


def test_an_account_is_added_by_its_tokens(
    send: Call, credentials: Credentials, gateway: Gateway, planted_secret: str
) -> None:
    body = {
        "provider": "openai",
        "name": "second",
        "refresh_token": {"action": "set", "value": planted_secret},
        "access_token": {"action": "set", "value": planted_secret},
        "expires_at": "2099-01-01T00:00:00Z",
        "weight": 2,
        "priority": -1,
        "models": ["a"],
        "note": "new",
        "proxy_url": {"action": "set", "value": f"http://user:{planted_secret}@proxy:1"},
    }
    answer = send("POST", "", body)
    assert (201, "/api/v1/credentials/openai%2Fsecond", '"1"') == (
        answer.status,
        answer.headers["location"],
        answer.headers["etag"],
    )
    (given,) = credentials.given
    assert isinstance(given, NewCredential)
    assert given.refresh_token is not None
    assert planted_secret == given.refresh_token.value
    assert planted_secret not in repr(given)
    assert [("credential.create", "openai/second", None, answer.json, "done")] == audited(gateway)
    again = send("POST", "", body)
    assert (409, "credential_error-name_taken") == (again.status, again.code)


TOKEN = {"action": "set", "value": "t"}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "`provider`"),
        ({"provider": "openai", "name": "a"}, "refresh_token"),
        ({"provider": "openai", "name": "-", "refresh_token": TOKEN}, "$.name"),
        ({"provider": "openai", "name": "a", "refresh_token": "t"}, "$.refresh_token"),
        ({"provider": "openai", "name": "a", "refresh_token": {"action": "keep"}}, "$.refresh_token"),
        ({"provider": "openai", "name": "a", "refresh_token": {"action": "set", "value": ""}}, "$.refresh_token"),
        ({"provider": "openai", "name": "a", "refresh_token": {"reference": "${env:HOME}"}}, "$.refresh_token"),
        # Copied with the end of its line, it would spoil each request that it serves.
        (
            {"provider": "openai", "name": "a", "refresh_token": {"action": "set", "value": "a\n"}},
            "refresh_token",
        ),
        ({"provider": "openai", "name": "a", "access_token": {"action": "set", "value": "a b"}}, "access_token"),
        (
            {"provider": "openai", "name": "a", "refresh_token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"},
            "expires_at",
        ),
        (
            {"provider": "openai", "name": "a", "access_token": TOKEN, "expires_at": "2001-01-01T00:00:00Z"},
            "expires_at",
        ),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "expires_at": "2099-01-01"}, "$.expires_at"),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "weight": 0}, "$.weight"),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "priority": 1001}, "$.priority"),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "prefix": "a/b"}, "$.prefix"),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "prefix": "a\n"}, "$.prefix"),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "models": [""]}, "$.models"),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "note": "n" * 501}, "$.note"),
        ({"provider": "openai", "name": "a", "access_token": TOKEN, "token": "x"}, "token"),
    ],
)
def test_what_is_no_account_is_refused(send: Call, credentials: Credentials, body: dict[str, Any], where: str) -> None:
    answer = send("POST", "", body)
    assert (400, "request_error-invalid_body") == (answer.status, answer.code)
    assert where in answer.json["error"]["message"]
    assert [] == credentials.given


def test_a_patch_changes_what_it_names(send: Call, credentials: Credentials, gateway: Gateway) -> None:
    patch: dict[str, Any] = {"weight": 5, "prefix": None, "models": [], "disabled": True, "note": "other"}
    before = send("GET", MAIN).json
    answer = send("PATCH", MAIN, patch, If_Match='"7"')
    assert (200, '"8"') == (answer.status, answer.headers["etag"])
    after = {name: answer.json[name] for name in (*patch, "priority")}
    assert {**patch, "priority": 0} == after
    assert [("credential.update", "openai/main", before, answer.json, "done")] == audited(gateway)
    assert [False, True, True, False] == [
        send("PATCH", MAIN, {"proxy_url": proxy}, If_Match=f'"{version}"').json["has_proxy"]
        for version, proxy in ((8, None), (9, TOKEN), (10, {"action": "keep"}), (11, None))
    ]
    patches = [each for each in credentials.given if isinstance(each, CredentialPatch)]
    assert [msgspec.UNSET] == [each.proxy_url for each in patches][:1]


@pytest.mark.parametrize(
    ("patch", "where"),
    [
        ({"weight": None}, "$.weight"),
        ({"weight": 1001}, "$.weight"),
        ({"disabled": "yes"}, "$.disabled"),
        ({"name": "other"}, "name"),
        ({"refresh_token": TOKEN}, "refresh_token"),
        ({"proxy_url": "http://proxy:1"}, "$.proxy_url"),
        ({"proxy_url": {"action": "drop"}}, "$.proxy_url"),
        ({"proxy_url": {"reference": "${env:PROXY}"}}, "$.proxy_url"),
    ],
)
def test_a_patch_of_what_cannot_be_changed_is_refused(send: Call, patch: dict[str, Any], where: str) -> None:
    answer = send("PATCH", MAIN, patch, If_Match='"7"')
    assert (400, "request_error-invalid_body") == (answer.status, answer.code)
    assert where in answer.json["error"]["message"]


@pytest.mark.parametrize(("method", "body"), [("PATCH", {"weight": 2}), ("DELETE", None)])
def test_a_change_says_which_version_it_is_of(send: Call, method: str, body: object) -> None:
    unsaid = send(method, MAIN, body)
    assert (428, "request_error-if_match_required") == (unsaid.status, unsaid.code)
    for tag in ('"6"', '"abc"', '"damaged"', '"99999999999999999999"'):
        stale = send(method, MAIN, body, If_Match=tag)
        assert (412, "credential_error-stale", '"7"') == (stale.status, stale.code, stale.headers["etag"])


@pytest.mark.parametrize(
    ("method", "more", "body"), [("PATCH", "", {"weight": 2}), ("DELETE", "", None), ("POST", "/export", None)]
)
def test_credentials_of_the_file_are_changed_there(send: Call, method: str, more: str, body: object) -> None:
    answer = send(method, f"/openai%2Ffiled{more}", body)
    assert (409, "credential_error-in_file") == (answer.status, answer.code)
    assert "providers[openai]" in answer.json["error"]["message"]


def test_a_removal_says_whether_the_tokens_were_taken_back(
    send: Call, credentials: Credentials, gateway: Gateway
) -> None:
    before = send("GET", MAIN).json
    answer = send("DELETE", MAIN, If_Match='"7"')
    assert (200, {"revoked": True, "message": None}) == (answer.status, answer.json)
    assert [("credential.delete", "openai/main", before, {"revoked": True}, "done")] == audited(gateway)
    credentials.revoked = (False, "the server did not answer")
    # What cannot be read has no version.
    assert {"revoked": False, "message": "the server did not answer"} == send(
        "DELETE", "/openai%2Fbroken", If_Match='"damaged"'
    ).json
    assert ["openai/filed"] == ids(send("GET", ""))


def test_a_token_is_exchanged_when_it_is_asked_for(send: Call, gateway: Gateway) -> None:
    before = send("GET", MAIN).json
    answer = send("POST", f"{MAIN}/refresh")
    assert (200, '"2"', "2023-11-14T22:13:20Z") == (answer.status, answer.headers["etag"], answer.json["refreshed_at"])
    assert [("credential.refresh", "openai/main", before, answer.json, "done")] == audited(gateway)


def test_an_account_is_exported_and_imported(send: Call, credentials: Credentials, gateway: Gateway) -> None:
    answer = send("POST", f"{MAIN}/export")
    assert (200, "k1:c2VhbGVk") == (answer.status, answer.json["sealed"])
    taken = send("POST", "/import", msgspec.to_builtins(EXPORTED))
    assert (201, "/api/v1/credentials/openai%2Fmain") == (taken.status, taken.headers["location"])
    assert [EXPORTED] == credentials.given
    assert [
        ("credential.export", "openai/main", None, None, "done"),
        ("credential.import", "openai/main", None, taken.json, "done"),
    ] == audited(gateway)


@pytest.mark.parametrize(
    "changed",
    [
        {"sluice_credential": 2},
        {"provider": ""},
        {"name": "a/b"},
        {"settings": {"weight": 0}},
        {"settings": {"proxy": ""}},
        {"sealed": ""},
        {"more": 1},
    ],
)
def test_what_was_never_exported_is_not_imported(send: Call, changed: dict[str, Any]) -> None:
    answer = send("POST", "/import", {**msgspec.to_builtins(EXPORTED), **changed})
    assert (400, "request_error-invalid_body") == (answer.status, answer.code)


FAILURES: list[tuple[Exception, str, int, str]] = [
    (UnknownProvider("No provider is named `x`"), "", 422, "credential_error-unknown_provider"),
    (NameTaken("There is one"), "", 409, "credential_error-name_taken"),
    (StoreConflict("there is one"), "", 409, "credential_error-name_taken"),
    (Unfit("prefix", "is the name of a provider"), "", 400, "request_error-invalid_body"),
    (StoreUnavailable("the store does not answer"), "", 503, "credential_error-store_unavailable"),
    (RecordLocked("needs the key"), "/import", 422, "credential_error-wrong_key"),
    (RecordDamaged("was cut"), "/import", 422, "credential_error-import_damaged"),
    (RecordUnknown("is of a newer version"), "/import", 422, "credential_error-import_damaged"),
    (RecordElsewhere("would go elsewhere"), "/import", 422, "credential_error-elsewhere"),
    (AccountMissing("it is gone"), f"{MAIN}/refresh", 404, "credential_error-not_found"),
    (CannotRefresh("It is a key"), f"{MAIN}/refresh", 409, "credential_error-cannot_refresh"),
    (NeedsLogin("sign in again"), f"{MAIN}/refresh", 409, "credential_error-needs_login"),
    (CredentialRefused("the client is not known"), f"{MAIN}/refresh", 502, "credential_error-refused"),
    (
        CredentialUnavailable("does not answer", retry_after_seconds=4.2),
        f"{MAIN}/refresh",
        502,
        "credential_error-unavailable",
    ),
    (NothingSealed("It has not signed in"), f"{MAIN}/export", 409, "credential_error-nothing_sealed"),
    (RecordDamaged("was cut"), f"{MAIN}/export", 409, "credential_error-damaged"),
    (RecordLocked("needs the key"), f"{MAIN}/export", 409, "credential_error-damaged"),
    (RecordUnknown("is of a newer version"), f"{MAIN}/export", 409, "credential_error-damaged"),
]


@pytest.mark.parametrize(("error", "path", "status", "code"), FAILURES, ids=str)
def test_each_failure_has_an_answer_and_is_audited(
    send: Call, credentials: Credentials, gateway: Gateway, error: Exception, path: str, status: int, code: str
) -> None:
    credentials.failing = error
    body: Any = None
    if path in ("", "/import"):
        new = {"provider": "openai", "name": "main", "access_token": TOKEN}
        body = msgspec.to_builtins(EXPORTED) if path else new
    answer = send("POST", path, body)
    assert (status, code) == (answer.status, answer.code)
    assert str(error).lower() in answer.json["error"]["message"].lower() or isinstance(error, StoreConflict)
    assert [("openai/main", code)] == [(each.resource_id, each.outcome) for each in gateway.entries]
    if isinstance(error, CredentialUnavailable):
        assert "5" == answer.headers["retry-after"]


@pytest.mark.parametrize("error", [RecordElsewhere("by another proxy"), RecordDamaged("was cut")])
def test_a_change_that_cannot_be_made_leaves_the_account(
    send: Call, credentials: Credentials, error: Exception
) -> None:
    credentials.failing = error
    answer = send("PATCH", MAIN, {"proxy_url": None}, If_Match='"7"')
    assert {422: "credential_error-elsewhere", 409: "credential_error-damaged"}[answer.status] == answer.code
