"""The snapshot of the tokens that the API has made."""

import hashlib
import logging
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access.identify import caller
from access.issued import IssuedTokens, api_token
from access.lookup import TokenTable
from access.permissions import require_usable
from access.quotas.amounts import ONE, Metric
from access.quotas.counters import Counters
from access.quotas.limits import Terms
from access.quotas.outcomes import Refused
from access.quotas.rules import Rules, Subject
from access.quotas.windows import Window
from access.tokens import RANDOM_BYTES, TokenIndex, digest, new_token
from config.schema import Token
from core.errors import AddressNotAllowed, TokensNotLoaded, Unauthenticated
from core.headers import Headers
from core.identity import ApiToken, Grant, Scope
from storage.records import StoredToken, TokenChanges
from tests.conftest import ExpectLog

NOW = 1_700_000_000.0
SECOND = 1_000_000
AT = round(NOW) * SECOND
TEXTS = [new_token(bytes([number]) * RANDOM_BYTES) for number in range(6)]


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def stored(number: int, **members: Any) -> StoredToken:
    given: dict[str, Any] = {
        "id": f"tok_{number}",
        "name": f"team-{number}",
        "sha256": sha256(TEXTS[number]),
        "prefix": TEXTS[number][:14],
        "scope": "scope_token_user",
        "endpoints": ("inference",),
        "created_by": "admin-key",
        "created_at": AT,
        "changed": number + 1,
    }
    return StoredToken(**{**given, **members})


def snapshot(*tokens: StoredToken) -> IssuedTokens:
    issued = IssuedTokens()
    issued.apply(TokenChanges(len(tokens), tokens), NOW)
    return issued


def names(issued: IssuedTokens) -> list[str]:
    found = (issued.find(sha256(text)) for text in TEXTS)
    return [token.name for token in found if token is not None]


def test_a_token_opens_what_it_says() -> None:
    token = api_token(
        stored(1, models=("gpt-*",), endpoints=("inference", "files"), scope="scope_token_power_user", owner="ann")
    )
    assert ("team-1", "tok_1", Scope.POWER_USER, "ann") == (token.name, token.id, token.scope, token.owner)
    assert frozenset({Grant.INFERENCE, Grant.FILES}) == token.grants
    assert (True, False, False) == (token.allows_model("gpt-4o"), token.allows_model("claude"), token.any_model)
    assert token.bounds is None
    assert api_token(stored(1, models=("*",))).any_model
    assert frozenset() == api_token(stored(1, scope="scope_metrics")).grants


def test_changes_are_put_over_what_is_known_and_the_dead_leave() -> None:
    issued = snapshot(stored(0), stored(1), stored(2))
    assert (3, 3) == (issued.version, len(issued))
    changed = stored(1, name="renamed"), stored(2, revoked_at=AT), stored(3), stored(4, grace_until=AT)
    issued.apply(TokenChanges(9, changed), NOW)
    assert ["team-0", "renamed", "team-3"] == names(issued)
    assert (9, 3) == (issued.version, len(issued))
    other = IssuedTokens()
    other.apply(TokenChanges(2, (stored(5, grace_until=AT + SECOND),)), NOW)
    issued.incomplete = True
    issued.become(other)
    assert (2, ["team-5"], False) == (issued.version, names(issued), issued.incomplete)
    issued.prune(NOW + 1)
    assert [] == names(issued)


def test_one_that_this_process_changed_says_nothing_of_the_version() -> None:
    issued = snapshot(stored(0))
    issued.put(stored(1), NOW)
    issued.put(stored(0, changed=3, revoked_at=AT), NOW)
    assert (1, ["team-1"]) == (issued.version, names(issued))


def test_a_change_of_ours_undoes_none_that_came_after_it() -> None:
    issued = snapshot(stored(0))
    # Ours is kept as version 2, a revocation by another worker as 3, and its notice is faster.
    issued.apply(TokenChanges(3, (stored(0, changed=3, revoked_at=AT),)), NOW)
    issued.put(stored(0, changed=2, name="renamed"), NOW)
    assert [] == names(issued)


def test_a_grace_ends_by_the_clock_and_is_then_forgotten() -> None:
    issued = snapshot(stored(0, grace_until=AT + 10 * SECOND), stored(1, grace_until=AT + 20 * SECOND), stored(2))
    old = issued.find(sha256(TEXTS[0]))
    assert old is not None
    require_usable(old, "", NOW + 9.9)
    with pytest.raises(Unauthenticated, match="has expired"):
        require_usable(old, "", NOW + 10)
    left = []
    for seconds in (9.9, 10, 20):
        issued.prune(NOW + seconds)
        left.append(names(issued))
    assert [["team-0", "team-1", "team-2"], ["team-1", "team-2"], ["team-2"]] == left


def test_the_earlier_of_grace_and_expiry_counts() -> None:
    for members in ({"grace_until": AT + SECOND}, {"grace_until": AT + 9 * SECOND}, {"grace_until": None}):
        token = api_token(stored(0, **{"expires_at": AT + 5 * SECOND, **members}))
        assert token.bounds is not None
        assert NOW + (1 if members["grace_until"] == AT + SECOND else 5) == token.bounds.until


def test_an_expired_token_stays_known_so_that_it_can_be_told() -> None:
    issued = snapshot(stored(0, expires_at=AT - SECOND, ip_ranges=("192.0.2.0/24",)))
    issued.prune(NOW)
    with pytest.raises(Unauthenticated, match="has expired"):
        caller(Headers([("x-api-key", TEXTS[0])]), TokenIndex((), issued), "192.0.2.1", NOW)


def test_the_files_tokens_are_asked_first() -> None:
    declared = Token(name="of-the-file", sha256=digest(TEXTS[0]))
    index = TokenIndex((declared,), snapshot(stored(0), stored(1)))
    found = [index.find(text) for text in TEXTS[:3]]
    assert ["of-the-file", "team-1", None] == [token.name if token is not None else None for token in found]


def test_a_generation_sees_each_snapshot_that_comes_later() -> None:
    issued = IssuedTokens()
    index = TokenIndex((), issued)
    assert index.find(TEXTS[0]) is None
    issued.apply(TokenChanges(1, (stored(0),)), NOW)
    assert index.find(TEXTS[0]) is not None


def test_while_they_are_awaited_a_wellformed_token_is_told_to_try_again_and_nothing_else_is() -> None:
    issued = IssuedTokens()
    issued.incomplete = True
    index = TokenIndex((), issued)
    with pytest.raises(TokensNotLoaded) as raised:
        caller(Headers([("x-api-key", TEXTS[0])]), index, "", NOW)
    assert (503, "tokens_not_loaded", 2.0) == (
        raised.value.client_status,
        raised.value.client_code,
        raised.value.retry_after_seconds,
    )
    for text in ("another gateway's key", TEXTS[0][:-1]):
        with pytest.raises(Unauthenticated):
            caller(Headers([("x-api-key", text)]), index, "", NOW)


def test_what_cannot_be_understood_opens_nothing(expect_log: ExpectLog) -> None:
    with expect_log("a token in the database opens no model: .*never closed", logging.ERROR):
        assert not api_token(stored(0, models=("*", "[oh"))).allows_model("gpt-4o")
    with expect_log("a token in the database may be used from nowhere", logging.ERROR):
        lost = api_token(stored(0, ip_ranges=("10.0.0.0/8", "anywhere")))
    with pytest.raises(AddressNotAllowed):
        require_usable(lost, "10.0.0.1", NOW)
    with expect_log("`tok_0` has the unknown scope `scope_of_tomorrow`", logging.ERROR):
        assert Scope.USER is api_token(stored(0, scope="scope_of_tomorrow")).scope
    assert frozenset({Grant.INFERENCE}) == api_token(stored(0, endpoints=("inference", "of_tomorrow"))).grants


def test_a_token_brings_its_limits_and_its_successors_count_with_it() -> None:
    entries = ({"requests": 60, "per": "minute"}, {"usd": 0.5, "per": "day", "shadow": True})
    first, successor = api_token(stored(1, limits=entries)), api_token(stored(2, limits=entries, counted_as="tok_1"))
    assert (
        Terms(Metric.REQUESTS, Window.MINUTE, 60),
        Terms(Metric.USD, Window.DAY, 500_000_000, shadow=True),
    ) == first.limits
    assert first.limits is successor.limits, "so that equal limits are in memory once"
    assert ("api:tok_1", "api:tok_1") == (first.counted_as, successor.counted_as)
    assert () == api_token(stored(3)).limits


@pytest.mark.parametrize(
    "entry", [{"requests": 60, "per": "fortnight"}, {"requests": 60, "per": "day", "burst": 7}, {}]
)
def test_a_limit_that_cannot_be_understood_admits_nothing(entry: dict[str, Any], expect_log: ExpectLog) -> None:
    entries = ({"requests": 60, "per": "minute"}, entry)
    with expect_log("a token in the database is admitted to nothing, as a limit of it cannot be understood"):
        token = api_token(stored(1, limits=entries))
    limits = Rules().for_request(Subject(token.name), token.limits, token.counted_as)
    assert isinstance(Counters().admit(limits, ONE, AT), Refused)


def test_equal_models_are_compiled_once_for_all_tokens_and_only_when_asked() -> None:
    one, other = api_token(stored(0, models=("gpt-*", "a"))), api_token(stored(1, models=("gpt-*", "a")))
    assert one.allows_model is other.allows_model
    assert one.allows_model is not api_token(stored(2, models=("gpt-*",))).allows_model


def test_nothing_of_a_token_is_shown_by_the_snapshot() -> None:
    assert "IssuedTokens(1 tokens, version 1)" == repr(snapshot(stored(0)))
    assert "TokenTable(0 tokens)" == repr(TokenTable())


# Digests that begin alike are on one chain: few beginnings, so that chains come about.
digests = st.builds(lambda head, tail: bytes([head]) * 8 + bytes([tail]) * 24, st.integers(0, 1), st.integers(0, 3))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.lists(st.tuples(digests, st.integers())), st.lists(digests)), max_size=6))
def test_the_table_is_what_a_dictionary_would_be(
    changes: list[tuple[list[tuple[bytes, int]], list[bytes]]],
) -> None:
    expected: dict[bytes, str] = {}
    table = TokenTable()
    for put, removed in changes:
        before, were = table, dict(expected)
        for each in removed:
            expected.pop(each, None)
        expected |= {each: str(name) for each, name in put}
        table = table.changed(((each, ApiToken(str(name))) for each, name in put), removed)
        for kept, content in ((table, expected), (before, were)):
            found = {each: token.name for each in _all_digests() if (token := kept.find(each)) is not None}
            assert (content, len(content)) == (found, len(kept))


def _all_digests() -> list[bytes]:
    return [bytes([head]) * 8 + bytes([tail]) * 24 for head in range(2) for tail in range(4)]


@pytest.mark.parametrize("own", [False, True], ids=["equal models", "models of its own"])
def test_a_token_takes_less_than_a_kilobyte(own: bool) -> None:
    """10,000 are to cost a few megabytes: no models compiled for each, nothing that the database alone has to know."""
    count = 2000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        issued = snapshot(
            *(
                stored(
                    0,
                    name=f"team-{number}",
                    sha256=sha256(str(number)),
                    id=f"tok_{number:024}",
                    models=(f"team-{number}-*" if own else "team-*", "fast"),
                    metadata={"note": "x" * 500 + str(number)},
                )
                for number in range(count)
            )
        )
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert count == len(issued)
    assert taken / count < 1000
