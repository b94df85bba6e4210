"""`/api/v1/tokens`: what is asked, what is answered, who may; the database is one in memory."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from access.tokens import looks_valid
from config.schema import Token
from tests.unit.management.conftest import Gateway
from tests.unit.management.token_stand_in import Tokens

Call = Callable[..., Any]
Made = dict[str, Any]


@pytest.fixture
def tokens(gateway: Gateway) -> Tokens:
    gateway.tokens.file = (
        Token(name="filed", sha256="0" * 64, models=("gpt-*",), owner="ann", expires_at="2001-01-01T01:00:00+01:00"),
        Token(name="other", sha256="1" * 64),
    )
    return gateway.tokens


@pytest.fixture
def send(call: Call, tokens: Tokens) -> Call:
    def sent(method: str, path: str, body: object = None, key: str = "admin", **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return call(method, f"/api/v1/tokens{path}", key, data, fields)

    return sent


@pytest.fixture
def make(send: Call) -> Callable[..., Made]:
    def made(name: str, **members: Any) -> Made:
        answer = send("POST", "", {"name": name, **members})
        assert 201 == answer.status, answer.json
        found: Made = answer.json
        return found

    return made


def test_a_token_is_made_and_its_text_shown_this_once(send: Call, tokens: Tokens) -> None:
    body = {
        "name": "team-a",
        "models": ["gpt-*"],
        "endpoints": ["inference", "files"],
        "scope": "scope_token_power_user",
        "owner": "ann",
        "expires_at": "2099-01-31T13:00:00+01:00",
        "ip_ranges": ["10.0.0.0/8"],
        "metadata": {"cost centre": "42"},
        "limits": [{"requests": 60, "per": "minute"}, {"usd": 0.5, "per": "month", "shadow": True}, {"concurrency": 8}],
    }
    answer = send("POST", "", body)
    assert 201 == answer.status
    made = answer.json
    text = made.pop("token")
    assert looks_valid(text)
    stored = tokens.stored[made["id"]]
    assert hashlib.sha256(text.encode()).digest() == stored.sha256
    assert text.startswith(made["prefix"])
    assert 14 == len(made["prefix"])
    assert (f"/api/v1/tokens/{made['id']}", f'"{stored.changed}"') == (
        answer.headers["location"],
        answer.headers["etag"],
    )
    assert {
        **body,
        "id": stored.id,
        "prefix": stored.prefix,
        "source": "api",
        "state": "active",
        "expires_at": "2099-01-31T12:00:00Z",
        "created_at": "2023-11-14T22:13:20Z",
        "created_by": "admin-key",
        "rotated_from": None,
        "grace_until": None,
        "revoked_at": None,
    } == made
    shown = send("GET", f"/{stored.id}")
    assert (made, answer.headers["etag"]) == (shown.json, shown.headers["etag"])
    assert [made, "file:filed", "file:other"] == [send("GET", "").json["data"][0], *_ids(send("GET", ""))[1:]]


def test_what_is_not_named_is_not_open(make: Callable[..., Made]) -> None:
    made = make("bare")
    assert {
        "models": [],
        "endpoints": ["inference"],
        "scope": "scope_token_user",
        "owner": None,
        "expires_at": None,
    } == {name: made[name] for name in ("models", "endpoints", "scope", "owner", "expires_at")}


@pytest.mark.parametrize(
    ("body", "status", "code", "where"),
    [
        ({}, 400, "request_error-invalid_body", "`name`"),
        ({"name": "-bad"}, 400, "request_error-invalid_body", "$.name"),
        ({"name": "a", "quota": 1}, 400, "request_error-invalid_body", "quota"),
        ({"name": "a", "scope": "scope_token_usr"}, 400, "request_error-invalid_body", "$.scope"),
        ({"name": "a", "endpoints": ["all"]}, 400, "request_error-invalid_body", "$.endpoints"),
        ({"name": "a", "expires_at": "2099-01-31T12:00:00"}, 400, "request_error-invalid_body", "$.expires_at"),
        ({"name": "a", "models": ["m"] * 257}, 400, "request_error-invalid_body", "$.models"),
        ({"name": "a", "models": ["m", 3, "n", 4]}, 400, "request_error-invalid_body", "`$.models[1]`"),
        ({"name": "a", "metadata": {"k": 1}}, 400, "request_error-invalid_body", "$.metadata"),
        ({"name": "a", "metadata": {"k" * 65: ""}}, 400, "request_error-invalid_body", "$.metadata"),
        ({"name": "a", "metadata": {"k": "v" * 513}}, 400, "request_error-invalid_body", "$.metadata"),
        ({"name": "a", "metadata": {str(n): "" for n in range(33)}}, 400, "request_error-invalid_body", "$.metadata"),
        ({"name": "a", "owner": ""}, 400, "request_error-invalid_body", "$.owner"),
        ({"name": "a", "owner": "a\nb"}, 422, "token_error-invalid", "owner"),
        ({"name": "a", "models": ["ok", "["]}, 422, "token_error-invalid", "models[1]"),
        ({"name": "a", "ip_ranges": ["10.0.0.1/8"]}, 422, "token_error-invalid", "ip_ranges[0]"),
        ({"name": "a", "expires_at": "2001-01-31T12:00:00Z"}, 422, "token_error-invalid", "expires_at"),
        ({"name": "a", "expires_at": "9999-12-31T23:59:59-01:00"}, 422, "token_error-invalid", "expires_at"),
        ({"name": "a", "expires_at": "0001-01-01T00:00:00+23:59"}, 422, "token_error-invalid", "expires_at"),
        ({"name": "a", "scope": "scope_metrics", "models": ["*"]}, 422, "token_error-invalid", "models"),
        ({"name": "a", "scope": "scope_token_manager"}, 403, "token_error-scope_not_allowed", "`scope_token_manager`"),
        ({"name": "a", "scope": "scope_token_admin"}, 403, "token_error-scope_not_allowed", "`scope_token_admin`"),
        ({"name": "filed"}, 409, "token_error-name_taken", "The configuration declares"),
        ({"name": "Ann's"}, 400, "request_error-invalid_body", "$.name"),
    ],
)
def test_a_request_that_is_refused_says_where_and_makes_nothing(
    send: Call, tokens: Tokens, body: object, status: int, code: str, where: str
) -> None:
    answer = send("POST", "", body)
    assert (status, code) == (answer.status, answer.code)
    assert where in str(answer.json)
    assert {} == tokens.stored


def test_a_name_is_taken_once(send: Call, make: Callable[..., Made]) -> None:
    make("ops")
    answer = send("POST", "", {"name": "ops"})
    assert (409, "token_error-name_taken", "name") == (answer.status, answer.code, answer.json["error"]["param"])


def test_tokens_of_the_file_are_shown_and_changed_there_alone(send: Call) -> None:
    shown = send("GET", "/file:filed")
    assert (200, "expired", "file", "2001-01-01T00:00:00Z", None) == (
        shown.status,
        *(shown.json[name] for name in ("state", "source", "expires_at", "prefix")),
    )
    assert '"abc"' == shown.headers["etag"], "the revision of the configuration"
    assert shown.json == send("GET", "/file%3Afiled").json
    for method, path, body in (
        ("PATCH", "/file:filed", {"owner": "bob"}),
        ("DELETE", "/file:filed", None),
        ("POST", "/file:filed/rotate", {"grace_seconds": 0}),
    ):
        answer = send(method, path, body)
        assert (409, "token_error-in_file") == (answer.status, answer.code)
        assert "edit `tokens` there" in answer.json["error"]["message"]
    for path in ("/file:unknown", "/tok_unknown", "/" + "x" * 500):
        answer = send("GET", path)
        assert (404, "token_error-not_found") == (answer.status, answer.code)


def _ids(answer: Any) -> list[str]:
    return [each["id"] if each["source"] == "file" else each["name"] for each in answer.json["data"]]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
def test_a_list_goes_from_page_to_page_through_both_sources(send: Call, make: Callable[..., Made], limit: int) -> None:
    for number in range(3):
        make(f"team-{number}", owner="ann" if number else None)
    found: list[str] = []
    cursor = ""
    while True:
        page = send("GET", f"?limit={limit}{cursor}")
        assert 200 == page.status
        assert limit >= len(page.json["data"])
        found += _ids(page)
        if page.json["next_cursor"] is None:
            break
        assert limit == len(page.json["data"]), "a page that is not the last is full"
        cursor = f"&cursor={page.json['next_cursor']}"
    assert ["team-2", "team-1", "team-0", "file:filed", "file:other"] == found
    assert ["team-2", "team-1", "file:filed"] == _ids(send("GET", "?owner=ann"))


def test_the_revoked_are_listed_where_they_are_asked_for(send: Call, make: Callable[..., Made]) -> None:
    made = make("gone")
    assert 204 == send("DELETE", f"/{made['id']}").status
    assert ["file:filed", "file:other"] == _ids(send("GET", ""))
    assert ["gone", "file:filed", "file:other"] == _ids(send("GET", "?include_revoked=true"))
    assert ("revoked", "2023-11-14T22:13:20Z") == tuple(
        send("GET", f"/{made['id']}").json[name] for name in ("state", "revoked_at")
    )


@pytest.mark.parametrize(
    "query", ["?owner=%00", "?cursor=x", "?cursor=YXBpOm5vcGU=", "?cursor=ZmlsZTotMQ==", "?limit=0", "?page=2"]
)
def test_a_query_that_means_nothing_is_refused(send: Call, query: str) -> None:
    answer = send("GET", query)
    assert (400, "request_error-invalid_query") == (answer.status, answer.code)


def test_a_patch_changes_what_it_names_and_null_takes_away(send: Call, make: Callable[..., Made]) -> None:
    made = make("a", owner="ann", models=["x"], metadata={"one": "1", "two": "2"}, expires_at="2099-01-01T00:00:00Z")
    patch = {"name": "b", "models": ["y", "z"], "owner": None, "metadata": {"one": None, "three": "3"}}
    answer = send("PATCH", f"/{made['id']}", patch)
    assert (200, '"2"') == (answer.status, answer.headers["etag"])
    changed = answer.json
    assert ("b", ["y", "z"], None, {"two": "2", "three": "3"}, made["expires_at"]) == tuple(
        changed[name] for name in ("name", "models", "owner", "metadata", "expires_at")
    )
    assert answer.json == send("GET", f"/{made['id']}").json
    assert None is send("PATCH", f"/{made['id']}", {"expires_at": None}).json["expires_at"]


@pytest.mark.parametrize(
    ("patch", "status", "code"),
    [
        ({"models": None}, 400, "request_error-invalid_body"),
        ({"id": "tok_1"}, 400, "request_error-invalid_body"),
        ({"token": "x"}, 400, "request_error-invalid_body"),
        ({"models": ["["]}, 422, "token_error-invalid"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, 422, "token_error-invalid"),
        ({"scope": "scope_metrics"}, 422, "token_error-invalid"),
        ({"scope": "scope_token_admin"}, 403, "token_error-scope_not_allowed"),
        ({"name": "filed"}, 409, "token_error-name_taken"),
    ],
)
def test_a_patch_that_is_refused_changes_nothing(
    send: Call, make: Callable[..., Made], tokens: Tokens, patch: object, status: int, code: str
) -> None:
    made = make("a", models=["x"])
    before = tokens.stored[made["id"]]
    answer = send("PATCH", f"/{made['id']}", patch)
    assert (status, code) == (answer.status, answer.code)
    assert before == tokens.stored[made["id"]]


def test_metadata_stay_bounded_however_often_they_are_patched(send: Call, make: Callable[..., Made]) -> None:
    made = make("a", metadata={str(number): "" for number in range(30)})
    answer = send("PATCH", f"/{made['id']}", {"metadata": {str(number): "" for number in range(28, 33)}})
    assert (422, "token_error-invalid") == (answer.status, answer.code)
    assert 200 == send("PATCH", f"/{made['id']}", {"metadata": {"0": None, "30": "", "31": "", "32": ""}}).status


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PATCH", "", {"owner": "bob"}), ("DELETE", "", None), ("POST", "/rotate", {"grace_seconds": 60})],
)
def test_if_match_is_honoured_and_not_demanded(
    send: Call, make: Callable[..., Made], method: str, path: str, body: object
) -> None:
    made = make("a")
    for tag in ('"7"', '"1x"', '"' + "9" * 30 + '"'):
        answer = send(method, f"/{made['id']}{path}", body, If_Match=tag)
        assert (412, "token_error-stale") == (answer.status, answer.code)
    assert send(method, f"/{made['id']}{path}", body, If_Match='"1"').status in (200, 201, 204)


def test_a_patch_without_if_match_is_made_over_what_others_change_meanwhile(
    send: Call, make: Callable[..., Made], tokens: Tokens
) -> None:
    made = make("a")
    tokens.meanwhile = 3
    assert "bob" == send("PATCH", f"/{made['id']}", {"owner": "bob"}).json["owner"]
    tokens.meanwhile = 9
    answer = send("PATCH", f"/{made['id']}", {"owner": "eve"})
    assert (412, "token_error-stale") == (answer.status, answer.code)


def test_a_rotation_gives_a_successor_with_the_same_rights(
    send: Call, make: Callable[..., Made], tokens: Tokens
) -> None:
    made = make("a", models=["x"], owner="ann", metadata={"k": "v"})
    answer = send("POST", f"/{made['id']}/rotate", {"grace_seconds": 60})
    new = answer.json
    assert (201, f"/api/v1/tokens/{new['id']}") == (answer.status, answer.headers["location"])
    assert looks_valid(new["token"])
    assert new["token"] != made["token"]
    assert (made["id"], ["x"], "ann", {"k": "v"}) == tuple(
        new[name] for name in ("rotated_from", "models", "owner", "metadata")
    )
    assert "replaced" == send("GET", f"/{made['id']}").json["state"]
    again = send("POST", f"/{made['id']}/rotate", {"grace_seconds": 60})
    assert (412, "token_error-stale") == (again.status, again.code)
    assert 201 == send("POST", f"/{new['id']}/rotate", {"grace_seconds": 0}).status
    assert "revoked" == send("GET", f"/{new['id']}").json["state"]
    gone = send("POST", f"/{new['id']}/rotate", {"grace_seconds": 0})
    assert (404, "token_error-not_found") == (gone.status, gone.code)
    for body in ({}, {"grace_seconds": -1}, {"grace_seconds": 2_592_001}, None):
        assert 400 == send("POST", f"/{made['id']}/rotate", body).status


def test_while_some_worker_is_silent_the_answer_is_202(send: Call, tokens: Tokens) -> None:
    tokens.everywhere = False
    made = send("POST", "", {"name": "a"})
    assert 202 == made.status
    assert looks_valid(made.json["token"])
    path = f"/{made.json['id']}"
    assert 202 == send("PATCH", path, {"owner": "ann"}).status
    assert 202 == send("POST", f"{path}/rotate", {"grace_seconds": 5}).status
    revoked = send("DELETE", path)
    assert (202, "revoked") == (revoked.status, revoked.json["state"])


def test_no_answer_and_no_audit_entry_has_a_hash_or_more_than_one_text(
    send: Call, make: Callable[..., Made], tokens: Tokens, gateway: Gateway
) -> None:
    made = make("a")
    path = f"/{made['id']}"
    rotated = send("POST", f"{path}/rotate", {"grace_seconds": 5}).json
    answers = [send("GET", path), send("GET", "?include_revoked=true"), send("PATCH", path, {"owner": "ann"})]
    said = "".join(str(answer.json) for answer in answers) + repr(gateway.entries)
    for token in tokens.stored.values():
        assert token.sha256.hex() not in said
        assert repr(token.sha256) not in said
    for text in (made["token"], rotated["token"]):
        assert text not in said
        assert text[:14] in said
    assert ["token.create", "token.rotate", "token.update"] == [entry.action for entry in gateway.entries]
    assert ["token"] * 3 == [entry.resource for entry in gateway.entries]
    assert [made["id"]] * 3 == [entry.resource_id for entry in gateway.entries]


@pytest.mark.parametrize(
    ("key", "scope", "status"),
    [
        ("session-manager", "scope_token_user", 201),
        ("session-manager", "scope_token_power_user", 201),
        ("session-manager", "scope_metrics", 403),
        ("session-admin", "scope_metrics", 201),
        ("session-power_user", "scope_token_user", 403),
        ("scope_token_admin", "scope_token_user", 403),
        ("scope_token_power_user", "scope_token_user", 403),
    ],
)
def test_who_may_make_which_token(send: Call, key: str, scope: str, status: int) -> None:
    assert status == send("POST", "", {"name": "a", "scope": scope}, key).status


def test_a_scope_is_not_raised_by_who_may_not_give_it(send: Call, make: Callable[..., Made]) -> None:
    made = make("scrape", scope="scope_metrics")
    for method, path, body in (
        ("PATCH", "", {"scope": "scope_metrics"}),
        ("POST", "/rotate", {"grace_seconds": 0}),
    ):
        answer = send(method, f"/{made['id']}{path}", body, "session-manager")
        assert (403, "token_error-scope_not_allowed") == (answer.status, answer.code)
    # What they do not give they may take away.
    assert 200 == send("PATCH", f"/{made['id']}", {"scope": "scope_token_user"}, "session-manager").status
    assert 204 == send("DELETE", f"/{made['id']}", None, "session-manager").status
