"""Limits of tokens: what may be asked for, how they are shown, how they stand."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from access.quotas.amounts import estimated, used
from access.quotas.limits import Limits, ScopeKind, parse_terms
from access.quotas.outcomes import Admission, Lease, Unavailable
from access.quotas.rules import Rule, Rules, Subject
from access.tokens import declared_token
from config.schema import Limit, Token
from core.identity import ApiToken, Scope
from tests.unit.management.conftest import CALLERS, Gateway
from tests.unit.management.token_stand_in import Tokens

Call = Callable[..., Any]
SIXTY = {"requests": 60, "per": "minute"}
OWN = Token(name="filed", sha256="0" * 64, owner="ann", limits=(Limit(requests=3, per="hour"), Limit(concurrency=2)))


@pytest.fixture
def tokens(gateway: Gateway) -> Tokens:
    gateway.tokens.file = (OWN, Token(name="other", sha256="1" * 64))
    return gateway.tokens


@pytest.fixture
def send(call: Call, tokens: Tokens) -> Call:
    def sent(method: str, path: str, body: object = None, key: str = "admin") -> Any:
        return call(method, f"/api/v1/tokens{path}", key, None if body is None else json.dumps(body).encode())

    return sent


@pytest.mark.parametrize(
    ("entry", "status", "where", "told"),
    [
        ({"requests": 3}, 422, "limits[1].per", "`requests` takes a `per`, one of `minute`, `hour`, `day`, `month`"),
        ({"requests": 3, "per": "week"}, 422, "limits[1].per", "`requests` takes a `per`, one of `minute`"),
        ({"concurrency": 3, "per": "day"}, 422, "limits[1].per", "leave `per` out"),
        ({"per": "day"}, 422, "limits[1]", "nothing is limited: give an amount, one of"),
        ({"requests": 3, "tokens": 9, "per": "day"}, 422, "limits[1]", "`requests` and `tokens` in one entry"),
        ({"requests": 2**53, "per": "day"}, 422, "limits[1].requests", "at most 9007199254740991"),
        ({"usd": 1e-10, "per": "day"}, 422, "limits[1].usd", "write at most nine digits"),
        (SIXTY | {"shadow": True, "max_wait_seconds": 1}, 422, "limits[1].max_wait_seconds", "leave"),
        ({"requests": 0, "per": "day"}, 400, "`$.limits[1].requests`", ">= 1"),
        ({"requests": 1.5, "per": "day"}, 400, "`$.limits[1].requests`", "int"),
        ({"usd": "20", "per": "day"}, 400, "`$.limits[1].usd`", "float"),
        (SIXTY | {"max_wait_seconds": 3601}, 400, "`$.limits[1].max_wait_seconds`", "<= 3600"),
        ({"request": 3, "per": "day"}, 400, "`$.limits[1]`", "`request`"),
        (3, 400, "`$.limits[1]`", "object"),
    ],
)
def test_a_limit_that_is_none_is_refused_with_its_place_and_the_mend(
    send: Call, tokens: Tokens, entry: object, status: int, where: str, told: str
) -> None:
    made = send("POST", "", {"name": "b"}).json["id"]
    kept = tokens.stored.copy()
    for method, path in (("POST", ""), ("PATCH", f"/{made}")):
        answer = send(method, path, {"name": "a", "limits": [SIXTY, entry, SIXTY]})
        error = answer.json["error"]
        assert (status, kept) == (answer.status, tokens.stored)
        if status == 422:
            (fault,) = error["faults"]
            assert ("token_error-invalid", where) == (error["code"], fault["path"])
            assert told in fault["message"]
        else:
            assert "request_error-invalid_body" == error["code"]
            assert where in error["message"]
            assert told in error["message"]


def test_there_are_not_more_than_32(send: Call) -> None:
    assert 201 == send("POST", "", {"name": "a", "limits": [SIXTY] * 32}).status
    answer = send("POST", "", {"name": "b", "limits": [SIXTY] * 33})
    assert (400, True) == (answer.status, "`$.limits`" in answer.json["error"]["message"])


def test_a_patch_replaces_them_all_or_leaves_them_and_a_rotation_keeps_them(send: Call, gateway: Gateway) -> None:
    made = send("POST", "", {"name": "a", "limits": [SIXTY]}).json
    path = f"/{made['id']}"
    assert [SIXTY] == send("PATCH", path, {"owner": "ann"}).json["limits"]
    wanted = [{"concurrency": 8}, {"usd": 20.0, "per": "month"}]
    assert wanted == send("PATCH", path, {"limits": wanted}).json["limits"] == send("GET", path).json["limits"]
    assert wanted == send("POST", f"{path}/rotate", {"grace_seconds": 60}).json["limits"]
    assert [] == send("PATCH", path, {"limits": []}).json["limits"]
    assert 400 == send("PATCH", path, {"limits": None}).status
    updates = [entry for entry in gateway.entries if entry.action == "token.update" and entry.outcome == "done"]
    assert ([SIXTY], wanted) == tuple(
        json.loads(text or "")["limits"] for text in (updates[1].before, updates[1].after)
    )


def test_those_of_the_file_are_shown_as_they_are_written(send: Call) -> None:
    shown = {each["id"]: each["limits"] for each in send("GET", "").json["data"]}
    assert {"file:filed": [{"requests": 3, "per": "hour"}, {"concurrency": 2}], "file:other": []} == shown


def test_what_a_later_version_knows_of_a_limit_is_not_shown_and_fails_nothing(send: Call, tokens: Tokens) -> None:
    made = send("POST", "", {"name": "a"}).json["id"]
    tokens.change(made, limits=({"requests": 3, "per": "hour", "burst": 7},))
    assert [{"requests": 3, "per": "hour"}] == send("GET", f"/{made}").json["limits"]


def test_where_nobody_counts_for_all_workers_a_token_with_limits_is_refused(send: Call, gateway: Gateway) -> None:
    made = send("POST", "", {"name": "a", "limits": [SIXTY]}).json["id"]
    gateway.limits.reason = "2 workers run without Redis: set `redis.url`"
    for method, path, body in (
        ("POST", "", {"name": "b", "limits": [SIXTY]}),
        ("PATCH", f"/{made}", {"limits": [{"concurrency": 1}]}),
    ):
        answer = send(method, path, body)
        assert (409, "token_error-limits_need_redis", "limits") == (
            answer.status,
            answer.code,
            answer.json["error"]["param"],
        )
        assert "2 workers run" in answer.json["error"]["message"]
        assert "`redis.url`" in answer.json["error"]["message"]
    # What has nothing to do with them goes on, and so does taking them away.
    assert 201 == send("POST", "", {"name": "b"}).status
    assert 200 == send("PATCH", f"/{made}", {"owner": "ann"}).status
    assert 200 == send("PATCH", f"/{made}", {"limits": []}).status


async def _use(gateway: Gateway, token: ApiToken, count: int) -> list[Admission]:
    limits = gateway.limits.rules.for_request(
        Subject(token.name, token.owner, "gpt-4o", "/v1/chat/completions"), token.limits, token.counted_as
    )
    return [await gateway.limits.store.admit(limits, estimated(10, 20, 30_000_000)) for _ in range(count)]


def test_a_standing_tells_what_is_used_and_left_and_charges_nothing(send: Call, gateway: Gateway, io_loop: Any) -> None:
    token = declared_token(OWN)
    fresh = {
        "source": "token",
        "match": {},
        "each": [],
        "names": {},
        "used": 0,
        "reset_seconds": None,
        "resets_at": None,
    }
    hourly, held = {"requests": 3, "per": "hour"}, {"concurrency": 2}
    expected = [fresh | {"limit": hourly, "remaining": 3}, fresh | {"limit": held, "remaining": 2}]
    for _ in range(5):
        assert expected == send("GET", "/file:filed/limits").json["data"]
    first, second, third = io_loop.run_sync(lambda: _use(gateway, token, 3))
    assert isinstance(first, Lease)
    assert isinstance(second, Lease)
    assert not isinstance(third, Lease)
    gateway.limits.store.settle(first, used(10, 20))
    for _ in range(5):
        hour, concurrent = send("GET", "/file:filed/limits").json["data"]
        assert (2, 1, 3600.0) == (hour["used"], hour["remaining"], hour["reset_seconds"])
        assert hour["resets_at"] is not None
        assert (1, 1, None, None) == tuple(
            concurrent[name] for name in ("used", "remaining", "reset_seconds", "resets_at")
        )
    gateway.limits.store.release(second)


def test_limits_of_the_configuration_that_count_all_of_its_requests_come_behind_its_own(
    send: Call, gateway: Gateway, io_loop: Any
) -> None:
    daily = parse_terms({"usd": 0.1, "per": "day"})
    gateway.limits.rules = Rules(
        [
            Rule(daily),
            Rule(daily, ((ScopeKind.TOKEN, ("fil*",)),)),
            Rule(daily, ((ScopeKind.OWNER, ("*",)),), (ScopeKind.OWNER,)),
            Rule(daily, ((ScopeKind.TOKEN, ("other",)),)),
            Rule(daily, ((ScopeKind.MODEL, ("gpt-*",)),)),
            Rule(daily, each=(ScopeKind.PATH,)),
            Rule(daily, each=(ScopeKind.PROVIDER,)),
        ]
    )
    io_loop.run_sync(lambda: _use(gateway, declared_token(OWN), 1))
    shown = send("GET", "/file:filed/limits").json["data"]
    assert [
        ("token", {}, [], {}),
        ("token", {}, [], {}),
        ("limits", {}, [], {}),
        ("limits", {"token": ["fil*"]}, [], {}),
        ("limits", {}, ["owner"], {"owner": "ann"}),
    ] == [tuple(each[name] for name in ("source", "match", "each", "names")) for each in shown]
    assert ({"usd": 0.1, "per": "day"}, 0.03, 0.07) == tuple(shown[2][name] for name in ("limit", "used", "remaining"))


def test_the_limits_of_the_configuration_are_listed_with_what_is_used_of_them(
    call: Call, gateway: Gateway, io_loop: Any
) -> None:
    minute, held, daily = (
        parse_terms(each) for each in (SIXTY, {"concurrency": 8, "shadow": True}, {"usd": 0.1, "per": "day"})
    )
    gateway.limits.rules = Rules(
        [
            Rule(daily, ((ScopeKind.MODEL, ("gpt-*", "o?")), (ScopeKind.OWNER, ("ann",)))),
            Rule(minute, ((ScopeKind.TOKEN, ("team-*",)),), (ScopeKind.TOKEN, ScopeKind.MODEL)),
        ],
        {"openai": (minute, held)},
        {("openai", "main"): (daily,)},
    )
    io_loop.run_sync(lambda: _use(gateway, declared_token(OWN), 1))
    answer = call("GET", "/api/v1/limits", "session-manager")
    shown = [each | {"resets_at": each["resets_at"] is not None} for each in answer.json["data"]]
    per_day, usd = (
        {"usd": 0.1, "per": "day"},
        {"used": 0.03, "remaining": 0.07, "reset_seconds": 86400.0, "resets_at": True},
    )
    unused: dict[str, object] = {"used": 0, "reset_seconds": None, "resets_at": False, "match": {}, "each": []}
    assert [
        {"limit": per_day, "source": "limits", "each": [], "names": {}, **usd}
        | {"match": {"model": ["gpt-*", "o?"], "owner": ["ann"]}},
        {"limit": SIXTY, "source": "limits", "match": {"token": ["team-*"]}, "each": ["token", "model"], "names": {}}
        | {"used": None, "remaining": None, "reset_seconds": None, "resets_at": False},
        unused | {"limit": SIXTY, "source": "provider", "names": {"provider": "openai"}, "remaining": 60},
        unused
        | {"limit": {"concurrency": 8, "shadow": True}, "source": "provider", "names": {"provider": "openai"}}
        | {"remaining": 8},
        unused
        | {"limit": per_day, "source": "credential", "names": {"provider": "openai", "credential": "main"}}
        | {"remaining": 0.1},
    ] == shown
    assert 403 == call("GET", "/api/v1/limits", "session-power_user").status


class _Silent:
    """A store that nobody reaches."""

    async def admit(self, limits: Limits, _charges: object) -> Admission:
        return Unavailable(1.0)


def test_while_nobody_knows_the_answer_is_503(send: Call, call: Call, gateway: Gateway) -> None:
    gateway.limits.rules = Rules([Rule(parse_terms(SIXTY), ((ScopeKind.TOKEN, ("team-*",)),))])
    gateway.limits.store = _Silent()  # type: ignore[assignment]  # no more of it is asked
    answer = send("GET", "/file:filed/limits")
    assert (503, "limit_error-unavailable", "1") == (answer.status, answer.code, answer.headers["retry-after"])
    assert "Redis" in answer.json["error"]["message"]
    gateway.limits.reason = "2 workers run without one"
    answer = send("GET", "/file:filed/limits")
    assert "Limits cannot be kept: 2 workers run without one." == answer.json["error"]["message"]
    assert 503 == call("GET", "/api/v1/limits", "admin").status
    assert [] == send("GET", "/file:other/limits").json["data"]


def test_a_token_sees_its_own_limits_alone(send: Call, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    made = send("POST", "", {"name": "a", "scope": "scope_token_power_user", "limits": [SIXTY]}).json["id"]
    terms = (parse_terms(SIXTY),)
    for key, caller, own in (
        ("of-api", ApiToken("a", Scope.POWER_USER, id=made, limits=terms, counted_as=f"api:{made}"), made),
        ("of-file", ApiToken("filed", Scope.POWER_USER, limits=terms, counted_as="file:filed"), "file:filed"),
    ):
        monkeypatch.setitem(CALLERS, key, caller)
        answer = send("GET", f"/{own}/limits", key=key)
        assert (200, [SIXTY]) == (answer.status, [each["limit"] for each in answer.json["data"]])
        for other in {made, "file:filed", "file:other", "file:unknown", "tok_unknown"} - {own}:
            answer = send("GET", f"/{other}/limits", key=key)
            assert (404, "token_error-not_found") == (answer.status, answer.code)
    assert 403 == send("GET", f"/{made}/limits", key="scope_token_user").status


def test_a_person_sees_the_limits_of_their_own_tokens(send: Call) -> None:
    mine, theirs = (send("POST", "", {"name": owner, "owner": owner}).json["id"] for owner in ("ann", "bob"))
    for path, key, status in (
        (mine, "session-power_user", 200),
        (theirs, "session-power_user", 404),
        ("file:filed", "session-power_user", 200),
        ("file:other", "session-power_user", 404),
        (theirs, "session-manager", 200),
        ("file:other", "session-manager", 200),
        ("tok_unknown", "session-manager", 404),
    ):
        assert status == send("GET", f"/{path}/limits", key=key).status, (path, key)
