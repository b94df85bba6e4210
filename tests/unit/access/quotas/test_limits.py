"""Limits as they are written, and the keys of their counters."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access.quotas.amounts import MOST, Metric, estimated, nano_usd_of, used
from access.quotas.limits import Limits, Scope, ScopeKind, Terms, limit, parse_terms
from access.quotas.windows import Window

ALICE = Scope(((ScopeKind.TOKEN, "alice"),))


@pytest.mark.parametrize(
    ("entry", "terms"),
    [
        ({"requests": 60, "per": "minute"}, Terms(Metric.REQUESTS, Window.MINUTE, 60)),
        ({"tokens": 100000, "per": "day"}, Terms(Metric.TOKENS, Window.DAY, 100000)),
        ({"input_tokens": 7, "per": "hour"}, Terms(Metric.INPUT_TOKENS, Window.HOUR, 7)),
        ({"output_tokens": 7.0, "per": "hour"}, Terms(Metric.OUTPUT_TOKENS, Window.HOUR, 7)),
        ({"concurrency": 8}, Terms(Metric.CONCURRENCY, None, 8)),
        ({"usd": 20, "per": "month"}, Terms(Metric.USD, Window.MONTH, 20_000_000_000)),
        ({"usd": 0.1, "per": "day"}, Terms(Metric.USD, Window.DAY, 100_000_000)),
        ({"usd": 0.000000001, "per": "day"}, Terms(Metric.USD, Window.DAY, 1)),
        (
            {"requests": 60, "per": "minute", "tokens": None, "shadow": True, "max_wait_seconds": None},
            Terms(Metric.REQUESTS, Window.MINUTE, 60, shadow=True),
        ),
        ({"concurrency": 8, "max_wait_seconds": 30}, Terms(Metric.CONCURRENCY, None, 8, max_wait_seconds=30.0)),
    ],
)
def test_a_limit_is_read_as_it_is_written(entry: dict[str, Any], terms: Terms) -> None:
    assert terms == parse_terms(entry)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"per": "minute"}, "nothing is limited"),
        (
            {"requests": 1, "tokens": 1, "per": "minute"},
            "`requests` and `tokens` in one entry: write an entry for each",
        ),
        ({"requests": 1}, "`requests` takes a `per`, one of `minute`, `hour`, `day`, `month`"),
        ({"requests": 1, "per": "week"}, "takes a `per`, one of"),
        ({"concurrency": 1, "per": "day"}, "leave `per` out"),
        ({"requests": 0, "per": "day"}, "above 0"),
        ({"requests": -1, "per": "day"}, "above 0"),
        ({"requests": 1.5, "per": "day"}, "whole number"),
        ({"requests": "many", "per": "day"}, "is a number"),
        ({"requests": True, "per": "day"}, "is a number"),
        ({"usd": 0.0000000001, "per": "day"}, "finer than a nano-dollar"),
        ({"usd": float("nan"), "per": "day"}, "no amount of money"),
        ({"usd": 1e9, "per": "day"}, "at most 9 000 000"),
        ({"requests": 1, "per": "day", "color": 1}, "unknown: `color`"),
        ({"concurrency": 1, "shadow": True, "max_wait_seconds": 1}, "leave `max_wait_seconds` out"),
    ],
)
def test_what_is_wrong_with_a_limit_is_said(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_terms(entry)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**9 - 1))
def test_money_is_exact(dollars: int, nano: int) -> None:
    digits = f"{nano:09}"
    written = float(f"{dollars}.{digits}")
    if repr(written) == f"{dollars}.{digits}".rstrip("0"):  # as many digits as a float can tell
        assert dollars * 10**9 + nano == nano_usd_of(written)


def test_amounts_add_up_and_stay_within_what_is_counted() -> None:
    assert (1, 12, 5, 7, 3, 1) == estimated(5, 7, 3)
    assert (1, 12, 5, 7, 3, 0) == used(5, 7, 3)
    assert (1, MOST, MOST, MOST, MOST, 0) == used(10**30, 10**30, 10**30)
    assert (1, 0, 0, 0, 0, 0) == used(-1, -1, -1)


def test_a_counter_is_named_by_scope_metric_and_window_and_never_by_the_amount() -> None:
    sixty, hundred = Terms(Metric.REQUESTS, Window.MINUTE, 60), Terms(Metric.REQUESTS, Window.MINUTE, 100, shadow=True)
    assert "requests/minute/token=alice" == limit(sixty, ALICE).key == limit(hundred, ALICE).key
    assert "concurrency/held/all" == limit(Terms(Metric.CONCURRENCY, None, 8)).key


names = st.text(max_size=90) | st.sampled_from(["*", "~", "all", "a,token=b", "+a", "a|b", "é", "\ud800", "{x}", "a b"])
kinds = st.sampled_from(ScopeKind)
scopes = st.builds(
    Scope,
    st.dictionaries(kinds, names, max_size=2).map(lambda named: tuple(named.items())),
    st.dictionaries(kinds, st.tuples(names) | st.tuples(names, names), max_size=2).map(
        lambda found: tuple(found.items())
    ),
)


def canonical(scope: Scope) -> object:
    return set(scope.named), {(kind, "|".join(sorted(globs))) for kind, globs in scope.matched}


@settings(deadline=None)
@given(scopes, scopes)
def test_no_two_scopes_share_a_key(one: Scope, other: Scope) -> None:
    assert (canonical(one) == canonical(other)) == (one.key() == other.key())
    assert len(one.key()) < 600
    assert not any(character.isspace() or character in "{}" for character in one.key())
    for kind, _ in one.named:
        assert one.key([kind]) not in (one.key(), other.key())


def test_limits_that_share_a_counter_count_it_once_and_the_lowest_holds() -> None:
    limits = Limits(
        [
            limit(Terms(Metric.REQUESTS, Window.MINUTE, 60), ALICE),
            limit(Terms(Metric.REQUESTS, Window.MINUTE, 9, shadow=True), ALICE),
            limit(Terms(Metric.REQUESTS, Window.MINUTE, 50), ALICE),
            limit(Terms(Metric.TOKENS, Window.MINUTE, 5), ALICE),
        ]
    )
    assert [("requests/minute/token=alice", 50), ("tokens/minute/token=alice", 5)] == [
        (check.key, check.enforced) for check in limits.checks
    ]
    assert (0, 0, 0, 1) == limits.places


def test_a_limit_says_what_it_is() -> None:
    terms = Terms(Metric.USD, Window.MONTH, 20_500_000_000)
    assert "20.5 usd per month (token `alice`)" == str(limit(terms, ALICE))
    everybody = limit(Terms(Metric.CONCURRENCY, None, 8), Scope((), ((ScopeKind.MODEL, ("a*", "b")),)))
    assert "8 concurrency (model `a*` or `b`)" == str(everybody)
