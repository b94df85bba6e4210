"""When a delivery is tried again, what counts as delivered, and how an endpoint that fails is spared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.schedule import (
    DELAYS_SECONDS,
    HORIZON_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    WORDS,
    Failure,
    Outcome,
    Pace,
    answered,
    next_try_seconds,
)

FAILED = Outcome(seconds=0.1, failure=Failure.UNREACHABLE)

STATUSES = {
    200: None,
    201: None,
    202: None,
    204: None,
    299: None,
    300: Failure.REDIRECTED,
    301: Failure.REDIRECTED,
    302: Failure.REDIRECTED,
    304: Failure.REDIRECTED,
    307: Failure.REDIRECTED,
    308: Failure.REDIRECTED,
    400: Failure.STATUS,
    401: Failure.STATUS,
    404: Failure.STATUS,
    410: Failure.GONE,
    422: Failure.STATUS,
    429: Failure.STATUS,
    500: Failure.STATUS,
    503: Failure.STATUS,
}


@pytest.mark.parametrize("status", STATUSES)
def test_what_counts_as_delivered(status: int) -> None:
    outcome = answered(status, 0.1)
    assert STATUSES[status] is outcome.failure
    assert (STATUSES[status] is None) is outcome.delivered


def test_every_failure_has_its_words() -> None:
    assert set(Failure) == set(WORDS)


def test_the_first_try_again_comes_after_five_seconds_and_the_last_within_a_day() -> None:
    assert 5 == next_try_seconds(FAILED, 1, 0.0)
    assert DELAYS_SECONDS == tuple(next_try_seconds(FAILED, attempts, 0.0) for attempts in range(1, 10))
    latest = [next_try_seconds(FAILED, attempts, 0.999999) or 0 for attempts in range(1, 10)]
    assert HORIZON_SECONDS * 0.9 < sum(DELAYS_SECONDS)
    assert HORIZON_SECONDS > sum(latest) + 10 * 15
    # It is given up after the tenth.
    assert None is next_try_seconds(FAILED, 10, 0.0)


@given(attempts=st.integers(1, 9), chance=st.floats(0, 1, exclude_max=True))
def test_chance_lengthens_a_wait_by_up_to_a_tenth(attempts: int, chance: float) -> None:
    delay = DELAYS_SECONDS[attempts - 1]
    found = next_try_seconds(FAILED, attempts, chance)
    assert found is not None
    assert delay <= found <= delay * 1.1


@given(attempts=st.integers(1, 9), chance=st.floats(0, 1, exclude_max=True), asked=st.floats(0, 10**9, allow_nan=False))
def test_retry_after_puts_a_try_off_but_not_for_ever_and_not_to_the_front(
    attempts: int, chance: float, asked: float
) -> None:
    plain = next_try_seconds(FAILED, attempts, chance)
    found = next_try_seconds(answered(503, 0.1, asked), attempts, chance)
    assert plain is not None
    assert found is not None
    assert plain <= found <= max(plain, MAX_RETRY_AFTER_SECONDS)
    assert found >= min(asked, MAX_RETRY_AFTER_SECONDS)


def test_after_410_there_is_no_other_try() -> None:
    assert None is next_try_seconds(answered(410, 0.1), 1, 0.0)


def test_an_endpoint_that_fails_is_asked_ever_more_seldom_until_it_answers() -> None:
    pace, waits, now = Pace(), [], 1000.0
    for _ in range(14):
        pace.ended(FAILED, now)
        waits.append(pace.wait_seconds(now))
        now += waits[-1]
    assert [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60] == waits
    assert pace.failing
    pace.ended(answered(204, 0.1), now)
    assert (False, 0) == (pace.failing, pace.wait_seconds(now))


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_an_answer_that_dislikes_one_delivery_says_nothing_against_the_next(status: int) -> None:
    pace = Pace()
    for _ in range(100):
        pace.ended(answered(status, 0.1), 1000.0)
    assert (False, 0) == (pace.failing, pace.wait_seconds(1000.0))


@pytest.mark.parametrize(("asked", "expected"), [(30, 30), (10**9, MAX_RETRY_AFTER_SECONDS)])
def test_an_endpoint_that_asks_for_a_pause_has_it(asked: float, expected: float) -> None:
    pace = Pace()
    pace.ended(answered(429, 0.1, asked), 1000.0)
    # Others were under way.
    pace.ended(answered(429, 0.1), 1001.0)
    assert expected - 1 == pace.wait_seconds(1001.0)
    assert not pace.failing
