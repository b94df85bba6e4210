"""What may be asked of `/api/v1/events`, by whom, and how it is written."""

from collections.abc import Callable
from typing import Any

import pytest

from core.events import EVENTS
from management import event_stream
from management.event_feed import FeedEnds, Told, TooManyListeners, Wanted
from tests.unit.management.conftest import Gateway

Call = Callable[..., Any]
EVERY = tuple(kind.name for kind in EVENTS)


def test_events_are_written_as_server_sent_events(call: Call, gateway: Gateway) -> None:
    gateway.events.told = [(Told("evt_1", "config.applied", '{"a":1}'), Told("evt_2", "stream.gap", "{}"))]
    answer = call("GET", "/api/v1/events", "admin", headers={"Last-Event-ID": "evt_0"})
    assert 200 == answer.status
    assert ("text/event-stream", "no", "no-store") == tuple(
        answer.headers[name] for name in ("content-type", "x-accel-buffering", "cache-control")
    )
    assert (
        b"retry: 2000\nid: evt_0000000a1\n\n"
        b'id: evt_1\nevent: config.applied\ndata: {"a":1}\n\n'
        b"id: evt_2\nevent: stream.gap\ndata: {}\n\n"
    ) == answer.body
    assert 1 == gateway.events.closed
    [(_, last_id, caller)] = gateway.events.listened
    assert ("evt_0", "admin_key admin-key") == (last_id, caller)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Wanted(names=tuple(name for name in EVERY if name not in ("request.started", "attempt.failed")))),
        ("?events=*", Wanted(names=EVERY)),
        (
            "?events=config.*,request.failed",
            Wanted(names=("request.failed", *(name for name in EVERY if name.startswith("config.")))),
        ),
        (
            "?events=request.failed&token=t&provider=p&model=m",
            Wanted(names=("request.failed",), token="t", provider="p", model="m"),
        ),
    ],
)
def test_a_manager_may_see_all(call: Call, gateway: Gateway, query: str, expected: Wanted) -> None:
    assert 200 == call("GET", f"/api/v1/events{query}", "scope_token_manager").status
    [(wanted, last_id, _)] = gateway.events.listened
    assert (expected, None) == (wanted, last_id)


@pytest.mark.parametrize(
    ("key", "query", "expected"),
    [
        ("scope_token_power_user", "", Wanted(names=EVERY[1:3], token="token-power_user", declared=True)),
        (
            "scope_token_power_user",
            "?events=request.*&token=token-power_user",
            Wanted(names=EVERY[1:3], token="token-power_user", declared=True),
        ),
        ("session-user", "?events=*", Wanted(names=EVERY[1:3], owner="ann")),
    ],
)
def test_others_see_the_requests_that_are_theirs(
    call: Call, gateway: Gateway, key: str, query: str, expected: Wanted
) -> None:
    assert 200 == call("GET", f"/api/v1/events{query}", key).status
    assert [expected] == [wanted for wanted, _, _ in gateway.events.listened]


@pytest.mark.parametrize("query", ["?events=config.*", "?token=other", "?events=request.started"])
def test_others_see_nothing_else(call: Call, gateway: Gateway, query: str) -> None:
    answer = call("GET", f"/api/v1/events{query}", "scope_token_power_user")
    assert (403, "access_error-forbidden") == (answer.status, answer.code)
    assert [] == gateway.events.listened


@pytest.mark.parametrize(
    "query", ["?events=", "?events=konfig.*", "?events=config.*,", "?events=%5b", "?key=x", f"?token={'x' * 257}"]
)
def test_what_nobody_can_be_told_of_is_refused(call: Call, query: str) -> None:
    answer = call("GET", f"/api/v1/events{query}", "admin")
    assert (400, "request_error-invalid_query") == (answer.status, answer.code)


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (TooManyListeners("So many."), 429, "event_error-too_many"),
        (FeedEnds(), 503, "event_error-stopping"),
    ],
)
def test_who_cannot_be_told_is_told_when_to_come_again(
    call: Call, gateway: Gateway, refusal: Exception, status: int, code: str
) -> None:
    gateway.events.refusal = refusal
    answer = call("GET", "/api/v1/events", "admin")
    assert (status, code, "5") == (answer.status, answer.code, answer.headers["retry-after"])
    assert "application/json" == answer.headers["content-type"]


def test_the_stream_ends_when_the_caller_may_listen_no_more(
    call: Call, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.events.told = [(Told("evt_1", "config.applied", "{}"),)]
    monkeypatch.setattr(gateway, "still", lambda _headers, _address: None)
    assert b"event:" not in call("GET", "/api/v1/events", "admin").body
    assert 1 == gateway.events.closed


def test_where_nothing_happens_the_connection_is_kept_alive(
    call: Call, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.0)
    gateway.events.told = [(), ()]
    body = call("GET", "/api/v1/events", "admin").body
    assert b"retry: 2000\nid: evt_0000000a1\n\n: keep-alive\n\n: keep-alive\n\n" == body
