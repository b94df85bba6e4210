"""The rules of counting, one by one. Times are milliseconds."""

import pytest

from access.quotas.amounts import MOST, NOTHING, Amounts, estimated, used
from access.quotas.counters import Counters
from access.quotas.limits import Limits, Scope, ScopeKind, limit, parse_terms
from access.quotas.outcomes import Lease, Refused

NOW = 1_700_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
DECEMBER = 1_701_388_800_000


def of(*entries: dict[str, object]) -> Limits:
    return Limits(limit(parse_terms(entry)) for entry in entries)


def each_model(name: str, amount: int = 2) -> Limits:
    terms = parse_terms({"requests": amount, "per": "minute"})
    return Limits([limit(terms, Scope(((ScopeKind.MODEL, name),)), [ScopeKind.MODEL])])


def admitted(counters: Counters, limits: Limits, now: int, charges: Amounts | None = None) -> Lease:
    outcome = counters.admit(limits, charges if charges is not None else estimated(), now)
    assert isinstance(outcome, Lease), outcome
    return outcome


def turned_away(counters: Counters, limits: Limits, now: int, charges: Amounts | None = None) -> Refused:
    outcome = counters.admit(limits, charges if charges is not None else estimated(), now)
    assert isinstance(outcome, Refused), outcome
    return outcome


def keys(lease: Lease) -> list[str]:
    return [each.key for each in lease.counters]


def standing(counters: Counters, limits: Limits, now: int) -> list[int]:
    """What is used of each, asked by a request that takes nothing."""
    outcome = counters.admit(limits, NOTHING, now)
    found = outcome.standings() if isinstance(outcome, Lease) else outcome.standings
    return [each.used for each in found]


def test_a_window_starts_at_the_first_request_and_the_next_one_after_it_has_ended() -> None:
    counters, limits = Counters(), of({"requests": 2, "per": "minute"})
    admitted(counters, limits, NOW)
    admitted(counters, limits, NOW + MINUTE - 1)
    refused = turned_away(counters, limits, NOW + MINUTE - 1)
    assert (0, 0.001, 0.001) == (refused.remaining, refused.reset_seconds, refused.retry_after_seconds)
    late = NOW + MINUTE + 40_000
    admitted(counters, limits, late)
    admitted(counters, limits, late + MINUTE - 1)
    assert 0.001 == turned_away(counters, limits, late + MINUTE - 1).reset_seconds
    admitted(counters, limits, late + MINUTE)


def test_a_month_ends_with_the_calendar_s() -> None:
    counters, limits = Counters(), of({"requests": 1, "per": "month"})
    admitted(counters, limits, DECEMBER - 5000)
    assert 1.0 == turned_away(counters, limits, DECEMBER - 1000).retry_after_seconds
    admitted(counters, limits, DECEMBER)
    assert 31 * 86400.0 == turned_away(counters, limits, DECEMBER).retry_after_seconds


def test_several_limits_are_all_or_nothing() -> None:
    counters = Counters()
    both = of({"requests": 5, "per": "minute"}, {"tokens": 100, "per": "day"}, {"concurrency": 9})
    admitted(counters, both, NOW, estimated(60))
    refused = turned_away(counters, both, NOW, estimated(60))
    assert ("tokens", 60, 40) == (refused.limit.metric.word, refused.used, refused.remaining)
    assert [1, 60, 1] == [each.used for each in refused.standings]
    admitted(counters, both, NOW, estimated(40))


def test_the_limit_that_holds_longest_is_told() -> None:
    counters = Counters()
    limits = of({"requests": 1, "per": "minute"}, {"requests": 1, "per": "day"}, {"concurrency": 1})
    admitted(counters, limits, NOW)
    refused = turned_away(counters, limits, NOW)
    assert ("1 requests per day", DAY / 1000) == (str(refused.limit.terms), refused.retry_after_seconds)


def test_what_is_more_than_the_limit_is_never_worth_asking_again() -> None:
    counters, limits = Counters(), of({"tokens": 100, "per": "minute"}, {"requests": 1, "per": "day"})
    admitted(counters, limits, NOW, estimated(1))
    refused = turned_away(counters, limits, NOW, estimated(101))
    assert ("tokens", None) == (refused.limit.metric.word, refused.retry_after_seconds)


def test_what_was_used_is_counted_instead_of_what_was_reserved() -> None:
    counters = Counters()
    limits = of({"tokens": 1000, "per": "minute"}, {"output_tokens": 500, "per": "minute"}, {"usd": 1, "per": "day"})
    lease = admitted(counters, limits, NOW, estimated(100, 200, 500))
    assert [300, 200, 500] == standing(counters, limits, NOW)
    counters.settle(lease, used(90, 20, 700), NOW + 1)
    assert [110, 20, 700] == standing(counters, limits, NOW + 1)


def test_a_request_that_failed_gives_everything_back() -> None:
    counters = Counters()
    limits = of({"requests": 1, "per": "minute"}, {"tokens": 100, "per": "day"}, {"concurrency": 1})
    counters.release(admitted(counters, limits, NOW, estimated(100)), NOW)
    assert [0, 0, 0] == standing(counters, limits, NOW)
    admitted(counters, limits, NOW, estimated(100))


def test_only_the_first_end_of_a_lease_counts() -> None:
    counters, limits = Counters(), of({"requests": 5, "per": "minute"}, {"concurrency": 5})
    lease, _ = admitted(counters, limits, NOW), admitted(counters, limits, NOW)
    counters.settle(lease, used(), NOW)
    counters.release(lease, NOW)
    counters.settle(lease, used(), NOW)
    assert [2, 1] == standing(counters, limits, NOW)


def test_what_is_given_back_after_its_window_ended_goes_nowhere() -> None:
    counters, limits = Counters(), of({"tokens": 100, "per": "minute"})
    lease = admitted(counters, limits, NOW, estimated(80))
    admitted(counters, limits, NOW + MINUTE, estimated(30))
    counters.settle(lease, used(10), NOW + MINUTE + 1)
    assert [30] == standing(counters, limits, NOW + MINUTE + 1)


def test_what_was_used_beyond_the_reservation_counts_when_it_becomes_known() -> None:
    counters, limits = Counters(), of({"tokens": 100, "per": "minute"})
    lease = admitted(counters, limits, NOW, estimated(10))
    counters.settle(lease, used(120), NOW + MINUTE)  # no window is open: this begins one
    refused = turned_away(counters, limits, NOW + MINUTE + 1)
    assert (110, 0) == (refused.used, refused.remaining)


def test_a_request_of_unknown_size_needs_that_anything_is_left() -> None:
    counters, limits = Counters(), of({"usd": 0.000001, "per": "minute"})
    admitted(counters, limits, NOW, estimated(nano_usd=999))
    free = admitted(counters, limits, NOW)
    counters.settle(free, used(nano_usd=1), NOW)
    turned_away(counters, limits, NOW)


def test_what_is_under_way_is_limited_whatever_the_time() -> None:
    counters, limits = Counters(), of({"concurrency": 2})
    one, _ = admitted(counters, limits, NOW), admitted(counters, limits, NOW + DAY)
    assert 1.0 == turned_away(counters, limits, NOW + 2 * DAY).retry_after_seconds
    counters.settle(one, used(), NOW)
    admitted(counters, limits, NOW + 3 * DAY)


def test_a_changed_amount_takes_effect_at_once_and_forgets_nothing() -> None:
    counters, small, large = Counters(), of({"requests": 2, "per": "day"}), of({"requests": 4, "per": "day"})
    admitted(counters, small, NOW)
    admitted(counters, small, NOW)
    turned_away(counters, small, NOW)
    admitted(counters, large, NOW)
    admitted(counters, large, NOW)
    assert (4, 0) == ((refused := turned_away(counters, large, NOW)).used, refused.remaining)
    turned_away(counters, small, NOW)


def test_a_limit_in_shadow_counts_and_refuses_nothing() -> None:
    counters, limits = Counters(), of({"requests": 1, "per": "day", "shadow": True})
    assert [False, True] == [each.exceeded for _ in "12" for each in admitted(counters, limits, NOW).standings()]


def test_a_limit_in_shadow_counts_nothing_of_what_another_refuses() -> None:
    counters = Counters()
    limits = of({"requests": 1, "per": "day"}, {"tokens": 1, "per": "day", "shadow": True})
    admitted(counters, limits, NOW, estimated(5))
    assert "requests" == turned_away(counters, limits, NOW, estimated(5)).limit.metric.word
    assert 5 == turned_away(counters, limits, NOW, estimated(5)).standings[1].used


def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_a_window() -> None:
    counters, limits = Counters(), of({"requests": 1, "per": "minute"})
    admitted(counters, limits, NOW)
    assert 60.0 == turned_away(counters, limits, NOW - DAY).retry_after_seconds
    admitted(counters, limits, NOW - DAY + MINUTE)


def test_numbers_beyond_all_measure_do_not_overflow() -> None:
    counters, limits = Counters(), of({"tokens": 5, "per": "day", "shadow": True})
    for _ in range(3):
        counters.settle(admitted(counters, limits, NOW, estimated(MOST)), used(10**30), NOW)
    assert [MOST] == standing(counters, limits, NOW)


def test_names_that_clients_make_up_have_bounded_room_and_no_more_than_the_amount() -> None:
    counters = Counters(most=100)
    assert 2 == sum(isinstance(counters.admit(each_model("mine"), estimated(), NOW), Lease) for _ in range(5))
    admissions = 0
    for number in range(5000):
        admissions += isinstance(counters.admit(each_model(f"m{number}"), estimated(), NOW + 1), Lease)
    # 99 more have a counter of their own, from which one was taken, and the rest share one.
    assert 99 + 2 == admissions
    assert 101 == len(counters)
    turned_away(counters, each_model("mine"), NOW + 2)  # it is not forgotten to make room


def test_who_is_counted_with_the_others_does_not_begin_anew_before_that_window_ends() -> None:
    counters = Counters(most=1)
    admitted(counters, each_model("first"), NOW)
    late = NOW + MINUTE - 10
    lease = admitted(counters, each_model("second"), late)
    assert ["requests/minute/model=~"] == keys(lease)
    # There is room again, but not for names that may have been counted among the others.
    admitted(counters, each_model("second"), late + 20)
    turned_away(counters, each_model("second"), late + 20)
    turned_away(counters, each_model("third"), late + 20)
    # What was admitted first still has its own, if that lasts.
    assert ["requests/minute/model=third"] == keys(admitted(counters, each_model("third"), late + MINUTE))


def test_windows_that_have_ended_make_room_without_a_search() -> None:
    counters = Counters(most=1000)
    for number in range(1000):
        admitted(counters, each_model(f"old{number}"), NOW)
    assert 1000 == len(counters)
    for number in range(20):
        admitted(counters, each_model(f"new{number}"), NOW + MINUTE)
    assert 20 == len(counters)


def test_limits_that_only_owners_name_always_find_room() -> None:
    counters = Counters(most=0)
    terms = parse_terms({"requests": 1, "per": "minute"})
    for number in range(10):
        limits = Limits([limit(terms, Scope(((ScopeKind.TOKEN, f"t{number}"),)))])
        admitted(counters, limits, NOW)
        turned_away(counters, limits, NOW)


@pytest.mark.parametrize("window", ["minute", "hour", "day", "month"])
def test_no_window_admits_more_than_its_amount(window: str) -> None:
    counters, limits = Counters(), of({"requests": 7, "per": window})
    assert 7 == sum(isinstance(counters.admit(limits, estimated(), NOW + tick), Lease) for tick in range(1000))
