"""Clocks, identifiers, header fields, identities: the small words."""

import re
import time

import pytest

from core.clock import ManualClock, SystemClock
from core.headers import Headers
from core.identity import SCOPE_ROLES, ApiToken, Grant, Role, Scope
from core.ids import new_request_id


def test_the_systems_clocks_are_the_systems() -> None:
    clock = SystemClock()
    # Between two readings of the system's own, however long they are apart; the time of day may be set meanwhile.
    assert time.time() - 5 < clock.time() < time.time() + 5
    assert time.monotonic() <= clock.monotonic() <= clock.monotonic() <= time.monotonic()


def test_a_manual_clock_moves_when_it_is_told_to() -> None:
    clock = ManualClock(monotonic=5, time=100)
    clock.advance(2.5)
    assert (7.5, 102.5) == (clock.monotonic(), clock.time())
    clock.advance(0)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_request_ids_are_random_and_of_one_form() -> None:
    ids = {new_request_id() for _ in range(100)}
    assert 100 == len(ids)
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", each) for each in ids)


def test_header_fields_keep_their_order_and_repeat() -> None:
    headers = Headers.parse([("Set-Cookie", "a"), ("X-Y", "1"), ("set-cookie", "b")])
    assert [("set-cookie", "a"), ("x-y", "1"), ("set-cookie", "b")] == list(headers)
    assert ("a", ["a", "b"], None, []) == (
        headers.get("set-cookie"),
        headers.get_all("set-cookie"),
        headers.get("x"),
        headers.get_all("x"),
    )
    assert (True, False, 3) == ("x-y" in headers, "X-Y" in headers, len(headers))
    assert 0 == len(Headers())


def test_header_fields_are_values() -> None:
    one, same = Headers([("a", "b")]), Headers.parse([("A", "b")])
    assert one == same
    assert 1 == len({one, same})
    assert one != Headers([("a", "c")])
    assert one != [("a", "b")]


def test_a_rendering_of_header_fields_shows_no_value() -> None:
    assert "Headers(['authorization'])" == repr(Headers([("authorization", "Bearer hunter2")]))


def test_every_scope_lends_a_role_or_none() -> None:
    assert set(Scope) == set(SCOPE_ROLES)
    assert [Role.USER, Role.POWER_USER, Role.MANAGER, Role.ADMIN] == sorted(Role)
    assert (None, None) == (SCOPE_ROLES[Scope.USER], SCOPE_ROLES[Scope.METRICS])


def test_a_token_grants_inference_and_no_model_unless_it_says_so() -> None:
    token = ApiToken("t")
    assert (frozenset({Grant.INFERENCE}), False, False) == (token.grants, token.allows_model("m"), token.any_model)
    assert "allows_model" not in repr(token)
