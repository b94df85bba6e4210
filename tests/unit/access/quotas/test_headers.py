"""Limits in headers, in OpenAI's form."""

import pytest

from access.quotas.amounts import estimated
from access.quotas.counters import Counters
from access.quotas.headers import duration, rate_limit_headers, retry_after
from access.quotas.limits import Limits, limit, parse_terms
from access.quotas.outcomes import Refused, Unavailable

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.017, "17ms"),
        (0.999, "999ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (8.64, "8.64s"),
        (59.999, "59.999s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (85_656.648, "23h47m36.648s"),
        (86_400, "24h0m0s"),
        (3600.05, "1h0m0.05s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert text == duration(seconds)


def of(*entries: dict[str, object]) -> Limits:
    return Limits(limit(parse_terms(entry)) for entry in entries)


def test_the_tightest_limit_of_each_kind_is_told_and_none_in_shadow() -> None:
    limits = of(
        {"requests": 60, "per": "minute"},
        {"requests": 10, "per": "day"},
        {"requests": 1, "per": "hour", "shadow": True},
        {"input_tokens": 150000, "per": "hour"},
        {"concurrency": 2},
        {"usd": 2, "per": "month"},
    )
    lease = Counters().admit(limits, estimated(16, 4, 1), NOW)
    assert not isinstance(lease, Refused)
    assert [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-ratelimit-reset-requests", "24h0m0s"),
        ("x-ratelimit-limit-tokens", "150000"),
        ("x-ratelimit-remaining-tokens", "149984"),
        ("x-ratelimit-reset-tokens", "1h0m0s"),
    ] == rate_limit_headers(lease)


def test_a_refusal_tells_how_all_limits_stand_and_when_to_come_again() -> None:
    limits = of({"requests": 1, "per": "minute"}, {"tokens": 100, "per": "day"})
    counters = Counters()
    counters.admit(limits, estimated(10), NOW)
    refused = counters.admit(limits, estimated(10), NOW + 30_001)
    assert isinstance(refused, Refused)
    assert [
        ("x-ratelimit-limit-requests", "1"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "30s"),
        ("x-ratelimit-limit-tokens", "100"),
        ("x-ratelimit-remaining-tokens", "90"),
        ("x-ratelimit-reset-tokens", "23h59m30s"),
    ] == rate_limit_headers(refused)
    assert [("retry-after", "30")] == retry_after(refused)


def test_who_asks_for_more_than_there_ever_is_is_not_told_to_come_again() -> None:
    refused = Counters().admit(of({"tokens": 100, "per": "day"}), estimated(101), NOW)
    assert isinstance(refused, Refused)
    assert [] == retry_after(refused)
    assert "the request needs more than 100 tokens per day allows at all" == str(refused)


def test_an_unavailable_store_is_asked_again_soon() -> None:
    assert [("retry-after", "1")] == retry_after(Unavailable(0.2))


def test_without_limits_nothing_is_told() -> None:
    lease = Counters().admit(Limits(()), estimated(), NOW)
    assert not isinstance(lease, Refused)
    assert [] == rate_limit_headers(lease)
