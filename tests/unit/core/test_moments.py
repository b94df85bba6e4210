"""Times from one form to another and back."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.moments import microseconds, moment, moment_of


@given(st.integers(0, 250_000_000_000_000_000))
def test_no_microsecond_is_lost(at: int) -> None:
    assert at == microseconds(moment(at))


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(2027, 1, 31, 12, 0, 0, 1, tzinfo=UTC), 1_801_396_800_000_001),
        (datetime(2027, 1, 31, 13, 0, 0, 1, tzinfo=timezone(timedelta(hours=1))), 1_801_396_800_000_001),
    ],
)
def test_the_zone_is_reckoned_with(at: datetime, expected: int) -> None:
    assert expected == microseconds(at)


def test_what_is_not_there_stays_so() -> None:
    assert (None, None, None) == (moment(None), moment_of(None), microseconds(None))


@pytest.mark.parametrize(
    ("at", "year"), [(253_402_387_139_000_000, 9999), (1 << 62, 9999), (10**30, 9999), (-(10**30), 1)]
)
def test_what_no_date_can_tell_is_the_nearest_that_there_is(at: int, year: int) -> None:
    # An end at `9999-12-31T23:59:59-23:59` lies in the year 10000.
    assert year == moment(at).year


def test_seconds_keep_their_fraction() -> None:
    assert datetime(1970, 1, 1, 0, 0, 1, 250_000, tzinfo=UTC) == moment_of(1.25)
